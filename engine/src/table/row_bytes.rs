//! The canonical bytes of what a stage reads of a row, and their digest: the row's share of a row key.
//!
//! Fields are length-prefixed and typed, so that no two different rows have the same bytes. The header (format, and
//! each column's name and type) is hashed once a table, the values once a row. Values are read through the type
//! that the stage declares, so a table with `Int64` where `Int32` is read gives the same keys.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, StringArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type, Schema, UInt32Type};

use super::{RecordError, TableError, readable_as};

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
    for (field, array) in reads.fields().iter().zip(batch.columns()) {
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

/// The columns of `reads`, in its order and of its types.
///
/// # Errors
/// As [`row_digests`].
pub fn read_columns(batch: &RecordBatch, reads: &Schema) -> Result<RecordBatch, TableError> {
    let columns = reads
        .fields()
        .iter()
        .map(|field| {
            let name = field.name();
            let column = batch.column_by_name(name).ok_or_else(|| RecordError::MissingColumn(name.clone()))?;
            let (found, expected) = (column.data_type(), field.data_type());
            if found == expected {
                return Ok(Arc::clone(column));
            }
            let wrong =
                || RecordError::WrongType { column: name.clone(), found: found.clone(), expected: expected.clone() };
            if !readable_as(found, expected) {
                return Err(wrong());
            }
            match cast(column, expected) {
                Ok(casted) if casted.null_count() == column.null_count() => Ok(casted),
                _ => Err(wrong()),
            }
        })
        .collect::<Result<Vec<_>, RecordError>>()?;
    for (field, column) in reads.fields().iter().zip(&columns) {
        if !field.is_nullable() && column.null_count() > 0 {
            let row = (0..column.len()).find(|&row| column.is_null(row)).unwrap_or_default();
            return Err(RecordError::Null { column: field.name().clone(), row }.into());
        }
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(reads.clone()), columns, &options)?)
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
