//! Runs a row stage: piece by piece of its input, finds the items that no segment has, computes them segment by
//! segment, and writes the piece's share of the output. Memory holds pieces, and an index of the items.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;

use super::job::{JobError, check_watched, output_error};
use crate::cache::{OutputRecord, Place, Segments, Signature, Store, WatchedFile};
use crate::pipeline::BadRows;
use crate::plan::row_keys;
use crate::registry::{RowSession, RowShape, RowWork};
use crate::stage::{BadRow, Context, Dropped, Inputs, Reporter, RowKey, StageError};
use crate::table::{Record, TableError, TableFile, append_columns, read_columns, row_digests};

/// Items of a piece: what is looked up, and at most computed, at a time.
const PIECE_ITEMS: usize = 1 << 14;

/// Segments grow with what is done, to this share of it: a long stage has few of them, and what a killed one loses stays
/// a small part of its work.
const SHARE_OF_DONE: usize = 64;

/// What a row stage gave.
pub(super) struct RowsOutput {
    pub table: OutputRecord,
    /// What failed, if some of it may.
    pub bad: Option<OutputRecord>,
    /// Units of work that are in the table: rows and parts.
    pub items: u64,
    pub computed: u64,
}

/// A row stage that is to be run.
pub(super) struct Rows<'a> {
    pub kind: &'a str,
    pub work: &'a dyn RowWork,
    pub shape: RowShape,
    pub bad_rows: Option<BadRows>,
    pub signature: Signature,
    pub store: &'a Store,
    /// The files that the signature was made of.
    pub watched: &'a [WatchedFile],
}

impl Rows<'_> {
    /// Computes what is missing and stores the whole table: the same bytes whatever was missing. `inputs` are those of
    /// the other ports: the stage must not see other rows than it is given, what it may compute from is in the row key.
    /// `waiting` is called if another run is at the same rows.
    pub(super) fn run(
        &self,
        table: &TableFile,
        inputs: &Inputs,
        cx: &Context,
        waiting: impl FnOnce(),
    ) -> Result<RowsOutput, JobError> {
        let parts = self.work.parts();
        let items = table.rows() * parts.len();
        let _lock = self.store.lock_segments(&self.signature, &|| cx.cancelled(), waiting)?;
        let mut segments = self.store.segments(&self.signature)?;
        segments.expect(items);
        let bad = self.bad_rows.map(|allowed| Bad::new(table, allowed.of(items as u64)));
        let mut pass = Pass { rows: self, parts, items, inputs, cx, session: None, bad, done: 0, computed: 0 };
        let schema = append_columns(&table.schema(), &self.shape.adds);
        let output = self.store.put_pieces(&schema, |output| {
            let mut first = 0;
            for piece in table.pieces(PIECE_ITEMS / pass.parts.len().max(1))? {
                let piece = piece?;
                let rows = piece.num_rows();
                let written = pass.piece(piece, first, &mut segments).map_err(|error| error.in_piece(first))?;
                output.write(&written)?;
                first += rows;
            }
            Ok::<(), JobError>(())
        })?;
        let no_row_failed = pass.bad.as_ref().is_none_or(|bad| bad.rows.is_empty());
        if output.rows == 0 && items > 0 && pass.computed == 0 && no_row_failed {
            pass.ask_why(table)?;
        }
        let computed = pass.computed as u64;
        let bad = pass.bad.map(|bad| bad.put(self.store, cx)).transpose()?;
        let items = items as u64 - bad.as_ref().map_or(0, |bad| bad.rows);
        Ok(RowsOutput { table: output, bad, items, computed })
    }
}

/// One pass over the input.
struct Pass<'a> {
    rows: &'a Rows<'a>,
    parts: Vec<i32>,
    /// All there are.
    items: usize,
    inputs: &'a Inputs,
    cx: &'a Context,
    /// Opened for the first item that is to be computed.
    session: Option<Box<dyn RowSession + 'a>>,
    /// `None` if no row may fail.
    bad: Option<Bad>,
    done: usize,
    computed: usize,
}

/// A piece of the input.
struct Piece {
    table: RecordBatch,
    /// The columns that the stage reads.
    reads: RecordBatch,
    /// The number of its first row.
    first: usize,
    /// Of its items.
    keys: Vec<RowKey>,
}

impl Pass<'_> {
    /// The output rows of a piece of the input.
    fn piece(&mut self, table: RecordBatch, first: usize, segments: &mut Segments) -> Result<RecordBatch, JobError> {
        let Rows { shape, signature, store, work, .. } = self.rows;
        let reads = read_columns(&table, &shape.reads)?;
        let digests = row_digests(&table, &shape.reads)?;
        let keys: Vec<RowKey> = row_keys(signature, &digests, &self.parts).collect();
        let piece = Piece { table, reads, first, keys };
        let mut places: Vec<Option<Place>> = piece.keys.iter().map(|key| segments.find(key)).collect();
        let absent: Vec<usize> = (0..places.len()).filter(|&item| places[item].is_none()).collect();
        let mut seen = HashSet::new();
        let failed = |key: &RowKey| self.bad.as_ref().is_some_and(|bad| bad.errors.contains_key(key));
        let missing =
            absent.iter().copied().filter(|&item| !failed(&piece.keys[item]) && seen.insert(piece.keys[item]));
        let missing: Vec<usize> = missing.collect();
        self.done += piece.keys.len() - missing.len();
        let mut next = 0;
        while next < missing.len() {
            let size = work.segment_items().max(self.computed / SHARE_OF_DONE);
            let chunk = &missing[next..missing.len().min(next + size)];
            self.compute(&piece, chunk, segments)?;
            next += chunk.len();
        }
        let parts = &self.parts;
        for item in absent {
            places[item] = segments.find(&piece.keys[item]);
            if let (None, Some(bad)) = (places[item], &mut self.bad) {
                bad.leave_out(&piece, item, parts)?;
            }
        }
        let good: Vec<Place> = places.iter().copied().flatten().collect();
        let (added, counts) = segments.gather(store, &good, &shape.adds)?;
        let good_items = places.iter().enumerate().filter(|(_, place)| place.is_some());
        let carried: UInt32Array = good_items
            .zip(counts)
            .flat_map(|((item, _), count)| std::iter::repeat_n(Some((item / parts.len()) as u32), count as usize))
            .collect();
        Ok(assemble(&piece.table, &carried, &added)?)
    }

    /// Computes the first item of a table once more, for the reason why it has no output row: segments keep rows, not
    /// the reasons for their absence.
    fn ask_why(&mut self, table: &TableFile) -> Result<(), JobError> {
        let Rows { shape, signature, work, .. } = self.rows;
        let Some(first) = table.pieces(1)?.next().transpose()? else { return Ok(()) };
        let digests = row_digests(&first, &shape.reads)?;
        let keys: Vec<RowKey> = row_keys(signature, &digests, &self.parts[..1]).collect();
        let mut session = work.open(self.inputs, self.cx)?;
        session.rows(&read_columns(&first, &shape.reads)?, &self.parts[..1], &keys, self.cx)?;
        Ok(())
    }

    /// Computes and stores items of a piece as one segment. If a row is at fault, each half is tried alone: rows are
    /// pure, so what fails alone fails for what is in it.
    fn compute(&mut self, piece: &Piece, items: &[usize], segments: &mut Segments) -> Result<(), JobError> {
        if self.cx.cancelled() {
            return Err(StageError::Cancelled.into());
        }
        let Rows { kind, work, signature, store, watched, .. } = self.rows;
        let session = match &mut self.session {
            Some(session) => session,
            closed => closed.insert(work.open(self.inputs, self.cx)?),
        };
        let parts = self.parts.len();
        let reporter = Arc::new(Shifted::new(&self.cx.reporter, self.done..self.items));
        let cx = Context { reporter, ..self.cx.clone() };
        let item_rows: UInt32Array = items.iter().map(|item| Some((item / parts) as u32)).collect();
        let rows = take_record_batch(&piece.reads, &item_rows).map_err(TableError::from)?;
        let item_parts: Vec<i32> = items.iter().map(|item| self.parts[item % parts]).collect();
        let keys: Vec<RowKey> = items.iter().map(|&item| piece.keys[item]).collect();
        let (added, counts) = match (session.rows(&rows, &item_parts, &keys, &cx), &mut self.bad) {
            (Ok(computed), _) => computed,
            (Err(StageError::Input(message)), Some(bad)) => {
                // Whatever state the failure left behind is no state to go on from.
                self.session = None;
                if items.len() == 1 {
                    self.done += 1;
                    return bad.enter(keys[0], piece.first + items[0] / parts, message);
                }
                let (left, right) = items.split_at(items.len() / 2);
                self.compute(piece, left, segments)?;
                return self.compute(piece, right, segments);
            }
            (Err(error), _) => return Err(error.into()),
        };
        let found: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        if counts.len() != items.len() || found != added.num_rows() as u64 {
            return Err(output_error(kind, "gave another number of rows than it said"));
        }
        check_watched(watched)?;
        store.put_segment(signature, segments, (&keys, &item_parts, &counts), &added)?;
        cx.progress(items.len() as u64, items.len() as u64, "");
        self.done += items.len();
        self.computed += items.len();
        Ok(())
    }
}

/// What failed.
struct Bad {
    /// How many items may.
    allowed: u64,
    errors: HashMap<RowKey, String>,
    /// The first errors, for people.
    shown: Vec<String>,
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
}

impl Bad {
    /// Errors that are shown.
    const SHOWN: usize = 3;

    fn new(table: &TableFile, allowed: u64) -> Self {
        let schema = append_columns(&table.schema(), &BadRow::schema());
        Self { allowed, errors: HashMap::new(), shown: Vec::new(), schema, rows: Vec::new() }
    }

    /// Enters an item of a row of the table.
    fn enter(&mut self, key: RowKey, row: usize, error: String) -> Result<(), JobError> {
        if self.shown.len() < Self::SHOWN {
            self.shown.push(format!("row {row}: {error}"));
        }
        self.errors.insert(key, error);
        self.check(self.errors.len())
    }

    /// Keeps the row of an item that failed.
    fn leave_out(&mut self, piece: &Piece, item: usize, parts: &[i32]) -> Result<(), JobError> {
        let error = self.errors.get(&piece.keys[item]).cloned().unwrap_or_default();
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
        let shown = self.shown.join("\n");
        Err(StageError::input(format!("more than {} failed, as `bad_rows` allows\n{shown}", self.allowed)).into())
    }

    /// Stores the rows, and tells of them.
    fn put(self, store: &Store, cx: &Context) -> Result<OutputRecord, JobError> {
        if !self.rows.is_empty() {
            let are = if self.rows.len() == 1 { "row is" } else { "rows are" };
            let shown = self.shown.join("\n");
            cx.note(&format!("{} bad {are} left out: see the output `bad`\n{shown}", self.rows.len()));
            let dropped = Dropped::new(self.rows.len() as u64, "the stage fails at the row, as `bad_rows` allows");
            cx.dropped(&dropped.example(self.shown.first().cloned().unwrap_or_default()));
        }
        store.put_pieces(&self.schema, |output| Ok(self.rows.iter().try_for_each(|row| output.write(row))?))
    }
}

/// The input's columns, each row as often as it has output rows, and the added ones.
fn assemble(table: &RecordBatch, rows: &UInt32Array, added: &RecordBatch) -> Result<RecordBatch, TableError> {
    let schema = append_columns(&table.schema(), &added.schema());
    let kept: Vec<usize> = (0..table.num_columns())
        .filter(|&column| added.column_by_name(table.schema().field(column).name()).is_none())
        .collect();
    let carried = take_record_batch(&table.project(&kept)?, rows)?;
    let columns = carried.columns().iter().chain(added.columns()).cloned().collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// Progress in one segment as progress of the stage, whose items are done up to the range's start.
struct Shifted {
    reporter: Arc<dyn Reporter>,
    done: u64,
    total: u64,
}

impl Shifted {
    fn new(reporter: &Arc<dyn Reporter>, items: Range<usize>) -> Self {
        Self { reporter: Arc::clone(reporter), done: items.start as u64, total: items.end as u64 }
    }
}

impl Reporter for Shifted {
    fn progress(&self, done: u64, _total: u64, text: &str) {
        self.reporter.progress((self.done + done).min(self.total), self.total, text);
    }
    fn note(&self, text: &str) {
        self.reporter.note(text);
    }
    fn dropped(&self, dropped: &Dropped) {
        self.reporter.dropped(dropped);
    }
}
