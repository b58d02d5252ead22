//! A run's metrics as tables: a block a split, a line a variant and round, a column a metric.
//!
//! No figure without n and an interval: an interval stands in brackets behind its figure, n in a column of its own.
//! Built from whatever metrics there are; nothing here knows what any of them means.

use serde::Serialize;

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
    fn interval(&self) -> Option<(f64, f64)> {
        self.ci_low.zip(self.ci_high)
    }
}

/// All figures as text, `width` columns wide.
pub(crate) fn text(figures: &[Figure], width: usize) -> String {
    let mut blocks = Vec::new();
    for split in distinct(figures.iter().map(|figure| figure.split.as_str())) {
        let own: Vec<&Figure> = figures.iter().filter(|figure| figure.split == split).collect();
        let metrics = distinct(own.iter().map(|figure| figure.metric.as_str()));
        let columns: Vec<Column> = metrics.into_iter().map(|metric| Column::new(metric, &own)).collect();
        // A block that is too wide goes on in a second one.
        let lead = 2 + own.iter().map(|figure| figure.variant.len()).max().unwrap_or_default().max(7) + 2 + 5;
        let mut start = 0;
        while start < columns.len() {
            let mut used = lead;
            let mut end = start;
            while end < columns.len() && (end == start || used + columns[end].width + 2 <= width) {
                used += columns[end].width + 2;
                end += 1;
            }
            blocks.push(block(split, &own, &columns[start..end], start > 0, width));
            start = end;
        }
    }
    if figures.iter().any(|figure| figure.interval().is_some()) {
        blocks.push(style::dim("[low, high]: 95 % interval; n: what it is over"));
    }
    blocks.join("\n\n")
}

fn block(split: &str, figures: &[&Figure], columns: &[Column], continued: bool, width: usize) -> String {
    let counts = distinct(columns.iter().flat_map(|column| column.counts.iter().copied()));
    let caption = match (continued, counts.as_slice()) {
        (true, _) => format!("{split}, continued"),
        (false, [n]) => format!("{split} (n = {})", numbers::count((*n).max(0) as u64)),
        (false, _) => split.to_owned(),
    };
    let one_count = counts.len() <= 1;
    let mut header = vec!["  variant".to_owned(), ">round".to_owned()];
    for column in columns {
        header.push(format!(">{}", column.title()));
        if !one_count {
            header.push(">n".to_owned());
        }
    }
    let mut words = Words::new(header);
    let lines = distinct(figures.iter().map(|figure| (figure.variant.as_str(), figure.round)));
    let variants = distinct(lines.iter().map(|(variant, _)| *variant));
    for variant in variants {
        let mut rounds: Vec<i32> = lines.iter().filter(|line| line.0 == variant).map(|line| line.1).collect();
        rounds.sort_unstable();
        for round in rounds {
            let mut cells = vec![format!("  {variant}"), round.to_string()];
            let mut empty = true;
            for column in columns {
                let is_it = |figure: &&&Figure| {
                    figure.variant == variant && figure.round == round && figure.metric == column.metric
                };
                let figure = figures.iter().find(is_it);
                empty &= figure.is_none();
                cells.push(figure.map(|figure| column.cell(figure)).unwrap_or_default());
                if !one_count {
                    cells.push(figure.map(|figure| numbers::count(figure.n.max(0) as u64)).unwrap_or_default());
                }
            }
            if !empty {
                words.row(cells);
            }
        }
    }
    format!("{}\n{}", style::heading(&caption), words.text(width.max(80)))
}

/// How one metric is shown.
struct Column<'a> {
    metric: &'a str,
    percent: bool,
    /// `None`: as many as each figure has.
    decimals: Option<usize>,
    counts: Vec<i64>,
    /// How wide value, low and high are, so that they stand below each other.
    digits: [usize; 3],
    width: usize,
}

impl<'a> Column<'a> {
    fn new(metric: &'a str, figures: &[&Figure]) -> Self {
        let own: Vec<&&Figure> = figures.iter().filter(|figure| figure.metric == metric).collect();
        let percent = is_share(metric);
        let scale = if percent { 100.0 } else { 1.0 };
        let halves = own.iter().filter_map(|figure| figure.interval()).map(|(low, high)| (high - low) / 2.0 * scale);
        let widest = halves.filter(|half| *half > 0.0).max_by(f64::total_cmp);
        let decimals = widest.map(numbers::decimals).or(percent.then_some(1));
        let counts = distinct(own.iter().map(|figure| figure.n));
        let mut column = Self { metric, percent, decimals, counts, digits: [0; 3], width: 0 };
        for figure in &own {
            let (low, high) = figure.interval().unzip();
            for (place, value) in [Some(figure.value), low, high].into_iter().enumerate() {
                let digits = value.map_or(0, |value| column.number(value).len());
                column.digits[place] = column.digits[place].max(digits);
            }
        }
        let cells = own.iter().map(|figure| column.cell(figure).chars().count());
        // The room for a column n is kept in any case.
        column.width = cells.chain([column.title().chars().count()]).max().unwrap_or_default() + 7;
        column
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
            Some((from, to)) => format!(
                "{:>value$} [{:>low$}, {:>high$}]",
                self.number(figure.value),
                self.number(from),
                self.number(to)
            ),
            None => self.number(figure.value),
        }
    }
}

/// Whether a metric is a share of something, by its name.
fn is_share(metric: &str) -> bool {
    metric.contains('@') || ["rate", "share", "gain"].iter().any(|word| metric.contains(word))
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
        let figures = [figure("main", 1, "kept", 1200.0, None, 1200), figure("main", 2, "kept", 900.0, None, 900)];
        let text = anstream::adapter::strip_str(&text(&figures, 100)).to_string();
        assert!(text.contains("1,200"), "{text}");
        assert!(text.lines().nth(1).is_some_and(|header| header.ends_with('n')), "{text}");
    }
}
