//! Why one row of a row stage is cached, stale or new.

use std::cell::LazyCell;
use std::fmt;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::util::display::array_value_to_string;
use serde::Serialize;

use super::planner::{Planner, diff, with_files};
use super::{Cause, row_keys};
use crate::cache::{CacheError, Store};
use crate::pipeline::{NodeIndex, Pipeline, Source};
use crate::registry::Work;
use crate::table::{RecordError, TableError, read_columns, row_digests, shown};

/// What the cache knows of a row's parts, and what differs from the last time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowWhy {
    /// The node's id.
    pub node: String,
    /// The row of the table that it reads, from 0.
    pub row: usize,
    /// The row's parts: of `sample`, one a draw.
    pub parts: usize,
    /// How many of them are in the cache.
    pub cached: usize,
    /// What changed for all rows; nothing if the row is in the cache.
    pub causes: Vec<Cause>,
    /// What changed in the row itself, against the most similar row of the last time; nothing if it is in the cache.
    pub columns: Vec<ColumnChange>,
}

/// A column that a stage reads, of two rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnChange {
    /// Its name.
    pub column: String,
    /// The value then, as text.
    pub old: String,
    /// And now.
    pub new: String,
}

/// A row's state can't be told.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The kind works on whole tables.
    #[error("`{node}` (kind `{kind}`) works on whole tables: there is nothing to say of one row")]
    NotRowwise {
        /// The node.
        node: String,
        /// Its kind.
        kind: String,
    },
    /// The rows are not there yet.
    #[error("the rows of `{node}` are not known yet: `{from}` runs before it")]
    NotYet {
        /// The node.
        node: String,
        /// The node before it.
        from: String,
    },
    /// The node has no key.
    #[error("`{node}` has no key: {error}")]
    NoKey {
        /// The node.
        node: String,
        /// Why.
        error: String,
    },
    /// There are fewer rows.
    #[error("`{node}` has no row {row}: it reads {rows} rows, from 0")]
    NoRow {
        /// The node.
        node: String,
        /// The row that was asked for.
        row: usize,
        /// How many there are.
        rows: usize,
    },
    /// No row has the value.
    #[error("`{node}` reads no row whose `{column}` is `{value}`")]
    NoValue {
        /// The node.
        node: String,
        /// The column.
        column: String,
        /// The value.
        value: String,
    },
    /// The store can't be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The table lacks a column.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Which rows of the table that a stage reads are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhichRows {
    /// The row of this number, from 0.
    Number(usize),
    /// Those that have a value, as text, in a column.
    Value(String, String),
}

pub(super) fn why_rows(
    pipeline: &Pipeline,
    store: &Store,
    index: NodeIndex,
    which: &WhichRows,
) -> Result<Vec<RowWhy>, RowError> {
    let planner = Planner::up_to(pipeline, store, index)?;
    let node = &pipeline.nodes[index];
    let id = || node.id.clone();
    let stage = node.stage_kind.as_ref();
    let Work::Rows(work) = stage.work() else {
        return Err(RowError::NotRowwise { node: id(), kind: stage.kind().name().to_owned() });
    };
    let shape = work.shape();
    let recipe = planner.recipes[index]
        .as_ref()
        .map_err(|no_key| RowError::NoKey { node: id(), error: no_key.error.clone() })?;
    let inputs = planner.inputs(node);
    if let Some(Cause::InputUncertain { from, .. }) = inputs.uncertain.first() {
        return Err(RowError::NotYet { node: id(), from: from.clone() });
    }
    let table = store.table(&inputs.digests[shape.port])?;
    let rows = match which {
        WhichRows::Number(row) if *row < table.num_rows() => vec![*row],
        WhichRows::Number(row) => return Err(RowError::NoRow { node: id(), row: *row, rows: table.num_rows() }),
        WhichRows::Value(column, value) => {
            let values = table.column_by_name(column);
            let values = values.ok_or_else(|| TableError::from(RecordError::MissingColumn(column.clone())))?;
            let rows: Vec<usize> = (0..table.num_rows()).filter(|&row| text(values, row) == *value).collect();
            if rows.is_empty() {
                return Err(RowError::NoValue { node: id(), column: column.clone(), value: value.clone() });
            }
            rows
        }
    };
    let signature = recipe.signature(&inputs.digests).expect("a row stage has a signature");
    let segments = store.segments(&signature)?;
    let parts = work.parts();
    let last = planner.last(node)?.and_then(|(_, last)| last);
    let before = match last.as_ref().and_then(|last| last.input(shape.port)).map(|before| store.table(&before)) {
        Some(Err(CacheError::Lost { .. })) | None => None,
        Some(before) => Some(before?),
    };
    let named_by = row_name(pipeline, index, shape.port, &table);
    // What all rows that are not cached have in common: found out once, and only if there are such rows.
    let of_all_rows = LazyCell::new(|| {
        let Some(last) = &last else { return vec![Cause::New] };
        let (_, key_parts) = recipe.action(&inputs.digests);
        let mut causes = with_files(planner.store, recipe, diff(node, last, &key_parts, &inputs));
        causes.retain(|cause| !matches!(cause, Cause::Input { port, .. } if port == shape.port));
        causes
    });
    let reads = read_columns(&table, &shape.reads)?;
    let reads_before = before.as_ref().and_then(|before| Some((before, read_columns(before, &shape.reads).ok()?)));
    let why = |row: usize| {
        let digests = row_digests(&table.slice(row, 1), &shape.reads)?;
        let cached = row_keys(&signature, &digests, &parts).filter(|key| segments.find(key).is_some()).count();
        let mut why = RowWhy { node: id(), row, parts: parts.len(), cached, causes: Vec::new(), columns: Vec::new() };
        if cached == parts.len() {
            return Ok(why);
        }
        why.causes.clone_from(&of_all_rows);
        let Some((before, old)) = &reads_before else { return Ok(why) };
        match earlier(before, &table, row, &named_by) {
            Earlier::Row(earlier) => why.columns = changes(old, earlier, &reads, row),
            Earlier::New => why.causes.push(Cause::NewRow { name: name_of(&table, row, &named_by) }),
            Earlier::Unnamed => {
                if let Some(nearest) = nearest(old, &reads, row) {
                    why.columns = changes(old, nearest, &reads, row);
                }
            }
        }
        Ok(why)
    };
    rows.into_iter().map(why).collect()
}

/// The columns that name a row of the table at a port: those of the nearest source of it that says so.
fn row_name(pipeline: &Pipeline, index: NodeIndex, port: &str, table: &RecordBatch) -> Vec<String> {
    let mut next = Some((index, port.to_owned()));
    while let Some((index, port)) = next {
        let binding = pipeline.nodes[index].inputs.iter().find(|binding| binding.port == port);
        let Some(Source::Node { node, .. }) = binding.map(|binding| &binding.source) else { break };
        let stage = &pipeline.nodes[*node].stage_kind;
        let names = stage.row_name();
        if !names.is_empty() && names.iter().all(|name| table.column_by_name(name).is_some()) {
            return names.to_vec();
        }
        next = match stage.work() {
            Work::Rows(work) => Some((*node, work.shape().port.to_owned())),
            Work::Table(_) => None,
        };
    }
    Vec::new()
}

/// What a row was the last time.
enum Earlier {
    Row(usize),
    New,
    /// Nothing names rows, or several have its name.
    Unnamed,
}

fn earlier(before: &RecordBatch, now: &RecordBatch, row: usize, named_by: &[String]) -> Earlier {
    let columns = |table: &RecordBatch| -> Option<Vec<ArrayRef>> {
        named_by.iter().map(|name| table.column_by_name(name).cloned()).collect()
    };
    let (Some(old), Some(new)) = (columns(before), columns(now)) else { return Earlier::Unnamed };
    if named_by.is_empty() {
        return Earlier::Unnamed;
    }
    let name: Vec<String> = new.iter().map(|column| text(column, row)).collect();
    let has_name = |row: &usize| old.iter().zip(&name).all(|(column, value)| text(column, *row) == *value);
    let mut found = (0..before.num_rows()).filter(has_name);
    match (found.next(), found.next()) {
        (None, _) => Earlier::New,
        (Some(row), None) => Earlier::Row(row),
        _ => Earlier::Unnamed,
    }
}

/// `id=42`.
fn name_of(table: &RecordBatch, row: usize, named_by: &[String]) -> String {
    let value = |name: &String| table.column_by_name(name).map(|column| format!("{name}={}", text(column, row)));
    named_by.iter().filter_map(value).collect::<Vec<_>>().join(", ")
}

/// The row of `before` that shares the most columns with a row, the nearest one of several.
fn nearest(before: &RecordBatch, now: &RecordBatch, row: usize) -> Option<usize> {
    let mut shared = vec![0usize; before.num_rows()];
    for (old, new) in before.columns().iter().zip(now.columns()) {
        let new = text(new, row);
        for (row, shared) in shared.iter_mut().enumerate() {
            *shared += usize::from(text(old, row) == new);
        }
    }
    (0..shared.len()).max_by_key(|&old| (shared[old], std::cmp::Reverse(old.abs_diff(row))))
}

/// How a row differs from what it was.
fn changes(before: &RecordBatch, earlier: usize, now: &RecordBatch, row: usize) -> Vec<ColumnChange> {
    let schema = now.schema();
    let change = |(index, (old, new)): (usize, (&ArrayRef, &ArrayRef))| {
        let (old, new) = (text(old, earlier), text(new, row));
        (old != new).then(|| ColumnChange { column: schema.field(index).name().clone(), old, new })
    };
    before.columns().iter().zip(now.columns()).enumerate().filter_map(change).collect()
}

fn text(column: &ArrayRef, row: usize) -> String {
    array_value_to_string(&shown(column), row).unwrap_or_default()
}

impl fmt::Display for RowWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} row {}: ", self.node, self.row)?;
        match (self.cached, self.parts) {
            (cached, parts) if cached == parts => return write!(f, "cached"),
            (_, 1) => write!(f, "to compute")?,
            (cached, parts) => write!(f, "{} of {parts} parts to compute", parts - cached)?,
        }
        for cause in &self.causes {
            write!(f, "\n  {cause}")?;
        }
        for ColumnChange { column, old, new } in &self.columns {
            let same = old.chars().zip(new.chars()).take_while(|(old, new)| old == new).count();
            write!(f, "\n  column `{column}` changed ({} => {})", around(old, same), around(new, same))?;
        }
        Ok(())
    }
}

/// The part of a value around a position, on one line.
fn around(value: &str, position: usize) -> String {
    const BEFORE: usize = 20;
    const SHOWN: usize = 60;
    let first = position.saturating_sub(BEFORE);
    let mut shown: String = value.chars().skip(first).take(SHOWN).flat_map(char::escape_debug).collect();
    if first > 0 {
        shown.insert(0, '…');
    }
    if value.chars().nth(first + SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
