//! A step's gradient: row r goes to lane r mod `lanes`, and the lanes are added in order.
//!
//! Threads take the next lane when they are free, and help with the others' operations when there is none; a finished lane is
//! added as soon as those before it are: few buffers exist at a time, and who computed which lane changes no bits.

use crate::crew::Crew;
use crate::model::{Activations, Gradient, Keep, Row};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a thread works with; reused from step to step.
#[derive(Debug, Default)]
struct Space {
    row: Row,
    kept: Activations,
}

/// The lanes of every step of a run.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: usize,
    /// Threads that may work at a time.
    workers: usize,
    keep: Keep,
    spaces: Mutex<Vec<Space>>,
    sum: Mutex<Sum>,
}

#[derive(Debug, Default)]
struct Sum {
    total: Gradient,
    /// The lane that is added next.
    next: usize,
    waiting: BTreeMap<usize, Gradient>,
    spare: Vec<Gradient>,
}

impl Sum {
    /// The last step's buffer is the first to be used again.
    fn restart(&mut self) {
        let last = std::mem::take(&mut self.total);
        self.keep(last);
        self.next = 0;
    }

    fn keep(&mut self, gradient: Gradient) {
        if !gradient.values.is_empty() {
            self.spare.push(gradient);
        }
    }

    fn add(&mut self, lane: usize, gradient: Gradient) {
        self.waiting.insert(lane, gradient);
        while let Some(mut gradient) = self.waiting.remove(&self.next) {
            if self.next == 0 {
                std::mem::swap(&mut self.total, &mut gradient);
            } else {
                self.total.values.iter_mut().zip(&gradient.values).for_each(|(sum, value)| *sum += value);
                self.total.loss += gradient.loss;
            }
            self.next += 1;
            self.keep(gradient);
        }
    }
}

impl Lanes {
    pub(super) fn new(lanes: usize, workers: usize, keep: Keep) -> Self {
        Self { lanes, workers, keep, spaces: Mutex::default(), sum: Mutex::default() }
    }

    /// The step's gradient, `len` numbers; `add_row` adds the row of that number into the buffer it is given.
    pub(super) fn gradient(
        &mut self,
        pool: &rayon::ThreadPool,
        (rows, len): (usize, usize),
        add_row: impl Fn(usize, &mut Row, &mut Activations, &mut Gradient) + Sync,
    ) -> &Gradient {
        let (used, taken) = (self.lanes.min(rows), AtomicUsize::new(0));
        lock(&self.sum).restart();
        let work = |index: usize| {
            if index >= self.workers {
                return;
            }
            let mut space = lock(&self.spaces).pop().unwrap_or_default();
            space.kept.keep = self.keep;
            loop {
                let lane = taken.fetch_add(1, Ordering::Relaxed);
                if lane >= used {
                    break;
                }
                let mut gradient = lock(&self.sum).spare.pop().unwrap_or_default();
                gradient.clear(len);
                let Space { row, kept } = &mut space;
                (lane..rows).step_by(self.lanes).for_each(|nth| add_row(nth, row, kept, &mut gradient));
                lock(&self.sum).add(lane, gradient);
            }
            lock(&self.spaces).push(space);
        };
        let crew = Crew::new(pool.current_num_threads());
        pool.broadcast(|thread| crew.serve(thread.index(), || work(thread.index())));
        self.last()
    }

    /// The last step's gradient.
    pub(super) fn last(&mut self) -> &Gradient {
        &self.sum.get_mut().unwrap_or_else(PoisonError::into_inner).total
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
