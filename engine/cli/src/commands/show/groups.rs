//! A run's figures by group.

use tracetune_engine::compare::{GroupFigure, Groups};
use tracetune_engine::diagnostic::list;
use tracetune_engine::runs::MetricLine;

use crate::ui::{results, style};

/// The groups as text, `width` columns wide.
pub(super) fn text(groups: &Groups, width: usize) -> String {
    let lines: Vec<MetricLine> = groups.figures.iter().map(|figure| line(groups, figure)).collect();
    let sizes = || groups.figures.iter().map(|figure| figure.figure.seeds);
    let each = match (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0)) {
        (least, most) if least == most => format!("{most} each"),
        (least, most) => format!("{least} to {most} each"),
    };
    let by = if groups.by.is_empty() { String::new() } else { format!(" by {}", list(&groups.by)) };
    let over = if groups.over.is_empty() { "variants".to_owned() } else { list(&groups.over) };
    let caption = format!("Means{by} over {over} ({each})");
    format!("{}\n\n{}", style::heading(&caption), results::text(&lines, width))
}

/// A group's figure as the figure of a variant that is called like the group.
fn line(groups: &Groups, figure: &GroupFigure) -> MetricLine {
    let named = groups.by.iter().zip(&figure.values);
    let mut words: Vec<String> =
        named.filter_map(|(name, value)| Some(format!("{}={}", name.rsplit('.').next()?, value.as_ref()?))).collect();
    if words.is_empty() || figure.variant != "main" {
        words.push(figure.variant.clone());
    }
    MetricLine {
        run: String::new(),
        pipeline: String::new(),
        stage: figure.stage.clone().unwrap_or_default(),
        variant: words.join(","),
        round: figure.round,
        split: figure.split.clone(),
        metric: figure.metric.clone(),
        k: None,
        value: figure.figure.value,
        ci_low: figure.figure.ci_low,
        ci_high: figure.figure.ci_high,
        n: figure.figure.n,
        selected: false,
    }
}
