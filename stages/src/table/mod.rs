//! Kind `table`: a table that is there, in files of the project.

mod ipc;
mod numbers;
mod text;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::stage::{
    self, Artifact, Context, Environment, Inputs, Output, Outputs, ParamError, PortType, Setup, StageError, TableStage,
    files_at,
};
use tracetune_engine::table::{RecordError, TableError, TableFile, TableWriter, read_columns, readable_as};

use crate::column_types::{self, data_type};

/// What may stand under `kind = "table"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The file, from the project's root, or a glob (`data/**/*.parquet`), whose files are put one behind the other, sorted
    /// by their paths; or a list of both, in the list's order. Parquet, Arrow IPC (`.arrow`, `.feather`), CSV (`.csv`), TSV
    /// (`.tsv`) or JSON Lines (`.jsonl`, `.ndjson`), all with the same columns. No file may be named twice.
    path: Paths,
    /// Types of columns (`string`, `bool`, `int32`, `int64`, `float32`, `float64`, `list of …`) that the text of a CSV or a
    /// JSON Lines file does not say as it should. Others are read from the whole first file. A column of a Parquet or an Arrow
    /// file can be read as one of another width, an ordered categorical as `string`.
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

/// One path or several.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a path or a list of paths")]
enum Paths {
    /// A file or a glob.
    One(String),
    /// Files and globs, in this order.
    Several(Vec<String>),
}

impl Paths {
    fn all(&self) -> &[String] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths,
        }
    }
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Parquet,
    Arrow,
    Csv,
    Tsv,
    Jsonl,
}

impl Format {
    /// By the end of a path.
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "parquet" | "pq" => Some(Self::Parquet),
            "arrow" | "arrows" | "feather" | "ipc" => Some(Self::Arrow),
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
        if self.path.all().is_empty() {
            return wrong("path", "names no file".to_owned(), "e.g. `path = \"data/rows.parquet\"`");
        }
        if let Some(path) = self.path.all().iter().find(|path| Format::of(Path::new(path)).is_none()) {
            let help = "it must end in `.parquet`, `.arrow`, `.feather`, `.csv`, `.tsv`, `.jsonl` or `.ndjson`";
            return wrong("path", format!("`{path}` does not say its format"), help);
        }
        column_types::check("types", &self.types)?;
        if self.delimiter.is_some_and(|delimiter| !delimiter.is_ascii()) {
            return wrong("delimiter", "is no ASCII character".to_owned(), "e.g. `delimiter = \";\"`");
        }
        Ok(())
    }

    fn resolve(&mut self, setup: &Setup) -> Result<(), ParamError> {
        // A file that is not there yet is told of when the stage runs.
        let first = self.path.all().first().and_then(|path| files_at(&setup.resolve(path)).ok()?.into_iter().next());
        let first = first.filter(|first| matches!(Format::of(first), Some(Format::Parquet | Format::Arrow)));
        self.columns = first.and_then(|first| Some(open(self, &first, None).ok()?.schema));
        Ok(())
    }

    fn warnings(&self, setup: &Setup) -> Vec<ParamError> {
        let errors = self.path.all().iter().filter_map(|path| setup.check_file(path).err());
        errors.map(|error| ParamError { param: "path", message: error.to_string(), help: None }).collect()
    }
}

/// Reads a table as it is: all rows, in order, with all columns.
///
/// Text is read so: in CSV an empty value is null, quotes and `\r\n` are RFC 4180's; a column is `int64` if all of its values
/// are integers, `float64` if all are numbers, `bool` if all are `true` or `false`, else `string`, so that `007` and dates
/// stay text if `types` says so. A number in JSON Lines that its column's type does not hold, such as 2.5 in a column of
/// integers or 18446744073709551615 in one of `float64` that `types` does not ask for, is an error, not another number.
///
/// Files may have their columns in different orders: each is found by its name.
///
/// Of a column's type everything is kept that its values mean: UUIDs and other extension types, and the names of time zones.
/// Categoricals and dictionaries come as their values, strings mostly: which values there might be besides is left out. What
/// can't be kept is an error that names the column: ordered categoricals and Polars enums (if `types` does not say `string`),
/// durations, tensors. Metadata of files,
/// such as pandas's, is left out, so that equal rows are equal tables whichever program wrote them. A pandas index that is a
/// column of the file is one here (`__index_level_0__` if it has no name); one that is a mere range is in no column, and the
/// stage notes it if it is not 0, 1, 2, ….
///
/// # Errors
/// [`StageError::Input`], naming the file and where it knows it the line, if a file can't be read, has other columns than the
/// first or one that can't be kept, is named twice, or a key is not one.
pub struct TableKind;

impl TableStage for TableKind {
    const KIND: &'static str = "table";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "reads a table: Parquet, Arrow, CSV, TSV or JSON Lines";
    const MAX_THREADS: usize = 1;
    type Params = Params;

    fn row_name(params: &Params) -> &[String] {
        &params.key
    }

    fn outputs(params: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("rows", PortType::Table(params.columns.clone()))]
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        let name = |path: &String| match &params.path {
            Paths::One(_) => "file".to_owned(),
            Paths::Several(_) => format!("file {path}"),
        };
        params.path.all().iter().map(|path| Ok((name(path), setup.digest_file(path)?))).collect()
    }

    fn run(params: &Params, _: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let files = files(params, &cx.root)?;
        let out = cx.scratch.join("rows.parquet");
        let mut writer: Option<(SchemaRef, TableWriter<BufWriter<File>>)> = None;
        let mut keys = Keys::new(&params.key);
        for (number, file) in files.iter().enumerate() {
            let shown = file.strip_prefix(&cx.root).unwrap_or(file).display();
            let failed = |error: String| StageError::input(format!("`{shown}`: {error}"));
            let known = writer.as_ref().map(|(schema, _)| SchemaRef::clone(schema));
            let Opened { schema, pieces, left_out } = open(params, file, known.as_ref()).map_err(failed)?;
            if let Some(left_out) = left_out {
                cx.note(&format!("`{shown}`: {left_out}"));
            }
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
            return Err(StageError::input("`path` names no files"));
        };
        writer.finish().map_err(|error| StageError::input(error.to_string()))?;
        Ok(Outputs::from([("rows", Artifact::File(out))]))
    }
}

/// All files in order, each once.
fn files(params: &Params, root: &Path) -> Result<Vec<PathBuf>, StageError> {
    let mut files = Vec::new();
    for path in params.path.all() {
        let found =
            files_at(&root.join(path)).map_err(|error| StageError::input(format!("can't read `{path}`: {error}")))?;
        if let Some(twice) = found.iter().find(|file| files.contains(*file)) {
            let shown = twice.strip_prefix(root).unwrap_or(twice).display();
            return Err(StageError::input(format!("`path` names `{shown}` twice, the second time as `{path}`")));
        }
        files.extend(found);
    }
    Ok(files)
}

type Pieces = Box<dyn Iterator<Item = Result<RecordBatch, String>>>;

/// A file's columns and its rows, piece by piece.
struct Opened {
    schema: SchemaRef,
    pieces: Pieces,
    /// What of the file is in no column.
    left_out: Option<String>,
}

/// Rows that are read at a time.
const ROWS: usize = 1 << 14;

/// Opens a file. Text after the first file is read as the first one's columns are.
fn open(params: &Params, path: &Path, known: Option<&SchemaRef>) -> Result<Opened, String> {
    let text = |(schema, pieces)| Opened { schema, pieces, left_out: None };
    let values: Vec<&str> = params.types.keys().map(String::as_str).collect();
    match Format::of(path) {
        Some(Format::Parquet) => {
            let file = TableFile::open_values(path, &values).map_err(told)?;
            let pieces = file.pieces(ROWS).map_err(told)?;
            let pieces = Box::new(pieces.map(|piece| piece.map_err(told)));
            let opened = Opened { schema: file.schema(), pieces, left_out: file.left_out() };
            opened.with_types(&types(params))
        }
        Some(Format::Arrow) => ipc::open(path, &values)?.with_types(&types(params)),
        Some(Format::Jsonl) => text::jsonl(path, &types(params), known).map(text),
        Some(format) => {
            let delimiter = params.delimiter.unwrap_or(if format == Format::Tsv { '\t' } else { ',' });
            text::csv(path, delimiter as u8, params.header, &types(params), known).map(text)
        }
        None => Err("it is of another format".to_owned()),
    }
}

impl Opened {
    /// The same with other types of columns, as far as no value is another one then.
    fn with_types(self, types: &BTreeMap<String, DataType>) -> Result<Self, String> {
        if let Some(name) = types.keys().find(|name| self.schema.field_with_name(name).is_err()) {
            return Err(format!("it has no column `{name}`, which `types` names"));
        }
        if types.is_empty() {
            return Ok(self);
        }
        let field = |field: &FieldRef| match types.get(field.name()) {
            Some(wanted) if wanted == field.data_type() => Ok(Arc::clone(field)),
            Some(wanted) if readable_as(field.data_type(), wanted) => {
                Ok(Arc::new(Field::new(field.name(), wanted.clone(), field.is_nullable())))
            }
            Some(wanted) => {
                Err(format!("column `{}` is {}, which can't be read as {wanted}", field.name(), field.data_type()))
            }
            None => Ok(Arc::clone(field)),
        };
        let fields: Vec<FieldRef> = self.schema.fields().iter().map(field).collect::<Result<_, _>>()?;
        let schema = Arc::new(Schema::new(fields));
        let reads = Arc::clone(&schema);
        let pieces = self.pieces.map(move |piece| read_columns(&piece?, &reads).map_err(told));
        Ok(Self { schema, pieces: Box::new(pieces), left_out: self.left_out })
    }
}

/// An error with what this kind can do about it.
fn told(error: TableError) -> String {
    let help = match &error {
        TableError::Record(RecordError::Ordered { column, .. }) => {
            format!("; `types = {{ {column} = \"string\" }}` reads the text alone")
        }
        _ => String::new(),
    };
    format!("{error}{help}")
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
            Ok(found) if found.extension_type_name() != field.extension_type_name() => {
                let shown = |field: &Field| field.extension_type_name().unwrap_or("of no extension type").to_owned();
                return Some(format!("column `{}` is {}, and {}", field.name(), shown(found), shown(field)));
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
