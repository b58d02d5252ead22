//! From what was found out about each test to a verdict on the program.

use std::fmt;

use super::suite::Judged;
use crate::sandbox::{CpuSeconds, Doubt, Ending, Reply};

const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;

/// The closed set of verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Every test passed.
    Pass,
    /// A comparison is false.
    Fail,
    /// An exception.
    Error,
    /// The CPU limit, or the wall limit twice.
    Timeout,
    /// Memory, files, output, depth, or a value too large to be sent.
    Limit,
    /// The process died or ended early.
    Crash,
    /// It does not decode or compile, or a test of it does not.
    Invalid,
}

impl Outcome {
    /// Its letter among a program's results.
    fn letter(self) -> char {
        match self {
            Self::Pass => '.',
            Self::Fail => 'F',
            Self::Error => 'E',
            Self::Timeout => 'T',
            Self::Limit => 'L',
            Self::Crash | Self::Invalid => 'C',
        }
    }

    /// The outcome that a frame's tag stands for.
    pub(super) fn of_tag(tag: &[u8]) -> Self {
        match tag {
            b"error" => Self::Error,
            b"limit" => Self::Limit,
            _ => Self::Crash,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Limit => "limit",
            Self::Crash => "crash",
            Self::Invalid => "invalid",
        })
    }
}

/// What became of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// One word.
    pub outcome: Outcome,
    /// A few more words; no addresses, no times.
    pub detail: String,
    /// What became of each test, in their order; `None` for one that was not reached.
    pub tests: Vec<Option<Outcome>>,
    /// The test that decided the outcome; `None` when all passed or none was reached.
    pub first_failing: Option<usize>,
    /// Where the tests' comparisons are made.
    pub judged: Judged,
    /// What a rerun needs to come to the comparison that failed.
    pub(crate) path: Path,
    /// Why the machine may be at fault: then it is to be tried once more.
    pub(crate) doubt: Option<Doubt>,
}

/// How far the first failing test went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    /// For the setup and each test before: after how many reports it ends, where not at its own end.
    pub(crate) stops: Vec<Option<usize>>,
    /// Reports of the failing test before the comparison that is false.
    pub(crate) begin: usize,
    /// Its reports up to that comparison; `None` where something else ended it.
    pub(crate) reports: Option<usize>,
}

impl Verdict {
    /// A verdict on a program that did not come to its tests.
    pub(crate) fn unreached(outcome: Outcome, total: usize, judged: Judged, detail: impl Into<String>) -> Self {
        Self {
            outcome,
            detail: detail.into(),
            tests: vec![None; total],
            first_failing: None,
            judged,
            path: Path::default(),
            doubt: None,
        }
    }

    /// Tests passed.
    pub fn passed(&self) -> usize {
        self.tests.iter().filter(|test| **test == Some(Outcome::Pass)).count()
    }

    /// A letter a test; `-` for those that were not reached.
    pub fn results(&self) -> String {
        self.tests.iter().map(|test| test.map_or('-', Outcome::letter)).collect()
    }
}

/// How a program that did not get to its end died.
pub(super) fn died(reply: &Reply, cpu_limit_s: CpuSeconds) -> (Outcome, String, Option<Doubt>) {
    let used_up = reply.cpu.is_some_and(|cpu| cpu >= cpu_limit_s.duration());
    let (outcome, detail) = match reply.ending {
        Ending::Output => (Outcome::Limit, "output".to_owned()),
        Ending::WallTime => (Outcome::Timeout, "wall".to_owned()),
        Ending::CpuTime | Ending::Signal(SIGXCPU) => (Outcome::Timeout, "cpu".to_owned()),
        Ending::Signal(SIGKILL) if used_up => (Outcome::Timeout, "cpu".to_owned()),
        Ending::Signal(SIGKILL) => (Outcome::Limit, "killed by the system".to_owned()),
        Ending::Signal(signal) => (Outcome::Crash, format!("signal {signal}")),
        Ending::Exit(status) => (Outcome::Crash, format!("ended early with status {status}")),
        Ending::Malformed | Ending::Done => (Outcome::Crash, "broke its report".to_owned()),
    };
    let doubt = match reply.ending {
        Ending::WallTime => Some(Doubt::Waited),
        Ending::Signal(SIGKILL) if !used_up && reply.cpu.is_some() => Some(Doubt::Killed),
        _ => None,
    };
    (outcome, detail, doubt)
}
