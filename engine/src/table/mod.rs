//! Tables: typed rows, and (in the files beside this one) the deterministic Parquet writer.

mod record;

pub use record::{Column, Record, RecordError, read_column, readable_as, schema_of};

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

/// The columns of `carried` followed by those of `added`; an added column replaces a carried one of its name.
pub fn append_columns(carried: &SchemaRef, added: &SchemaRef) -> SchemaRef {
    let kept = carried.fields().iter().filter(|field| added.field_with_name(field.name()).is_err());
    let fields: Vec<Arc<Field>> = kept.chain(added.fields()).cloned().collect();
    Arc::new(Schema::new(fields))
}
