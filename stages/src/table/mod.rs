//! Kind `table`: a table that is there, in files of the project.

mod numbers;
mod text;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::stage::{
    self, Artifact, Context, Environment, Inputs, Output, Outputs, ParamError, PortType, Setup, StageError, TableStage,
    files_at,
};
use tracetune_engine::table::{TableFile, TableWriter};

use crate::column_types::{self, data_type};

/// What may stand under `kind = "table"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The file, from the project's root, or a glob (`data/**/*.parquet`), whose files are put one behind the other, sorted
    /// by their paths. Parquet, CSV (`.csv`), TSV (`.tsv`) or JSON Lines (`.jsonl`, `.ndjson`), all of one format and with
    /// the same columns.
    path: String,
    /// Types of columns (`string`, `bool`, `int32`, `int64`, `float32`, `float64`, `list of …`) that the text of a CSV or a
    /// JSON Lines file does not say as it should. Others are read from the whole first file.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// What stands between the values of a CSV file: one character.
    #[serde(default)]
    delimiter: Option<char>,
    /// Whether the first line of a CSV file has the columns' names; without it they are `column_1`, `column_2`, …
    #[serde(default = "yes")]
    header: bool,
    /// Columns that name a row: no two rows may have the same values in them, and none may be null.
    #[serde(default)]
    key: Vec<String>,
    /// The columns, where the file says them.
    #[serde(skip)]
    columns: Option<SchemaRef>,
}

fn yes() -> bool {
    true
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Parquet,
    Csv,
    Tsv,
    Jsonl,
}

impl Format {
    /// By the end of a path.
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "parquet" | "pq" => Some(Self::Parquet),
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let wrong =
            |param, message: String, help: &str| Err(ParamError { param, message, help: Some(help.to_owned()) });
        if Format::of(Path::new(&self.path)).is_none() {
            let help = "it must end in `.parquet`, `.csv`, `.tsv`, `.jsonl` or `.ndjson`";
            return wrong("path", format!("`{}` does not say its format", self.path), help);
        }
        column_types::check("types", &self.types)?;
        if self.delimiter.is_some_and(|delimiter| !delimiter.is_ascii()) {
            return wrong("delimiter", "is no ASCII character".to_owned(), "e.g. `delimiter = \";\"`");
        }
        Ok(())
    }

    fn resolve(&mut self, setup: &Setup) -> Result<(), ParamError> {
        // A file that is not there yet is told of when the stage runs.
        let first = files_at(&setup.resolve(&self.path)).ok().and_then(|files| files.into_iter().next());
        if let Some(first) = first.filter(|first| Format::of(first) == Some(Format::Parquet)) {
            self.columns = TableFile::open(first).ok().map(|file| file.schema());
        }
        Ok(())
    }

    fn warnings(&self, setup: &Setup) -> Vec<ParamError> {
        let error = setup.check_file(&self.path).err();
        error.map(|error| ParamError { param: "path", message: error.to_string(), help: None }).into_iter().collect()
    }
}

/// Reads a table as it is: all rows, in order, with all columns.
///
/// Text is read so: in CSV an empty value is null, quotes and `\r\n` are RFC 4180's; a column is `int64` if all of its values
/// are integers, `float64` if all are numbers, `bool` if all are `true` or `false`, else `string`, so that `007` and dates
/// stay text if `types` says so. A number in JSON Lines that its column's type does not hold, such as 2.5 in a column of
/// integers or 18446744073709551615 in one of `float64` that `types` does not ask for, is an error, not another number.
///
/// Files of a glob may have their columns in different orders: each is found by its name.
///
/// # Errors
/// [`StageError::Input`], naming the file and where it knows it the line, if a file can't be read, has other columns than the
/// first, or a key is not one.
pub struct TableKind;

impl TableStage for TableKind {
    const KIND: &'static str = "table";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "reads a table: Parquet, CSV, TSV or JSON Lines";
    const MAX_THREADS: usize = 1;
    type Params = Params;

    fn row_name(params: &Params) -> &[String] {
        &params.key
    }

    fn outputs(params: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("rows", PortType::Table(params.columns.clone()))]
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        Ok(vec![("file".to_owned(), setup.digest_file(&params.path)?)])
    }

    fn run(params: &Params, _: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let files = files_at(&cx.root.join(&params.path))
            .map_err(|error| StageError::input(format!("can't read `{}`: {error}", params.path)))?;
        let out = cx.scratch.join("rows.parquet");
        let mut writer: Option<(SchemaRef, TableWriter<BufWriter<File>>)> = None;
        let mut keys = Keys::new(&params.key);
        for (number, file) in files.iter().enumerate() {
            let shown = file.strip_prefix(&cx.root).unwrap_or(file).display();
            let failed = |error: String| StageError::input(format!("`{shown}`: {error}"));
            let known = writer.as_ref().map(|(schema, _)| SchemaRef::clone(schema));
            let (schema, pieces) = open(params, file, known.as_ref()).map_err(failed)?;
            let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
            if let Some((_, twice)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
                return Err(failed(format!("two columns are called `{twice}`")));
            }
            if let Some(known) = &known
                && let Some(difference) = difference(known, &schema)
            {
                return Err(failed(format!(
                    "{difference} in `{}`",
                    files[0].strip_prefix(&cx.root).unwrap_or(&files[0]).display()
                )));
            }
            if writer.is_none() {
                let file = BufWriter::new(File::create(&out)?);
                writer = Some((
                    SchemaRef::clone(&schema),
                    TableWriter::new(&schema, file).map_err(|error| failed(error.to_string()))?,
                ));
            }
            let Some((columns, writer)) = &mut writer else { continue };
            // Other files may have the first one's columns in another order.
            let places: Vec<usize> =
                columns.fields().iter().filter_map(|field| schema.index_of(field.name()).ok()).collect();
            for piece in pieces {
                if cx.cancelled() {
                    return Err(StageError::Cancelled);
                }
                let piece = piece.map_err(failed)?.project(&places).map_err(|error| failed(error.to_string()))?;
                keys.add(&piece).map_err(failed)?;
                writer.write(&piece).map_err(|error| failed(error.to_string()))?;
            }
            cx.progress(number as u64 + 1, files.len() as u64, "");
        }
        let Some((_, writer)) = writer else {
            return Err(StageError::input(format!("`{}` has no files", params.path)));
        };
        writer.finish().map_err(|error| StageError::input(error.to_string()))?;
        Ok(Outputs::from([("rows", Artifact::File(out))]))
    }
}

type Pieces = Box<dyn Iterator<Item = Result<RecordBatch, String>>>;

/// A file's columns and its rows, piece by piece. Text after the first file is read as the first one's columns are.
fn open(params: &Params, path: &Path, known: Option<&SchemaRef>) -> Result<(SchemaRef, Pieces), String> {
    const ROWS: usize = 1 << 14;
    match Format::of(path) {
        Some(Format::Parquet) => {
            let file = TableFile::open(path).map_err(|error| error.to_string())?;
            let schema = file.schema();
            let pieces = file.pieces(ROWS).map_err(|error| error.to_string())?;
            Ok((schema, Box::new(pieces.map(|piece| piece.map_err(|error| error.to_string())))))
        }
        Some(Format::Jsonl) => text::jsonl(path, &types(params), known),
        Some(format) => {
            let delimiter = params.delimiter.unwrap_or(if format == Format::Tsv { '\t' } else { ',' });
            text::csv(path, delimiter as u8, params.header, &types(params), known)
        }
        None => Err("it is of another format".to_owned()),
    }
}

fn types(params: &Params) -> BTreeMap<String, DataType> {
    params.types.iter().filter_map(|(name, kind)| Some((name.clone(), data_type(kind)?))).collect()
}

/// How a file's columns differ from those of the first one.
fn difference(first: &Schema, other: &Schema) -> Option<String> {
    for field in first.fields() {
        match other.field_with_name(field.name()) {
            Err(_) => return Some(format!("it lacks the column `{}` that is", field.name())),
            Ok(found) if found.data_type() != field.data_type() => {
                let (name, found, wanted) = (field.name(), found.data_type(), field.data_type());
                return Some(format!("column `{name}` is {found}, and {wanted}"));
            }
            Ok(_) => {}
        }
    }
    let extra = other.fields().iter().find(|field| first.field_with_name(field.name()).is_err())?;
    Some(format!("it has a column `{}` that is not", extra.name()))
}

/// The keys so far.
struct Keys<'a> {
    columns: &'a [String],
    known: std::collections::HashMap<[u8; 32], usize>,
    rows: usize,
}

impl<'a> Keys<'a> {
    fn new(columns: &'a [String]) -> Self {
        Self { columns, known: std::collections::HashMap::new(), rows: 0 }
    }

    fn add(&mut self, piece: &RecordBatch) -> Result<(), String> {
        if self.columns.is_empty() {
            return Ok(());
        }
        let fields = self.columns.iter().map(|name| {
            let schema = piece.schema();
            let field =
                schema.field_with_name(name).map_err(|_| format!("there is no column `{name}`, which `key` names"))?;
            Ok(field.clone().with_nullable(false))
        });
        let reads = Schema::new(fields.collect::<Result<Vec<_>, String>>()?);
        let digests = tracetune_engine::table::row_digests(piece, &reads)
            .map_err(|error| format!("{error}, which `key` names"))?;
        for digest in digests {
            if let Some(first) = self.known.insert(digest, self.rows) {
                return Err(format!(
                    "rows {first} and {} have the same {}, which `key` names",
                    self.rows,
                    self.columns.join(", ")
                ));
            }
            self.rows += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
