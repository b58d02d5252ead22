//! Tables as Parquet files: the same rows always give the same bytes, and any tool can read them.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::reader::{ChunkReader, Length};

use super::int96::load_metadata;
use super::reader::Pieces;
use super::size::Sizes;
use super::{RecordError, TableError, TableWriter};

/// Writes a table. The bytes depend on the rows, their order, the columns' names, their normal types (see
/// [`normalised`](super::normalised)) and whether they may be null, and on the versions of the `parquet` and `zstd` crates; the golden
/// test below notices a change.
///
/// # Errors
/// The writer fails, or a column's type can't be stored.
pub fn write_table(batch: &RecordBatch, writer: impl Write + Send) -> Result<(), TableError> {
    let mut writer = TableWriter::new(&batch.schema(), writer)?;
    writer.write(batch)?;
    writer.finish()?;
    Ok(())
}

/// Rows of a row group.
pub(super) const ROW_GROUP: usize = 1 << 16;

/// Whatever could let two writers differ is said here, defaults included.
pub(super) fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_created_by("tracetune".to_owned())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("1 is a level of zstd")))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_max_row_group_bytes(None)
        .set_write_batch_size(1024)
        .set_data_page_size_limit(1 << 20)
        .set_data_page_row_count_limit(20_000)
        .set_dictionary_enabled(true)
        .set_dictionary_page_size_limit(1 << 20)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(Some(64))
        // Lists whose items are named as the Parquet specification asks.
        .set_coerce_types(true)
        .build()
}

/// A table as the bytes of a Parquet file.
///
/// # Errors
/// As [`write_table`].
pub fn table_to_bytes(batch: &RecordBatch) -> Result<Vec<u8>, TableError> {
    let mut bytes = Vec::new();
    write_table(batch, &mut bytes)?;
    Ok(bytes)
}

/// Reads a Parquet file, of any program, as one batch of normal types.
///
/// # Errors
/// The file can't be read, is not Parquet, has a column that can't be kept as it is, or one of more than 2 GiB of text.
pub fn read_table_file(path: impl AsRef<Path>) -> Result<RecordBatch, TableError> {
    let path = path.as_ref();
    let file = open(path)?;
    read(Shared(Arc::new(file)), None)
}

/// Opens a file that should be Parquet.
///
/// # Errors
/// It can't be opened, or begins as no Parquet file does.
pub(super) fn open(path: &Path) -> Result<File, TableError> {
    let io = |source| TableError::Io { path: path.to_owned(), source };
    let not_parquet = |what| TableError::NotParquet { path: path.to_owned(), what };
    let mut file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        return Err(not_parquet("a folder"));
    }
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(4096).read_to_end(&mut start).map_err(io)?;
    if start.starts_with(b"PAR1") {
        return Ok(file);
    }
    let first_line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let is_text = !start.is_empty() && std::str::from_utf8(first_line).is_ok() && !first_line.contains(&0);
    Err(not_parquet(match &start[..] {
        [] => "empty",
        start if start.starts_with(b"ARROW1") => "an Arrow IPC (Feather) file",
        start if start.starts_with(b"PARE") => "an encrypted Parquet file, which can't be read,",
        [b'{' | b'[', ..] => "JSON text",
        _ if is_text && first_line.contains(&b'\t') => "text with tabs, perhaps TSV",
        _ if is_text && first_line.contains(&b',') => "text with commas, perhaps CSV",
        _ if is_text => "a text",
        _ => "of a format that is unknown here",
    }))
}

/// A file that several readers share.
#[derive(Clone)]
pub(super) struct Shared(pub(super) Arc<File>);

impl Length for Shared {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Shared {
    type T = <File as ChunkReader>::T;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        self.0.get_read(start)
    }
    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.0.get_bytes(start, length)
    }
}

/// Reads the bytes of a Parquet file as one batch of normal types.
///
/// # Errors
/// As [`read_table_file`].
pub fn table_from_bytes(bytes: Vec<u8>) -> Result<RecordBatch, TableError> {
    read(Bytes::from(bytes), None)
}

/// Reads only some top-level columns.
///
/// # Errors
/// As [`read_table_file`].
pub(crate) fn columns_from_bytes(bytes: Vec<u8>, columns: &[&str]) -> Result<RecordBatch, TableError> {
    read(Bytes::from(bytes), Some(columns))
}

fn read(source: impl ChunkReader + Clone + 'static, columns: Option<&[&str]>) -> Result<RecordBatch, TableError> {
    let metadata = load_metadata(&source, &[])?;
    let mask = columns.map(|columns| {
        let schema = metadata.metadata().file_metadata().schema_descr();
        ProjectionMask::columns(schema, columns.iter().copied())
    });
    let rows = usize::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or_default();
    let mut pieces = Pieces::new(source, metadata, mask, rows);
    let mut batches = Vec::new();
    let mut sizes = Sizes::default();
    let mut read = 0;
    for piece in &mut pieces {
        let piece = piece?;
        read += piece.num_rows();
        sizes.add(&piece);
        if let Some(column) = sizes.first_over(&piece, i32::MAX as usize) {
            let help = "divide the table, or leave the column out";
            return Err(RecordError::TooLong { column, row: 0, rows: read, help }.into());
        }
        batches.push(piece);
    }
    Ok(match batches.len() {
        0 => RecordBatch::new_empty(pieces.schema()?),
        1 => batches.remove(0),
        _ => concat_batches(&batches[0].schema(), &batches)?,
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Array, ArrayRef, DictionaryArray, Int32Array, LargeListArray, LargeStringArray, ListArray, StringArray,
        StringViewArray,
    };
    use arrow::compute::{cast, concat_batches};
    use arrow::datatypes::{DataType, Field, Int32Type};
    use parquet::arrow::arrow_writer::ArrowWriter;

    use super::*;
    use crate::table::Record;

    crate::record! {
        struct Row {
            name: String,
            maybe: Option<i32>,
            number: f64,
            words: Vec<String>,
        }
    }

    fn rows(count: i32) -> Vec<Row> {
        let row = |row: i32| Row {
            name: format!("row {}", row % 7),
            maybe: (row % 3 > 0).then_some(row),
            number: f64::from(row) / 3.0,
            words: (0..row % 4).map(|word| format!("w{word}")).collect(),
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn the_bytes_of_a_table_are_known() {
        let bytes = table_to_bytes(&Row::write(&rows(100)).unwrap()).unwrap();
        // If this differs after an update of `parquet` or `zstd`, every cache becomes another one: say so.
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            "b9cf27c26d0c325523584eead961e336583c2d24cc893f6e5bd233df5c290ad9"
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        for count in [0, 1, 5, 70_000] {
            let batch = Row::write(&rows(count)).unwrap();
            let read = table_from_bytes(table_to_bytes(&batch).unwrap()).unwrap();
            assert_eq!(read, batch);
        }
    }

    #[test]
    fn the_same_rows_are_the_same_bytes_however_they_were_put_together() {
        let all = rows(100);
        let whole = Row::write(&all).unwrap();
        let expected = table_to_bytes(&whole).unwrap();
        let longer = Row::write(&rows(300)).unwrap();
        assert_eq!(table_to_bytes(&longer.slice(0, 100)).unwrap(), expected);
        let pieces = [Row::write(&all[..33]).unwrap(), Row::write(&all[33..]).unwrap()];
        assert_eq!(table_to_bytes(&concat_batches(&whole.schema(), &pieces).unwrap()).unwrap(), expected);
    }

    #[test]
    fn every_kind_of_string_and_list_is_the_same_bytes() {
        let strings = StringArray::from(vec![Some("a"), None, Some("b"), Some("a")]);
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
            Some(vec![Some(2)]),
        ]);
        let batch = |strings: ArrayRef, lists: ArrayRef| {
            RecordBatch::try_from_iter_with_nullable([("s", strings, true), ("l", lists, true)]).unwrap()
        };
        let expected = table_to_bytes(&batch(Arc::new(strings.clone()), Arc::new(lists.clone()))).unwrap();
        let large: LargeListArray =
            cast(&lists, &DataType::LargeList(Arc::new(Field::new("element", DataType::Int32, true))))
                .unwrap()
                .as_any()
                .downcast_ref::<LargeListArray>()
                .unwrap()
                .clone();
        let views: StringViewArray = strings.iter().collect();
        let wide: LargeStringArray = strings.iter().collect();
        let dictionary: DictionaryArray<Int32Type> = strings.iter().collect();
        for strings in [Arc::new(views) as ArrayRef, Arc::new(wide), Arc::new(dictionary)] {
            assert_eq!(table_to_bytes(&batch(strings, Arc::new(large.clone()))).unwrap(), expected);
        }
    }

    #[test]
    fn other_writers_files_are_read() {
        let dictionary: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        let batch = RecordBatch::try_from_iter([("s", Arc::new(dictionary) as ArrayRef)]).unwrap();
        for compression in [
            Compression::BROTLI(Default::default()),
            Compression::SNAPPY,
            Compression::LZ4_RAW,
            Compression::GZIP(Default::default()),
        ] {
            let properties = WriterProperties::builder().set_compression(compression).build();
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            let read = table_from_bytes(bytes).unwrap();
            assert_eq!(read.column(0).as_ref(), &StringArray::from(vec!["a", "b", "a"]) as &dyn Array);
        }
    }

    #[test]
    fn a_column_is_read_without_the_others() {
        let bytes = table_to_bytes(&Row::write(&rows(5)).unwrap()).unwrap();
        let batch = columns_from_bytes(bytes, &["maybe"]).unwrap();
        assert_eq!(batch.num_columns(), 1);
        assert_eq!(
            batch.column(0).as_ref(),
            &Int32Array::from(vec![None, Some(1), Some(2), None, Some(4)]) as &dyn Array
        );
    }

    #[test]
    fn what_is_no_parquet_file_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for (bytes, what) in [
            ("a,b\n1,2\n", "is text with commas, perhaps CSV, not a Parquet file"),
            ("{\"a\": 1}\n", "is JSON text, not a Parquet file"),
            ("", "is empty, not a Parquet file"),
            ("ARROW1\0\0", "is an Arrow IPC (Feather) file, not a Parquet file"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert!(read_table_file(&path).unwrap_err().to_string().ends_with(what), "{what}");
            assert!(crate::table::TableFile::open(&path).is_err());
        }
        assert!(read_table_file(folder.path()).unwrap_err().to_string().ends_with("is a folder, not a Parquet file"));
    }

    #[test]
    fn what_is_no_parquet_file_is_an_error() {
        assert!(table_from_bytes(b"PAR1".to_vec()).is_err());
        let error = read_table_file("/no/such/file").unwrap_err();
        assert!(error.to_string().starts_with("can't read `/no/such/file`"));
    }
}
