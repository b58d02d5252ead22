//! A table of ten million rows through a row stage: time and memory, computed, and with one row changed.
//! `cargo bench -p tracetune-engine --bench large [-- ROWS]`
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::Registry;
use tracetune_engine::cache::Store;
use tracetune_engine::pipeline::{Overrides, Pipeline};
use tracetune_engine::runs;
use tracetune_engine::schedule::{self, RunOptions};
use tracetune_engine::stage::{
    Artifact, Context, Inputs, Item, Output, Outputs, Params, PortType, RowStage, StageError, TableStage,
};
use tracetune_engine::table::{Record, TableWriter, read_column};

tracetune_engine::record! {
    struct Number { id: i64, value: i64 }
    struct Value { value: i64 }
    struct Square { square: i64 }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NumbersParams {
    /// How many.
    count: i64,
    /// The row whose value is another one.
    #[serde(default)]
    changed: Option<i64>,
}
impl Params for NumbersParams {}

/// Numbers, written piece by piece.
struct Numbers;

impl TableStage for Numbers {
    const KIND: &'static str = "numbers";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "numbers";
    type Params = NumbersParams;
    fn outputs(_: &NumbersParams, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("rows", PortType::Table(Some(Number::schema())))]
    }
    fn run(params: &NumbersParams, _: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        const PIECE: i64 = 1 << 16;
        let path = cx.scratch.join("numbers.parquet");
        let wrong = |error: tracetune_engine::table::TableError| StageError::input(error.to_string());
        let mut writer = TableWriter::new(&Number::schema(), BufWriter::new(File::create(&path)?)).map_err(wrong)?;
        for first in (0..params.count).step_by(PIECE as usize) {
            let value = |id: i64| if params.changed == Some(id) { -1 } else { id * 7919 % 1_000_003 + id };
            let rows: Vec<Number> =
                (first..params.count.min(first + PIECE)).map(|id| Number { id, value: value(id) }).collect();
            writer.write(&Number::write(&rows)?).map_err(wrong)?;
        }
        writer.finish().map_err(wrong)?;
        Ok(Outputs::from([("rows", Artifact::File(path))]))
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}
impl Params for Nothing {}

/// Squares.
struct Squares;

impl RowStage for Squares {
    const KIND: &'static str = "square";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "squares";
    type Params = Nothing;
    type In = Value;
    type Out = Square;
    type Session = ();
    fn open(_: &Nothing, _: &Inputs, _: &Context) -> Result<(), StageError> {
        Ok(())
    }
    fn rows(_: &mut (), _: &Nothing, items: &[Item<Value>], _: &Context) -> Result<Vec<Vec<Square>>, StageError> {
        Ok(items.iter().map(|item| vec![Square { square: item.row.value.wrapping_mul(item.row.value) }]).collect())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count = std::env::args().skip(1).find_map(|argument| argument.parse::<i64>().ok()).unwrap_or(10_000_000);
    let registry = Registry::new().table::<Numbers>().row::<Squares>();
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("store"))?;
    println!("| {count} rows | seconds | peak MiB | rows computed |\n| --- | --: | --: | --: |");
    for (what, changed) in [("all computed", String::new()), ("one changed", format!("changed = {}", count / 2))] {
        let text = format!(
            "[stages.numbers]\nkind = \"numbers\"\ncount = {count}\n{changed}\n\
             [stages.squares]\nkind = \"square\"\nrows = \"numbers\"\n"
        );
        let pipeline = Pipeline::from_text(&text, "bench.toml", Path::new("/"), &registry, &Overrides::default())
            .map_err(|problems| format!("{problems:?}"))?;
        let options = RunOptions::with_threads(2);
        let summary = schedule::run(&pipeline, &store, &options, Arc::new(AtomicBool::new(false)), &|_| {})?;
        let squares = summary.nodes.iter().find(|node| node.id == "squares").ok_or("no such stage")?;
        let stages = runs::load(&store, &summary.run_id)?.stages()?;
        let names = read_column::<String>(&stages, "stage")?;
        let place = names.iter().position(|name| name == "squares").ok_or("no such stage")?;
        let wall_s = read_column::<f64>(&stages, "wall_s")?[place];
        let peak = read_column::<i64>(&stages, "peak_memory_bytes")?[place] >> 20;
        println!("| {what} | {wall_s:.1} | {peak} | {} |", squares.rows_computed);
    }
    Ok(())
}
