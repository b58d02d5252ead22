//! Runs a row stage: piece by piece of its input, finds the items that no segment has, computes them chunk by chunk, side
//! by side with other threads and other processes, and writes the piece's share of the output. Memory holds pieces, and
//! an index of the items.
//!
//! `chunks` says which items are computed next, `bad` keeps what failed, `progress` adds up what the chunks tell.

mod bad;
mod chunks;
mod progress;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take_record_batch;

use self::bad::Bad;
use self::chunks::{Next, Pauses, Queue};
use self::progress::{ChunkProgress, Done};
use super::job::{JobError, check_watched, output_error};
use crate::cache::{Lock, OutputRecord, Place, Segments, Signature, Store, WatchedFile};
use crate::pipeline::BadRows;
use crate::plan::row_keys;
use crate::registry::{RowResults, RowSession, RowShape, RowWork};
use crate::stage::{Context, Inputs, RowKey, StageError};
use crate::table::{TableError, TableFile, append_columns, read_columns, row_digests};

/// Items of a piece: what is looked up, and at most computed, at a time.
const PIECE_ITEMS: usize = 1 << 14;

/// Segments grow with what is done, to this share of it: a long stage has few of them, and what a killed one loses stays
/// a small part of its work.
const SHARE_OF_DONE: usize = 64;

/// Of work that stops in time, a segment has what is done in so long, or in this share of the time that the stage has
/// taken: a killed run loses tens of rows, and a long one has few segments.
const SEGMENT_TIME: Duration = Duration::from_millis(12);
const SHARE_OF_TIME: u32 = 256;
/// Such work is claimed in so many blocks at most, unless they would be larger than this.
const BLOCKS: usize = 2048;
const LARGEST_BLOCK: usize = 64;

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
    /// Whether rows that were computed before are computed again, in the place of what they were.
    pub force: bool,
}

impl Rows<'_> {
    /// Computes what is missing and stores the whole table: the same bytes whatever was missing. `inputs` are those of
    /// the other ports: the stage must not see other rows than it is given, what it may compute from is in the row key.
    /// `waiting` is called if all that is left is being computed by other runs.
    pub(super) fn run(
        &self,
        table: &TableFile,
        inputs: &Inputs,
        cx: &Context,
        waiting: impl FnOnce() + Send,
    ) -> Result<RowsOutput, JobError> {
        let parts = self.work.parts();
        let items = table.rows() * parts.len();
        let replaced = if self.force { self.store.segment_records(&self.signature)? } else { Vec::new() };
        let mut segments = if self.force { Segments::new() } else { self.store.segments(&self.signature)? };
        segments.expect(items);
        let bad = self.bad_rows.map(|allowed| Bad::new(table, allowed.of(items as u64)));
        let workers = (cx.threads / self.work.session_threads().min(cx.threads).max(1)).max(1);
        let pass = Pass {
            rows: self,
            parts,
            inputs,
            cx: Context { threads: (cx.threads / workers).max(1), ..cx.clone() },
            done: Done::new(&cx.reporter, items),
            state: Mutex::new(State { segments, bad, computed: 0, items_per_s: 0.0 }),
            started: Instant::now(),
            block_items: self.block_items(items),
            waiting: Mutex::new(Some(Box::new(waiting))),
        };
        let mut sessions: Vec<Session> = (0..workers).map(|_| None).collect();
        let schema = append_columns(&table.schema(), &self.shape.adds);
        let output = self.store.put_pieces(&schema, |output| {
            let mut first = 0;
            for piece in table.pieces(PIECE_ITEMS / pass.parts.len().max(1))? {
                let piece = piece?;
                let rows = piece.num_rows();
                let written = pass.piece(piece, first, &mut sessions).map_err(|error| error.in_piece(first))?;
                output.write(&written)?;
                first += rows;
            }
            Ok::<(), JobError>(())
        })?;
        let (no_row_failed, computed) = {
            let state = pass.state();
            (state.bad.as_ref().is_none_or(|bad| bad.count() == 0), state.computed)
        };
        if output.rows == 0 && items > 0 && computed == 0 && no_row_failed {
            pass.ask_why(table)?;
        }
        self.store.remove_segments(&self.signature, &replaced, &pass.state().segments)?;
        let bad = pass.state().bad.take().map(|bad| bad.put(self.store, cx)).transpose()?;
        let items = items as u64 - bad.as_ref().map_or(0, |bad| bad.rows);
        Ok(RowsOutput { table: output, bad, items, computed: computed as u64 })
    }

    /// Items of a block, alike in every process that works on a table of so many.
    fn block_items(&self, items: usize) -> usize {
        let segment_items = self.work.segment_items();
        if !self.work.is_timed() {
            return segment_items;
        }
        (items / BLOCKS).clamp(segment_items, LARGEST_BLOCK.max(segment_items))
    }
}

/// A worker's session, opened for the first chunk that it computes.
type Session<'a> = Option<Box<dyn RowSession + 'a>>;

/// One pass over the input.
struct Pass<'a> {
    rows: &'a Rows<'a>,
    parts: Vec<i32>,
    inputs: &'a Inputs,
    /// With the threads of one session.
    cx: Context,
    done: Arc<Done>,
    state: Mutex<State>,
    started: Instant,
    block_items: usize,
    /// Called once.
    waiting: Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>,
}

/// What the workers share.
struct State {
    segments: Segments,
    /// `None` if no row may fail.
    bad: Option<Bad>,
    computed: usize,
    /// Of one session, as it was last.
    items_per_s: f64,
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

impl<'a> Pass<'a> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many items the next segment is to have, of which no more than `share` are left for each worker.
    fn segment_items(&self, share: usize) -> usize {
        let state = self.state();
        let grown = match self.rows.work.is_timed() {
            true => (state.items_per_s * self.segment_time().as_secs_f64()) as usize,
            false => state.computed / SHARE_OF_DONE,
        };
        self.block_items.max(share.min(grown))
    }

    /// How long a session that stops in time is to work for a segment.
    fn segment_time(&self) -> Duration {
        SEGMENT_TIME.max(self.started.elapsed() / SHARE_OF_TIME)
    }

    /// The right to compute items of a block of the table, if no other process has it.
    fn claim(&self, block: usize) -> Result<Option<Lock>, JobError> {
        Ok(self.rows.store.claim_rows(&self.rows.signature, block)?)
    }

    /// Leaves the items that no process has finished by now.
    fn leave_missing(&self, piece: &Piece, items: &mut Vec<usize>) -> Result<(), JobError> {
        let mut state = self.state();
        if !self.rows.force {
            self.rows.store.refresh_segments(&self.rows.signature, &mut state.segments)?;
        }
        items.retain(|&item| state.segments.find(&piece.keys[item]).is_none());
        Ok(())
    }

    /// The output rows of a piece of the input.
    fn piece(&self, table: RecordBatch, first: usize, sessions: &mut [Session<'a>]) -> Result<RecordBatch, JobError> {
        let Rows { shape, signature, store, .. } = self.rows;
        let reads = read_columns(&table, &shape.reads)?;
        let digests = row_digests(&table, &shape.reads)?;
        let keys: Vec<RowKey> = row_keys(signature, &digests, &self.parts).collect();
        let piece = Piece { table, reads, first, keys };
        let (mut places, absent, missing) = self.look_up(&piece);
        self.done.add(piece.keys.len() - missing.len());
        if !missing.is_empty() {
            self.compute_missing(&piece, &missing, sessions)?;
        }
        let state = &mut *self.state();
        let parts = &self.parts;
        for item in absent {
            places[item] = state.segments.find(&piece.keys[item]);
            if let (None, Some(bad)) = (places[item], &mut state.bad) {
                bad.leave_out(&piece, item, parts)?;
            }
        }
        let good: Vec<Place> = places.iter().copied().flatten().collect();
        let (added, counts) = state.segments.gather(store, &good, &shape.adds)?;
        let good_items = places.iter().enumerate().filter(|(_, place)| place.is_some());
        let carried: UInt32Array = good_items
            .zip(counts)
            .flat_map(|((item, _), count)| std::iter::repeat_n(Some((item / parts.len()) as u32), count as usize))
            .collect();
        Ok(assemble(&piece.table, &carried, &added)?)
    }

    /// Where each item is, which ones are nowhere, and which of them are to be computed: each key once.
    fn look_up(&self, piece: &Piece) -> (Vec<Option<Place>>, Vec<usize>, Vec<usize>) {
        let state = self.state();
        let places: Vec<Option<Place>> = piece.keys.iter().map(|key| state.segments.find(key)).collect();
        let absent: Vec<usize> = (0..places.len()).filter(|&item| places[item].is_none()).collect();
        let mut seen = HashSet::new();
        let failed = |key: &RowKey| state.bad.as_ref().is_some_and(|bad| bad.has(key));
        let missing =
            absent.iter().copied().filter(|&item| !failed(&piece.keys[item]) && seen.insert(piece.keys[item]));
        let missing = missing.collect();
        (places, absent, missing)
    }

    /// Computes items of a piece with as many workers as there are sessions and chunks.
    fn compute_missing(&self, piece: &Piece, missing: &[usize], sessions: &mut [Session<'a>]) -> Result<(), JobError> {
        let workers = sessions.len().min(missing.len().div_ceil(self.rows.work.segment_items()));
        let queue = Queue::new(missing, piece.first * self.parts.len(), self.block_items, workers);
        if workers == 1 {
            return self.work_off(piece, &queue, &mut sessions[0], &|| false);
        }
        let error = Mutex::new(None);
        let has_failed = || error.lock().is_ok_and(|error| error.is_some());
        std::thread::scope(|scope| {
            for session in &mut sessions[..workers] {
                let work = || {
                    if let Err(failure) = self.work_off(piece, &queue, session, &has_failed)
                        && let Ok(mut error) = error.lock()
                    {
                        // What the others say once the run is interrupted is of no interest.
                        error.get_or_insert(failure);
                    }
                };
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                let thread = std::thread::Builder::new().name(name).stack_size(super::executor::STACK_BYTES);
                if let Err(failure) = thread.spawn_scoped(scope, work)
                    && let Ok(mut error) = error.lock()
                {
                    error.get_or_insert(JobError::Stage(failure.into()));
                }
            }
        });
        error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// One worker: computes chunk after chunk until nothing is left, waiting for what other processes are at.
    fn work_off(
        &self,
        piece: &Piece,
        queue: &Queue,
        session: &mut Session<'a>,
        has_failed: &dyn Fn() -> bool,
    ) -> Result<(), JobError> {
        let mut pauses = Pauses::new();
        while !has_failed() {
            match queue.next(self, piece)? {
                Next::End => return Ok(()),
                Next::Chunk(items, _claims) => {
                    self.compute(piece, &items, session)?;
                    pauses = Pauses::new();
                }
                Next::Wait => {
                    if let Some(waiting) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take() {
                        waiting();
                    }
                    if self.cx.cancelled() {
                        return Err(StageError::Cancelled.into());
                    }
                    pauses.wait();
                    queue.refresh(self, piece)?;
                }
            }
        }
        Ok(())
    }

    /// Computes the first item of a table once more, for the reason why it has no output row: segments keep rows, not
    /// the reasons for their absence.
    fn ask_why(&self, table: &TableFile) -> Result<(), JobError> {
        let Rows { shape, signature, work, .. } = self.rows;
        let Some(first) = table.pieces(1)?.next().transpose()? else { return Ok(()) };
        let digests = row_digests(&first, &shape.reads)?;
        let keys: Vec<RowKey> = row_keys(signature, &digests, &self.parts[..1]).collect();
        let mut session = work.open(self.inputs, &self.cx)?;
        session.rows(&read_columns(&first, &shape.reads)?, &self.parts[..1], &keys, &self.cx)?;
        Ok(())
    }

    /// Computes and stores items of a piece, as one segment if the session does them all at once. If a row is at fault that
    /// the session does not name, each half is tried alone: rows are pure, so what fails alone fails for what is in it.
    fn compute(&self, piece: &Piece, items: &[usize], session: &mut Session<'a>) -> Result<(), JobError> {
        let progress = ChunkProgress::new(&self.done);
        let cx = Context { reporter: Arc::<ChunkProgress>::clone(&progress), ..self.cx.clone() };
        let mut rest = items;
        while !rest.is_empty() {
            if self.cx.cancelled() {
                return Err(StageError::Cancelled.into());
            }
            if session.is_none() {
                *session = Some(self.rows.work.open(self.inputs, &self.cx)?);
            }
            let chunk = self.chunk(piece, rest)?;
            let open = session.as_mut().expect("it was opened");
            let began = Instant::now();
            let results = match open.some_rows(&chunk.rows, &chunk.parts, &chunk.keys, self.segment_time(), &cx) {
                Ok(results) => results,
                Err(StageError::Input(message)) if self.rows.bad_rows.is_some() => {
                    progress.retract();
                    self.done.add(items.len() - rest.len());
                    // Whatever state the failure left behind is no state to go on from.
                    *session = None;
                    if rest.len() > 1 {
                        let (left, right) = rest.split_at(rest.len() / 2);
                        self.compute(piece, left, session)?;
                        return self.compute(piece, right, session);
                    }
                    self.done.add(1);
                    return self.enter_bad(piece, rest[0], message);
                }
                Err(error) => {
                    // What fails because a file has changed is computed again under another key.
                    check_watched(self.rows.watched)?;
                    return Err(error.into());
                }
            };
            self.state().items_per_s = results.done as f64 / began.elapsed().as_secs_f64().max(1e-6);
            rest = &rest[self.keep(piece, rest, &chunk, results)?..];
            cx.progress((items.len() - rest.len()) as u64, items.len() as u64, "");
        }
        Ok(())
    }

    /// What a session gets of these items.
    fn chunk(&self, piece: &Piece, items: &[usize]) -> Result<Chunk, JobError> {
        let parts = self.parts.len();
        let item_rows: UInt32Array = items.iter().map(|item| Some((item / parts) as u32)).collect();
        Ok(Chunk {
            rows: take_record_batch(&piece.reads, &item_rows).map_err(TableError::from)?,
            parts: items.iter().map(|item| self.parts[item % parts]).collect(),
            keys: items.iter().map(|&item| piece.keys[item]).collect(),
        })
    }

    /// Stores what came of the first items; gives how many they are.
    fn keep(&self, piece: &Piece, items: &[usize], chunk: &Chunk, results: RowResults) -> Result<usize, JobError> {
        let Rows { kind, signature, store, watched, .. } = *self.rows;
        let RowResults { done, added, counts, failed } = results;
        let found: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        let is_sound = (1..=items.len()).contains(&done)
            && counts.len() == done
            && found == added.num_rows() as u64
            && failed.iter().all(|(place, _)| counts.get(*place) == Some(&0));
        if !is_sound {
            return Err(output_error(kind, "gave another number of rows than it said"));
        }
        check_watched(watched)?;
        let places: HashSet<usize> = failed.iter().map(|(place, _)| *place).collect();
        if places.len() < done {
            let good = || (0..done).filter(|place| !places.contains(place));
            let keys: Vec<RowKey> = good().map(|place| chunk.keys[place]).collect();
            let parts: Vec<i32> = good().map(|place| chunk.parts[place]).collect();
            let counts: Vec<u32> = good().map(|place| counts[place]).collect();
            let written = store.write_segment(&signature, (&keys, &parts, &counts), &added)?;
            let mut state = self.state();
            state.segments.enter(written)?;
            state.computed += keys.len();
        }
        for (place, message) in failed {
            if self.rows.bad_rows.is_none() {
                let row = piece.first + items[place] / self.parts.len();
                return Err(StageError::Input(format!("row {row}: {message}")).into());
            }
            self.enter_bad(piece, items[place], message)?;
        }
        Ok(done)
    }

    fn enter_bad(&self, piece: &Piece, item: usize, message: String) -> Result<(), JobError> {
        let row = piece.first + item / self.parts.len();
        self.state().bad.as_mut().map_or(Ok(()), |bad| bad.enter(piece.keys[item], row, message))
    }
}

/// Items as a session gets them.
struct Chunk {
    rows: RecordBatch,
    parts: Vec<i32>,
    keys: Vec<RowKey>,
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
