//! Files of rows: JSON lines, a JSON array, or Parquet, as JSON objects.

use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use serde_json::{Map, Value};
use tracetune_engine::stage::StageError;
use tracetune_engine::table::{cast_exactly, read_table_file};

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

/// Texts, numbers, truth values, lists and structures of them; columns of other types are left out. A number that is NaN is
/// none, as pandas means it.
fn parquet(table: &RecordBatch) -> Result<Vec<Map<String, Value>>, String> {
    let mut rows = vec![Map::new(); table.num_rows()];
    for (field, array) in table.schema().fields().iter().zip(table.columns()) {
        let Some(values) = values(field.name(), array)? else { continue };
        for (row, value) in rows.iter_mut().zip(values) {
            row.insert(field.name().clone(), value);
        }
    }
    Ok(rows)
}

fn values(name: &str, array: &ArrayRef) -> Result<Option<Vec<Value>>, String> {
    let cast = |data_type| cast_exactly(name, array, &data_type).map_err(|error| error.to_string());
    Ok(match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
            Some(cast(DataType::LargeUtf8)?.as_string::<i64>().iter().map(Value::from).collect())
        }
        DataType::Boolean => Some(array.as_boolean().iter().map(Value::from).collect()),
        DataType::UInt64 => Some(array.as_primitive::<UInt64Type>().iter().map(Value::from).collect()),
        number if number.is_integer() => {
            Some(cast(DataType::Int64)?.as_primitive::<Int64Type>().iter().map(Value::from).collect())
        }
        number if number.is_floating() => {
            let numbers = cast(DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>();
            if let Some(row) = numbers.iter().position(|number| number.is_some_and(f64::is_infinite)) {
                return Err(format!(
                    "column `{name}` is {} in row {}, which JSON can't hold",
                    numbers.value(row),
                    row + 1
                ));
            }
            Some(numbers.iter().map(Value::from).collect())
        }
        DataType::List(item) | DataType::LargeList(item) => {
            let lists = cast(DataType::LargeList(item.clone()))?;
            let lists = lists.as_list::<i64>();
            let Some(items) = values(name, lists.values())? else { return Ok(None) };
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
                let name = format!("{name}.{}", field.name());
                for (object, value) in objects.iter_mut().zip(values(&name, column)?.into_iter().flatten()) {
                    object.insert(field.name().clone(), value);
                }
            }
            let object = |(row, object)| if parts.is_null(row) { Value::Null } else { Value::Object(object) };
            Some(objects.into_iter().enumerate().map(object).collect())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, UInt64Array};

    use super::*;

    #[test]
    fn large_numbers_are_what_they_are() {
        let numbers: ArrayRef = Arc::new(UInt64Array::from(vec![Some(1), None, Some(u64::MAX)]));
        let rows = parquet(&RecordBatch::try_from_iter([("n", numbers)]).unwrap()).unwrap();
        let numbers: Vec<&Value> = rows.iter().map(|row| &row["n"]).collect();
        assert_eq!(numbers, [&Value::from(1), &Value::Null, &Value::from(u64::MAX)]);
    }

    #[test]
    fn a_number_that_json_can_not_hold_is_named_with_file_column_and_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY]));
        let table = RecordBatch::try_from_iter([("x", numbers)]).unwrap();
        std::fs::write(&path, tracetune_engine::table::table_to_bytes(&table).unwrap()).unwrap();
        let error = rows(&path).err().unwrap().to_string();
        assert!(error.ends_with("a.parquet`: column `x` is inf in row 2, which JSON can't hold"), "{error}");
        assert_eq!(parquet(&table.slice(0, 1)).unwrap()[0]["x"], Value::Null);
    }
}
