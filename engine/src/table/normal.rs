//! One Arrow type for each meaning, so that equal rows are equal bytes whichever program they came from.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};

use super::TableError;

/// The same rows with normal types: `Utf8` for every kind of string, `List` (its field named `item`) for every kind
/// of list, `Binary` for every kind of bytes, plain values for dictionaries, no metadata.
///
/// # Errors
/// A column has a type that Parquet can't hold.
pub fn normalised(batch: &RecordBatch) -> Result<RecordBatch, TableError> {
    let fields: Vec<FieldRef> = batch.schema().fields().iter().map(|field| normal_field(field, field.name())).collect();
    let columns = batch
        .columns()
        .iter()
        .zip(&fields)
        .map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

/// A column as it is shown: times with a zone as times of UTC with their offset, which every program can read.
pub fn shown(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            let utc = DataType::Timestamp(*unit, Some("+00:00".into()));
            cast(column, &utc).unwrap_or_else(|_| Arc::clone(column))
        }
        _ => Arc::clone(column),
    }
}

pub(super) fn normal_field(field: &Field, name: &str) -> FieldRef {
    Arc::new(Field::new(name, normal_type(field.data_type()), field.is_nullable()))
}

fn normal_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => normal_type(values),
        DataType::RunEndEncoded(_, values) => normal_type(values.data_type()),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(Field::new("item", normal_type(item.data_type()), true)))
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| normal_field(field, field.name())).collect())
        }
        // Parquet has no seconds and keeps of a time zone only that there is one.
        DataType::Timestamp(unit, zone) => {
            let unit = if *unit == TimeUnit::Second { TimeUnit::Millisecond } else { *unit };
            DataType::Timestamp(unit, zone.as_ref().map(|_| "UTC".into()))
        }
        DataType::Time32(TimeUnit::Second) => DataType::Time32(TimeUnit::Millisecond),
        DataType::Date64 => DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Duration(_) => DataType::Int64,
        other => other.clone(),
    }
}
