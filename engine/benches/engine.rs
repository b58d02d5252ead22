//! What the engine costs a row and a stage: a large table of which little changed, and graphs of stages that do nothing.
//! `cargo bench -p tracetune-engine --bench engine [-- rows|chain|fan]`
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::Registry;
use tracetune_engine::cache::Store;
use tracetune_engine::pipeline::{Overrides, Pipeline};
use tracetune_engine::plan;
use tracetune_engine::schedule::{self, RunOptions, RunSummary};
use tracetune_engine::stage::{
    Artifact, Context, Inputs, Item, Output, Outputs, Params, Port, PortType, RowStage, StageError, TableStage,
};
use tracetune_engine::table::Record;

tracetune_engine::record! {
    struct Line { id: i64, text: String }
    struct Length { length: i32 }
}

/// Lines of text.
struct Lines;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LinesParams {
    /// How many.
    count: i64,
    /// Whether one line differs, one is new, one is gone and two have changed places.
    #[serde(default)]
    edited: bool,
}
impl Params for LinesParams {}

impl TableStage for Lines {
    const KIND: &'static str = "lines";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "lines of text";
    type Params = LinesParams;
    fn outputs(_: &LinesParams, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("rows", PortType::Table(Some(Line::schema())))]
    }
    fn run(params: &LinesParams, _: &Inputs, _: &Context) -> Result<Outputs, StageError> {
        let line = |id: i64| Line { id, text: format!("the line with the number {id}, and some more text to read") };
        let mut lines: Vec<Line> = (0..params.count).map(line).collect();
        if params.edited {
            let count = lines.len();
            lines[count / 3].text.push('!');
            lines.swap(count / 4, count / 2);
            lines.remove(count / 5);
            lines.push(line(params.count));
        }
        Ok(Outputs::from([("rows", Artifact::Table(Line::write(&lines)?))]))
    }
}

/// Counts characters.
struct Measure;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}
impl Params for Nothing {}

impl RowStage for Measure {
    const KIND: &'static str = "measure";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "counts characters";
    type Params = Nothing;
    type In = Line;
    type Out = Length;
    type Session = ();
    fn open(_: &Nothing, _: &Inputs, _: &Context) -> Result<(), StageError> {
        Ok(())
    }
    fn rows(_: &mut (), _: &Nothing, items: &[Item<Line>], _: &Context) -> Result<Vec<Vec<Length>>, StageError> {
        Ok(items.iter().map(|item| vec![Length { length: item.row.text.chars().count() as i32 }]).collect())
    }
}

/// Takes a table and gives it on.
struct Pass;

impl TableStage for Pass {
    const KIND: &'static str = "pass";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "gives a table on";
    type Params = Tagged;
    fn ports() -> Vec<Port> {
        vec![Port { name: "rows", port_type: PortType::Table(None), optional: true, about: "a table" }]
    }
    fn outputs(_: &Tagged, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("rows", PortType::Table(Some(Length::schema())))]
    }
    fn run(params: &Tagged, _: &Inputs, _: &Context) -> Result<Outputs, StageError> {
        Ok(Outputs::from([("rows", Artifact::Table(Length::write(&[Length { length: params.tag }])?))]))
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tagged {
    /// What tells it from the others.
    tag: i32,
}
impl Params for Tagged {}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let registry = Registry::new().table::<Lines>().row::<Measure>().table::<Pass>();
    let chosen = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let is_chosen = |name: &&str| chosen.as_ref().is_none_or(|chosen| chosen == name);
    println!("| what | figure |\n| --- | --- |");
    if is_chosen(&"rows") {
        rows(&registry)?;
    }
    for shape in ["chain", "fan"].into_iter().filter(is_chosen) {
        for stages in [10, 100, 1000, 10_000] {
            graph(&registry, shape, stages)?;
        }
    }
    Ok(())
}

const ROWS: i64 = 100_000;

fn rows(registry: &Registry) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("store"))?;
    let text = |edited: bool| {
        format!(
            "[stages.lines]\nkind = \"lines\"\ncount = {ROWS}\nedited = {edited}\n\
             [stages.measure]\nkind = \"measure\"\nrows = \"lines\"\n"
        )
    };
    let (first, second) = (text(false), text(true));
    let (seconds, _) = timed(registry, &store, &first)?;
    line(&format!("{ROWS} rows, all computed"), seconds);
    line(&format!("{ROWS} rows, nothing to do"), median(|| Ok(timed(registry, &store, &first)?.0))?);
    let (seconds, summary) = timed(registry, &store, &second)?;
    let measure = summary.nodes.iter().find(|node| node.id == "measure").ok_or("no such stage")?;
    let what = format!("{ROWS} rows, 1 changed, 1 new, 1 gone, 2 swapped: {} computed", measure.rows_computed);
    line(&what, seconds);
    Ok(())
}

fn graph(registry: &Registry, shape: &str, stages: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("store"))?;
    let text = |changed: Option<usize>| -> String {
        let stage = |index: usize| {
            let rows = match (index, shape) {
                (0, _) => String::new(),
                (_, "fan") => "rows = \"s0\"\n".to_owned(),
                _ => format!("rows = \"s{}\"\n", index - 1),
            };
            let tag = if changed == Some(index) { stages + 1 } else { index };
            format!("[stages.s{index}]\nkind = \"pass\"\ntag = {tag}\n{rows}\n")
        };
        (0..stages).map(stage).collect()
    };
    let (first, second) = (text(None), text(Some(stages / 2)));
    let name = |what: &str| format!("{shape} of {stages}: {what}");
    let (seconds, _) = timed(registry, &store, &first)?;
    line(&name("all computed"), seconds);
    let plan = || -> Result<f64, Failure> {
        let pipeline = load(registry, &first)?;
        let start = Instant::now();
        plan::plan(&pipeline, &store)?;
        Ok(start.elapsed().as_secs_f64())
    };
    line(&name("plan"), median(plan)?);
    line(&name("nothing to do"), median(|| Ok(timed(registry, &store, &first)?.0))?);
    let (seconds, summary) = timed(registry, &store, &second)?;
    let computed = summary.nodes.iter().filter(|node| node.status == tracetune_engine::runs::StageStatus::Computed);
    line(&name(&format!("one changed in the middle, {} computed", computed.count())), seconds);
    Ok(())
}

fn load(registry: &Registry, text: &str) -> Result<Pipeline, Failure> {
    Pipeline::from_text(text, "bench.toml", Path::new("/"), registry, &Overrides::default())
        .map_err(|problems| format!("{problems:?}").into())
}

/// From the text to the end of the run, in seconds.
fn timed(registry: &Registry, store: &Store, text: &str) -> Result<(f64, RunSummary), Failure> {
    let start = Instant::now();
    let pipeline = load(registry, text)?;
    let options = RunOptions::with_threads(2);
    let summary = schedule::run(&pipeline, store, &options, Arc::new(AtomicBool::new(false)), &|_| {})?;
    Ok((start.elapsed().as_secs_f64(), summary))
}

fn median(mut measure: impl FnMut() -> Result<f64, Failure>) -> Result<f64, Failure> {
    let mut times = (0..5).map(|_| measure()).collect::<Result<Vec<f64>, Failure>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[2])
}

fn line(what: &str, seconds: f64) {
    println!("| {what} | {:.1} ms |", seconds * 1000.0);
}
