//! SQL by DataFusion over the tables that a statement names.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::catalog::{MemTable, MemorySchemaProvider};
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionConfig, SessionContext};
use tracetune_engine::cache::{OutputType, Store};
use tracetune_engine::diagnostic::{list, nearest};
use tracetune_engine::runs::{self as engine_runs, Run};

use super::runs;
use crate::ui::helped;

/// What every run's folder has.
const TELEMETRY: [&str; 4] = ["metrics", "stages", "outcomes", "params"];

/// What a statement comes to.
pub(super) fn answer(sql: &str, store: &Store) -> anyhow::Result<RecordBatch> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(answered(sql, store))
}

async fn answered(sql: &str, store: &Store) -> anyhow::Result<RecordBatch> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let wrong = |error: DataFusionError| anyhow::anyhow!(error.strip_backtrace());
    let state = context.state();
    let dialect = state.config().options().sql_parser.dialect;
    let statement = state.sql_to_statement(sql, &dialect).map_err(wrong)?;
    for reference in state.resolve_table_references(&statement).map_err(wrong)? {
        let batch = named(&reference, store)?;
        let provider = MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(wrong)?;
        if let Some(schema) = reference.schema() {
            let catalog = context.catalog("datafusion").expect("a session has a catalog");
            if catalog.schema(schema).is_none() {
                catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new())).map_err(wrong)?;
            }
        }
        context.register_table(reference, Arc::new(provider)).map_err(wrong)?;
    }
    let frame = context.sql(sql).await.map_err(wrong)?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.map_err(wrong)?;
    Ok(concat_batches(&schema, &batches)?)
}

/// The table that a statement means.
fn named(reference: &TableReference, store: &Store) -> anyhow::Result<RecordBatch> {
    let name = reference.table();
    match reference.schema() {
        None if TELEMETRY.contains(&name) => telemetry(name, store),
        None => stage(&runs::load(store, "latest")?, name, store),
        Some(run) => stage(&runs::load(store, run)?, name, store),
    }
}

/// The same table of all runs.
fn telemetry(name: &str, store: &Store) -> anyhow::Result<RecordBatch> {
    let mut batches = Vec::new();
    for run in engine_runs::list(store)? {
        // A run that goes on, or died, has none yet.
        if run.folder.join(format!("{name}.parquet")).is_file() {
            batches.push(match name {
                "metrics" => run.metrics()?,
                "stages" => run.stages()?,
                "params" => run.params()?,
                _ => run.outcomes()?,
            });
        }
    }
    let first = batches.first().map(RecordBatch::schema);
    let schema = first.ok_or_else(|| helped("no run has ended here yet", "`tracetune run` makes one"))?;
    // A run of another version may have other columns.
    batches.retain(|batch| batch.schema() == schema);
    Ok(concat_batches(&schema, &batches)?)
}

fn stage(run: &Run, name: &str, store: &Store) -> anyhow::Result<RecordBatch> {
    let (node, output) = run.address(name);
    let tables = || {
        run.record
            .nodes
            .iter()
            .filter(|node| node.outputs.values().any(|output| output.output_type == OutputType::Table))
    };
    run.table(store, node, output).map_err(|error| {
        let mut known: Vec<&str> = tables().map(|node| node.stage.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        known.extend(TELEMETRY);
        let help = match nearest(node, known.iter().copied()) {
            Some(near) => format!("did you mean `\"{near}\"`?"),
            None => format!("the tables are {}", list(&known)),
        };
        helped(error.to_string(), help)
    })
}
