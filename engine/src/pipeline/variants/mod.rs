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

mod condition;
mod sweep;

use condition::Condition;
use sweep::read_sweep;

use super::merge;
use super::problems::Problems;
use super::source::{Span, Table, Value, entries};
use super::value::expect_table;
use crate::diagnostic::{Diagnostic, instead};

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

    /// The paths that it sets, each with its value; the last value of a path wins.
    pub(super) fn paths(&self) -> Vec<(&str, &Value<'a>)> {
        self.values.iter().map(|one| (one.path.trim(), &one.value)).collect()
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
                let help = instead(unknown, names(), "the variants are");
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

/// A number's value, whether it is written with a point or without.
fn number(value: &toml::Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|number| number as f64))
}
