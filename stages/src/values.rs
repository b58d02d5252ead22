//! A column that a parameter names, whatever its type, as texts or numbers.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type};
use tracetune_engine::stage::StageError;
use tracetune_engine::table::{RecordError, cast_exactly, shown};

/// A column in another type, as far as it can be.
fn column(table: &RecordBatch, name: &str, wanted: &DataType) -> Result<ArrayRef, StageError> {
    let schema = table.schema();
    let column = table.column_by_name(name).ok_or_else(|| {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        StageError::input(format!("there is no column `{name}`; the table has {}", names.join(", ")))
    })?;
    cast_exactly(name, &shown(column), wanted).map_err(|error| match error {
        RecordError::Value { .. } => StageError::input(error.to_string()),
        _ => StageError::input(format!("column `{name}` holds {}, not {wanted}", column.data_type())),
    })
}

/// A column's values as texts; a missing one is `null`.
///
/// # Errors
/// There is no such column, or its values can't be written as texts.
pub(crate) fn texts(table: &RecordBatch, name: &str) -> Result<Vec<String>, StageError> {
    let column = column(table, name, &DataType::Utf8)?;
    Ok(column.as_string::<i32>().iter().map(|text| text.unwrap_or("null").to_owned()).collect())
}

/// A column's values as numbers.
///
/// # Errors
/// There is no such column, or a value is no number.
pub(crate) fn numbers(table: &RecordBatch, name: &str) -> Result<Vec<f64>, StageError> {
    let column = column(table, name, &DataType::Float64)?;
    if column.null_count() > 0 {
        return Err(StageError::input(format!("column `{name}` holds what is no number")));
    }
    Ok(column.as_primitive::<Float64Type>().values().to_vec())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn a_value_that_is_no_text_is_an_error_not_missing() {
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&b"a"[..], b"\xff"]));
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![0, 1]).with_timezone("Europe/Berlin"));
        let table = RecordBatch::try_from_iter([("b", bytes), ("t", times)]).unwrap();
        let error = texts(&table, "b").unwrap_err().to_string();
        assert!(error.contains("column `b` is ff in row 1, which Utf8 can't hold"), "{error}");
        assert_eq!(texts(&table, "t").unwrap()[0], "1970-01-01T00:00:00Z");
        assert!(numbers(&table, "x").is_err());
    }
}
