//! What a run's metrics warn of: `App::watch` judges, this asks and words it.

use crate::ui::results::Figure;
use crate::ui::style::{self, Verb};
use crate::{Reading, Warning, Watch};

/// What these figures warn of.
pub(crate) fn of(watch: Option<Watch>, figures: &[Figure]) -> Vec<Warning> {
    let reading = |figure: &Figure| Reading {
        variant: figure.variant.clone(),
        round: figure.round,
        split: figure.split.clone(),
        metric: figure.metric.clone(),
        value: figure.value,
        n: figure.n,
    };
    let readings: Vec<Reading> = figures.iter().map(reading).collect();
    watch.map(|watch| watch(&readings)).unwrap_or_default()
}

/// What was seen, in a line.
pub(crate) fn line(warning: &Warning) -> String {
    style::line(Verb::Warning, format_args!("{}, round {}: {}", warning.variant, warning.round, warning.seen))
}

/// What was seen, why it matters, and what to try.
pub(crate) fn text(warnings: &[Warning]) -> String {
    let text = |warning: &Warning| {
        let (why, advice) = (style::dim("why:"), style::dim("try:"));
        format!("{}\n{:13}{why} {}\n{:13}{advice} {}", line(warning), "", warning.why, "", warning.advice)
    };
    warnings.iter().map(text).collect::<Vec<_>>().join("\n")
}
