//! Runs a row stage: finds the rows that no segment has, computes them segment by segment, puts the table together.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take_record_batch;

use super::job::{JobError, output_error};
use crate::cache::{Signature, Store};
use crate::plan::row_keys;
use crate::registry::{RowShape, RowWork};
use crate::stage::{Context, Inputs, Reporter, RowKey, StageError};
use crate::table::{TableError, append_columns, read_columns, row_digests};

/// What a row stage gave.
pub(super) struct RowsOutput {
    pub table: RecordBatch,
    /// Units of work: rows and parts.
    pub items: u64,
    pub computed: u64,
}

/// A row stage that is to be run.
pub(super) struct Rows<'a> {
    pub kind: &'a str,
    pub work: &'a dyn RowWork,
    pub shape: RowShape,
    pub signature: Signature,
    pub store: &'a Store,
}

/// Computes what is missing and gives the whole table: the same bytes whatever was missing. `waiting` is called if
/// another run is at the same rows.
pub(super) fn run(
    Rows { kind, work, shape, signature, store }: &Rows,
    mut inputs: Inputs,
    cx: &Context,
    waiting: impl FnOnce(),
) -> Result<RowsOutput, JobError> {
    // The stage must not see the other rows: what it may compute from is in the row key.
    let Some(crate::stage::Artifact::Table(table)) = inputs.0.remove(shape.port) else {
        return Err(StageError::input(format!("input `{}` is not connected to a table", shape.port)).into());
    };
    let parts = work.parts();
    let digests = row_digests(&table, &shape.reads)?;
    let keys: Vec<RowKey> = row_keys(signature, &digests, &parts).collect();

    let lock = store.lock_segments(signature, &|| cx.cancelled(), waiting)?;
    let mut segments = store.segments(signature)?;
    let mut seen = HashSet::new();
    let missing: Vec<usize> =
        (0..keys.len()).filter(|&item| !segments.contains(&keys[item]) && seen.insert(keys[item])).collect();

    if !missing.is_empty() {
        let reads = read_columns(&table, &shape.reads)?;
        let mut session = work.open(&inputs, cx)?;
        let mut done = 0;
        for chunk in missing.chunks(work.segment_items()) {
            if cx.cancelled() {
                return Err(StageError::Cancelled.into());
            }
            let cx = Context { reporter: Arc::new(Shifted::new(&cx.reporter, done, missing.len())), ..cx.clone() };
            let chunk_rows: UInt32Array = chunk.iter().map(|item| Some((item / parts.len()) as u32)).collect();
            let rows = take_record_batch(&reads, &chunk_rows).map_err(TableError::from)?;
            let chunk_parts: Vec<i32> = chunk.iter().map(|item| parts[item % parts.len()]).collect();
            let chunk_keys: Vec<RowKey> = chunk.iter().map(|&item| keys[item]).collect();
            let (added, counts) = session.rows(&rows, &chunk_parts, &chunk_keys, &cx)?;
            let found: u64 = counts.iter().map(|&count| u64::from(count)).sum();
            if counts.len() != chunk.len() || found != added.num_rows() as u64 {
                return Err(output_error(kind, "gave another number of rows than it said"));
            }
            let items = (chunk_keys.as_slice(), chunk_parts.as_slice(), counts.as_slice());
            store.put_segment(signature, &mut segments, items, &added)?;
            done += chunk.len();
            cx.progress(chunk.len() as u64, chunk.len() as u64, "");
        }
    }
    drop(lock);

    let (added, counts) = segments.gather(&keys, &shape.adds)?;
    let carried_rows: UInt32Array = counts
        .iter()
        .enumerate()
        .flat_map(|(item, &count)| std::iter::repeat_n(Some((item / parts.len()) as u32), count as usize))
        .collect();
    let table = assemble(&table, &carried_rows, &added)?;
    Ok(RowsOutput { table, items: keys.len() as u64, computed: missing.len() as u64 })
}

/// The input's columns, each row as often as it has output rows, and the added ones.
fn assemble(table: &RecordBatch, rows: &UInt32Array, added: &RecordBatch) -> Result<RecordBatch, TableError> {
    let schema = append_columns(&table.schema(), &added.schema());
    let kept: Vec<usize> = (0..table.num_columns())
        .filter(|&column| added.column_by_name(table.schema().field(column).name()).is_none())
        .collect();
    let carried = take_record_batch(&table.project(&kept)?, rows)?;
    let columns = carried.columns().iter().chain(added.columns()).cloned().collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// Progress in one segment as progress of the stage.
struct Shifted {
    reporter: Arc<dyn Reporter>,
    done: u64,
    total: u64,
}

impl Shifted {
    fn new(reporter: &Arc<dyn Reporter>, done: usize, total: usize) -> Self {
        Self { reporter: Arc::clone(reporter), done: done as u64, total: total as u64 }
    }
}

impl Reporter for Shifted {
    fn progress(&self, done: u64, _total: u64, text: &str) {
        self.reporter.progress((self.done + done).min(self.total), self.total, text);
    }
    fn note(&self, text: &str) {
        self.reporter.note(text);
    }
}
