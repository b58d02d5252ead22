//! Tables: typed rows, the deterministic Parquet writer, and the bytes that row keys are made from.

mod difference;
mod exact;
mod file;
mod hints;
mod int96;
mod normal;
mod pandas;
mod pieces;
mod reader;
mod record;
mod row_bytes;
mod size;

pub use difference::first_difference;
pub use exact::cast_exactly;
pub(crate) use file::columns_from_bytes;
pub use file::{read_table_file, table_from_bytes, table_to_bytes, write_table};
pub use normal::{kept_schema, normalised, shown};
pub use pandas::pandas_left_out;
pub use pieces::{TableFile, TableWriter, normal_pieces};
pub use record::{Column, Record, RecordError, read_column, readable_as, schema_of, with_column};
pub(crate) use row_bytes::{is_optional, may_lack};
pub use row_bytes::{read_columns, row_digests};

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

/// Why a table could not be read, written or keyed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Arrow refused.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// Not a Parquet file that can be read, or not a table that can be written.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The table is not what a stage reads.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The file can't be opened.
    #[error("can't read `{}`: {source}", .path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file that is something else than Parquet.
    #[error("`{}` is {what}, not a Parquet file", .path.display())]
    NotParquet {
        /// Its path.
        path: PathBuf,
        /// What it seems to be.
        what: &'static str,
    },
    /// A type that has no canonical bytes.
    #[error("column `{column}` of type {data_type} can't be part of a row key")]
    Unkeyable {
        /// The column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
}

impl TableError {
    /// The same of a piece that begins at a row of the table: rows in messages are the table's.
    pub(crate) fn in_piece(self, first: usize) -> Self {
        match self {
            Self::Record(RecordError::Null { column, row }) => {
                Self::Record(RecordError::Null { column, row: first + row })
            }
            Self::Record(RecordError::Value { column, row, value, expected }) => {
                Self::Record(RecordError::Value { column, row: first + row, value, expected })
            }
            other => other,
        }
    }
}

/// The columns of `carried` followed by those of `added`; an added column replaces a carried one of its name.
pub fn append_columns(carried: &SchemaRef, added: &SchemaRef) -> SchemaRef {
    let kept = carried.fields().iter().filter(|field| added.field_with_name(field.name()).is_err());
    let fields: Vec<Arc<Field>> = kept.chain(added.fields()).cloned().collect();
    Arc::new(Schema::new(fields))
}
