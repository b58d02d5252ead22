//! A Parquet file as pieces that fit into normal types.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::Type;
use parquet::file::reader::ChunkReader;

use super::exact::is_overflow;
use super::normal::normal_schema;
use super::size::GROUP_LIMIT;
use super::{RecordError, TableError, normalised};

/// The rows of a file in order. A file may say in few bytes what takes gigabytes, so how many rows fit is found out by trying.
pub(super) struct Pieces<R> {
    source: R,
    metadata: ArrowReaderMetadata,
    columns: Option<ProjectionMask>,
    /// Rows of a piece at most.
    rows: usize,
    /// The next row.
    next: usize,
    reader: Option<ParquetRecordBatchReader>,
    failed: bool,
}

impl<R: ChunkReader + Clone + 'static> Pieces<R> {
    /// At most `rows` at a time, of some columns or all.
    pub(super) fn new(source: R, metadata: ArrowReaderMetadata, columns: Option<ProjectionMask>, rows: usize) -> Self {
        let rows = rows.min(expected_to_fit(&metadata)).max(1);
        Self { source, metadata, columns, rows, next: 0, reader: None, failed: false }
    }

    /// As if the footer said nothing of sizes.
    #[cfg(test)]
    pub(super) fn trying_all(mut self) -> Self {
        self.rows = usize::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap();
        self
    }

    /// The columns, of normal types.
    ///
    /// # Errors
    /// The file can't be read.
    pub(super) fn schema(&self) -> Result<SchemaRef, TableError> {
        let reader = self.open(1, self.columns.clone())?;
        Ok(normal_schema(&arrow::array::RecordBatchReader::schema(&reader)))
    }

    fn open(&self, rows: usize, columns: Option<ProjectionMask>) -> Result<ParquetRecordBatchReader, TableError> {
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.source.clone(), self.metadata.clone());
        if let Some(columns) = columns {
            builder = builder.with_projection(columns);
        }
        if self.next > 0 {
            builder = builder.with_offset(self.next);
        }
        Ok(builder.with_batch_size(rows).build()?)
    }

    fn read(&mut self) -> Result<Option<RecordBatch>, TableError> {
        loop {
            let mut reader = match self.reader.take() {
                Some(reader) => reader,
                None => self.open(self.rows, self.columns.clone())?,
            };
            match reader.next() {
                None => return Ok(None),
                Some(Ok(piece)) => {
                    self.next += piece.num_rows();
                    self.reader = Some(reader);
                    return Ok(Some(normalised(&piece)?));
                }
                Some(Err(error)) if is_overflow(&error) => {
                    if self.rows == 1 {
                        return Err(self.too_long()?);
                    }
                    self.rows = (self.rows / 8).max(1);
                }
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// The error of a row that takes more than a piece can have.
    fn too_long(&self) -> Result<TableError, TableError> {
        let schema = self.metadata.schema();
        for (column, field) in schema.fields().iter().enumerate() {
            let parquet = self.metadata.metadata().file_metadata().schema_descr();
            let alone = self.open(1, Some(ProjectionMask::roots(parquet, [column])))?.next();
            if matches!(alone, Some(Err(error)) if is_overflow(&error)) {
                let (column, help) = (field.name().clone(), "divide the row");
                return Ok(RecordError::TooLong { column, row: self.next, rows: 1, help }.into());
            }
        }
        Ok(ArrowError::OffsetOverflowError(i32::MAX as usize).into())
    }
}

impl<R: ChunkReader + Clone + 'static> Iterator for Pieces<R> {
    type Item = Result<RecordBatch, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let piece = self.read();
        self.failed = piece.is_err();
        piece.transpose()
    }
}

/// How many rows should fit, by what the footer says of each row group. Dictionaries and compressed prefixes take less than
/// their values, of which not every writer notes the size.
fn expected_to_fit(metadata: &ArrowReaderMetadata) -> usize {
    let rows_of = |bytes: i64, rows: i64| (GROUP_LIMIT as i64).saturating_mul(rows.max(1)) / bytes.max(1);
    let groups = metadata.metadata().row_groups();
    let fitting = groups.iter().flat_map(|group| {
        let columns = group.columns().iter().filter(|column| column.column_type() == Type::BYTE_ARRAY);
        columns.map(|column| {
            let bytes = column.unencoded_byte_array_data_bytes().unwrap_or_else(|| column.uncompressed_size());
            rows_of(bytes, group.num_rows())
        })
    });
    fitting.min().and_then(|rows| usize::try_from(rows).ok()).unwrap_or(usize::MAX).max(1)
}
