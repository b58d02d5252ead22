//! Rows that fail for what is in them, as far as `bad_rows` allows it.

use std::collections::HashMap;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;

use super::super::job::JobError;
use super::{Piece, assemble};
use crate::cache::{OutputRecord, Store};
use crate::stage::{BadRow, Context, Dropped, RowKey, StageError};
use crate::table::{Record, TableError, TableFile, append_columns};

/// What failed.
pub(super) struct Bad {
    /// How many items may.
    allowed: u64,
    /// The row in the table and why, by key.
    errors: HashMap<RowKey, (usize, String)>,
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
}

impl Bad {
    /// Errors that are shown.
    const SHOWN: usize = 3;

    pub(super) fn new(table: &TableFile, allowed: u64) -> Self {
        let schema = append_columns(&table.schema(), &BadRow::schema());
        Self { allowed, errors: HashMap::new(), schema, rows: Vec::new() }
    }

    /// Whether an item has failed.
    pub(super) fn has(&self, key: &RowKey) -> bool {
        self.errors.contains_key(key)
    }

    /// How many rows were left out.
    pub(super) fn count(&self) -> usize {
        self.rows.len()
    }

    /// Enters an item of a row of the table.
    pub(super) fn enter(&mut self, key: RowKey, row: usize, error: String) -> Result<(), JobError> {
        self.errors.insert(key, (row, error));
        self.check(self.errors.len())
    }

    /// Keeps the row of an item that failed.
    pub(super) fn leave_out(&mut self, piece: &Piece, item: usize, parts: &[i32]) -> Result<(), JobError> {
        let error = self.errors.get(&piece.keys[item]).map(|(_, error)| error.clone()).unwrap_or_default();
        let added = BadRow::write(&[BadRow { _part: parts[item % parts.len()], _error: error }]);
        let row = UInt32Array::from(vec![(item / parts.len()) as u32]);
        self.rows.push(assemble(&piece.table, &row, &added.map_err(TableError::from)?)?);
        self.check(self.rows.len())
    }

    /// Fails if it is more than may.
    fn check(&self, count: usize) -> Result<(), JobError> {
        if count as u64 <= self.allowed {
            return Ok(());
        }
        let shown = self.shown().join("\n");
        Err(StageError::input(format!("more than {} failed, as `bad_rows` allows\n{shown}", self.allowed)).into())
    }

    /// The first errors in the table's order, for people.
    fn shown(&self) -> Vec<String> {
        let mut errors: Vec<&(usize, String)> = self.errors.values().collect();
        errors.sort();
        errors.into_iter().take(Self::SHOWN).map(|(row, error)| format!("row {row}: {error}")).collect()
    }

    /// Stores the rows, and tells of them.
    pub(super) fn put(self, store: &Store, cx: &Context) -> Result<OutputRecord, JobError> {
        if !self.rows.is_empty() {
            let are = if self.rows.len() == 1 { "row is" } else { "rows are" };
            let shown = self.shown();
            cx.note(&format!("{} bad {are} left out: see the output `bad`\n{}", self.rows.len(), shown.join("\n")));
            let dropped = Dropped::new(self.rows.len() as u64, "the stage fails at the row, as `bad_rows` allows");
            cx.dropped(&dropped.example(shown.into_iter().next().unwrap_or_default()));
        }
        store.put_pieces(&self.schema, |output| Ok(self.rows.iter().try_for_each(|row| output.write(row))?))
    }
}
