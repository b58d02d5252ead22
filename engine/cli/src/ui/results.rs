//! A run's metrics as tables: a block a split, a line a variant and round, a column a metric.
//!
//! No figure without n and an interval: an interval stands in brackets behind its figure, n in a column of its own.
//! Built from whatever metrics there are; nothing here knows what any of them means.

use serde::Serialize;
use tracetune_engine::runs::MetricRow;

use super::numbers;
use super::style;
use super::table::Words;

/// One figure of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// The label of the stage it is from.
    pub(crate) variant: String,
    /// Its loop round; 0 is before the loop.
    pub(crate) round: i32,
    /// E.g. `test`.
    pub(crate) split: String,
    /// E.g. `pass@1`.
    pub(crate) metric: String,
    /// The estimate.
    pub(crate) value: f64,
    /// Lower end of its 95 % interval.
    pub(crate) ci_low: Option<f64>,
    /// Upper end of its 95 % interval.
    pub(crate) ci_high: Option<f64>,
    /// Over how many.
    pub(crate) n: i64,
}

impl Figure {
    /// What a stage with this label and round says.
    pub(crate) fn new(variant: &str, round: i32, row: &MetricRow) -> Self {
        let MetricRow { split, metric, value, ci_low, ci_high, n, .. } = row.clone();
        Self { variant: variant.to_owned(), round, split, metric, value, ci_low, ci_high, n }
    }

    fn interval(&self) -> Option<(f64, f64)> {
        self.ci_low.zip(self.ci_high)
    }
}

/// All figures as text, `width` columns wide.
pub(crate) fn text(figures: &[Figure], width: usize) -> String {
    let mut blocks = Vec::new();
    for split in distinct(figures.iter().map(|figure| figure.split.as_str())) {
        let own: Vec<Placed> = figures.iter().filter(|figure| figure.split == split).map(Placed::new).collect();
        let metrics = distinct(own.iter().map(|placed| placed.metric));
        let mut columns: Vec<Column> = metrics.into_iter().map(|metric| Column::new(metric, &own)).collect();
        let counts =
            distinct(columns.iter().filter(|column| column.estimated).flat_map(|column| column.counts.clone()));
        let common = (counts.len() == 1).then(|| counts[0]);
        columns.iter_mut().for_each(|column| column.leave_out(common));
        // A block that is too wide goes on in a second one.
        let lead = 2 + own.iter().map(|placed| placed.label.len()).max().unwrap_or_default().max(7) + 2 + 5;
        let mut start = 0;
        while start < columns.len() {
            let mut used = lead;
            let mut end = start;
            while end < columns.len() && (end == start || used + columns[end].width + 2 <= width) {
                used += columns[end].width + 2;
                end += 1;
            }
            let caption = match common {
                _ if start > 0 => format!("{split}, continued"),
                Some(n) => format!("{split} (n = {})", count(n)),
                None => split.to_owned(),
            };
            blocks.push(format!("{}\n{}", style::heading(&caption), block(&own, &columns[start..end])));
            start = end;
        }
    }
    if figures.iter().any(|figure| figure.interval().is_some()) {
        blocks.push(style::dim("[low, high]: 95 % interval; n: what it is over"));
    }
    blocks.join("\n\n")
}

/// A figure with its place in the table.
struct Placed<'a> {
    figure: &'a Figure,
    /// The metric without what it says of the condition.
    metric: &'a str,
    /// Variant and condition: `pass@1 (no trace)` of `main` is the figure `pass@1` of `main, no trace`.
    label: String,
}

impl<'a> Placed<'a> {
    fn new(figure: &'a Figure) -> Self {
        let parts = figure.metric.strip_suffix(')').and_then(|metric| metric.rsplit_once(" ("));
        match parts {
            Some((metric, condition)) => Self { figure, metric, label: format!("{}, {condition}", figure.variant) },
            None => Self { figure, metric: &figure.metric, label: figure.variant.clone() },
        }
    }
}

fn block(figures: &[Placed], columns: &[Column]) -> String {
    let mut header = vec!["  variant".to_owned(), ">round".to_owned()];
    for column in columns {
        header.push(format!(">{}", column.title()));
        if column.shows_count {
            header.push(">n".to_owned());
        }
    }
    let mut words = Words::new(header);
    for label in distinct(figures.iter().map(|placed| placed.label.as_str())) {
        let lines = figures.iter().filter(|placed| placed.label == label);
        let mut rounds = distinct(lines.map(|placed| placed.figure.round));
        rounds.sort_unstable();
        for round in rounds {
            let mut cells = vec![format!("  {label}"), round.to_string()];
            let mut empty = true;
            for column in columns {
                let is_it = |placed: &&Placed| {
                    placed.label == label && placed.figure.round == round && placed.metric == column.metric
                };
                let figure = figures.iter().find(is_it).map(|placed| placed.figure);
                empty &= figure.is_none();
                cells.push(figure.map(|figure| column.cell(figure)).unwrap_or_default());
                if column.shows_count {
                    cells.push(figure.map(|figure| count(figure.n)).unwrap_or_default());
                }
            }
            if !empty {
                words.row(cells);
            }
        }
    }
    words.text(usize::MAX)
}

/// How one metric is shown.
struct Column<'a> {
    metric: &'a str,
    percent: bool,
    /// `None`: as many as each figure has.
    decimals: Option<usize>,
    /// Whether it is an estimate, and no mere count: then it is shown with its n.
    estimated: bool,
    /// The figures' n.
    counts: Vec<i64>,
    shows_count: bool,
    /// How wide value, low and high are, so that they stand below each other.
    digits: [usize; 3],
    width: usize,
}

impl<'a> Column<'a> {
    fn new(metric: &'a str, figures: &[Placed]) -> Self {
        let own: Vec<&Figure> =
            figures.iter().filter(|placed| placed.metric == metric).map(|placed| placed.figure).collect();
        let percent = is_share(metric);
        let scale = if percent { 100.0 } else { 1.0 };
        let halves = own.iter().filter_map(|figure| figure.interval()).map(|(low, high)| (high - low) / 2.0 * scale);
        let widest = halves.filter(|half| *half > 0.0).max_by(f64::total_cmp);
        let decimals = widest.map(numbers::decimals).or(percent.then_some(1));
        let estimated = own.iter().any(|figure| figure.interval().is_some() || figure.value.fract() != 0.0);
        let counts = distinct(own.iter().map(|figure| figure.n));
        let mut column =
            Self { metric, percent, decimals, estimated, counts, shows_count: estimated, digits: [0; 3], width: 0 };
        for figure in &own {
            let (low, high) = figure.interval().unzip();
            for (place, value) in [Some(figure.value), low, high].into_iter().enumerate() {
                let digits = value.map_or(0, |value| column.number(value).len());
                column.digits[place] = column.digits[place].max(digits);
            }
        }
        let cells = own.iter().map(|figure| column.cell(figure).chars().count());
        column.width = cells.chain([column.title().chars().count()]).max().unwrap_or_default();
        if estimated {
            let counts = column.counts.iter().map(|&n| count(n).len() + 2);
            column.width += counts.max().unwrap_or_default();
        }
        column
    }

    /// Leaves out n where it is the caption's.
    fn leave_out(&mut self, common: Option<i64>) {
        if self.shows_count && common.is_some_and(|n| self.counts == [n]) {
            self.shows_count = false;
            self.width -= self.counts.iter().map(|&n| count(n).len() + 2).max().unwrap_or_default();
        }
    }

    fn title(&self) -> String {
        if self.percent { format!("{} %", self.metric) } else { self.metric.to_owned() }
    }

    fn number(&self, value: f64) -> String {
        let scaled = if self.percent { value * 100.0 } else { value };
        self.decimals.map_or_else(|| numbers::plain(scaled), |decimals| format!("{scaled:.decimals$}"))
    }

    fn cell(&self, figure: &Figure) -> String {
        let [value, low, high] = self.digits;
        match figure.interval() {
            Some((from, to)) => {
                let (from, to) = (self.number(from), self.number(to));
                format!("{:>value$} [{from:>low$}, {to:>high$}]", self.number(figure.value))
            }
            None => self.number(figure.value),
        }
    }
}

fn count(n: i64) -> String {
    numbers::count(u64::try_from(n).unwrap_or_default())
}

/// Whether a metric is a share of something, by its name.
pub(crate) fn is_share(metric: &str) -> bool {
    metric.contains('@') || ["accuracy", "rate", "share", "gain"].iter().any(|word| metric.contains(word))
}

/// The distinct values in the order in which they first stand there.
fn distinct<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(variant: &str, round: i32, metric: &str, value: f64, half: Option<f64>, n: i64) -> Figure {
        Figure {
            variant: variant.into(),
            round,
            split: "test".into(),
            metric: metric.into(),
            value,
            ci_low: half.map(|half| value - half),
            ci_high: half.map(|half| value + half),
            n,
        }
    }

    #[test]
    fn shares_are_in_percent_with_their_interval() {
        let figures =
            [figure("main", 0, "pass@1", 0.412, Some(0.019), 512), figure("main", 1, "pass@1", 0.5, Some(0.02), 512)];
        let text = anstream::adapter::strip_str(&text(&figures, 100)).to_string();
        assert!(text.starts_with("test (n = 512)\n"), "{text}");
        assert!(text.contains("41.2 [39.3, 43.1]"), "{text}");
        assert!(text.contains("pass@1 %"), "{text}");
    }

    #[test]
    fn counts_are_integers_and_differing_n_get_a_column() {
        let figures = [
            figure("main", 1, "kept", 1200.0, None, 1200),
            figure("main", 2, "kept", 900.0, None, 900),
            figure("main", 1, "loss", 0.51, None, 64),
            figure("main", 2, "loss", 0.42, None, 32),
        ];
        let text = anstream::adapter::strip_str(&text(&figures, 100)).to_string();
        assert_eq!(text.lines().nth(1), Some("  variant  round   kept    loss   n"), "{text}");
        assert_eq!(text.lines().nth(2), Some("  main         1  1,200  0.5100  64"), "{text}");
    }

    #[test]
    fn a_condition_is_a_line_of_its_own() {
        let figures = [
            figure("main", 1, "pass@1", 0.5, Some(0.02), 512),
            figure("main", 1, "pass@1 (no trace)", 0.25, Some(0.02), 512),
        ];
        let text = anstream::adapter::strip_str(&text(&figures, 100)).to_string();
        assert!(text.contains("main, no trace      1  25.0 [23.0, 27.0]"), "{text}");
    }
}
