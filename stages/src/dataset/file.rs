//! Files of rows: JSON lines, a JSON array, or Parquet, as JSON objects.

use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::error::ArrowError;
use serde_json::{Map, Value};
use tracetune_engine::stage::StageError;
use tracetune_engine::table::read_table_file;

/// A row of a file.
pub(super) struct Row {
    /// Its place, from 1: its line in JSON lines.
    pub(super) number: usize,
    /// Its fields.
    pub(super) object: Map<String, Value>,
}

/// Reads all rows of a file; the ending of its name says what it is. A row that is no JSON object is an error of its
/// own.
///
/// # Errors
/// [`StageError::Input`] naming the file.
pub(super) fn rows(path: &Path) -> Result<Vec<Result<Row, StageError>>, StageError> {
    let shown = path.display();
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending {
        "parquet" => {
            let table = read_table_file(path).map_err(|error| StageError::input(error.to_string()))?;
            let objects = parquet(&table).map_err(|error| StageError::input(format!("`{shown}`: {error}")))?;
            Ok(objects.into_iter().enumerate().map(|(row, object)| Ok(Row { number: row + 1, object })).collect())
        }
        "json" => {
            let values: Vec<Value> = serde_json::from_str(&text(path)?)
                .map_err(|error| StageError::input(format!("`{shown}` is no JSON array of objects: {error}")))?;
            Ok(values.into_iter().enumerate().map(|(row, value)| object(path, row + 1, value)).collect())
        }
        "jsonl" | "ndjson" => Ok(text(path)?
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(row, line)| {
                let value = serde_json::from_str(line)
                    .map_err(|error| StageError::input(format!("`{shown}`, line {}: not JSON: {error}", row + 1)))?;
                object(path, row + 1, value)
            })
            .collect()),
        _ => Err(StageError::input(format!(
            "`{shown}`: files of rows end in `.jsonl`, `.json` or `.parquet`, not in `.{ending}`"
        ))),
    }
}

pub(super) fn text(path: &Path) -> Result<String, StageError> {
    std::fs::read_to_string(path)
        .map_err(|error| StageError::input(format!("can't read `{}`: {error}", path.display())))
}

fn object(path: &Path, number: usize, value: Value) -> Result<Row, StageError> {
    match value {
        Value::Object(object) => Ok(Row { number, object }),
        _ => Err(StageError::input(format!("`{}`, row {number}: not a JSON object", path.display()))),
    }
}

/// Texts, numbers, truth values, lists and structures of them; columns of other types are left out.
fn parquet(table: &RecordBatch) -> Result<Vec<Map<String, Value>>, ArrowError> {
    let mut rows = vec![Map::new(); table.num_rows()];
    for (field, array) in table.schema().fields().iter().zip(table.columns()) {
        let Some(values) = values(array)? else { continue };
        for (row, value) in rows.iter_mut().zip(values) {
            row.insert(field.name().clone(), value);
        }
    }
    Ok(rows)
}

fn values(array: &ArrayRef) -> Result<Option<Vec<Value>>, ArrowError> {
    Ok(match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
            Some(cast(array, &DataType::LargeUtf8)?.as_string::<i64>().iter().map(Value::from).collect())
        }
        DataType::Boolean => Some(array.as_boolean().iter().map(Value::from).collect()),
        number if number.is_integer() => {
            Some(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().iter().map(Value::from).collect())
        }
        number if number.is_floating() => {
            Some(cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().iter().map(Value::from).collect())
        }
        DataType::List(item) | DataType::LargeList(item) => {
            let lists = cast(array, &DataType::LargeList(item.clone()))?;
            let lists = lists.as_list::<i64>();
            let Some(items) = values(lists.values())? else { return Ok(None) };
            let list = |row: usize| {
                let [start, end] = [row, row + 1].map(|at| usize::try_from(lists.value_offsets()[at]).unwrap_or(0));
                if lists.is_null(row) { Value::Null } else { Value::Array(items[start..end].to_vec()) }
            };
            Some((0..lists.len()).map(list).collect())
        }
        DataType::Struct(fields) => {
            let parts = array.as_struct();
            let mut objects = vec![Map::new(); parts.len()];
            for (field, column) in fields.iter().zip(parts.columns()) {
                for (object, value) in objects.iter_mut().zip(values(column)?.into_iter().flatten()) {
                    object.insert(field.name().clone(), value);
                }
            }
            let object = |(row, object)| if parts.is_null(row) { Value::Null } else { Value::Object(object) };
            Some(objects.into_iter().enumerate().map(object).collect())
        }
        _ => None,
    })
}
