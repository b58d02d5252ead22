//! A program that works row by row.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use tracetune_engine::registry::{RowSession, RowShape, RowWork};
use tracetune_engine::stage::{Artifact, Context, Inputs, RowKey, StageError};
use tracetune_engine::table::{read_columns, read_table_file, schema_of};

use super::{Params, RowWise, outputs, program};
use crate::column_types::data_type;

/// The port with the rows.
const ROWS: &str = "rows";
/// The column that says which row of its input a row belongs to.
const ROW: &str = "_row";

/// A row-wise command.
pub(super) struct RowCommand {
    pub(super) params: Params,
    pub(super) row_wise: RowWise,
}

impl RowWork for RowCommand {
    fn shape(&self) -> RowShape {
        let reads = self.row_wise.reads.iter().map(|name| Field::new(name, DataType::Null, true)).collect();
        let adds = self.row_wise.adds.iter();
        let adds = adds.filter_map(|(name, kind)| Some(Field::new(name, data_type(kind)?, true))).collect();
        RowShape { port: ROWS, reads: schema_of(reads), adds: schema_of(adds) }
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
        self.params.segment_rows.max(1)
    }
    fn open<'a>(&'a self, inputs: &Inputs, _: &Context) -> Result<Box<dyn RowSession + 'a>, StageError> {
        Ok(Box::new(Calls { command: self, inputs: inputs.clone() }))
    }
}

/// One call of the program a segment.
struct Calls<'a> {
    command: &'a RowCommand,
    inputs: Inputs,
}

impl RowSession for Calls<'_> {
    fn rows(
        &mut self,
        rows: &RecordBatch,
        _parts: &[i32],
        _keys: &[RowKey],
        cx: &Context,
    ) -> Result<(RecordBatch, Vec<u32>), StageError> {
        let folder = tempfile::tempdir_in(&cx.scratch)?;
        self.inputs.0.insert(ROWS.to_owned(), Artifact::Table(rows.clone()));
        let declared = outputs::declared(&BTreeMap::new());
        let (mut places, tail) = program::run(&self.command.params, &declared, &self.inputs, folder.path(), cx)?;
        let program = self.command.params.run.join(" ");
        let out = places.remove("rows").unwrap_or_default();
        if !out.is_file() {
            return Err(StageError::input(format!("`{program}` wrote nothing to TRACETUNE_OUT\n{tail}")));
        }
        if !tail.is_empty() {
            cx.note(&tail);
        }
        let wrong = |what: String| StageError::input(format!("`{program}` wrote {what}"));
        let table = read_table_file(&out).map_err(|error| wrong(format!("what can't be read: {error}")))?;
        let (order, counts) = match table.column_by_name(ROW) {
            Some(column) => belonging(column, rows.num_rows()).map_err(wrong)?,
            None if table.num_rows() == rows.num_rows() => {
                ((0..table.num_rows() as u32).collect(), vec![1; table.num_rows()])
            }
            None => {
                let (found, expected) = (table.num_rows(), rows.num_rows());
                return Err(wrong(format!("{found} rows for {expected} of its input, and no column `{ROW}`")));
            }
        };
        let adds = self.command.shape().adds;
        let added = added(&table, &adds).map_err(wrong)?;
        let order = UInt32Array::from(order);
        Ok((take_record_batch(&added, &order).map_err(|error| wrong(error.to_string()))?, counts))
    }
}

/// The output's rows sorted by the row of the input that each belongs to, and how many belong to each.
fn belonging(column: &ArrayRef, rows: usize) -> Result<(Vec<u32>, Vec<u32>), String> {
    let numbers = cast(column, &DataType::UInt32).map_err(|error| format!("a column `{ROW}`: {error}"))?;
    let numbers = numbers.as_primitive::<UInt32Type>();
    let mut counts = vec![0; rows];
    for (place, number) in numbers.iter().enumerate() {
        let count = number.and_then(|number| counts.get_mut(number as usize));
        *count.ok_or_else(|| {
            let found = number.map_or_else(|| "null".to_owned(), |number| number.to_string());
            format!("row {place}: `{ROW}` is {found}, must be between 0 and {}", rows - 1)
        })? += 1;
    }
    let mut order: Vec<u32> = (0..numbers.len() as u32).collect();
    order.sort_by_key(|&place| numbers.value(place as usize));
    Ok((order, counts))
}

/// The columns that were to be added.
fn added(table: &RecordBatch, adds: &Schema) -> Result<RecordBatch, String> {
    let known = |name: &str| name == ROW || adds.field_with_name(name).is_ok();
    if let Some(extra) = table.schema().fields().iter().find(|field| !known(field.name())) {
        return Err(format!("a column `{}` that is not among `row_wise.adds`", extra.name()));
    }
    if adds.fields().is_empty() {
        let options = RecordBatchOptions::new().with_row_count(Some(table.num_rows()));
        let empty = RecordBatch::try_new_with_options(Arc::new(adds.clone()), Vec::new(), &options);
        return empty.map_err(|error| error.to_string());
    }
    read_columns(table, adds).map_err(|error| format!("another table than `row_wise.adds` says: {error}"))
}
