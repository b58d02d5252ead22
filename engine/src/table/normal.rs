//! One Arrow type for each meaning, so that equal rows are equal bytes whichever program they came from.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

use super::hints::{check, extension};
use super::{RecordError, TableError, cast_exactly};

/// The same rows with normal types: `Utf8` for every kind of string, `List` (its field named `item`) for every kind
/// of list, `Binary` for every kind of bytes, plain values for dictionaries, no metadata but the extension types of fields.
///
/// # Errors
/// A column has a type that Parquet can't hold, or a value that its normal type can't.
pub fn normalised(batch: &RecordBatch) -> Result<RecordBatch, TableError> {
    let schema = normal_schema(&batch.schema());
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast_exactly(field.name(), column, field.data_type()),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// A column as it is shown: times with a zone, in lists and structures too, as times of UTC with their offset, which every
/// program can read.
pub fn shown(column: &ArrayRef) -> ArrayRef {
    let data_type = shown_type(column.data_type());
    if data_type == *column.data_type() {
        return Arc::clone(column);
    }
    cast(column, &data_type).unwrap_or_else(|_| Arc::clone(column))
}

fn shown_type(data_type: &DataType) -> DataType {
    let of = |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(shown_type(field.data_type())));
    match data_type {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("+00:00".into())),
        DataType::List(item) => DataType::List(of(item)),
        DataType::Map(entries, sorted) => DataType::Map(of(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(of).collect()),
        other => other.clone(),
    }
}

/// The columns as they are kept: of normal types. Of those in `values` their values are enough.
///
/// # Errors
/// [`RecordError::Unreadable`] or [`RecordError::Ordered`] names a column of which something would be lost.
pub fn kept_schema(schema: &Schema, values: &[&str]) -> Result<SchemaRef, RecordError> {
    check(schema, values)?;
    Ok(normal_schema(schema))
}

pub(super) fn normal_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|field| normal_field(field, field.name())).collect();
    Arc::new(Schema::new(fields))
}

fn normal_field(field: &Field, name: &str) -> FieldRef {
    let normal = Field::new(name, normal_type(field.data_type()), field.is_nullable());
    Arc::new(normal.with_metadata(extension(field)))
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
            DataType::List(Arc::new(normal_field(item, "item").as_ref().clone().with_nullable(true)))
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| normal_field(field, field.name())).collect())
        }
        // Parquet has no seconds.
        DataType::Timestamp(unit, zone) => {
            let unit = if *unit == TimeUnit::Second { TimeUnit::Millisecond } else { *unit };
            DataType::Timestamp(unit, zone.as_ref().map(normal_zone))
        }
        DataType::Time32(TimeUnit::Second) => DataType::Time32(TimeUnit::Millisecond),
        DataType::Date64 => DataType::Timestamp(TimeUnit::Millisecond, None),
        other => other.clone(),
    }
}

/// One name for UTC; other zones keep theirs.
fn normal_zone(zone: &Arc<str>) -> Arc<str> {
    match &**zone {
        "utc" | "Z" | "+00:00" | "-00:00" => "UTC".into(),
        _ => Arc::clone(zone),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampSecondArray;

    use super::*;

    #[test]
    fn a_value_that_its_normal_type_does_not_hold_is_named() {
        let times: ArrayRef = Arc::new(TimestampSecondArray::from(vec![0, i64::MAX]));
        let error = normalised(&RecordBatch::try_from_iter([("t", times)]).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("column `t` is ") && error.contains(" in row 1, which Timestamp(ms)"), "{error}");
    }
}
