//! A crew: threads that have no work of their own take pieces of the others' operations.
//!
//! An operation of one decoding step lasts microseconds, too short for a thread pool's queues: a helper spins until a piece
//! appears, so handing one over costs about as much as two cache misses. As with rayon, an operation finds its crew by the
//! thread that it runs on; on any other thread it runs alone. What a piece computes never depends on who computes it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Work that is worth handing over, in multiply-adds of a large product: some microseconds.
const GRAIN: usize = 1 << 18;

/// Pieces for each thread: a thread that is held up leaves its share to the others.
const PIECES: usize = 4;

/// Rounds in vain after which a helper lets others have the processor, and after which it sleeps between rounds.
const PATIENCE: (u32, u32) = (2_000, 20_000);

/// Threads that work together; each starts as one with work of its own.
pub(crate) struct Crew {
    boards: Vec<Board>,
    leading: AtomicUsize,
    idle: AtomicUsize,
}

/// What one thread offers the others.
#[derive(Default)]
#[repr(align(128))]
struct Board {
    /// Pieces that nobody has taken.
    open: AtomicUsize,
    /// Pieces that are not done.
    unfinished: AtomicUsize,
    work: AtomicPtr<Work<'static>>,
}

struct Work<'a>(&'a (dyn Fn(usize) + Sync));

/// Does `work` with the help of all of `pool`'s other threads.
pub fn together<R: Send>(pool: &rayon::ThreadPool, work: impl FnOnce() -> R + Send) -> R {
    let (crew, work) = (Crew::new(pool.current_num_threads()), Mutex::new(Some(work)));
    let results = pool.broadcast(|thread| {
        let work = (thread.index() == 0).then(|| work.lock().unwrap_or_else(PoisonError::into_inner).take()).flatten();
        crew.serve(thread.index(), || work.map(|work| work()))
    });
    results.into_iter().flatten().next().unwrap_or_else(|| unreachable!("a pool has a first thread"))
}

thread_local! {
    /// The crew that this thread's operations may ask for help, and the thread's place in it.
    static CREW: RefCell<Option<(Arc<Crew>, usize)>> = const { RefCell::new(None) };
}

impl Crew {
    pub(crate) fn new(threads: usize) -> Arc<Self> {
        let boards = (0..threads).map(|_| Board::default()).collect();
        Arc::new(Self { boards, leading: AtomicUsize::new(threads), idle: AtomicUsize::new(0) })
    }

    /// Does `work` as the thread `index` of the crew, then helps the others until all have done theirs.
    pub(crate) fn serve<R>(self: &Arc<Self>, index: usize, work: impl FnOnce() -> R) -> R {
        CREW.set(Some((self.clone(), index)));
        let result = catch_unwind(AssertUnwindSafe(work));
        CREW.set(None);
        self.leading.fetch_sub(1, Ordering::Release);
        match result {
            Ok(result) => {
                self.help();
                result
            }
            Err(panic) => resume_unwind(panic),
        }
    }

    fn help(&self) {
        self.idle.fetch_add(1, Ordering::Relaxed);
        let mut vain = 0;
        while self.leading.load(Ordering::Acquire) > 0 {
            if self.boards.iter().any(Board::take_one) {
                vain = 0;
                continue;
            }
            vain += 1;
            match vain {
                _ if vain < PATIENCE.0 => std::hint::spin_loop(),
                _ if vain < PATIENCE.1 => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(50)),
            }
        }
        self.idle.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Board {
    /// Takes a piece and does it; false when there is none.
    fn take_one(&self) -> bool {
        let Ok(left) = self.open.fetch_update(Ordering::Acquire, Ordering::Relaxed, |left| left.checked_sub(1)) else {
            return false;
        };
        let done = Done(self);
        #[expect(unsafe_code, reason = "the owner's closure, lent for as long as a piece of it is unfinished")]
        // SAFETY: a piece was open, so `share` is waiting in the owner's thread, which keeps the work alive until this piece
        // counts as done; it had stored the pointer before it opened the piece.
        let work = unsafe { &*self.work.load(Ordering::Relaxed) };
        work.0(left - 1);
        drop(done);
        true
    }

    fn share(&self, pieces: usize, work: &(dyn Fn(usize) + Sync)) {
        let work = Work(work);
        self.unfinished.store(pieces, Ordering::Relaxed);
        self.work.store((&raw const work).cast_mut().cast(), Ordering::Relaxed);
        self.open.store(pieces, Ordering::Release);
        // Waits for the others even if a piece of this thread panics: they use what its caller owns.
        let _all = AllDone(self);
        while self.take_one() {}
    }
}

/// Counts a piece as done, whether it returns or panics.
struct Done<'a>(&'a Board);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.unfinished.fetch_sub(1, Ordering::Release);
    }
}

struct AllDone<'a>(&'a Board);

impl Drop for AllDone<'_> {
    fn drop(&mut self) {
        let untaken = self.0.open.swap(0, Ordering::Acquire);
        self.0.unfinished.fetch_sub(untaken, Ordering::Release);
        let mut vain = 0;
        while self.0.unfinished.load(Ordering::Acquire) > 0 {
            vain += 1;
            if vain < PATIENCE.0 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

/// How many pieces an operation of so many multiply-adds should be cut into: one where nobody would help.
pub(crate) fn pieces(multiply_adds: usize) -> usize {
    let helpers = CREW.with_borrow(|here| here.as_ref().map_or(0, |(crew, _)| crew.idle.load(Ordering::Relaxed)));
    if helpers == 0 { 1 } else { (multiply_adds / GRAIN).clamp(1, (helpers + 1) * PIECES) }
}

/// Does `work` for each of the items, with whoever has time.
pub(crate) fn each<T: Send>(items: impl IntoIterator<Item = T>, work: impl Fn(T) + Sync) {
    // Taken for the time of the work: an operation inside a piece is not cut again.
    let here = CREW.take();
    match &here {
        Some((crew, index)) => {
            let items: Vec<Mutex<Option<T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
            let piece = |nth: usize| {
                let item = items[nth].lock().unwrap_or_else(PoisonError::into_inner).take();
                item.map(&work);
            };
            crew.boards[*index].share(items.len(), &piece);
        }
        None => items.into_iter().for_each(work),
    }
    CREW.set(here);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_by_one_of_several_threads() {
        for threads in 1..=4 {
            let (crew, busy) = (Crew::new(threads), 1.max(threads / 2));
            let sums: Vec<AtomicUsize> = (0..busy).map(|_| AtomicUsize::new(0)).collect();
            std::thread::scope(|scope| {
                for index in 0..threads {
                    let (crew, sums) = (&crew, &sums);
                    scope.spawn(move || {
                        crew.serve(index, || {
                            let Some(sum) = sums.get(index) else { return };
                            for round in 0..2_000 {
                                let mut parts = vec![0; 1 + round % 7];
                                each(parts.iter_mut().enumerate(), |(nth, part)| *part = nth + 1);
                                assert_eq!(parts.iter().sum::<usize>(), parts.len() * (parts.len() + 1) / 2);
                                sum.fetch_add(parts.len(), Ordering::Relaxed);
                            }
                        });
                    });
                }
            });
            let all: usize = (0..2_000).map(|round| 1 + round % 7).sum();
            assert!(sums.iter().all(|sum| sum.load(Ordering::Relaxed) == all));
        }
    }

    #[test]
    fn helpers_do_take_pieces() {
        let crew = Crew::new(2);
        let caller = std::thread::current().id();
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| crew.serve(1, || {}));
            crew.serve(0, || {
                while pieces(usize::MAX) == 1 {
                    std::thread::yield_now();
                }
                // Two pieces that wait for each other: one thread could not do both.
                each(0..2, |_| {
                    barrier.wait();
                });
            });
        });
        assert_eq!(std::thread::current().id(), caller);
        assert_eq!(pieces(usize::MAX), 1, "outside a crew nobody helps");
    }

    #[test]
    fn a_panic_reaches_the_thread_whose_work_it_was_in() {
        let crew = Crew::new(1);
        let result = catch_unwind(AssertUnwindSafe(|| crew.serve(0, || each(0..3, |nth| assert_ne!(nth, 1)))));
        assert!(result.is_err());
        each(0..3, |_| {});
    }
}
