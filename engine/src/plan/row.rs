//! Why one row of a row stage is cached, stale or new.

use std::fmt;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::util::display::array_value_to_string;
use serde::Serialize;

use super::planner::{Planner, diff, with_files};
use super::{Cause, row_keys};
use crate::cache::{CacheError, Store};
use crate::pipeline::{NodeIndex, Pipeline};
use crate::registry::Work;
use crate::table::{TableError, read_columns, row_digests, shown};

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
    /// The store can't be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The table lacks a column.
    #[error(transparent)]
    Table(#[from] TableError),
}

pub(super) fn why_row(pipeline: &Pipeline, store: &Store, index: NodeIndex, row: usize) -> Result<RowWhy, RowError> {
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
    let digest = inputs.digests[shape.port];
    let table = read_columns(&store.table(&digest)?, &shape.reads)?;
    if row >= table.num_rows() {
        return Err(RowError::NoRow { node: id(), row, rows: table.num_rows() });
    }
    let signature = recipe.signature(&inputs.digests).expect("a row stage has a signature");
    let digests = row_digests(&table.slice(row, 1), &shape.reads)?;
    let segments = store.segments(&signature)?;
    let parts = work.parts();
    let cached = row_keys(&signature, &digests, &parts).filter(|key| segments.find(key).is_some()).count();
    let mut why = RowWhy { node: id(), row, parts: parts.len(), cached, causes: Vec::new(), columns: Vec::new() };
    if cached == parts.len() {
        return Ok(why);
    }
    let Some((_, Some(last))) = planner.last(node)? else {
        why.causes.push(Cause::New);
        return Ok(why);
    };
    let (_, key_parts) = recipe.action(&inputs.digests);
    let of_all_rows = |cause: &Cause| !matches!(cause, Cause::Input { port, .. } if port == shape.port);
    let causes = with_files(planner.store, recipe, diff(node, &last, &key_parts, &inputs));
    why.causes.extend(causes.into_iter().filter(of_all_rows));
    if let Some(before) = last.input(shape.port) {
        match store.table(&before) {
            Ok(before) => {
                if let Ok(before) = read_columns(&before, &shape.reads) {
                    why.columns = changes(&before, &table, row);
                }
            }
            Err(CacheError::Lost { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(why)
}

/// How the row differs from the row of `before` that shares the most columns with it, the nearest one of several.
fn changes(before: &RecordBatch, now: &RecordBatch, row: usize) -> Vec<ColumnChange> {
    let mut shared = vec![0usize; before.num_rows()];
    for (old, new) in before.columns().iter().zip(now.columns()) {
        let new = text(new, row);
        for (row, shared) in shared.iter_mut().enumerate() {
            *shared += usize::from(text(old, row) == new);
        }
    }
    let Some(nearest) = (0..shared.len()).max_by_key(|&old| (shared[old], std::cmp::Reverse(old.abs_diff(row)))) else {
        return Vec::new();
    };
    let schema = now.schema();
    let change = |(index, (old, new)): (usize, (&ArrayRef, &ArrayRef))| {
        let (old, new) = (text(old, nearest), text(new, row));
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
