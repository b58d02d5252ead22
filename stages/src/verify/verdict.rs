//! From what a sandboxed job said, and how it ended, to a verdict.

use std::fmt;

use super::prepare::{Mode, Test};
use crate::sandbox::value::Value;
use crate::sandbox::{CpuSeconds, Doubt, Ending, Frame, Reply};

/// Characters of a value shown in a detail.
const SHOWN: usize = 60;
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
    /// Memory, output or depth.
    Limit,
    /// The process died or ended early.
    Crash,
    /// It does not decode or compile.
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
    /// Tests passed.
    pub passed: usize,
    /// Tests.
    pub total: usize,
    /// A few more words; no addresses, no times.
    pub detail: String,
    /// The test that decided the outcome; `None` when all passed or none was reached.
    pub first_failing: Option<usize>,
    /// What became of each test that was reached, in their order.
    pub reached: Vec<Outcome>,
    /// Why the machine may be at fault: then it is to be tried once more.
    pub(crate) doubt: Option<Doubt>,
}

impl Verdict {
    pub(crate) fn new(outcome: Outcome, passed: usize, total: usize, detail: impl Into<String>) -> Self {
        Self { outcome, passed, total, detail: detail.into(), first_failing: None, reached: Vec::new(), doubt: None }
    }

    /// A letter a test; `-` for those that were not reached.
    pub fn results(&self) -> String {
        let reached = self.reached.iter().map(|outcome| outcome.letter());
        reached.chain(std::iter::repeat('-')).take(self.total).collect()
    }

    /// Reads the replies of `remote.py`: the candidate's and that of its tests. `None` if these can't run there.
    pub(crate) fn judge_pair(
        candidate: Reply,
        mut judge: Reply,
        tests: &[&Test],
        cpu_limit_s: CpuSeconds,
    ) -> Option<Self> {
        let loaded = matches!(candidate.frames.as_slice(), [begin, rest @ ..]
            if begin[0] == b"begin" && rest.iter().all(|frame| frame.len() < 3));
        if !loaded && !candidate.frames.is_empty() {
            return Some(Self::judge(&candidate, tests, cpu_limit_s));
        }
        if judge.frames.iter().any(|frame| frame[0] == b"opaque") {
            return None;
        }
        let gone = judge.frames.iter().position(|frame| frame[0] == b"gone");
        if let Some(gone) = gone {
            judge.frames.truncate(gone);
            (judge.ending, judge.cpu) = (candidate.ending, candidate.cpu);
        } else if candidate.ending == Ending::Output {
            judge.ending = Ending::Output;
        }
        Some(Self::judge(&judge, tests, cpu_limit_s))
    }

    /// Reads a reply of `verify.py`.
    pub(crate) fn judge(reply: &Reply, tests: &[&Test], cpu_limit_s: CpuSeconds) -> Self {
        let total = tests.len();
        let mut frames = reply.frames.iter();
        let first = frames.next();
        if let Some([tag, reason]) = first.map(Vec::as_slice)
            && tag == b"invalid"
        {
            return Self::new(Outcome::Invalid, 0, total, text(reason));
        }
        let mut passed = 0;
        let mut decided: Option<(Option<usize>, Outcome, String)> = None;
        let mut reached = Vec::new();
        let mut halted = false;
        for frame in frames {
            if let [_, _, place] = frame.as_slice() {
                halted = true;
                let (outcome, detail) = ending_of(frame).unwrap_or((Outcome::Crash, String::new()));
                decided = decided.or(Some((None, outcome, format!("{}: {detail}", text(place)))));
                continue;
            }
            let Some(test) = tests.get(reached.len()) else { break };
            let Some((outcome, detail)) = result_of(frame, test) else { break };
            if outcome == Outcome::Pass {
                passed += 1;
            } else if decided.is_none() {
                let place = reached.len();
                decided = Some((Some(place), outcome, format!("test {}: {detail}", place + 1)));
            }
            reached.push(outcome);
        }
        let mut doubt = None;
        let over = reply.ending == Ending::Output;
        let unfinished = reached.len() < total && !halted;
        if over || unfinished || (decided.is_none() && reply.ending != Ending::Done) {
            let (outcome, detail) = died(reply, cpu_limit_s);
            doubt = match reply.ending {
                Ending::WallTime => Some(Doubt::Waited),
                _ if outcome == Outcome::Limit && reply.cpu.is_some() => Some(Doubt::Killed),
                _ => None,
            };
            let place = (first.is_some() && unfinished).then_some(reached.len());
            reached.extend(place.map(|_| outcome));
            if over || decided.is_none() {
                decided = Some((place, outcome, detail));
            }
        }
        let (first_failing, outcome, detail) = decided.unwrap_or((None, Outcome::Pass, String::new()));
        Self { outcome, passed, total, detail, first_failing, reached, doubt }
    }
}

/// What one test's frame says; `None` if it is none.
fn result_of(frame: &Frame, test: &Test) -> Option<(Outcome, String)> {
    let pass = (Outcome::Pass, String::new());
    match (frame.iter().map(Vec::as_slice).collect::<Vec<_>>().as_slice(), test.mode) {
        ([b"value", bytes], Mode::Value) => {
            let value = Value::parse(bytes)?;
            Some(if value.equals(&test.expected) {
                pass
            } else {
                let (value, expected) = (value.show(SHOWN), test.expected.show(SHOWN));
                (Outcome::Fail, format!("{value} is not {expected}"))
            })
        }
        ([b"true"], Mode::Truth | Mode::Exec) => Some(pass),
        ([b"false"], Mode::Truth | Mode::Exec) => Some((Outcome::Fail, "the assertion is false".to_owned())),
        _ => ending_of(frame),
    }
}

/// An exception or a limit that ended a piece of work.
fn ending_of(frame: &Frame) -> Option<(Outcome, String)> {
    let outcome = match frame.first()?.as_slice() {
        b"error" => Outcome::Error,
        b"limit" => Outcome::Limit,
        b"exit" => Outcome::Crash,
        _ => return None,
    };
    Some((outcome, text(frame.get(1)?)))
}

/// How a program that did not get to its end died.
fn died(reply: &Reply, cpu_limit_s: CpuSeconds) -> (Outcome, String) {
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
    (outcome, detail)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
