//! `tracetune query`

use std::path::PathBuf;

use arrow::array::RecordBatch;
use serde_json::json;
use tracetune_engine::cache::Store;

use crate::exit;
use crate::out_file::write_table;
use crate::session::Session;
use crate::ui::table;

/// Ask all runs and their tables in SQL
///
/// `metrics`, `params`, `stages` and `outcomes` are those of all runs. Any other table is a stage's: `"verdicts@2"` of the latest
/// run, `"20261122-2154"."verdicts@2"` of the run whose id begins so, with `.OUTPUT` after the stage for an output that
/// is not its first.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tracetune query \"select run, round, value from metrics where metric = 'pass@1'\"
  tracetune query 'select verdict, count(*) from \"verdicts@2\" group by verdict'")]
pub(crate) struct Args {
    /// One statement
    sql: String,
    /// Also write the answer as a Parquet table
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Prints the answer as a table. JSON: `{rows: [{…}]}`.
pub(crate) fn query(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    let batch = answer(&args.sql, &store)?;
    if let Some(path) = &args.out {
        write_table(path, &batch.schema(), [Ok(batch.clone())])?;
    }
    if session.ui.json {
        session.ui.answer_json(&json!({"rows": table::json_rows(&batch)}));
        return Ok(exit::DONE);
    }
    session.ui.answer(table::rows(&batch, batch.num_rows(), &[], usize::MAX).0);
    Ok(exit::DONE)
}

#[cfg(feature = "query")]
fn answer(sql: &str, store: &Store) -> anyhow::Result<RecordBatch> {
    super::sql::answer(sql, store)
}

#[cfg(not(feature = "query"))]
fn answer(_: &str, _: &Store) -> anyhow::Result<RecordBatch> {
    let help = "build it with `--features query`, or ask DuckDB, Polars or pandas: README.md says how";
    Err(crate::ui::helped("this tracetune was built without SQL", help))
}
