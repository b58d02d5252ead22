//! What a comparison leaves out, or does not mean.

use std::fmt;

use serde::Serialize;

use super::tasks::{Draws, Joined};

/// Something to know about a side, or about a side against the baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Note {
    /// Place of the side in [`Comparison::sides`](super::Comparison::sides).
    pub side: usize,
    /// The split that it is about.
    pub split: String,
    /// What there is to know.
    pub caveat: Caveat,
    /// The same in words.
    pub text: String,
}

impl Note {
    pub(super) fn new(side: usize, split: &str, caveat: Caveat) -> Self {
        Self { side, split: split.to_owned(), text: caveat.to_string(), caveat }
    }
}

/// What there is to know.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Caveat {
    /// Nothing is compared: several stages have results of the split, and their names do not match.
    Stages {
        /// The baseline's.
        baseline: Vec<String>,
        /// The side's.
        side: Vec<String>,
    },
    /// Nothing is compared: one has draws of a kind that the other one lacks.
    Draws {
        /// The baseline's.
        baseline: Vec<Draws>,
        /// The side's.
        side: Vec<Draws>,
    },
    /// Nothing is compared, or not all: tasks that one of the two does not have.
    LeftOut {
        /// Tasks that both have.
        shared: usize,
        /// Tasks of the baseline alone.
        baseline_only: usize,
        /// Tasks of the side alone.
        side_only: usize,
        /// Of both, those whose id stands for another problem on the other side.
        other_problem: usize,
        /// Of both, those whose problem has other bugs on the other side.
        other_bug: usize,
    },
    /// The verdicts are by different tests.
    OtherTests {
        /// In so many tasks.
        tasks: usize,
        /// Of so many.
        of: usize,
    },
    /// One of the two does not say which problem an id stands for.
    ById,
    /// The side is a round that was chosen by its figures on the split.
    Selected {
        /// The metric that was highest.
        metric: String,
        /// Among so many rounds.
        of: usize,
    },
}

impl Caveat {
    /// What a join leaves out.
    pub(super) fn of(joined: &Joined) -> Vec<Self> {
        let Joined { baseline_only, side_only, other_problem, other_bug, other_tests, by_id, .. } = *joined;
        let shared = joined.pairs.len();
        let left_out = (baseline_only + side_only > 0).then_some(Self::LeftOut {
            shared,
            baseline_only,
            side_only,
            other_problem,
            other_bug,
        });
        let other_tests = (other_tests > 0).then_some(Self::OtherTests { tasks: other_tests, of: shared });
        left_out.into_iter().chain(other_tests).chain(by_id.then_some(Self::ById)).collect()
    }
}

impl fmt::Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stages { baseline, side } => write!(
                f,
                "not compared: the baseline has results of {}, this side of {}; name a stage: `RUN:VARIANT@ROUND:STAGE`",
                baseline.join(", "),
                side.join(", ")
            ),
            Self::Draws { baseline, side } => {
                let words = |draws: &[Draws]| match draws {
                    [] => "no draws".to_owned(),
                    [one] => format!("{} draws only", one.name()),
                    _ => draws.iter().map(|draws| draws.name()).collect::<Vec<_>>().join(" and ") + " draws",
                };
                let (baseline, side) = (words(baseline), words(side));
                write!(f, "pass@1 is not compared: the baseline has {baseline}, this side {side}")
            }
            Self::LeftOut { shared, baseline_only, side_only, other_problem, other_bug } => {
                if *shared == 0 {
                    write!(f, "not compared: the two have no task in common")?;
                } else {
                    let tasks = if *shared == 1 { "1 task is" } else { &format!("{shared} tasks are") };
                    write!(f, "{tasks} compared; left out: {baseline_only} of the baseline, {side_only} of this side")?;
                }
                let causes = [
                    (other_problem, "have the id of another problem"),
                    (other_bug, "are the same problem with another bug"),
                ];
                let causes =
                    causes.iter().filter(|(count, _)| **count > 0).map(|(count, words)| format!("{count} {words}"));
                let causes: Vec<String> = causes.collect();
                if causes.is_empty() { Ok(()) } else { write!(f, " ({})", causes.join(", ")) }
            }
            Self::OtherTests { tasks, of } => {
                write!(f, "{tasks} of {of} tasks were verified against other tests: the difference is theirs, too")
            }
            Self::ById => write!(
                f,
                "joined by the problems' ids alone: the outcomes of one side do not say which task they are of"
            ),
            Self::Selected { metric, of } => write!(
                f,
                "selected: the best of {of} rounds by `{metric}` on this split, so its figures here are biased upwards"
            ),
        }
    }
}
