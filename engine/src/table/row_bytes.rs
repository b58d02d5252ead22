//! The canonical bytes of what a stage reads of a row, and their digest: the row's share of a row key.
//!
//! Fields are length-prefixed and typed, so that no two different rows have the same bytes. The header (format, and
//! each column's name and type) is hashed once a table, the values once a row. Values are read through the type
//! that the stage declares, so a table with `Int64` where `Int32` is read gives the same keys.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, StringArray, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type, Int32Type, Int64Type, Schema, UInt32Type};

use super::{RecordError, TableError, cast_exactly, readable_as};

/// Goes up when the canonical bytes change: all row keys change with it.
const FORMAT: &[u8] = b"tracetune row 1";

/// The digest of each row's columns of `reads`; other columns are left alone.
///
/// # Errors
/// A column is missing, or has a type that can't be read as the declared one.
pub fn row_digests(batch: &RecordBatch, reads: &Schema) -> Result<Vec<[u8; 32]>, TableError> {
    let batch = read_columns(batch, reads)?;
    let mut header = blake3::Hasher::new();
    write_bytes(FORMAT, |bytes| _ = header.update(bytes));
    let mut columns = Vec::new();
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        write_bytes(field.name().as_bytes(), |bytes| _ = header.update(bytes));
        write_bytes(type_name(field.data_type()).as_bytes(), |bytes| _ = header.update(bytes));
        columns.push(Values::of(field.name(), array)?);
    }
    let mut buffer = header.finalize().as_bytes().to_vec();
    let prefix = buffer.len();
    Ok((0..batch.num_rows())
        .map(|row| {
            buffer.truncate(prefix);
            for column in &columns {
                column.write(row, &mut buffer);
            }
            *blake3::hash(&buffer).as_bytes()
        })
        .collect())
}

/// In a field's metadata: a table may lack the column, which is then read as nulls.
const OPTIONAL: &str = "optional";

/// A field that a table may lack.
pub(crate) fn may_lack(field: &Field) -> Field {
    field.clone().with_nullable(true).with_metadata([(OPTIONAL.to_owned(), String::new())].into())
}

/// Whether a table may lack the field.
pub(crate) fn is_optional(field: &Field) -> bool {
    field.metadata().contains_key(OPTIONAL)
}

/// The columns of `reads`, in its order and of its types; one declared as null is read as what it is.
///
/// # Errors
/// As [`row_digests`].
pub fn read_columns(batch: &RecordBatch, reads: &Schema) -> Result<RecordBatch, TableError> {
    let columns = reads
        .fields()
        .iter()
        .map(|field| {
            let name = field.name();
            let Some(column) = batch.column_by_name(name) else {
                let missing = || Err(RecordError::MissingColumn(name.clone()));
                return if is_optional(field) {
                    Ok(new_null_array(field.data_type(), batch.num_rows()))
                } else {
                    missing()
                };
            };
            let (found, expected) = (column.data_type(), field.data_type());
            if found == expected || *expected == DataType::Null {
                return Ok(Arc::clone(column));
            }
            let wrong =
                || RecordError::WrongType { column: name.clone(), found: found.clone(), expected: expected.clone() };
            if !readable_as(found, expected) {
                return Err(wrong());
            }
            cast_exactly(name, column, expected)
        })
        .collect::<Result<Vec<_>, RecordError>>()?;
    for (field, column) in reads.fields().iter().zip(&columns) {
        if !field.is_nullable() && column.null_count() > 0 {
            let row = (0..column.len()).find(|&row| column.is_null(row)).unwrap_or_default();
            return Err(RecordError::Null { column: field.name().clone(), row }.into());
        }
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let typed = |(field, column): (&FieldRef, &ArrayRef)| {
        Arc::new(field.as_ref().clone().with_data_type(column.data_type().clone()))
    };
    let fields: Vec<FieldRef> = reads.fields().iter().zip(&columns).map(typed).collect();
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

fn write_bytes(bytes: &[u8], mut write: impl FnMut(&[u8])) {
    write(&(bytes.len() as u64).to_le_bytes());
    write(bytes);
}

/// Part of the format: never change a name.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "bool".to_owned(),
        DataType::Int32 => "int32".to_owned(),
        DataType::UInt32 => "uint32".to_owned(),
        DataType::Int64 => "int64".to_owned(),
        DataType::Float32 => "float32".to_owned(),
        DataType::Float64 => "float64".to_owned(),
        DataType::Utf8 => "string".to_owned(),
        DataType::List(item) => format!("list<{}>", type_name(item.data_type())),
        other => format!("unkeyable {other}"),
    }
}

/// A column whose type is looked at once, not once a row.
enum Values<'a> {
    Bool(&'a BooleanArray),
    /// Numbers of a fixed width, as their little-endian bytes.
    Fixed {
        bytes: &'a [u8],
        width: usize,
        nulls: Option<&'a NullBuffer>,
    },
    Text(&'a StringArray),
    List {
        lists: &'a ListArray,
        items: Box<Values<'a>>,
    },
}

impl<'a> Values<'a> {
    fn of(name: &str, array: &'a ArrayRef) -> Result<Self, TableError> {
        macro_rules! fixed {
            ($type:ty) => {{
                let array = array.as_primitive::<$type>();
                let width = size_of::<<$type as arrow::datatypes::ArrowPrimitiveType>::Native>();
                Self::Fixed { bytes: array.values().inner().as_slice(), width, nulls: array.nulls() }
            }};
        }
        Ok(match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Int32 => fixed!(Int32Type),
            DataType::UInt32 => fixed!(UInt32Type),
            DataType::Int64 => fixed!(Int64Type),
            DataType::Float32 => fixed!(Float32Type),
            DataType::Float64 => fixed!(Float64Type),
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::List(_) => {
                let lists = array.as_list::<i32>();
                Self::List { lists, items: Box::new(Self::of(name, lists.values())?) }
            }
            other => return Err(TableError::Unkeyable { column: name.to_owned(), data_type: other.clone() }),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(array) => array.is_null(row),
            Self::Fixed { nulls, .. } => nulls.is_some_and(|nulls| nulls.is_null(row)),
            Self::Text(array) => array.is_null(row),
            Self::List { lists, .. } => lists.is_null(row),
        }
    }

    /// 0 for null, or 1 and the value: fixed width, or its length first.
    fn write(&self, row: usize, buffer: &mut Vec<u8>) {
        if self.is_null(row) {
            return buffer.push(0);
        }
        buffer.push(1);
        match self {
            Self::Bool(array) => buffer.push(u8::from(array.value(row))),
            Self::Fixed { bytes, width, .. } => buffer.extend_from_slice(&bytes[row * width..(row + 1) * width]),
            Self::Text(array) => write_bytes(array.value(row).as_bytes(), |bytes| buffer.extend_from_slice(bytes)),
            Self::List { lists, items } => {
                let offsets = &lists.value_offsets()[row..=row + 1];
                buffer.extend_from_slice(&((offsets[1] - offsets[0]) as u64).to_le_bytes());
                for item in offsets[0]..offsets[1] {
                    items.write(item as usize, buffer);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use arrow::array::{Int64Array, LargeStringArray};
    use arrow::compute::cast;
    use arrow::datatypes::Field;
    use proptest::prelude::*;

    use super::*;
    use crate::table::Record;

    crate::record! {
        #[derive(PartialOrd)]
        struct Row {
            a: String,
            b: Option<String>,
            c: Vec<String>,
            d: Option<i32>,
            e: bool,
            f: Vec<Vec<i64>>,
        }
    }

    fn digests(rows: &[Row]) -> Vec<[u8; 32]> {
        row_digests(&Row::write(rows).unwrap(), &Row::schema()).unwrap()
    }

    fn row() -> impl Strategy<Value = Row> {
        let text = "[ab]{0,2}";
        (
            text,
            prop::option::of(text),
            prop::collection::vec(text, 0..3),
            prop::option::of(0..3i32),
            any::<bool>(),
            prop::collection::vec(prop::collection::vec(0..2i64, 0..3), 0..3),
        )
            .prop_map(|(a, b, c, d, e, f)| Row { a, b, c, d, e, f })
    }

    proptest! {
        #[test]
        fn rows_have_one_digest_if_and_only_if_they_are_equal(rows in prop::collection::vec(row(), 0..40)) {
            let digests = digests(&rows);
            for (one, a) in rows.iter().zip(&digests) {
                for (other, b) in rows.iter().zip(&digests) {
                    prop_assert_eq!(one == other, a == b, "{:?} {:?}", one, other);
                }
            }
        }

        #[test]
        fn a_digest_does_not_depend_on_the_other_rows(rows in prop::collection::vec(row(), 1..10)) {
            let batch = Row::write(&rows).unwrap();
            let all = row_digests(&batch, &Row::schema()).unwrap();
            for (at, digest) in all.iter().enumerate() {
                let alone = row_digests(&batch.slice(at, 1), &Row::schema()).unwrap();
                prop_assert_eq!(&alone[0], digest);
            }
        }
    }

    #[test]
    fn the_digest_of_a_row_is_known() {
        let row =
            Row { a: "x".to_owned(), b: None, c: vec!["y".to_owned()], d: Some(-1), e: true, f: vec![vec![], vec![7]] };
        // If this differs, every cached row is lost: raise `FORMAT`.
        assert_eq!(
            blake3::Hash::from_bytes(digests(&[row])[0]).to_hex().as_str(),
            "60659672a642a3382403d5fa03260386be80ddc526e2e154a498a5a8e5a14470"
        );
    }

    #[test]
    fn names_types_and_the_format_are_in_the_digest() {
        let batch = |name: &str, array: ArrayRef| RecordBatch::try_from_iter([(name, array)]).unwrap();
        let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
        let digest = |batch: RecordBatch| row_digests(&batch, &batch.schema()).unwrap()[0];
        let all = [
            digest(batch("x", Arc::clone(&number))),
            digest(batch("y", Arc::clone(&number))),
            digest(batch("x", Arc::clone(&text))),
            digest(batch("x", cast(&number, &DataType::Int32).unwrap())),
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn a_column_is_keyed_as_the_type_it_is_read_as() {
        let reads = Schema::new(vec![Field::new("s", DataType::Utf8, false), Field::new("n", DataType::Int32, false)]);
        let strings: [ArrayRef; 2] =
            [Arc::new(StringArray::from(vec!["a"])), Arc::new(LargeStringArray::from(vec!["a"]))];
        let digests: Vec<_> = strings
            .into_iter()
            .zip([DataType::Int32, DataType::Int64])
            .map(|(strings, numbers)| {
                let number = cast(&Int64Array::from(vec![5]), &numbers).unwrap();
                let batch = RecordBatch::try_from_iter([("n", number), ("s", strings)]).unwrap();
                row_digests(&batch, &reads).unwrap()
            })
            .collect();
        assert_eq!(digests[0], digests[1]);
    }

    #[test]
    fn a_missing_column_is_named() {
        let batch = RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        assert_eq!(row_digests(&batch, &Row::schema()).unwrap_err().to_string(), "column `a` is missing");
    }
}
