//! A comparison as a table.

use super::{Comparison, Flips};

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
        /// The baseline's value.
        pub baseline_value: Option<f64>,
        /// The other side's value.
        pub value: Option<f64>,
        /// Their difference.
        pub difference: Option<f64>,
        /// Lower end of the paired difference's 95 % interval; of pass@1 only.
        pub ci_low: Option<f64>,
        /// Upper end.
        pub ci_high: Option<f64>,
        /// McNemar's exact test over the problems; of pass@1 only.
        pub p_value: Option<f64>,
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
                let value = |place: usize| metric.figures[place].as_ref().map(|figure| figure.value);
                let is_it =
                    |flips: &&Flips| flips.side == place && flips.split == metric.split && metric.metric == "pass@1";
                let flips = self.flips.iter().find(is_it);
                let (before, after) = (value(0), value(place));
                lines.push(ComparisonLine {
                    baseline: self.sides[0].name(),
                    side: side.name(),
                    split: metric.split.clone(),
                    metric: metric.metric.clone(),
                    baseline_value: before,
                    value: after,
                    difference: before.zip(after).map(|(before, after)| after - before),
                    ci_low: flips.map(|flips| flips.difference.low),
                    ci_high: flips.map(|flips| flips.difference.high),
                    p_value: flips.map(|flips| flips.p_value),
                    problems: flips.map(|flips| flips.problems as i64),
                    won: flips.map(|flips| flips.won.len() as i64),
                    lost: flips.map(|flips| flips.lost.len() as i64),
                });
            }
        }
        lines
    }
}
