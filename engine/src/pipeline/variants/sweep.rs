//! The points of `[sweep]`: a list, every combination of its axes, or random draws from them.

use toml::Spanned;
use toml::de::DeValue;

use super::{Assignment, MOST_VARIANTS, Variant, assignments, number};
use crate::pipeline::document::unknown_key;
use crate::pipeline::problems::Problems;
use crate::pipeline::source::{Span, Table, Value, entries, span};
use crate::pipeline::value::{described, expect_table, integer, plain, wrong_type};

/// An axis: a path and what it may be.
struct Axis<'a> {
    path: String,
    at: Span,
    values: Values<'a>,
}

enum Values<'a> {
    Listed(Vec<Value<'a>>),
    Integers { from: i64, to: i64, at: Span },
    Floats { from: f64, to: f64, log: bool, at: Span },
}

/// Every variant that it makes.
pub(super) fn read_sweep<'a>(table: &Table<'a>, name: &str, problems: &mut Problems<'a>) -> Vec<Variant<'a>> {
    let mut draws = None;
    let mut listed: Option<Vec<Vec<Assignment<'a>>>> = None;
    let mut axes = Vec::new();
    let before = problems.errors();
    for (path, at, value) in entries(table) {
        match (path, value.get_ref()) {
            ("list", DeValue::Array(items)) => {
                let points = items.iter().filter_map(|item| expect_table("list", item, problems).map(assignments));
                listed = Some(points.collect());
            }
            ("draws", DeValue::Table(table)) => draws = read_draws(table, at, problems),
            ("draws", DeValue::Integer(_)) if integer(value.get_ref()).is_some_and(|count| count > 0) => {
                draws = integer(value.get_ref()).map(|count| (count as usize, 0));
            }
            (_, DeValue::Array(items)) if !items.is_empty() => {
                axes.push(Axis { path: path.to_owned(), at, values: Values::Listed(items.iter().cloned().collect()) });
            }
            (_, DeValue::Table(range)) => axes.extend(read_range(path, at, range, span(value), problems)),
            (_, other) => {
                let message = format!("`{path}` must be a list of values, found {}", described(other));
                problems.error(span(value), message, "").help(format!("write `{path} = [4, 16, 32]`"));
            }
        }
    }
    if draws.is_none() {
        for axis in &axes {
            if let Values::Integers { at, .. } | Values::Floats { at, .. } = axis.values {
                let help = "add `draws = { count = 20 }` to [sweep], or list the values";
                problems
                    .error(at, format!("`{}` is a range, which only random draws can use", axis.path), "")
                    .help(help);
            }
        }
    }
    if let (Some(_), Some(axis)) = (&listed, axes.first()) {
        let help = "put the axes into each entry of the list, or leave the list out";
        problems.error(axis.at, "a sweep is a list or a grid, not both", "").help(help);
    }
    if problems.errors() > before {
        return Vec::new();
    }
    let points = match (listed, draws) {
        (Some(points), _) => points,
        (None, Some((count, seed))) => (0..count).map(|point| draw(&axes, name, seed, point)).collect(),
        (None, None) => grid(&axes, problems),
    };
    let mut variants: Vec<Variant> = Vec::new();
    for values in points {
        // Two draws of small axes may be the same point.
        if variants.iter().any(|known| is_same_point(&known.values, &values)) {
            continue;
        }
        let is_free = |name: &String| !variants.iter().any(|known| known.name == *name);
        let numbered = |number| format!("{}~{number}", point_name(&values, as_toml));
        let names = [point_name(&values, as_text), point_name(&values, as_toml)].into_iter();
        let name = names.chain((2..).map(numbered)).find(is_free).expect("there are more numbers than points");
        variants.push(Variant { name, values });
    }
    variants
}

fn read_draws(table: &Table, at: Span, problems: &mut Problems) -> Option<(usize, u64)> {
    let (mut count, mut seed) = (None, 0);
    for (key, key_at, value) in entries(table) {
        match (key, integer(value.get_ref())) {
            ("count", Some(number @ 1..)) if number as usize <= MOST_VARIANTS => count = Some(number as usize),
            ("count", _) => wrong_type(key, &format!("an integer from 1 to {MOST_VARIANTS}"), value, problems),
            ("seed", Some(number @ 0..)) => seed = number as u64,
            ("seed", _) => wrong_type(key, "an integer of at least 0", value, problems),
            _ => unknown_key(key, key_at, "`draws`", &["count", "seed"], problems),
        }
    }
    if count.is_none() {
        problems.error(at, "`draws` does not say how many", "").help("write `draws = { count = 20, seed = 7 }`");
    }
    Some((count?, seed))
}

fn read_range<'a>(
    path: &str,
    at: Span,
    range: &Table<'a>,
    place: Span,
    problems: &mut Problems<'a>,
) -> Option<Axis<'a>> {
    let (mut from, mut to, mut log) = (None, None, false);
    for (key, key_at, value) in entries(range) {
        match (key, value.get_ref()) {
            ("from", DeValue::Integer(_) | DeValue::Float(_)) => from = Some(plain(value.get_ref())),
            ("to", DeValue::Integer(_) | DeValue::Float(_)) => to = Some(plain(value.get_ref())),
            ("from" | "to", _) => wrong_type(key, "a number", value, problems),
            ("scale", DeValue::String(scale)) if scale == "linear" || scale == "log" => log = scale == "log",
            ("scale", _) => wrong_type(key, "\"linear\" or \"log\"", value, problems),
            _ => unknown_key(key, key_at, "a range", &["from", "to", "scale"], problems),
        }
    }
    let values = match (from, to) {
        (Some(toml::Value::Integer(from)), Some(toml::Value::Integer(to))) if from <= to && !log => {
            Values::Integers { from, to, at: place }
        }
        (Some(from), Some(to)) => {
            let (from, to) = (number(&from)?, number(&to)?);
            if from >= to || !from.is_finite() || !to.is_finite() || (log && from <= 0.0) {
                let help = if log { "a log scale needs 0 < `from` < `to`" } else { "`from` must be below `to`" };
                problems.error(place, format!("the range of `{path}` is empty"), "").help(help);
                return None;
            }
            Values::Floats { from, to, log, at: place }
        }
        _ => {
            let help = format!("write `{path} = {{ from = 0.2, to = 1.2 }}`");
            problems.error(place, format!("the range of `{path}` needs `from` and `to`"), "").help(help);
            return None;
        }
    };
    Some(Axis { path: path.to_owned(), at, values })
}

/// Every combination, the last axis fastest.
fn grid<'a>(axes: &[Axis<'a>], problems: &mut Problems) -> Vec<Vec<Assignment<'a>>> {
    let mut points: Vec<Vec<Assignment>> = vec![Vec::new()];
    for axis in axes {
        let Values::Listed(values) = &axis.values else { continue };
        if points.len() * values.len() > MOST_VARIANTS {
            let message = format!("the sweep has more than {MOST_VARIANTS} combinations");
            problems.error(axis.at, message, "").help("draw some at random: `draws = { count = 20 }`");
            return Vec::new();
        }
        let with = |point: &Vec<Assignment<'a>>, value: &Value<'a>| {
            let mut point = point.clone();
            point.push(Assignment { path: axis.path.clone(), at: axis.at, value: value.clone() });
            point
        };
        points = points.iter().flat_map(|point| values.iter().map(move |value| with(point, value))).collect();
    }
    if axes.is_empty() { Vec::new() } else { points }
}

/// Draw number `point`: each axis on its own, the same for the same seed, pipeline and path.
fn draw<'a>(axes: &[Axis<'a>], name: &str, seed: u64, point: usize) -> Vec<Assignment<'a>> {
    let one = |axis: &Axis<'a>| {
        let hash = blake3::hash(format!("sweep {name} {seed} {point} {}", axis.path).as_bytes());
        let bits = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"));
        let value = match &axis.values {
            Values::Listed(values) => values[(bits % values.len() as u64) as usize].clone(),
            Values::Integers { from, to, at } => {
                // All integers are one more than a u64 can count.
                let number = i128::from(*from) + i128::from(bits) % (i128::from(*to) - i128::from(*from) + 1);
                parsed(number.to_string(), *at)
            }
            Values::Floats { from, to, log, at } => {
                let share = (bits >> 11) as f64 / (1u64 << 53) as f64;
                let number =
                    if *log { (from.ln() + share * (to / from).ln()).exp() } else { from + share * (to - from) };
                parsed(format!("{:?}", three_digits(number)), *at)
            }
        };
        Assignment { path: axis.path.clone(), at: axis.at, value }
    };
    axes.iter().map(one).collect()
}

/// A number as one would write it by hand: 0.00317.
fn three_digits(number: f64) -> f64 {
    format!("{number:.2e}").parse().unwrap_or(number)
}

/// A number's text as a value that stands at `at`. The parser's values borrow their text; a draw's few bytes are kept
/// for as long as the process runs.
fn parsed<'a>(text: String, at: Span) -> Value<'a> {
    let value = DeValue::parse(text.leak()).map(Spanned::into_inner).expect("a number is TOML");
    Spanned::new(at.start..at.end, value)
}

fn is_same_point(one: &[Assignment], other: &[Assignment]) -> bool {
    let is_same = |(one, other): (&Assignment, &Assignment)| {
        one.path == other.path && as_toml(&one.value) == as_toml(&other.value)
    };
    one.len() == other.len() && one.iter().zip(other).all(is_same)
}

/// A value for people.
fn as_text(value: &Value) -> String {
    match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        _ => as_toml(value),
    }
}

/// A value as the file has it: tells `"4"` from `4`.
fn as_toml(value: &Value) -> String {
    plain(value.get_ref()).to_string()
}

/// `samples=4,temperature=0.6`: the last words of the paths, where they tell the axes apart.
fn point_name(values: &[Assignment], text: fn(&Value) -> String) -> String {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let words: Vec<String> = values.iter().map(|value| last(&value.path)).collect();
    let word = |index: usize| match words.iter().filter(|word| **word == words[index]).count() {
        1 => words[index].clone(),
        _ => values[index].path.clone(),
    };
    let parts: Vec<String> =
        values.iter().enumerate().map(|(index, one)| format!("{}={}", word(index), text(&one.value))).collect();
    parts.join(",")
}
