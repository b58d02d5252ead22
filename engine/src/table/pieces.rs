//! Tables larger than memory: a Parquet file written and read piece by piece.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};

use super::file::{ROW_GROUP, Shared, properties};
use super::int96::load_metadata;
use super::normal::normal_schema;
use super::reader::Pieces;
use super::size::{GROUP_LIMIT, Sizes};
use super::{RecordError, TableError, hints, kept_schema, normalised, pandas_left_out};

/// Writes a table piece by piece: the bytes are those that [`write_table`](super::write_table) gives for the whole,
/// however it was cut. Holds at most a row group in memory.
pub struct TableWriter<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: SchemaRef,
    /// Pieces that do not fill a row group yet, how many rows they have, and what their rows take.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_sizes: Sizes,
    /// What a row group of more than one row takes at most.
    limit: usize,
    rows: u64,
}

impl<W: Write + Send> TableWriter<W> {
    /// A table of these columns, without rows yet.
    ///
    /// # Errors
    /// A column's type can't be stored, or the writer fails.
    pub fn new(schema: &Schema, writer: W) -> Result<Self, TableError> {
        let schema = kept_schema(schema, &[])?;
        let options = ArrowWriterOptions::new()
            .with_properties(properties())
            .with_skip_arrow_metadata(!hints::are_needed(schema.fields()));
        let writer = ArrowWriter::try_new_with_options(writer, Arc::clone(&schema), options)?;
        Ok(Self {
            writer,
            schema,
            pending: Vec::new(),
            pending_rows: 0,
            pending_sizes: Sizes::default(),
            limit: GROUP_LIMIT,
            rows: 0,
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// They have other columns than the table, or the writer fails.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), TableError> {
        let rows = normalised(rows)?;
        if rows.num_columns() == 0 && rows.num_rows() > 0 {
            return Err(RecordError::NoColumns { rows: rows.num_rows() }.into());
        }
        let (given, own) = (rows.schema(), &self.schema);
        if let Some((found, wanted)) = given.fields().iter().zip(own.fields()).find(|(a, b)| a.name() != b.name()) {
            let message = format!("column `{}` stands where the table has `{}`", found.name(), wanted.name());
            return Err(arrow::error::ArrowError::SchemaError(message).into());
        }
        let differ = |(found, wanted): &(&FieldRef, &FieldRef)| found.data_type() != wanted.data_type();
        if let Some((found, wanted)) = given.fields().iter().zip(own.fields()).find(differ) {
            let (column, found) = (found.name().clone(), found.data_type().clone());
            return Err(RecordError::WrongType { column, found, expected: wanted.data_type().clone() }.into());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), rows.columns().to_vec(), &options)?;
        self.rows += rows.num_rows() as u64;
        let mut written = 0;
        while written < rows.num_rows() {
            // The writer starts a data page with each batch that it is given: it must always get whole row groups, which
            // end where their rows say, not where a piece does.
            let free = (ROW_GROUP - self.pending_rows).min(rows.num_rows() - written);
            let mut fits = self.pending_sizes.fitting(&rows.slice(written, free), self.limit);
            if fits == 0 && self.pending_rows == 0 {
                fits = 1;
            }
            let piece = rows.slice(written, fits);
            self.pending_sizes.add(&piece);
            self.pending.push(piece);
            self.pending_rows += fits;
            written += fits;
            if fits < free || self.pending_rows == ROW_GROUP {
                self.write_pending()?;
                self.writer.flush()?;
            }
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), TableError> {
        let group = concat_batches(&self.schema, &self.pending)?;
        self.pending.clear();
        self.pending_rows = 0;
        self.pending_sizes = Sizes::default();
        Ok(self.writer.write(&group)?)
    }

    /// Ends the file; gives the number of rows.
    ///
    /// # Errors
    /// The writer fails.
    pub fn finish(mut self) -> Result<u64, TableError> {
        self.write_pending()?;
        self.writer.close()?;
        Ok(self.rows)
    }
}

/// A table in a Parquet file, of any program, that is read piece by piece.
pub struct TableFile {
    file: Shared,
    metadata: ArrowReaderMetadata,
}

impl TableFile {
    /// Reads the file's footer.
    ///
    /// # Errors
    /// The file can't be read, is not Parquet, or has a column that can't be kept as it is.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TableError> {
        Self::open_values(path, &[])
    }

    /// The same, with the values alone of some columns: the order that a categorical's type has beside them is left out.
    ///
    /// # Errors
    /// As [`TableFile::open`].
    pub fn open_values(path: impl AsRef<Path>, columns: &[&str]) -> Result<Self, TableError> {
        let path = path.as_ref();
        let file = super::file::open(path)?;
        let file = Shared(Arc::new(file));
        let metadata = load_metadata(&file, columns)?;
        Ok(Self { file, metadata })
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        usize::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or_default()
    }

    /// Its columns, of normal types.
    pub fn schema(&self) -> SchemaRef {
        normal_schema(self.metadata.schema())
    }

    /// What the program that wrote the file noted and no column holds, if it may be missed: an index of pandas.
    pub fn left_out(&self) -> Option<String> {
        let entries = self.metadata.metadata().file_metadata().key_value_metadata()?;
        pandas_left_out(entries.iter().find(|entry| entry.key == "pandas")?.value.as_ref()?)
    }

    /// Its rows in order, at most `rows` at a time, as normal types. A piece has fewer rows at the table's end, and where so
    /// many would not fit into one.
    ///
    /// # Errors
    /// The file can't be read; so may each piece.
    pub fn pieces(
        &self,
        rows: usize,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, TableError>> + use<>, TableError> {
        Ok(Pieces::new(self.file.clone(), self.metadata.clone(), None, rows))
    }
}

/// A batch of any types as normal ones, at most `rows` rows at a time, and fewer where so many would not fit.
pub fn normal_pieces(batch: RecordBatch, rows: usize) -> impl Iterator<Item = Result<RecordBatch, TableError>> {
    let mut rest: Vec<RecordBatch> = (0..batch.num_rows())
        .step_by(rows.max(1))
        .map(|first| batch.slice(first, rows.max(1).min(batch.num_rows() - first)))
        .collect();
    rest.reverse();
    std::iter::from_fn(move || {
        loop {
            let piece = rest.pop()?;
            let count = piece.num_rows();
            match normal_copy(&piece) {
                Err(TableError::Record(RecordError::TooLong { .. })) if count > 1 => {
                    rest.extend([piece.slice(count / 2, count - count / 2), piece.slice(0, count / 2)]);
                }
                normal => return Some(normal),
            }
        }
    })
}

/// The normal types of rows that may begin further on in their columns' bytes than normal types count.
fn normal_copy(rows: &RecordBatch) -> Result<RecordBatch, TableError> {
    match normalised(rows) {
        Err(TableError::Record(RecordError::TooLong { .. })) => {
            let all = UInt64Array::from_iter_values(0..rows.num_rows() as u64);
            normalised(&take_record_batch(rows, &all)?)
        }
        normal => normal,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::table::table_to_bytes;

    fn table(rows: i64) -> RecordBatch {
        let numbers = Int64Array::from_iter_values((0..rows).map(|row| row * row % 1009));
        let words: StringArray = (0..rows).map(|row| (row % 3 > 0).then(|| format!("word {}", row % 5000))).collect();
        RecordBatch::try_from_iter([("n", Arc::new(numbers) as _), ("w", Arc::new(words) as _)]).unwrap()
    }

    #[test]
    fn a_table_written_in_pieces_has_the_bytes_of_the_whole() {
        for rows in [0, 1, ROW_GROUP - 1, ROW_GROUP, 2 * ROW_GROUP + 77] {
            let whole = table(rows as i64);
            for piece in [rows.max(1), 1000, 40_000, ROW_GROUP, ROW_GROUP + 1] {
                let mut bytes = Vec::new();
                let mut writer = TableWriter::new(&whole.schema(), &mut bytes).unwrap();
                for first in (0..rows).step_by(piece) {
                    writer.write(&whole.slice(first, piece.min(rows - first))).unwrap();
                }
                assert_eq!(writer.finish().unwrap(), rows as u64);
                assert!(bytes == table_to_bytes(&whole).unwrap(), "{rows} rows, {piece} a piece");
            }
        }
    }

    #[test]
    fn a_table_is_read_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        let whole = table(100_000);
        std::fs::write(&path, table_to_bytes(&whole).unwrap()).unwrap();
        let file = TableFile::open(&path).unwrap();
        assert_eq!((file.rows(), file.schema()), (100_000, whole.schema()));
        let pieces: Vec<RecordBatch> = file.pieces(30_000).unwrap().map(Result::unwrap).collect();
        assert_eq!(pieces.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [30_000, 30_000, 30_000, 10_000]);
        assert_eq!(concat_batches(&whole.schema(), &pieces).unwrap(), whole);
    }

    #[test]
    fn a_row_group_ends_before_its_text_is_too_long_wherever_the_pieces_are_cut() {
        let whole = table(1000);
        let written = |piece: usize| {
            let mut bytes = Vec::new();
            let mut writer = TableWriter::new(&whole.schema(), &mut bytes).unwrap();
            writer.limit = 700;
            for first in (0..1000).step_by(piece) {
                writer.write(&whole.slice(first, piece.min(1000 - first))).unwrap();
            }
            assert_eq!(writer.finish().unwrap(), 1000);
            bytes
        };
        let bytes = written(1000);
        let groups = ArrowReaderMetadata::load(&bytes::Bytes::from(bytes.clone()), Default::default()).unwrap();
        assert_eq!(groups.metadata().num_row_groups(), 8);
        assert_eq!(crate::table::table_from_bytes(bytes.clone()).unwrap(), whole);
        for piece in [1, 7, 333, 999] {
            assert!(written(piece) == bytes, "{piece} a piece");
        }
    }

    #[test]
    fn text_of_more_than_two_gigabytes_is_read_in_pieces_that_hold_it() {
        // 3000 times one text of a mebibyte, as a dictionary: the file is small.
        let keys = arrow::array::Int32Array::from(vec![0; 3000]);
        let words = StringArray::from(vec!["x".repeat(1 << 20)]);
        let words = arrow::array::DictionaryArray::new(keys, Arc::new(words));
        let numbers = Int64Array::from_iter_values(0..3000);
        let columns = [("n", Arc::new(numbers) as _), ("w", Arc::new(words) as arrow::array::ArrayRef)];
        let table = RecordBatch::try_from_iter(columns).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        let properties = parquet::file::properties::WriterProperties::builder()
            .set_dictionary_page_size_limit(1 << 22)
            .set_compression(parquet::basic::Compression::SNAPPY)
            .build();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, table.schema(), Some(properties)).unwrap();
        writer.write(&table).unwrap();
        writer.close().unwrap();
        assert!(path.metadata().unwrap().len() < 1 << 20);

        let file = TableFile::open(&path).unwrap();
        let mut rows = Vec::new();
        for piece in Pieces::new(file.file.clone(), file.metadata.clone(), None, 3000).trying_all() {
            let piece = piece.unwrap();
            assert_eq!(piece.column(1).as_string::<i32>().value(0).len(), 1 << 20);
            rows.extend(piece.column(0).as_primitive::<Int64Type>().values().iter().copied());
        }
        assert!(rows.into_iter().eq(0..3000));
        assert_eq!(file.pieces(3000).unwrap().next().unwrap().unwrap().num_rows(), 1024);
        let error = crate::table::read_table_file(&path).unwrap_err().to_string();
        assert!(error.starts_with("column `w` has more than 2 GiB of text, bytes or items of lists"), "{error}");
    }

    #[test]
    fn rows_without_columns_are_refused() {
        let bare = |rows| {
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap()
        };
        let error = table_to_bytes(&bare(3)).unwrap_err().to_string();
        assert_eq!(error, "a table without columns can't keep its 3 rows: give it a column");
        let empty = table_to_bytes(&bare(0)).unwrap();
        assert_eq!(crate::table::table_from_bytes(empty).unwrap(), bare(0));
    }

    #[test]
    fn text_that_begins_beyond_what_normal_types_count_is_brought_nearer() {
        use arrow::array::{Array, LargeStringArray};
        use arrow::buffer::{OffsetBuffer, ScalarBuffer};
        // Three words, the last two of which begin where 32 bits end: zeroed pages take no memory.
        let far = i64::from(i32::MAX);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, far, far + 2, far + 3]));
        let bytes = arrow::buffer::Buffer::from_vec(vec![0_u8; far as usize + 3]);
        let words: arrow::array::ArrayRef = Arc::new(LargeStringArray::new(offsets, bytes, None));
        let rows = RecordBatch::try_from_iter([("w", words)]).unwrap();
        let pieces: Vec<RecordBatch> = normal_pieces(rows.slice(1, 2), 10).map(Result::unwrap).collect();
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].column(0).as_ref(), &StringArray::from(vec!["\0\0", "\0"]) as &dyn Array);
    }

    #[test]
    fn other_columns_are_refused() {
        let mut writer = TableWriter::new(&table(1).schema(), Vec::new()).unwrap();
        assert!(writer.write(&table(3).project(&[1, 0]).unwrap()).is_err());
        let renamed =
            RecordBatch::try_from_iter([("m", table(1).column(0).clone()), ("w", table(1).column(1).clone())]);
        let error = writer.write(&renamed.unwrap()).unwrap_err().to_string();
        assert!(error.ends_with("column `m` stands where the table has `n`"), "{error}");
    }
}
