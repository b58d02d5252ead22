//! A run's metrics as tables: a block per split, a line per variant and round, a column per metric. Where a variant has a
//! metric from several stages in one round, the lines of that block have their stage, too.
//!
//! No figure without n and an interval: an interval stands in brackets behind its figure, n in a column of its own.
//! Built from whatever metrics there are; nothing here knows what any of them means.

use tracetune_engine::runs::{MetricLine, ambiguous};

use super::numbers;
use super::style;
use super::table::Words;

/// All figures as text, `width` columns wide.
pub(crate) fn text(figures: &[MetricLine], width: usize) -> String {
    let mut blocks = Vec::new();
    let ambiguous = ambiguous(figures);
    for split in distinct(figures.iter().map(|figure| figure.split.as_str())) {
        let own = figures.iter().filter(|figure| figure.split == split);
        let by_stage = own.clone().any(|figure| ambiguous.contains(&(split, figure.metric.as_str())));
        let own: Vec<Placed> = own.map(|figure| Placed::new(figure, by_stage)).collect();
        let metrics = distinct(own.iter().map(|placed| placed.metric));
        let mut columns: Vec<Column> = metrics.into_iter().map(|metric| Column::new(metric, &own)).collect();
        let counts =
            distinct(columns.iter().filter(|column| column.estimated).flat_map(|column| column.counts.clone()));
        let common = (counts.len() == 1).then(|| counts[0]);
        columns.iter_mut().for_each(|column| column.leave_out(common));
        // A block that is too wide goes on in a second one.
        let lines = lines(&own);
        let widest =
            |cell: fn(&Line) -> usize, title: usize| lines.iter().map(cell).max().unwrap_or_default().max(title);
        let stage = if by_stage { widest(|line| line.stage.map_or(0, str::len), 5) + 2 } else { 0 };
        let lead = 2 + widest(|line| line.label().len(), 7) + 2 + widest(|line| line.round_cell().len(), 5) + stage;
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
            blocks.push(format!("{}\n{}", style::heading(&caption), block(&lines, &columns[start..end], by_stage)));
            start = end;
        }
    }
    if figures.iter().any(|figure| interval(figure).is_some()) {
        blocks.push(style::dim("[low, high]: 95 % interval; n: what it is over"));
    }
    if figures.iter().any(|figure| figure.selected) {
        blocks.push(style::dim(
            "selected: the round that the loop chose by its figures on this split, which are biased upwards for it",
        ));
    }
    blocks.join("\n\n")
}

fn interval(figure: &MetricLine) -> Option<(f64, f64)> {
    figure.ci_low.zip(figure.ci_high)
}

/// A figure with its place in the table.
struct Placed<'a> {
    figure: &'a MetricLine,
    /// The metric without what it says of the condition.
    metric: &'a str,
    /// `pass@1 (no trace)` of `main` is the figure `pass@1` of `main, no trace`.
    condition: Option<&'a str>,
    /// Where the stage is needed to tell figures apart.
    stage: Option<&'a str>,
}

impl<'a> Placed<'a> {
    fn new(figure: &'a MetricLine, by_stage: bool) -> Self {
        let parts = figure.metric.strip_suffix(')').and_then(|metric| metric.rsplit_once(" ("));
        let (metric, condition) = match parts {
            Some((metric, condition)) => (metric, Some(condition)),
            None => (figure.metric.as_str(), None),
        };
        Self { figure, metric, condition, stage: by_stage.then_some(&figure.stage) }
    }
}

/// The figures of one place.
struct Line<'a> {
    variant: &'a str,
    condition: Option<&'a str>,
    round: i32,
    stage: Option<&'a str>,
    selected: bool,
    figures: Vec<&'a Placed<'a>>,
}

impl Line<'_> {
    fn label(&self) -> String {
        match self.condition {
            Some(condition) => format!("{}, {condition}", self.variant),
            None => self.variant.to_owned(),
        }
    }

    fn round_cell(&self) -> String {
        if self.selected { format!("selected {}", self.round) } else { self.round.to_string() }
    }
}

/// The lines of a split: variants and conditions in the order of their figures, the rounds of each in theirs.
fn lines<'a>(figures: &'a [Placed<'a>]) -> Vec<Line<'a>> {
    let mut lines: Vec<Line> = Vec::new();
    for placed in figures {
        let Placed { figure, condition, stage, .. } = *placed;
        let is_it = |line: &&mut Line| {
            line.variant == figure.variant
                && line.condition == condition
                && line.round == figure.round
                && line.stage == stage
        };
        match lines.iter_mut().find(is_it) {
            Some(line) => {
                line.selected |= figure.selected;
                line.figures.push(placed);
            }
            None => lines.push(Line {
                variant: &figure.variant,
                condition,
                round: figure.round,
                stage,
                selected: figure.selected,
                figures: vec![placed],
            }),
        }
    }
    let labels = distinct(lines.iter().map(|line| (line.variant, line.condition)));
    let rank = |line: &Line| labels.iter().position(|label| *label == (line.variant, line.condition));
    lines.sort_by_key(|line| (rank(line), line.round));
    lines
}

fn block(lines: &[Line], columns: &[Column], by_stage: bool) -> String {
    let mut header = vec!["  variant".to_owned(), ">round".to_owned()];
    header.extend(by_stage.then(|| "stage".to_owned()));
    for column in columns {
        header.push(format!(">{}", column.title()));
        if column.shows_count {
            header.push(">n".to_owned());
        }
    }
    let mut words = Words::new(header);
    for line in lines {
        let mut cells = vec![format!("  {}", line.label()), line.round_cell()];
        cells.extend(by_stage.then(|| line.stage.unwrap_or_default().to_owned()));
        let mut empty = true;
        for column in columns {
            let figure = line.figures.iter().find(|placed| placed.metric == column.metric).map(|placed| placed.figure);
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
        let own: Vec<&MetricLine> =
            figures.iter().filter(|placed| placed.metric == metric).map(|placed| placed.figure).collect();
        let percent = is_share(metric);
        let scale = if percent { 100.0 } else { 1.0 };
        let halves = own.iter().filter_map(|figure| interval(figure)).map(|(low, high)| (high - low) / 2.0 * scale);
        let widest = halves.filter(|half| *half > 0.0).max_by(f64::total_cmp);
        let decimals = widest.map(numbers::decimals).or(percent.then_some(1));
        let estimated = own.iter().any(|figure| interval(figure).is_some() || figure.value.fract() != 0.0);
        let counts = distinct(own.iter().map(|figure| figure.n));
        let mut column =
            Self { metric, percent, decimals, estimated, counts, shows_count: estimated, digits: [0; 3], width: 0 };
        for figure in &own {
            let (low, high) = interval(figure).unzip();
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

    fn cell(&self, figure: &MetricLine) -> String {
        let [value, low, high] = self.digits;
        match interval(figure) {
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

    fn figure(variant: &str, round: i32, metric: &str, value: f64, half: Option<f64>, n: i64) -> MetricLine {
        MetricLine {
            run: "run".into(),
            pipeline: "pipeline".into(),
            stage: "evaluation".into(),
            variant: variant.into(),
            round,
            split: "test".into(),
            metric: metric.into(),
            k: None,
            value,
            ci_low: half.map(|half| value - half),
            ci_high: half.map(|half| value + half),
            n,
            selected: false,
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

    #[test]
    fn what_two_stages_have_stands_in_two_lines_with_their_names() {
        let control = MetricLine { stage: "control".into(), ..figure("main", 3, "loss", 0.0066, None, 64) };
        let train = MetricLine { stage: "train".into(), ..figure("main", 3, "loss", 0.1781, None, 64) };
        let text = anstream::adapter::strip_str(&text(&[train, control], 100)).to_string();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "  variant  round  stage        loss",
                "  main         3  train      0.1781",
                "  main         3  control  0.006600"
            ]
        );
    }

    #[test]
    fn a_selected_round_is_said_to_be_selected() {
        let mut figures: Vec<MetricLine> =
            (1..=3).map(|round| figure("main", round, "pass@1", 0.5, Some(0.02), 512)).collect();
        figures[1].selected = true;
        let text = anstream::adapter::strip_str(&text(&figures, 100)).to_string();
        let rounds: Vec<&str> = text.lines().skip(2).take(3).map(|line| line[6..21].trim()).collect();
        assert_eq!(rounds, ["1", "selected 2", "3"], "{text}");
        assert!(text.contains("biased upwards"), "{text}");
    }
}
