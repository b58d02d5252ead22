//! Columns as JSON for a worker, and what it returns as columns.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder, ListArray,
    NullArray, StringBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, UInt64Type};
use serde_json::Value;

/// The name under which a worker knows a type; `None` for one that it can't take.
pub(super) fn type_name(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Null | DataType::Utf8 => "string".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        kind if kind.is_integer() => "int64".to_owned(),
        DataType::Float32 | DataType::Float64 => "float64".to_owned(),
        DataType::List(item) => format!("list of {}", type_name(item.data_type())?),
        _ => return None,
    })
}

/// A column's values; floats as the bits of their 64-bit form. The column has a [`type_name`].
pub(super) fn to_json(column: &ArrayRef) -> Vec<Value> {
    let rows = 0..column.len();
    let or_null = |row: usize, value: Value| if column.is_null(row) { Value::Null } else { value };
    match column.data_type() {
        DataType::Utf8 => {
            let text = column.as_string::<i32>();
            rows.map(|row| or_null(row, text.value(row).into())).collect()
        }
        DataType::Boolean => {
            let flags = column.as_boolean();
            rows.map(|row| or_null(row, flags.value(row).into())).collect()
        }
        DataType::UInt64 => {
            let numbers = column.as_primitive::<UInt64Type>();
            rows.map(|row| or_null(row, numbers.value(row).into())).collect()
        }
        kind if kind.is_integer() => {
            let numbers = cast(column, &DataType::Int64).expect("integers fit");
            let numbers = numbers.as_primitive::<Int64Type>();
            rows.map(|row| or_null(row, numbers.value(row).into())).collect()
        }
        DataType::Float32 | DataType::Float64 => {
            let numbers = cast(column, &DataType::Float64).expect("floats fit");
            let numbers = numbers.as_primitive::<Float64Type>();
            rows.map(|row| or_null(row, numbers.value(row).to_bits().into())).collect()
        }
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            rows.map(|row| if lists.is_null(row) { Value::Null } else { to_json(&lists.value(row)).into() }).collect()
        }
        _ => vec![Value::Null; column.len()],
    }
}

/// Values as a column of a type that a stage may add; `None` if one of them is of another type.
pub(super) fn from_json(values: &[&Value], data_type: &DataType) -> Option<ArrayRef> {
    macro_rules! primitive {
        ($builder:ty, $read:expr) => {{
            let mut builder = <$builder>::new();
            for value in values {
                builder.append_option(if value.is_null() { None } else { Some($read(*value)?) });
            }
            Arc::new(builder.finish()) as ArrayRef
        }};
    }
    let float = |value: &Value| value.as_u64().map(f64::from_bits);
    Some(match data_type {
        DataType::Utf8 => primitive!(StringBuilder, Value::as_str),
        DataType::Boolean => primitive!(BooleanBuilder, Value::as_bool),
        DataType::Int64 => primitive!(Int64Builder, Value::as_i64),
        DataType::Int32 => {
            primitive!(Int32Builder, |value: &Value| value.as_i64().and_then(|number| i32::try_from(number).ok()))
        }
        DataType::Float64 => primitive!(Float64Builder, float),
        DataType::Float32 => primitive!(Float32Builder, |value: &Value| float(value).map(|number| number as f32)),
        DataType::List(item) => {
            let mut flat: Vec<&Value> = Vec::new();
            let mut lengths = Vec::with_capacity(values.len());
            for value in values {
                let items: &[Value] = if value.is_null() { &[] } else { value.as_array()? };
                lengths.push(items.len());
                flat.extend(items);
            }
            let nulls: NullBuffer = values.iter().map(|value| !value.is_null()).collect();
            let field = Arc::new(Field::new("item", item.data_type().clone(), true));
            let items = from_json(&flat, item.data_type())?;
            Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), items, Some(nulls)))
        }
        DataType::Null => Arc::new(NullArray::new(values.len())),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::Float64Type;
    use tracetune_engine::table::table_to_bytes;

    use super::*;

    #[test]
    fn values_come_back_bit_by_bit() {
        let odd = [Some(0.1 + 0.2), Some(f64::NAN), Some(-0.0), Some(f64::INFINITY), Some(5e-324), None];
        let lists = ListArray::from_iter_primitive::<Float64Type, _, _>(vec![Some(odd.to_vec()), None, Some(vec![])]);
        let columns: [ArrayRef; 4] = [
            Arc::new(Float64Array::from(odd.to_vec())),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None])),
            Arc::new(StringArray::from(vec![Some("a\u{0}\u{1f600}"), Some(""), None])),
            Arc::new(lists),
        ];
        for column in columns {
            let text = serde_json::to_string(&to_json(&column)).unwrap();
            let values: Vec<Value> = serde_json::from_str(&text).unwrap();
            let back = from_json(&values.iter().collect::<Vec<_>>(), column.data_type()).unwrap();
            let bytes = |column: ArrayRef| {
                table_to_bytes(&RecordBatch::try_from_iter_with_nullable([("x", column, true)]).unwrap()).unwrap()
            };
            assert!(bytes(back) == bytes(Arc::clone(&column)), "{column:?}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_none() {
        assert!(from_json(&[&"x".into()], &DataType::Int64).is_none());
        assert!(from_json(&[&(1_i64 << 40).into()], &DataType::Int32).is_none());
    }
}
