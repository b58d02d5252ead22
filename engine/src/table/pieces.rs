//! Tables larger than memory: a Parquet file written and read piece by piece.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};

use super::file::{ROW_GROUP, Shared, properties};
use super::int96::load_metadata;
use super::normal::normal_field;
use super::{TableError, normalised};

/// Writes a table piece by piece: the bytes are those that [`write_table`](super::write_table) gives for the whole,
/// however it was cut. Holds at most a row group in memory.
pub struct TableWriter<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: SchemaRef,
    /// Pieces that do not fill a row group yet, and how many rows they have.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    rows: u64,
}

impl<W: Write + Send> TableWriter<W> {
    /// A table of these columns, without rows yet.
    ///
    /// # Errors
    /// A column's type can't be stored, or the writer fails.
    pub fn new(schema: &Schema, writer: W) -> Result<Self, TableError> {
        let schema = normal_schema(schema);
        let options = ArrowWriterOptions::new().with_properties(properties()).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(writer, Arc::clone(&schema), options)?;
        Ok(Self { writer, schema, pending: Vec::new(), pending_rows: 0, rows: 0 })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// They have other columns than the table, or the writer fails.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), TableError> {
        let rows = normalised(rows)?;
        let (given, own) = (rows.schema(), &self.schema);
        if let Some((found, wanted)) = given.fields().iter().zip(own.fields()).find(|(a, b)| a.name() != b.name()) {
            let message = format!("column `{}` stands where the table has `{}`", found.name(), wanted.name());
            return Err(arrow::error::ArrowError::SchemaError(message).into());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), rows.columns().to_vec(), &options)?;
        self.rows += rows.num_rows() as u64;
        let mut written = 0;
        while written < rows.num_rows() {
            // The writer starts a data page with each batch that it is given: it must always get whole row groups.
            let fits = (ROW_GROUP - self.pending_rows).min(rows.num_rows() - written);
            self.pending.push(rows.slice(written, fits));
            self.pending_rows += fits;
            written += fits;
            if self.pending_rows == ROW_GROUP {
                self.write_pending()?;
            }
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), TableError> {
        let group = concat_batches(&self.schema, &self.pending)?;
        self.pending.clear();
        self.pending_rows = 0;
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
    /// The file can't be read or is not Parquet.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TableError> {
        let path = path.as_ref();
        let file = super::file::open(path)?;
        let file = Shared(Arc::new(file));
        let metadata = load_metadata(&file)?;
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

    /// Its rows in order, `rows` at a time (the last piece has fewer), as normal types.
    ///
    /// # Errors
    /// The file can't be read; so may each piece.
    pub fn pieces(
        &self,
        rows: usize,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, TableError>> + use<>, TableError> {
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone());
        Ok(reader.with_batch_size(rows.max(1)).build()?.map(|piece| normalised(&piece?)))
    }
}

fn normal_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|field| normal_field(field, field.name())).collect();
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};

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
    fn other_columns_are_refused() {
        let mut writer = TableWriter::new(&table(1).schema(), Vec::new()).unwrap();
        assert!(writer.write(&table(3).project(&[1, 0]).unwrap()).is_err());
        let renamed =
            RecordBatch::try_from_iter([("m", table(1).column(0).clone()), ("w", table(1).column(1).clone())]);
        let error = writer.write(&renamed.unwrap()).unwrap_err().to_string();
        assert!(error.ends_with("column `m` stands where the table has `n`"), "{error}");
    }
}
