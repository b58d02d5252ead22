//! One run's folder, and what its words mean: a node, an output, a table.

use std::io::ErrorKind;
use std::path::PathBuf;

use arrow::array::RecordBatch;

use super::lines::{metric_lines, outcome_lines, stage_lines};
use super::{MetricLine, OutcomeLine, ParamLine, RunNode, RunRecord, RunsError};
use crate::cache::{CacheError, OutputRecord, Store};
use crate::table::{Record, TableError, read_table_file};

/// A run of the past, or one that goes on.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its folder.
    pub folder: PathBuf,
    /// `run.json`.
    pub record: RunRecord,
}

/// In the folder of a run that every `gc` keeps.
const PIN: &str = "pinned";

impl Run {
    /// Whether [`clear`] keeps what it needs, whatever its age.
    pub fn is_pinned(&self) -> bool {
        self.folder.join(PIN).exists()
    }

    /// Pins it, or lets it go.
    ///
    /// # Errors
    /// Its folder can't be written.
    pub fn pin(&self, pinned: bool) -> Result<(), RunsError> {
        let path = self.folder.join(PIN);
        let done = if pinned { std::fs::write(&path, "") } else { std::fs::remove_file(&path) };
        match done {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(CacheError::io("write", path)(error).into()),
            _ => Ok(()),
        }
    }

    /// Removes its folder.
    ///
    /// # Errors
    /// A file of it can't be removed.
    pub fn remove(&self) -> Result<(), RunsError> {
        Ok(std::fs::remove_dir_all(&self.folder).map_err(CacheError::io("remove", &self.folder))?)
    }

    /// The node called `id`: `verify@2`, `no-trace/verify@2` of a variant, or `verify` for the last round that has
    /// outputs.
    ///
    /// # Errors
    /// [`RunsError::NoNode`].
    pub fn node(&self, id: &str) -> Result<&RunNode, RunsError> {
        let nodes = &self.record.nodes;
        let without_round = |node: &RunNode| node.id.rsplit_once('@').is_some_and(|(stage, _)| stage == id);
        let of_stage = || nodes.iter().rev().filter(|node| without_round(node));
        let of_any_variant = || nodes.iter().rev().filter(|node| node.stage == id);
        nodes
            .iter()
            .find(|node| node.id == id)
            .or_else(|| of_stage().chain(of_any_variant()).find(|node| !node.outputs.is_empty()))
            .or_else(|| of_stage().chain(of_any_variant()).next())
            .ok_or_else(|| RunsError::NoNode {
                run: self.record.id.clone(),
                node: id.to_owned(),
                known: nodes.iter().map(|node| node.id.clone()).collect(),
            })
    }

    /// The node and the output that `STAGE` or `STAGE.OUTPUT` means. A variant's name may hold dots:
    /// `temperature=0.6/samples@1`.
    pub fn address<'t>(&self, text: &'t str) -> (&'t str, Option<&'t str>) {
        match text.rsplit_once('.') {
            Some((node, output)) if self.node(text).is_err() => (node, Some(output)),
            _ => (text, None),
        }
    }

    /// The record of a node's output; the first one if `output` is `None`.
    ///
    /// # Errors
    /// [`RunsError::NoNode`], [`RunsError::NoOutput`].
    pub fn output(&self, node: &str, output: Option<&str>) -> Result<&OutputRecord, RunsError> {
        let node = self.node(node)?;
        let name = output.or(node.first_output.as_deref());
        name.and_then(|name| node.outputs.get(name)).ok_or_else(|| RunsError::NoOutput {
            node: node.id.clone(),
            output: output.map(str::to_owned),
            known: node.outputs.keys().cloned().collect(),
        })
    }

    /// A node's output table.
    ///
    /// # Errors
    /// As [`Run::output`]; or the object is gone or damaged.
    pub fn table(&self, store: &Store, node: &str, output: Option<&str>) -> Result<RecordBatch, RunsError> {
        Ok(store.table(&self.output(node, output)?.digest)?)
    }

    /// `metrics.parquet`, with the columns of this version whichever wrote it.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn metrics(&self) -> Result<RecordBatch, RunsError> {
        Ok(MetricLine::write(&self.metric_lines()?).map_err(unreadable)?)
    }

    /// The rows of `metrics.parquet`.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn metric_lines(&self) -> Result<Vec<MetricLine>, RunsError> {
        Ok(metric_lines(self.own_table("metrics.parquet")?, &self.record).map_err(unreadable)?)
    }

    /// `stages.parquet`, with the columns of this version whichever wrote it.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn stages(&self) -> Result<RecordBatch, RunsError> {
        let lines = stage_lines(self.own_table("stages.parquet")?, &self.record).map_err(unreadable)?;
        Ok(Record::write(&lines).map_err(unreadable)?)
    }

    /// `outcomes.parquet`, with the columns of this version whichever wrote it.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn outcomes(&self) -> Result<RecordBatch, RunsError> {
        Ok(OutcomeLine::write(&self.outcome_lines()?).map_err(unreadable)?)
    }

    /// The rows of `outcomes.parquet`.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn outcome_lines(&self) -> Result<Vec<OutcomeLine>, RunsError> {
        Ok(outcome_lines(self.own_table("outcomes.parquet")?, &self.record).map_err(unreadable)?)
    }

    /// The rows of `params.parquet`; none if a version wrote the run that had no such table.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn param_lines(&self) -> Result<Vec<ParamLine>, RunsError> {
        if !self.folder.join("params.parquet").exists() {
            return Ok(Vec::new());
        }
        Ok(ParamLine::read(&self.own_table("params.parquet")?).map_err(unreadable)?)
    }

    /// `params.parquet` as a table.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn params(&self) -> Result<RecordBatch, RunsError> {
        Ok(ParamLine::write(&self.param_lines()?).map_err(unreadable)?)
    }

    /// `pipeline.toml`: the resolved pipeline.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn pipeline_text(&self) -> Result<String, RunsError> {
        let path = self.folder.join("pipeline.toml");
        Ok(std::fs::read_to_string(&path).map_err(CacheError::io("read", &path))?)
    }

    /// The lines of `events.jsonl`; a last line that a dying process left unfinished is left out.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn events(&self) -> Result<Vec<serde_json::Value>, RunsError> {
        let path = self.folder.join("events.jsonl");
        let text = std::fs::read_to_string(&path).map_err(CacheError::io("read", &path))?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    fn own_table(&self, name: &str) -> Result<RecordBatch, RunsError> {
        Ok(read_table_file(self.folder.join(name)).map_err(CacheError::from)?)
    }
}

/// A table that is not what this version reads.
fn unreadable(error: impl Into<TableError>) -> CacheError {
    CacheError::Table(error.into())
}
