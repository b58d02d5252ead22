//! Values in another type, each of them as it is.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, UInt64Array};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;

use super::{RecordError, shown};

/// A column in another type.
///
/// # Errors
/// [`RecordError::Value`] names the first row whose value the type does not hold: none becomes null.
pub fn cast_exactly(name: &str, column: &ArrayRef, expected: &DataType) -> Result<ArrayRef, RecordError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let error = match cast_with_options(column, expected, &options) {
        Ok(casted) => return Ok(casted),
        Err(error) => error,
    };
    let column_name = name.to_owned();
    if !can_cast_types(column.data_type(), expected) {
        let (found, expected) = (column.data_type().clone(), expected.clone());
        return Err(RecordError::WrongType { column: column_name, found, expected });
    }
    if is_overflow(&error) {
        let help = "divide the table, or leave the column out";
        return Err(RecordError::TooLong { column: column_name, row: 0, rows: column.len(), help });
    }
    // A part of a column of lists has the items of the whole beneath it: copies have their own rows alone.
    let copy = |rows: Range<usize>| {
        let rows = UInt64Array::from_iter_values(rows.map(|row| row as u64));
        cast_with_options(&take(column, &rows, None)?, expected, &options)
    };
    match (0..column.len()).find(|&row| copy(row..row + 1).is_err()) {
        Some(row) => {
            let value = array_value_to_string(&shown(column), row).unwrap_or_else(|_| "a value".to_owned());
            Err(RecordError::Value { column: column_name, row, value, expected: expected.clone() })
        }
        None => Ok(copy(0..column.len())?),
    }
}

/// Whether there was more than 32 bits count.
pub(super) fn is_overflow(error: &ArrowError) -> bool {
    let error = error.to_string();
    error.contains("overflow decoding") || error.contains("too large to cast") || error.contains("Offset overflow")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::ListArray;
    use arrow::datatypes::{Field, Int64Type};

    use super::*;

    #[test]
    fn a_number_that_does_not_fit_is_named() {
        let numbers: ArrayRef = Arc::new(UInt64Array::from(vec![Some(1), None, Some(u64::MAX)]));
        let error = cast_exactly("n", &numbers, &DataType::Int64).unwrap_err().to_string();
        assert_eq!(error, "column `n` is 18446744073709551615 in row 2, which Int64 can't hold");
        assert_eq!(cast_exactly("n", &numbers.slice(0, 2), &DataType::Int64).unwrap().null_count(), 1);
    }

    #[test]
    fn a_number_within_a_list_is_found_in_its_own_row() {
        let rows = [vec![Some(1)], vec![Some(2), Some(1 << 40)], vec![Some(3)]].map(Some);
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows));
        let narrow = DataType::List(Arc::new(Field::new("item", DataType::Int32, true)));
        let error = cast_exactly("l", &lists, &narrow).unwrap_err().to_string();
        assert!(error.starts_with("column `l` is [2, 1099511627776] in row 1, which "), "{error}");
        assert_eq!(cast_exactly("l", &lists.slice(2, 1), &narrow).unwrap().len(), 1);
    }
}
