//! The tables that `run` and `show` print, read back.

use std::collections::BTreeMap;

use tracetune_engine::runs::MetricLine;

/// A cell: split, label, round, stage where it is shown, metric.
type Place = (String, String, i32, Option<String>, String);

/// Fails unless the tables have each figure once, as exactly as it is printed, and nothing else.
#[track_caller]
pub(super) fn agrees(text: &str, figures: &[MetricLine]) {
    let mut cells = cells(text);
    for figure in figures {
        let (metric, label) = match figure.metric.strip_suffix(')').and_then(|metric| metric.rsplit_once(" (")) {
            Some((metric, condition)) => (metric.to_owned(), format!("{}, {condition}", figure.variant)),
            None => (figure.metric.clone(), figure.variant.clone()),
        };
        let place = |stage: Option<&String>| {
            (figure.split.clone(), label.clone(), figure.round, stage.cloned(), metric.clone())
        };
        let cell = cells.remove(&place(Some(&figure.stage))).or_else(|| cells.remove(&place(None)));
        let cell = cell.unwrap_or_else(|| panic!("no cell of {figure:?} in {text}"));
        let bounds: Vec<f64> = figure.ci_low.into_iter().chain(figure.ci_high).collect();
        let values: Vec<f64> = std::iter::once(figure.value).chain(bounds).collect();
        let numbers = cell.numbers();
        assert_eq!(numbers.len(), values.len(), "{cell:?} of {figure:?}");
        for ((shown, decimals), value) in numbers.iter().zip(values) {
            let value = if cell.percent { value * 100.0 } else { value };
            assert!((shown - value).abs() <= 0.501 * 0.1f64.powi(*decimals), "{cell:?} of {figure:?}");
        }
    }
    assert!(cells.is_empty(), "no figure of {cells:?}");
}

#[derive(Debug)]
struct Cell {
    text: String,
    percent: bool,
}

impl Cell {
    /// Its numbers, and how many decimals each has.
    fn numbers(&self) -> Vec<(f64, i32)> {
        let words = self.text.split(['[', ']', ' ']).map(|word| word.trim_end_matches(',').replace(',', ""));
        words
            .filter(|word| !word.is_empty())
            .map(|word| {
                let decimals = word.split_once('.').map_or(0, |(_, decimals)| decimals.len());
                (word.parse().unwrap_or_else(|_| panic!("{self:?}")), decimals as i32)
            })
            .collect()
    }
}

/// All cells of all blocks with a figure in them.
fn cells(text: &str) -> BTreeMap<Place, Cell> {
    let mut cells = BTreeMap::new();
    let lines: Vec<&str> = text.lines().collect();
    for (start, header) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("  variant")) {
        let caption = lines[start - 1];
        let split = caption.trim_end_matches(", continued").split(" (n = ").next().unwrap_or_default();
        let columns = columns(header);
        for line in lines[start + 1..].iter().take_while(|line| line.starts_with("  ")) {
            let cell =
                |end: usize, from: usize| line.get(from.min(line.len())..end.min(line.len())).unwrap_or("").trim();
            let mut from = 0;
            let mut row: Vec<(&str, &str)> = Vec::new();
            for (index, (name, end)) in columns.iter().enumerate() {
                // What is left-aligned goes on to where the next column's cell begins.
                let end = if ["variant", "stage"].contains(name) { left_end(line, &columns, index) } else { *end };
                row.push((name, cell(end, from)));
                from = end;
            }
            let of = |wanted: &str| row.iter().find(|(name, _)| *name == wanted).map(|(_, cell)| *cell);
            let round = of("round").expect("a round").trim_start_matches("selected ").parse().expect("a number");
            for (name, cell) in &row {
                if ["variant", "round", "stage", "n"].contains(name) || cell.is_empty() {
                    continue;
                }
                let metric = name.trim_end_matches(" %");
                let stage = of("stage").map(str::to_owned);
                let place = (split.to_owned(), of("variant").unwrap_or("").to_owned(), round, stage, metric.to_owned());
                let cell = Cell { text: (*cell).to_owned(), percent: metric != *name };
                assert!(!cells.contains_key(&place), "{place:?} stands twice in\n{text}");
                cells.insert(place, cell);
            }
        }
    }
    cells
}

/// The columns' names, each with the place where it ends.
fn columns(header: &str) -> Vec<(&str, usize)> {
    let mut columns = Vec::new();
    let mut from = 0;
    for name in header.split("  ").filter(|name| !name.trim().is_empty()) {
        let start = header[from..].find(name).expect("it is from there") + from;
        from = start + name.len();
        columns.push((name.trim(), from));
    }
    columns
}

/// Where a left-aligned cell ends: before the last gap of two spaces in front of the next column's end.
fn left_end(line: &str, columns: &[(&str, usize)], index: usize) -> usize {
    let next = columns.get(index + 1).map_or(line.len(), |(_, end)| (*end).min(line.len()));
    let before = if index == 0 { 2 } else { columns[index - 1].1 };
    line[before.min(next)..next].rfind("  ").map_or(next, |gap| before + gap)
}
