//! Dates in the old format int96, as Spark, Impala and Hive wrote them: days and nanoseconds of a day, from 4714 BC on.
//!
//! Nanoseconds in 64 bits reach from 1677 to 2262, and the `parquet` crate takes a date outside for another one. A column
//! with such a date is read in microseconds, which reach far enough.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, FieldRef, Schema, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Type;
use parquet::file::reader::ChunkReader;

use super::{RecordError, TableError, hints};

/// Rows that are looked at at a time.
const ROWS: usize = 1 << 14;

/// Reads a file's footer, with the types that lose nothing; of the columns in `values` their values are enough.
pub(super) fn load_metadata(
    source: &(impl ChunkReader + Clone + 'static),
    values: &[&str],
) -> Result<ArrowReaderMetadata, TableError> {
    // Without the hints of an Arrow writer, strings and lists come as the plain types.
    let options = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(source, options())?;
    let metadata = match hints::arrow_schema(metadata.metadata())? {
        Some(hinted) => {
            hints::check(&hinted, values)?;
            of_schema(&metadata, hints::restored(metadata.schema(), &hinted))?
        }
        None => metadata,
    };
    let columns: Vec<usize> = {
        let parquet = metadata.metadata().file_metadata().schema_descr();
        let is_int96 = |leaf: &usize| parquet.column(*leaf).physical_type() == Type::INT96;
        (0..parquet.num_columns()).filter(is_int96).map(|leaf| parquet.get_column_root_idx(leaf)).collect()
    };
    let mut far = Vec::new();
    for column in columns {
        if !matches!(metadata.schema().field(column).data_type(), DataType::Timestamp(..)) {
            let name = metadata.schema().field(column).name().clone();
            let what = "dates in the format int96 within lists".to_owned();
            let help = "write them as timestamps in microseconds";
            return Err(RecordError::Unreadable { column: name, what, help }.into());
        }
        if has_far_date(source, &metadata, column)? {
            far.push(column);
        }
    }
    if far.is_empty() {
        return Ok(metadata);
    }
    of_schema(&metadata, with_microseconds(metadata.schema(), &far))
}

/// The same file, its columns read as these.
fn of_schema(metadata: &ArrowReaderMetadata, schema: Schema) -> Result<ArrowReaderMetadata, TableError> {
    if schema.fields() == metadata.schema().fields() {
        return Ok(metadata.clone());
    }
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_schema(Arc::new(schema));
    Ok(ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)?)
}

fn with_microseconds(schema: &Schema, columns: &[usize]) -> Schema {
    let field = |(column, field): (usize, &FieldRef)| match field.data_type() {
        DataType::Timestamp(_, zone) if columns.contains(&column) => {
            let data_type = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
            Arc::new(field.as_ref().clone().with_data_type(data_type))
        }
        _ => Arc::clone(field),
    };
    Schema::new(schema.fields().iter().enumerate().map(field).collect::<Vec<FieldRef>>())
}

/// Whether a date of a column does not fit nanoseconds.
///
/// # Errors
/// One does not, and another one needs nanoseconds: no type holds both.
fn has_far_date(
    source: &(impl ChunkReader + Clone + 'static),
    metadata: &ArrowReaderMetadata,
    column: usize,
) -> Result<bool, TableError> {
    let wide = of_schema(metadata, with_microseconds(metadata.schema(), &[column]))?;
    let read = |metadata: &ArrowReaderMetadata| {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(source.clone(), metadata.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), [column]);
        builder.with_projection(mask).with_batch_size(ROWS).build()
    };
    let (mut far, mut fine) = (None, None);
    let mut row = 0;
    for (narrow, wide) in read(metadata)?.zip(read(&wide)?) {
        let (narrow, wide) = (narrow?, wide?);
        let nanoseconds = narrow.column(0).as_primitive::<TimestampNanosecondType>();
        let microseconds = wide.column(0).as_primitive::<TimestampMicrosecondType>();
        for (at, (nano, micro)) in nanoseconds.iter().zip(microseconds).enumerate() {
            let (Some(nano), Some(micro)) = (nano, micro) else { continue };
            if nano.div_euclid(1000) != micro {
                far.get_or_insert(row + at);
            } else if nano.rem_euclid(1000) != 0 {
                fine.get_or_insert(row + at);
            }
        }
        row += nanoseconds.len();
    }
    match (far, fine) {
        (Some(far), Some(fine)) => {
            let column = metadata.schema().field(column).name().clone();
            Err(RecordError::DateRange { column, far, fine }.into())
        }
        (far, _) => Ok(far.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::display::array_value_to_string;

    use super::super::{TableFile, read_table_file, table_from_bytes, table_to_bytes};

    fn fixture(name: &str) -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/table/fixtures").join(name)
    }

    #[test]
    fn dates_far_from_now_are_what_they_were() {
        let expected = ["2020-01-02T03:04:05.123456", "", "1500-01-01T00:00:00", "9999-12-31T23:59:59"];
        let whole = read_table_file(fixture("int96-far.parquet")).unwrap();
        let pieces = TableFile::open(fixture("int96-far.parquet")).unwrap();
        let piece = pieces.pieces(10).unwrap().next().unwrap().unwrap();
        let stored = table_from_bytes(table_to_bytes(&whole).unwrap()).unwrap();
        for batch in [&whole, &piece, &stored] {
            let dates: Vec<String> = (0..4).map(|row| array_value_to_string(batch.column(0), row).unwrap()).collect();
            assert_eq!(dates, expected);
        }
        assert_eq!(pieces.schema(), whole.schema());
    }

    #[test]
    fn dates_of_our_time_keep_their_nanoseconds() {
        let batch = read_table_file(fixture("int96-near.parquet")).unwrap();
        assert_eq!(array_value_to_string(batch.column(0), 0).unwrap(), "2020-01-02T03:04:05.123456789");
    }
}
