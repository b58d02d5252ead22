//! What Parquet's own types do not say of a column and Arrow's schema beside them does: the names of time zones, extension
//! types, times of other units. It is kept, or the column is refused by name: nothing is lost without a word.
//!
//! Metadata of a file, such as pandas's, is not kept: it has the versions of the programs that wrote it, and equal rows are
//! equal bytes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use arrow::ipc::{convert::fb_to_schema, root_as_message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parquet::arrow::ARROW_SCHEMA_META_KEY;
use parquet::file::metadata::ParquetMetaData;

use super::{RecordError, TableError};

/// A field's extension type: the name of a type that is stored as another one, and its parameters.
const EXTENSION: [&str; 2] = ["ARROW:extension:name", "ARROW:extension:metadata"];

/// The values of an enum, in their order, as Polars notes them.
const POLARS_ENUM: &str = "_PL_ENUM_VALUES"; // and a version

/// Of a field's metadata what is part of its type.
pub(super) fn extension(field: &Field) -> HashMap<String, String> {
    let kept = |(key, value): (&String, &String)| {
        let is_empty = key == EXTENSION[1] && value.is_empty();
        (EXTENSION.contains(&key.as_str()) && !is_empty).then(|| (key.clone(), value.clone()))
    };
    field.metadata().iter().filter_map(kept).collect()
}

/// The Arrow schema that a program left beside the Parquet one.
pub(super) fn arrow_schema(metadata: &ParquetMetaData) -> Result<Option<Schema>, TableError> {
    let entries = metadata.file_metadata().key_value_metadata().into_iter().flatten();
    let Some(text) = entries.filter(|entry| entry.key == ARROW_SCHEMA_META_KEY).find_map(|entry| entry.value.as_ref())
    else {
        return Ok(None);
    };
    let bytes = STANDARD.decode(text).ok();
    // A length stands before the message, since Arrow 0.15 after four bytes of ones.
    let message = bytes.as_deref().map(|bytes| match bytes {
        [255, 255, 255, 255, _, _, _, _, message @ ..] => message,
        other => other,
    });
    let schema = message.and_then(|message| Some(fb_to_schema(root_as_message(message).ok()?.header_as_schema()?)));
    let unreadable = || parquet::errors::ParquetError::ArrowError(format!("`{ARROW_SCHEMA_META_KEY}` can't be read"));
    schema.map(Some).ok_or_else(|| unreadable().into())
}

/// That all columns can be kept as they are; of those in `values`, that their values can.
///
/// # Errors
/// [`RecordError::Unreadable`] or [`RecordError::Ordered`], with what to do.
pub(super) fn check(schema: &Schema, values: &[&str]) -> Result<(), RecordError> {
    for field in schema.fields() {
        let column = || field.name().clone();
        if let Some((what, help)) = lost(field) {
            return Err(RecordError::Unreadable { column: column(), what, help });
        }
        if let Some(what) = ordered(field).filter(|_| !values.contains(&field.name().as_str())) {
            return Err(RecordError::Ordered { column: column(), what });
        }
    }
    Ok(())
}

/// What of a field a normal type would lose, and what to write instead.
fn lost(field: &Field) -> Option<(String, &'static str)> {
    if let Some(name) = field.extension_type_name()
        && !is_stored_alike(field.data_type())
    {
        return Some((format!("values of the extension type `{name}`"), "write what they are stored as"));
    }
    match field.data_type() {
        DataType::Duration(_) => {
            Some(("durations".to_owned(), "write them as a number, with the unit in the column's name"))
        }
        other => parts(other).iter().find_map(|part| lost(part)),
    }
}

/// The kind of type that orders a field's values, or those within it.
fn ordered(field: &Field) -> Option<&'static str> {
    if field.metadata().keys().any(|key| key.starts_with(POLARS_ENUM)) {
        return Some("a Polars enum");
    }
    match field.data_type() {
        DataType::Dictionary(..) if field.dict_is_ordered() == Some(true) => Some("an ordered categorical"),
        other => parts(other).iter().find_map(|part| ordered(part)),
    }
}

/// What a type is put together from.
fn parts(data_type: &DataType) -> Fields {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _)
        | DataType::RunEndEncoded(_, item) => Fields::from(vec![Arc::clone(item)]),
        DataType::Dictionary(_, values) => Fields::from(vec![Field::new("values", values.as_ref().clone(), true)]),
        DataType::Struct(fields) => fields.clone(),
        _ => Fields::empty(),
    }
}

/// Whether a type's normal type differs in the width of strings, bytes and lists at most, so that what an extension type
/// is stored as stays what it was.
fn is_stored_alike(data_type: &DataType) -> bool {
    match data_type {
        DataType::FixedSizeList(..)
        | DataType::Dictionary(..)
        | DataType::RunEndEncoded(..)
        | DataType::Date64
        | DataType::Time32(TimeUnit::Second)
        | DataType::Timestamp(TimeUnit::Second, _) => false,
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            is_stored_alike(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().all(|field| is_stored_alike(field.data_type())),
        _ => true,
    }
}

/// The columns that Parquet tells, with what the Arrow schema says beside.
pub(super) fn restored(parquet: &Schema, hints: &Schema) -> Schema {
    Schema::new(restored_fields(parquet.fields(), hints.fields()))
}

fn restored_fields(parquet: &Fields, hints: &Fields) -> Fields {
    let restored = |field: &FieldRef| match hints.find(field.name()) {
        Some((_, hint)) => restored_field(field, hint),
        None => Arc::clone(field),
    };
    parquet.iter().map(restored).collect()
}

fn restored_field(field: &FieldRef, hint: &Field) -> FieldRef {
    let mut metadata = field.metadata().clone();
    metadata.extend(extension(hint));
    let data_type = restored_type(field.data_type(), hint.data_type());
    Arc::new(field.as_ref().clone().with_data_type(data_type).with_metadata(metadata))
}

fn restored_type(parquet: &DataType, hint: &DataType) -> DataType {
    match (parquet, hint) {
        (parquet, DataType::Dictionary(_, values)) => restored_type(parquet, values),
        (parquet, DataType::RunEndEncoded(_, values)) => restored_type(parquet, values.data_type()),
        // What has no type of its own in Parquet, and dates in the format int96.
        (DataType::Int64 | DataType::Int32, DataType::Timestamp(..)) => hint.clone(),
        (DataType::Int64 | DataType::Date32, DataType::Date64) => hint.clone(),
        (DataType::Timestamp(unit, _), DataType::Timestamp(_, Some(zone))) => {
            DataType::Timestamp(*unit, Some(Arc::clone(zone)))
        }
        (
            DataType::List(field),
            DataType::List(hint)
            | DataType::LargeList(hint)
            | DataType::ListView(hint)
            | DataType::LargeListView(hint)
            | DataType::FixedSizeList(hint, _),
        ) => DataType::List(restored_field(field, hint)),
        (DataType::Struct(fields), DataType::Struct(hints)) => DataType::Struct(restored_fields(fields, hints)),
        (DataType::Map(entries, sorted), DataType::Map(hint, _)) => {
            // The key and the value have whatever names.
            let (DataType::Struct(fields), DataType::Struct(hints)) = (entries.data_type(), hint.data_type()) else {
                return parquet.clone();
            };
            let fields: Fields = fields.iter().zip(hints).map(|(field, hint)| restored_field(field, hint)).collect();
            DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(DataType::Struct(fields))), *sorted)
        }
        _ => parquet.clone(),
    }
}

/// Whether Parquet's own types do not say all of these normal ones: then the Arrow schema is written beside them.
pub(super) fn are_needed(fields: &Fields) -> bool {
    fields.iter().any(|field| {
        let own = !extension(field).is_empty();
        own || match field.data_type() {
            DataType::Timestamp(_, Some(zone)) => **zone != *"UTC",
            other => are_needed(&parts(other)),
        }
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use arrow::util::display::array_value_to_string;
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ArrowReaderMetadata;
    use parquet::basic::LogicalType;

    use super::*;
    use crate::table::{TableFile, read_table_file, shown, table_from_bytes, table_to_bytes};

    fn fixture(name: &str) -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/table/fixtures").join(name)
    }

    fn types(batch: &RecordBatch) -> Vec<String> {
        let field = |field: &FieldRef| {
            let extension = field.metadata().get(EXTENSION[0]).map(|name| format!(" as {name}")).unwrap_or_default();
            format!("{}: {}{extension}", field.name(), field.data_type())
        };
        batch.schema().fields().iter().map(field).collect()
    }

    #[test]
    fn zones_and_extension_types_go_through_the_store() {
        let table = read_table_file(fixture("pyarrow-types.parquet")).unwrap();
        let expected = [
            "id: FixedSizeBinary(16) as arrow.uuid",
            "doc: Utf8 as arrow.json",
            r#"us: Timestamp(µs, "Europe/Berlin")"#,
            r#"s: Timestamp(ms, "America/New_York")"#,
            r#"utc: Timestamp(ms, "UTC")"#,
            r#"offset: Timestamp(ms, "+05:30")"#,
            r#"list: List(Timestamp(µs, "Europe/Berlin"))"#,
            r#"struct: Struct("t": Timestamp(ns, "Asia/Tokyo"))"#,
            "word: Utf8",
        ];
        assert_eq!(types(&table), expected);
        let bytes = table_to_bytes(&table).unwrap();
        assert_eq!(table_from_bytes(bytes.clone()).unwrap(), table);
        let file = TableFile::open(fixture("pyarrow-types.parquet")).unwrap();
        assert_eq!(file.schema(), table.schema());
        assert_eq!(file.pieces(2).unwrap().next().unwrap().unwrap(), table.slice(0, 2));
        let time = "2026-07-01T12:00:00Z";
        for (column, value) in [(2, time), (3, time), (6, "[2026-07-01T12:00:00Z]"), (7, "{t: 2026-07-01T12:00:00Z}")] {
            assert_eq!(array_value_to_string(&shown(table.column(column)), 0).unwrap(), value);
        }
        // Programs that know nothing of Arrow find a UUID; those that do, the zones.
        let metadata = ArrowReaderMetadata::load(&Bytes::from(bytes), Default::default()).unwrap();
        let parquet = metadata.metadata().file_metadata().schema_descr();
        assert_eq!(parquet.column(0).logical_type_ref(), Some(&LogicalType::Uuid));
        assert_eq!(arrow_schema(metadata.metadata()).unwrap().unwrap().fields(), table.schema().fields());
    }

    #[test]
    fn the_bytes_of_a_table_with_zones_are_known() {
        let table = read_table_file(fixture("pyarrow-types.parquet")).unwrap();
        let digest = blake3::hash(&table_to_bytes(&table).unwrap());
        // As `the_bytes_of_a_table_are_known`.
        assert_eq!(digest.to_hex().as_str(), "9127ebbb8040b7b09a12c7e3d96c4a37169f952e108c056f244c3bdab1cfd2cb");
    }

    #[test]
    fn what_parquet_says_itself_needs_no_arrow_schema() {
        let table = read_table_file(fixture("pyarrow-no-hints.parquet")).unwrap();
        assert_eq!(types(&table), ["id: FixedSizeBinary(16) as arrow.uuid", "doc: Utf8 as arrow.json"]);
        let whole = read_table_file(fixture("pyarrow-types.parquet")).unwrap();
        assert_eq!(table, whole.project(&[0, 1]).unwrap());
        // A table of plain types has the bytes that it always had.
        assert!(!are_needed(whole.project(&[4, 8]).unwrap().schema().fields()));
    }

    #[test]
    fn dates_in_the_format_int96_keep_their_zone() {
        let table = read_table_file(fixture("pyarrow-int96-zone.parquet")).unwrap();
        assert_eq!(types(&table), [r#"us: Timestamp(ns, "Europe/Berlin")"#]);
        assert_eq!(array_value_to_string(&shown(table.column(0)), 2).unwrap(), "1999-12-31T23:59:59Z");
    }

    #[test]
    fn equal_rows_of_pandas_polars_and_arrow_are_equal_bytes() {
        let expected = table_to_bytes(&read_table_file(fixture("pyarrow-plain.parquet")).unwrap()).unwrap();
        for name in ["pandas-plain.parquet", "polars-categorical.parquet"] {
            assert!(table_to_bytes(&read_table_file(fixture(name)).unwrap()).unwrap() == expected, "{name}");
        }
        let indexed = read_table_file(fixture("pandas-index.parquet")).unwrap();
        assert_eq!(types(&indexed), ["x: Float64", "c: Utf8", "__index_level_0__: Int64"]);
    }

    #[test]
    fn what_would_be_lost_is_refused_by_name() {
        for (name, message) in [
            (
                "pandas-ordered.parquet",
                "column `size` holds values of an ordered categorical, whose order can't be kept: write them as text",
            ),
            ("polars-enum.parquet", "column `e` holds values of a Polars enum, whose order"),
            ("pyarrow-tensor.parquet", "column `tensor` holds values of the extension type `arrow.fixed_shape_tensor`"),
        ] {
            let error = read_table_file(fixture(name)).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
            assert!(TableFile::open(fixture(name)).is_err());
        }
    }

    #[test]
    fn an_order_may_be_left_out_and_nothing_else() {
        let ordered = TableFile::open_values(fixture("pandas-ordered.parquet"), &["size"]).unwrap();
        let piece = ordered.pieces(9).unwrap().next().unwrap().unwrap();
        assert_eq!(types(&piece), ["n: Int64", "size: Utf8"]);
        assert!(TableFile::open_values(fixture("pandas-ordered.parquet"), &["n"]).is_err());
        assert!(TableFile::open_values(fixture("pyarrow-tensor.parquet"), &["tensor"]).is_err());
        let durations = DataType::Dictionary(
            Box::new(DataType::Int8),
            Box::new(DataType::Duration(arrow::datatypes::TimeUnit::Second)),
        );
        let error = check(&Schema::new(vec![Field::new("d", durations, true)]), &["d"]).unwrap_err().to_string();
        assert!(
            error.starts_with("column `d` holds durations, which can't be kept as they are: write them"),
            "{error}"
        );
    }
}
