//! A function that is called for each row.

use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use tracetune_engine::registry::{RowResults, RowSession, RowShape, RowWork};
use tracetune_engine::stage::{Context, Inputs, RowKey, StageError};
use tracetune_engine::table::schema_of;

use super::Params;
use super::marshal::{Unreadable, Value, Writer, array};
use super::worker::Worker;
use crate::column_types::data_type;

/// The port with the rows.
pub(super) const ROWS: &str = "rows";

/// Rows of a request hold about so many bytes at most.
const REQUEST_BYTES: usize = 16 << 20;

pub(super) struct RowFunction {
    params: Params,
    shape: RowShape,
}

impl RowFunction {
    pub(super) fn new(params: Params) -> Self {
        let function = params.function();
        // A column twice is read once.
        let mut reads: Vec<String> = Vec::new();
        for name in function.reads(&params) {
            if !reads.contains(&name) {
                reads.push(name);
            }
        }
        let reads = reads.iter().map(|name| Field::new(name, DataType::Null, true)).collect();
        let adds = function.adds(&params);
        let adds = adds.iter().filter_map(|(name, kind)| Some(Field::new(name, data_type(kind)?, true))).collect();
        let shape = RowShape { port: ROWS, reads: schema_of(reads), adds: schema_of(adds) };
        Self { params, shape }
    }
}

impl RowWork for RowFunction {
    fn shape(&self) -> RowShape {
        self.shape.clone()
    }
    fn tables_as_files(&self) -> bool {
        true
    }
    fn part_params(&self) -> &'static [&'static str] {
        &["segment_rows"]
    }
    fn session_threads(&self) -> usize {
        1
    }
    fn segment_items(&self) -> usize {
        self.params.segment_rows
    }
    fn is_timed(&self) -> bool {
        true
    }
    fn open<'a>(&'a self, inputs: &Inputs, cx: &Context) -> Result<Box<dyn RowSession + 'a>, StageError> {
        let folder = tempfile::tempdir_in(&cx.scratch)?;
        let worker = Worker::start(&self.params, inputs, &[], folder.path(), cx)?;
        let reads = self.params.function().reads(&self.params);
        Ok(Box::new(Calls { worker, reads, adds: self.shape.adds.clone(), _folder: folder }))
    }
}

/// A worker that is called for some rows at a time.
struct Calls {
    worker: Worker,
    reads: Vec<String>,
    adds: SchemaRef,
    /// With its inputs.
    _folder: tempfile::TempDir,
}

impl RowSession for Calls {
    fn rows(
        &mut self,
        rows: &RecordBatch,
        parts: &[i32],
        keys: &[RowKey],
        cx: &Context,
    ) -> Result<(RecordBatch, Vec<u32>), StageError> {
        let results = self.some_rows(rows, parts, keys, Duration::MAX, cx)?;
        match results.failed.into_iter().next() {
            Some((_, error)) => Err(StageError::Input(error)),
            None if results.done == rows.num_rows() => Ok((results.added, results.counts)),
            None => Err(StageError::input("a worker left rows out")),
        }
    }

    fn some_rows(
        &mut self,
        rows: &RecordBatch,
        _parts: &[i32],
        _keys: &[RowKey],
        time: Duration,
        _: &Context,
    ) -> Result<RowResults, StageError> {
        let row_bytes = (rows.get_array_memory_size() / rows.num_rows().max(1)).max(1);
        let count = match time {
            Duration::MAX => rows.num_rows(),
            _ => rows.num_rows().min((REQUEST_BYTES / row_bytes).max(1)),
        };
        let mut request = Writer::default();
        request.tuple(3);
        request.float(time.as_secs_f64().min(1e12));
        request.tuple(self.reads.len());
        for name in &self.reads {
            let column: ArrayRef = rows.column_by_name(name).expect("it was read").slice(0, count);
            request.column(&column).map_err(|other| {
                let help = "turn it into a string or a number first, or take whole tables";
                StageError::environment(
                    format!("column `{name}` is {other}, which a function of rows can't read"),
                    help,
                )
            })?;
        }
        request.int(count as i128);
        let answer = self.worker.call(&request.0)?;
        let found = results(answer, &self.adds, count);
        found.map_err(|error| StageError::input(error.to_string()))
    }
}

/// What a worker says of `count` rows.
fn results(answer: Vec<Value>, adds: &SchemaRef, count: usize) -> Result<RowResults, Unreadable> {
    let [done, counts, columns, failed] = <[Value; 4]>::try_from(answer).map_err(|_| Unreadable)?;
    let done = done.size()?;
    let counts: Vec<u32> =
        counts.list()?.iter().map(|count| Ok(count.size()? as u32)).collect::<Result<_, Unreadable>>()?;
    let columns = columns.list()?;
    if done > count || counts.len() != done || columns.len() != adds.fields().len() {
        return Err(Unreadable);
    }
    let arrays = columns.into_iter().zip(adds.fields()).map(|(column, field)| array(column.list()?, field.data_type()));
    let added = RecordBatch::try_new(adds.clone(), arrays.collect::<Result<_, _>>()?).map_err(|_| Unreadable)?;
    let failure = |value: Value| {
        let [row, error] = <[Value; 2]>::try_from(value.list()?).map_err(|_| Unreadable)?;
        Ok((row.size()?, error.text()?))
    };
    let failed = failed.list()?.into_iter().map(failure).collect::<Result<_, _>>()?;
    Ok(RowResults { done, added, counts, failed })
}
