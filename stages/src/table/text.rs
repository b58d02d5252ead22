//! Tables as text: CSV and JSON Lines, read by the `arrow` crates.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use arrow::csv::ReaderBuilder as CsvBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::json::ReaderBuilder as JsonBuilder;
use arrow::json::reader::infer_json_schema_from_iterator;

use super::Pieces;
use super::numbers::Numbers;

/// Rows that are read at a time.
const ROWS: usize = 1 << 13;

pub(super) fn csv(
    path: &Path,
    delimiter: u8,
    header: bool,
    types: &BTreeMap<String, DataType>,
    known: Option<&SchemaRef>,
) -> Result<(SchemaRef, Pieces), String> {
    let text = |error: arrow::error::ArrowError| error.to_string();
    let format = Format::default().with_header(header).with_delimiter(delimiter);
    let inferred = format.infer_schema(start(path)?, None).map_err(text)?.0;
    let own = Arc::new(of_types(&inferred, types, |data_type| match data_type {
        DataType::Int64 | DataType::Float64 | DataType::Boolean => data_type.clone(),
        _ => DataType::Utf8,
    })?);
    let schema = as_known(own, known);
    let builder = CsvBuilder::new(Arc::clone(&schema)).with_format(format).with_batch_size(ROWS);
    let reader = builder.build(start(path)?).map_err(text)?;
    Ok((schema, Box::new(reader.map(move |piece| piece.map_err(text)))))
}

pub(super) fn jsonl(
    path: &Path,
    types: &BTreeMap<String, DataType>,
    known: Option<&SchemaRef>,
) -> Result<(SchemaRef, Pieces), String> {
    let text = |error: arrow::error::ArrowError| error.to_string();
    let mut numbers = Numbers::default();
    let values = start(path)?.lines().zip(1..).filter_map(|(line, place)| numbers.read(line, place).transpose());
    let inferred = infer_json_schema_from_iterator(values).map_err(text)?;
    let own = Arc::new(of_types(&inferred, types, DataType::clone)?);
    let schema = as_known(own, known);
    numbers.check(&schema, types)?;
    // A file is not cut off where its lines have fields that the first one's did not.
    let builder = JsonBuilder::new(Arc::clone(&schema)).with_batch_size(ROWS).with_strict_mode(true);
    let reader = builder.build(start(path)?).map_err(text)?;
    Ok((schema, Box::new(reader.map(move |piece| piece.map_err(text)))))
}

/// The columns of the first file, where this one has the same names: a column of integers there may have been of texts here.
fn as_known(own: SchemaRef, known: Option<&SchemaRef>) -> SchemaRef {
    let names =
        |schema: &SchemaRef| -> Vec<String> { schema.fields().iter().map(|field| field.name().clone()).collect() };
    match known {
        Some(known) if names(known) == names(&own) => Arc::clone(known),
        _ => own,
    }
}

/// The columns with the types that were asked for.
fn of_types(
    inferred: &Schema,
    types: &BTreeMap<String, DataType>,
    normal: impl Fn(&DataType) -> DataType,
) -> Result<Schema, String> {
    if let Some(name) = types.keys().find(|name| inferred.field_with_name(name).is_err()) {
        return Err(format!("it has no column `{name}`, which `types` names"));
    }
    let field = |field: &FieldRef| {
        let data_type = types.get(field.name()).cloned().unwrap_or_else(|| normal(field.data_type()));
        Field::new(field.name(), data_type, true)
    };
    Ok(Schema::new(inferred.fields().iter().map(field).collect::<Vec<_>>()))
}

/// The file's text without a byte order mark.
fn start(path: &Path) -> Result<impl BufRead + use<>, String> {
    let io = |error: std::io::Error| error.to_string();
    let mut file = File::open(path).map_err(io)?;
    let mut mark = [0; 3];
    let has_mark = file.read_exact(&mut mark).is_ok() && mark == *b"\xef\xbb\xbf";
    file.seek(SeekFrom::Start(if has_mark { 3 } else { 0 })).map_err(io)?;
    Ok(BufReader::new(file))
}
