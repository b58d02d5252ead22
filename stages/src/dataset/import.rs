//! What came of a source: its problems, and what was left out and why.

use std::collections::BTreeMap;

use tracetune_engine::record;
use tracetune_engine::stage::{Context, Dropped, StageError};

use super::ProblemRow;

record! {
    /// Something of the source that gave nothing.
    pub struct SkippedRow {
        /// The problem, as far as it has a name.
        pub problem_id: String,
        /// `problem` if all of it was left out, `test` if tests of it were.
        pub part: String,
        /// Why.
        pub reason: String,
        /// How many.
        pub count: i32,
    }
}

/// Problems, and what was left out.
#[derive(Default)]
pub(super) struct Import {
    pub(super) problems: Vec<ProblemRow>,
    pub(super) skipped: Vec<SkippedRow>,
    skip_broken: bool,
}

impl Import {
    /// Nothing yet. `skip_broken`: whether a broken row is left out instead of ending the import.
    pub(super) fn new(skip_broken: bool) -> Self {
        Self { skip_broken, ..Self::default() }
    }

    /// Nothing but problems.
    pub(super) fn of(problems: Vec<ProblemRow>) -> Self {
        Self { problems, ..Self::default() }
    }

    /// Counts something that is left out.
    pub(super) fn skip(&mut self, problem_id: &str, part: &str, reason: &str) {
        let same = |row: &&mut SkippedRow| row.problem_id == problem_id && row.part == part && row.reason == reason;
        match self.skipped.iter_mut().rev().find(same) {
            Some(row) => row.count += 1,
            None => self.skipped.push(SkippedRow {
                problem_id: problem_id.to_owned(),
                part: part.to_owned(),
                reason: reason.to_owned(),
                count: 1,
            }),
        }
    }

    /// A result that must be right, or may be left out if broken rows may.
    pub(super) fn sound<T>(&mut self, result: Result<T, StageError>) -> Result<Option<T>, StageError> {
        match result {
            Err(StageError::Input(message)) if self.skip_broken => {
                self.skip("", "problem", &message);
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    /// Adds the problem that `read` makes of each source.
    pub(super) fn extend<T>(
        &mut self,
        sources: &[T],
        read: impl Fn(&T) -> Result<ProblemRow, StageError>,
    ) -> Result<(), StageError> {
        for source in sources {
            let problem = self.sound(read(source))?;
            self.problems.extend(problem);
        }
        Ok(())
    }

    /// Tells the user how much was left out, by reason.
    pub(super) fn tell(&self, cx: &Context) {
        let mut reasons: BTreeMap<(&str, &str), i32> = BTreeMap::new();
        for row in &self.skipped {
            *reasons.entry((&row.part, &row.reason)).or_default() += row.count;
        }
        for row in self.skipped.iter().filter(|row| row.part == "problem") {
            let dropped = Dropped::new(row.count.unsigned_abs().into(), "the row is broken");
            cx.dropped(&dropped.example(&row.reason).help("the output `skipped` lists them"));
        }
        for ((part, reason), count) in reasons {
            cx.note(&format!("left out {count} {part}{}: {reason}", if count == 1 { "" } else { "s" }));
        }
    }
}
