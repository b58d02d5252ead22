//! The outputs that a command declares, and what it left in their places.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::new_null_array;
use arrow::datatypes::{Field, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::runs::{MetricRow, OutcomeRow};
use tracetune_engine::stage::{Artifact, Output, ParamError, PortType, StageError};
use tracetune_engine::table::{Record, TableFile, cast_exactly, read_table_file, schema_of};

use crate::column_types::{self, data_type};

/// What an output is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OutputKind {
    /// `table`: a Parquet file; `model`: a folder in the Hugging Face layout; `folder`: any folder.
    Named(OutputName),
    /// A Parquet file with these columns.
    Columns {
        /// Each column's type, as in `row_wise.adds`.
        columns: BTreeMap<String, String>,
    },
}

/// An output without more to say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutputName {
    /// A Parquet file.
    Table,
    /// A folder with `config.json`, `model.safetensors` and `tokenizer.json`.
    Model,
    /// A folder with whatever files.
    Folder,
}

/// An output with its name.
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) kind: OutputKind,
}

/// All outputs, the default one first: `rows`, else `model`, else the first by name.
pub(crate) fn declared(outputs: &BTreeMap<String, OutputKind>) -> Vec<Declared> {
    if outputs.is_empty() {
        return vec![Declared { name: "rows".to_owned(), kind: OutputKind::Named(OutputName::Table) }];
    }
    let default = ["rows", "model"].into_iter().find(|name| outputs.contains_key(*name));
    let mut all: Vec<Declared> =
        outputs.iter().map(|(name, kind)| Declared { name: name.clone(), kind: kind.clone() }).collect();
    all.sort_by_key(|output| Some(output.name.as_str()) != default);
    all
}

impl Declared {
    pub(crate) fn output(&self) -> Output {
        let port_type = match &self.kind {
            OutputKind::Named(OutputName::Model) => PortType::Model,
            OutputKind::Named(OutputName::Folder) => PortType::Folder,
            OutputKind::Named(OutputName::Table) => PortType::Table(self.standard()),
            OutputKind::Columns { columns } => PortType::Table(Some(schema(columns))),
        };
        Output::new(self.name.clone(), port_type)
    }

    /// The columns that two names stand for: `compare`, `show` and loops read them.
    fn standard(&self) -> Option<SchemaRef> {
        match self.name.as_str() {
            "metrics" => Some(MetricRow::schema()),
            "outcomes" => Some(OutcomeRow::schema()),
            _ => None,
        }
    }

    pub(crate) fn is_folder(&self) -> bool {
        matches!(self.kind, OutputKind::Named(OutputName::Model | OutputName::Folder))
    }

    pub(crate) fn file_name(&self) -> String {
        if self.is_folder() { format!("out-{}", self.name) } else { format!("out-{}.parquet", self.name) }
    }

    /// What the program left there.
    pub(super) fn take(&self, place: PathBuf, program: &str, tail: &str) -> Result<Artifact, StageError> {
        let variable = format!("TRACETUNE_OUT_{}", tracetune_engine::stage::variable(&self.name));
        self.take_from(place, program, &variable, tail)
    }

    /// What is at a place that the program knows by this name.
    pub(crate) fn take_from(
        &self,
        place: PathBuf,
        program: &str,
        variable: &str,
        tail: &str,
    ) -> Result<Artifact, StageError> {
        let wrong = |what: String| Err(StageError::input(format!("`{program}` {what}\n{tail}").trim_end().to_owned()));
        if !place.exists() {
            return wrong(format!("wrote nothing to {variable}"));
        }
        match &self.kind {
            OutputKind::Named(name @ (OutputName::Model | OutputName::Folder)) => {
                if !place.is_dir() {
                    return wrong(format!("wrote a file to {variable}, where a folder should be"));
                }
                if std::fs::read_dir(&place)?.next().is_none() {
                    return wrong(format!("left the folder at {variable} empty"));
                }
                if *name == OutputName::Model && !place.join("config.json").is_file() {
                    return wrong(format!("wrote a model to {variable} without `config.json`"));
                }
                Ok(Artifact::Directory(place))
            }
            _ if place.is_dir() => wrong(format!("made a folder at {variable}, where a Parquet file should be")),
            _ => match TableFile::open(&place) {
                Err(error) => Err(StageError::input(format!("what `{program}` wrote to {variable}: {error}"))),
                Ok(_) => self.table(place, program),
            },
        }
    }

    /// What of a table that the program wrote is in no column.
    pub(super) fn left_out(&self, artifact: &Artifact) -> Option<String> {
        let Artifact::File(path) = artifact else { return None };
        let left_out = TableFile::open(path).ok()?.left_out()?;
        Some(format!("output `{}`: {left_out}", self.name))
    }

    /// A table, with the columns of metrics and outcomes that may be null where it lacks them.
    fn table(&self, place: PathBuf, program: &str) -> Result<Artifact, StageError> {
        let Some(standard) = self.standard() else { return Ok(Artifact::File(place)) };
        let wrong = |error: String| {
            StageError::input(format!("the output `{}` of `{program}` is not what `compare` reads: {error}", self.name))
        };
        let table = read_table_file(&place).map_err(|error| wrong(error.to_string()))?;
        if let Some(extra) =
            table.schema().fields().iter().find(|field| standard.field_with_name(field.name()).is_err())
        {
            let known: Vec<&str> = standard.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(wrong(format!("it has a column `{}`; its columns are {}", extra.name(), known.join(", "))));
        }
        let mut columns = Vec::new();
        for field in standard.fields() {
            columns.push(match table.column_by_name(field.name()) {
                Some(column) => {
                    if !tracetune_engine::table::readable_as(column.data_type(), field.data_type()) {
                        let (found, wanted) = (column.data_type(), field.data_type());
                        return Err(wrong(format!("column `{}` is {found}, not {wanted}", field.name())));
                    }
                    cast_exactly(field.name(), column, field.data_type()).map_err(|error| wrong(error.to_string()))?
                }
                None if field.is_nullable() => new_null_array(field.data_type(), table.num_rows()),
                None => return Err(wrong(format!("it has no column `{}`", field.name()))),
            });
        }
        let table = arrow::array::RecordBatch::try_new(standard, columns).map_err(|error| wrong(error.to_string()))?;
        Ok(Artifact::Table(table))
    }
}

fn schema(columns: &BTreeMap<String, String>) -> SchemaRef {
    schema_of(columns.iter().filter_map(|(name, kind)| Some(Field::new(name, data_type(kind)?, true))).collect())
}

/// Checks the types of all declared columns.
///
/// # Errors
/// As [`column_types::check`].
pub(crate) fn check_types(outputs: &BTreeMap<String, OutputKind>) -> Result<(), ParamError> {
    outputs.values().try_for_each(|kind| match kind {
        OutputKind::Columns { columns } => column_types::check("outputs", columns),
        OutputKind::Named(_) => Ok(()),
    })
}
