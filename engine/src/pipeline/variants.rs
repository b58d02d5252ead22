//! `[sweep]` and `[ablations]`: the variants of a pipeline, each a name and values laid over the file.
//!
//! ```toml
//! [sweep]                                   # a grid: every combination
//! samples = [4, 16, 32]
//! "rounds.sample.temperature" = [0.6, 0.8]
//!
//! [[sweep.list]]                            # or a list
//! samples = 4
//!
//! [sweep]                                   # or random draws
//! draws = { count = 20, seed = 7 }
//! learning_rate = { from = 1e-4, to = 1e-2, scale = "log" }
//! cap = [1, 4]
//!
//! [ablations.no-trace]                      # a named set of values
//! "rounds.sample.trace" = false
//! ```
//! A path is what `--set` takes.

use std::cmp::Ordering;

use toml::Spanned;
use toml::de::DeValue;

use super::document::unknown_key;
use super::merge;
use super::problems::Problems;
use super::source::{Span, Table, Value, entries, span};
use super::value::{described, expect_table, integer, plain, wrong_type};
use crate::diagnostic::{Diagnostic, list, nearest};

/// The label of a pipeline without sweep and ablation.
pub(crate) const MAIN: &str = "main";
/// Most variants of one pipeline.
const MOST_VARIANTS: usize = 10_000;

/// Which variants of a pipeline to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Those of `[sweep]`.
    pub sweep: bool,
    /// Those of `[ablations]`, beside the pipeline without any.
    pub ablations: bool,
    /// Only those of these names; a name that is no variant's stands for all that have it between their slashes.
    pub only: Vec<String>,
    /// Only those of which this is true, e.g. `temperature<1`: an axis of the sweep, a comparison, a value.
    pub conditions: Vec<String>,
}

impl Choice {
    /// Whether the pipeline alone is meant.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// One variant.
#[derive(Clone)]
pub(super) struct Variant<'a> {
    /// `main`, `samples=4,temperature=0.6`, `no-trace`, `samples=4/no-trace`.
    pub(super) name: String,
    values: Vec<Assignment<'a>>,
}

/// A path and its value.
#[derive(Clone)]
struct Assignment<'a> {
    path: String,
    at: Span,
    value: Value<'a>,
}

impl<'a> Variant<'a> {
    fn plain() -> Self {
        Self { name: MAIN.to_owned(), values: Vec::new() }
    }

    /// Lays its values over the document.
    pub(super) fn apply(&self, document: &mut Table<'a>, problems: &mut Problems<'a>) {
        for Assignment { path, at, value } in &self.values {
            merge::assign(document, path, *at, value.clone(), problems);
        }
    }

    fn and(&self, other: &Self) -> Self {
        let name = match (self.name.as_str(), other.name.as_str()) {
            (name, MAIN) | (MAIN, name) => name.to_owned(),
            (name, other) => format!("{name}/{other}"),
        };
        Self { name, values: self.values.iter().chain(&other.values).cloned().collect() }
    }
}

/// What a file declares.
pub(super) struct Declared<'a> {
    sweep: Vec<Variant<'a>>,
    ablations: Vec<Variant<'a>>,
}

/// Takes `[sweep]` and `[ablations]` out of the document.
pub(super) fn take<'a>(document: &mut Table<'a>, name: &str, problems: &mut Problems<'a>) -> Declared<'a> {
    let sweep = document.remove("sweep");
    let sweep = sweep.as_ref().and_then(|value| expect_table("sweep", value, problems));
    let sweep = sweep.map(|table| read_sweep(table, name, problems)).unwrap_or_default();
    let ablations = document.remove("ablations");
    let ablations = ablations.as_ref().and_then(|value| expect_table("ablations", value, problems));
    let mut read = Vec::new();
    for (name, at, value) in ablations.map(entries).unwrap_or_default() {
        let is_word = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if name == MAIN || name.is_empty() || !name.chars().all(is_word) {
            let help = "use letters, digits, `-`, `_` and `.`; `main` is the pipeline without ablation";
            problems.error(at, format!("`{name}` can't be the name of an ablation"), "").help(help);
        } else if let Some(values) = expect_table(name, value, problems) {
            read.push(Variant { name: name.to_owned(), values: assignments(values) });
        }
    }
    Declared { sweep, ablations: read }
}

impl<'a> Declared<'a> {
    /// Every single variant that the file declares, to be checked whether it is to run or not.
    pub(super) fn all(&self) -> impl Iterator<Item = &Variant<'a>> {
        self.ablations.iter().chain(&self.sweep)
    }

    /// The chosen ones. A choice that fits nothing is an error at no place in the file.
    ///
    /// # Errors
    /// What is wrong with the choice.
    pub(super) fn chosen(&self, choice: &Choice) -> Result<Vec<Variant<'a>>, Diagnostic> {
        let any = |variants: &[Variant], names: &[String]| {
            variants
                .iter()
                .any(|variant| names.iter().flat_map(|name| name.split('/')).any(|part| part == variant.name))
        };
        let sweep = choice.sweep || !choice.conditions.is_empty() || any(&self.sweep, &choice.only);
        let ablations = choice.ablations || (!choice.only.is_empty() && !sweep) || any(&self.ablations, &choice.only);
        let missing = |what: &str, example: &str| {
            wrong(format!("the pipeline has no [{what}]"), format!("write e.g. `{example}` under it"))
        };
        if sweep && self.sweep.is_empty() {
            return Err(missing("sweep", "samples = [4, 16]"));
        }
        if choice.ablations && self.ablations.is_empty() {
            return Err(missing("ablations.NAME", "\"rounds.sample.trace\" = false"));
        }
        let conditions =
            choice.conditions.iter().map(|text| Condition::parse(text, self)).collect::<Result<Vec<_>, _>>()?;
        let points = if sweep { self.sweep.clone() } else { vec![Variant::plain()] };
        let mut chosen = Vec::new();
        for point in points.iter().filter(|point| conditions.iter().all(|condition| condition.holds(point))) {
            chosen.push(point.clone());
            if ablations {
                chosen.extend(self.ablations.iter().map(|ablation| point.and(ablation)));
            }
        }
        if !choice.only.is_empty() {
            let whole = |name: &String| chosen.iter().any(|variant| variant.name == *name);
            let wholes: Vec<&String> = choice.only.iter().filter(|name| whole(name)).collect();
            let is_named = |variant: &Variant, name: &String| match wholes.contains(&name) {
                true => variant.name == *name,
                false => variant.name.split('/').any(|part| part == name),
            };
            if let Some(unknown) = choice.only.iter().find(|name| !chosen.iter().any(|one| is_named(one, name))) {
                let names = || chosen.iter().map(|variant| variant.name.as_str());
                let help = match nearest(unknown, names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the variants are {}", list(names())),
                };
                return Err(wrong(format!("there is no variant `{unknown}`"), help));
            }
            chosen.retain(|variant| choice.only.iter().any(|name| is_named(variant, name)));
        }
        if chosen.is_empty() {
            let text = choice.conditions.join(", ");
            return Err(wrong(
                format!("`{text}` is true of no variant"),
                "`tracetune check --sweep` lists them".to_owned(),
            ));
        }
        if chosen.len() > MOST_VARIANTS {
            let message = format!("{} variants are more than {MOST_VARIANTS}", chosen.len());
            return Err(wrong(message, "name some with `--only` or `--where`".to_owned()));
        }
        Ok(chosen)
    }
}

fn wrong(message: String, help: String) -> Diagnostic {
    let mut problem = Diagnostic::error(message);
    problem.help(help);
    problem
}

fn assignments<'a>(table: &Table<'a>) -> Vec<Assignment<'a>> {
    let one =
        |(path, at, value): (&str, Span, &Value<'a>)| Assignment { path: path.to_owned(), at, value: value.clone() };
    entries(table).into_iter().map(one).collect()
}

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

fn read_sweep<'a>(table: &Table<'a>, name: &str, problems: &mut Problems<'a>) -> Vec<Variant<'a>> {
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
        let name = point_name(&values);
        // Two draws of small axes may be the same point.
        if !variants.iter().any(|known| known.name == name) {
            variants.push(Variant { name, values });
        }
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
                let number = from + (bits % (to - from + 1) as u64) as i64;
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

/// `samples=4,temperature=0.6`: the last words of the paths, where they tell the axes apart.
fn point_name(values: &[Assignment]) -> String {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let words: Vec<String> = values.iter().map(|value| last(&value.path)).collect();
    let word = |index: usize| match words.iter().filter(|word| **word == words[index]).count() {
        1 => words[index].clone(),
        _ => values[index].path.clone(),
    };
    let text = |value: &DeValue| match value {
        DeValue::String(text) => text.to_string(),
        other => plain(other).to_string(),
    };
    let parts: Vec<String> = values
        .iter()
        .enumerate()
        .map(|(index, one)| format!("{}={}", word(index), text(one.value.get_ref())))
        .collect();
    parts.join(",")
}

/// Whether a comparison holds for two values in this order.
type Holds = fn(Ordering) -> bool;

/// `temperature<1`.
struct Condition {
    axis: String,
    holds: Holds,
    value: toml::Value,
}

impl Condition {
    fn parse(text: &str, declared: &Declared) -> Result<Self, Diagnostic> {
        const COMPARISONS: [(&str, Holds); 7] = [
            ("<=", Ordering::is_le),
            (">=", Ordering::is_ge),
            ("!=", Ordering::is_ne),
            ("==", Ordering::is_eq),
            ("<", Ordering::is_lt),
            (">", Ordering::is_gt),
            ("=", Ordering::is_eq),
        ];
        let found = COMPARISONS.iter().filter_map(|&(sign, holds)| Some((text.find(sign)?, sign, holds)));
        let Some((place, sign, holds)) = found.min_by_key(|(place, sign, _)| (*place, std::cmp::Reverse(sign.len())))
        else {
            let help = "write an axis, a comparison and a value: `--where 'temperature<1'`".to_owned();
            return Err(wrong(format!("`{text}` is not a condition"), help));
        };
        let (axis, value) = (text[..place].trim().to_owned(), text[place + sign.len()..].trim());
        let mut paths: Vec<&str> =
            declared.sweep.iter().flat_map(|variant| &variant.values).map(|value| value.path.as_str()).collect();
        paths.sort_unstable();
        paths.dedup();
        if !paths.iter().any(|path| is_axis(path, &axis)) {
            let help = match nearest(&axis, paths.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the axes are {}", list(&paths)),
            };
            return Err(wrong(format!("the sweep has no axis `{axis}`"), help));
        }
        let value = value.parse().unwrap_or_else(|_| toml::Value::String(value.to_owned()));
        Ok(Self { axis, holds, value })
    }

    fn holds(&self, variant: &Variant) -> bool {
        let value = variant.values.iter().rev().find(|value| is_axis(&value.path, &self.axis));
        let order = value.and_then(|value| compared(&plain(value.value.get_ref()), &self.value));
        order.is_some_and(self.holds)
    }
}

fn is_axis(path: &str, axis: &str) -> bool {
    path == axis || path.strip_suffix(axis).is_some_and(|before| before.ends_with('.'))
}

/// A number's value, whether it is written with a point or without.
fn number(value: &toml::Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|number| number as f64))
}

/// Numbers by their value, other things only as the same or not.
fn compared(a: &toml::Value, b: &toml::Value) -> Option<Ordering> {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.partial_cmp(&b),
        _ if a == b => Some(Ordering::Equal),
        _ => match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => Some(a.cmp(b)),
            _ => None,
        },
    }
}
