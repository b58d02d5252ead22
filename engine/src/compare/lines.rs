//! A comparison as a table.

use super::{Comparison, Flips};
use crate::runs::MetricLine;

crate::record! {
    /// A row of a comparison's table.
    pub struct ComparisonLine {
        /// The baseline, as `RUN:VARIANT@ROUND`.
        pub baseline: String,
        /// The other side.
        pub side: String,
        /// E.g. `test`.
        pub split: String,
        /// E.g. `pass@1`.
        pub metric: String,
        /// The stage that the baseline's value is from.
        pub baseline_stage: Option<String>,
        /// The stage that the other side's value is from.
        pub stage: Option<String>,
        /// The baseline's value.
        pub baseline_value: Option<f64>,
        /// The other side's value.
        pub value: Option<f64>,
        /// Their difference; of pass@1, the paired one over the tasks that both have.
        pub difference: Option<f64>,
        /// Lower end of the paired difference's 95 % interval; of pass@1 only.
        pub ci_low: Option<f64>,
        /// Upper end.
        pub ci_high: Option<f64>,
        /// McNemar's exact test over the problems; of pass@1 only.
        pub p_value: Option<f64>,
        /// The same, adjusted for all comparisons of the table (Holm).
        pub p_adjusted: Option<f64>,
        /// Tasks of both sides; of pass@1 only.
        pub tasks: Option<i64>,
        /// Problems of both sides; of pass@1 only.
        pub problems: Option<i64>,
        /// Problems that only the other side solves; of pass@1 only.
        pub won: Option<i64>,
        /// Problems that only the baseline solves; of pass@1 only.
        pub lost: Option<i64>,
    }
}

impl Comparison {
    /// The comparison as a table.
    pub fn lines(&self) -> Vec<ComparisonLine> {
        let mut lines = Vec::new();
        for (place, side) in self.sides.iter().enumerate().skip(1) {
            for metric in &self.metrics {
                let (before, after) = (metric.figures[0].as_ref(), metric.figures[place].as_ref());
                let flips = self.flips.iter().find(|flips| {
                    let is_stage =
                        |stage: &str, figure: Option<&MetricLine>| figure.is_some_and(|figure| figure.stage == stage);
                    flips.side == place
                        && flips.is_of(&metric.split, &metric.metric)
                        && is_stage(&flips.baseline_stage, before)
                        && is_stage(&flips.stage, after)
                });
                let value = |figure: Option<&MetricLine>| figure.map(|figure| figure.value);
                let stage = |figure: Option<&MetricLine>| figure.map(|figure| figure.stage.clone());
                let plain = value(before).zip(value(after)).map(|(before, after)| after - before);
                lines.push(ComparisonLine {
                    baseline: self.sides[0].name(),
                    side: side.name(),
                    split: metric.split.clone(),
                    metric: metric.metric.clone(),
                    baseline_stage: stage(before),
                    stage: stage(after),
                    baseline_value: value(before),
                    value: value(after),
                    difference: flips.map(|flips| flips.difference.value).or(plain),
                    ci_low: flips.map(|flips| flips.difference.low).filter(|bound| bound.is_finite()),
                    ci_high: flips.map(|flips| flips.difference.high).filter(|bound| bound.is_finite()),
                    p_value: flips.map(|flips| flips.p_value),
                    p_adjusted: flips.map(|flips| flips.p_adjusted),
                    tasks: flips.map(|flips| flips.tasks as i64),
                    problems: flips.map(|flips| flips.problems as i64),
                    won: flips.map(|flips| flips.won.len() as i64),
                    lost: flips.map(|flips| flips.lost.len() as i64),
                });
            }
        }
        lines
    }
}

impl Flips {
    /// Whether it is about a metric in a split. The condition of samples stands with the split of problems, and with the
    /// name of a metric: `test (no trace)`, `pass@1 (no trace)`.
    pub fn is_of(&self, split: &str, metric: &str) -> bool {
        match self.split.strip_prefix(split) {
            Some(condition) => metric.strip_prefix(self.metric.as_str()) == Some(condition),
            None => false,
        }
    }
}
