//! Holds programs against tests: the verdicts that `verify` writes and that other kinds choose by.
//!
//! A test means what Python says it means. Its statements run as ordinary Python in the program's own process
//! (`inside.py`); its comparisons leave it. Once for each problem, from the tests, their setup and the reference solution,
//! each comparison is split (`split.py`): what belongs to the program is evaluated inside and sent, exactly typed; what does
//! not is evaluated in another process and never enters the program's. The two are compared here, or, where only Python can say,
//! in a third process (`compare.py`). What compares by the program's own classes, by identity or by control flow stays
//! inside, and the verdict says so ([`Judged::Inside`]).
//!
//! A pass takes that every comparison that must be made was made, that none is false, and that each test came to its end.

mod decide;
mod demand;
mod report;
mod script;
mod suite;
#[cfg(test)]
pub(crate) mod tests;
mod verdict;

use tracetune_engine::stage::StageError;

use crate::sandbox::{Bounds, Call, CpuSeconds, Ending, Reply, Sandbox, SandboxError, ValueBounds, Worker};
use decide::{Comparisons, Decision};
pub use demand::{Demand, outside};
use report::{Record, text};
pub use suite::{BadTest, Judged, Suites};
pub(crate) use suite::{Suite, Test, Unit};
pub use verdict::{Outcome, Verdict};
use verdict::{Path, died};

/// A program to check and the tests to check it with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// The whole program.
    pub source: String,
    /// Code that runs before it, in its names: imports that its author could count on.
    pub prelude: String,
    /// Code that runs after it and before the tests.
    pub setup: String,
    /// Tests: statements, mostly `assert f(x) == literal`, or an object with `stdin` and `stdout`.
    pub tests: Vec<String>,
    /// A correct program, where one is known: it tells which comparisons can be made outside.
    pub reference: Option<String>,
}

impl Job {
    /// The reference, where there is one.
    fn known_reference(&self) -> Option<&str> {
        self.reference.as_deref().filter(|reference| !reference.trim().is_empty())
    }
}

/// Checks every job; verdicts in the jobs' order. `on_done` hears how many are done.
///
/// # Errors
/// The sandbox failed, or the work was cancelled. A test that is no Python makes its jobs [`Outcome::Invalid`].
pub fn judge(
    sandbox: &Sandbox,
    jobs: &[Job],
    cancelled: &(dyn Fn() -> bool + Sync),
    on_done: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Verdict>, StageError> {
    judge_with(sandbox, jobs, &prepare(sandbox, jobs, cancelled)?, cancelled, on_done)
}

/// Prepares the jobs' tests, as it is done once for all programs of a problem.
///
/// # Errors
/// As [`judge`].
pub fn prepare(sandbox: &Sandbox, jobs: &[Job], cancelled: &(dyn Fn() -> bool + Sync)) -> Result<Suites, StageError> {
    Ok(Suites::prepare(sandbox, jobs, cancelled)?)
}

/// As [`judge`], with tests that are prepared already.
///
/// # Errors
/// As [`judge`].
pub fn judge_with(
    sandbox: &Sandbox,
    jobs: &[Job],
    suites: &Suites,
    cancelled: &(dyn Fn() -> bool + Sync),
    on_done: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Verdict>, StageError> {
    // What waited too long or was killed is tried once more: it may have been the machine.
    let work = |worker: &mut Worker, job: &Job| check(worker, job, suites);
    Ok(sandbox.map_twice(jobs, cancelled, on_done, work, |verdict| verdict.doubt)?)
}

/// Checks one program.
pub(crate) fn check(worker: &mut Worker, job: &Job, suites: &Suites) -> Result<Verdict, SandboxError> {
    let total = job.tests.len();
    let invalid = |judged, detail: String| Ok(Verdict::unreached(Outcome::Invalid, total, judged, detail));
    let suite = suites.get(job);
    let suite = match suite.as_deref() {
        Some(Ok(suite)) => suite,
        Some(Err(bad)) => return invalid(Judged::Inside, bad.to_string()),
        None => return invalid(Judged::Inside, "its tests were not prepared".to_owned()),
    };
    if job.tests.is_empty() {
        return invalid(suite.judged(), "there is no test".to_owned());
    }
    if job.source.trim().is_empty() {
        return invalid(suite.judged(), "empty".to_owned());
    }
    if job.source.contains('\0') {
        return invalid(suite.judged(), "null byte".to_owned());
    }
    let mut verdict = Verdict::unreached(Outcome::Pass, total, suite.judged(), "");
    if suite.has_python() {
        check_python(worker, job, suite, &mut verdict)?;
    }
    check_scripts(worker, job, suite, &mut verdict)?;
    Ok(verdict)
}

/// The CPU time that a program may use: the limit, or a multiple of what the reference took if that is more.
fn cpu_limit(worker: &Worker, suite: &Suite) -> CpuSeconds {
    let limits = worker.limits();
    let reference = suite.reference_cpu.map_or(0.0, |cpu| cpu.as_secs_f64() * limits.cpu_factor);
    CpuSeconds(limits.cpu_s.0.max(reference).min(CpuSeconds::MOST))
}

/// How much a program's report may hold.
fn bounds(suite: &Suite, values: ValueBounds) -> Bounds {
    let frames = report::most_frames(suite);
    let frame_bytes = values.bytes + 4096;
    Bounds {
        frames,
        frame_bytes,
        bytes: (frames.saturating_mul(frame_bytes)).min(256 << 20).max(frame_bytes + (1 << 20)),
    }
}

/// Runs the tests that are Python, all in one process.
///
/// After a comparison that is false a test goes on as if it held, which no test does in Python. Where later tests could
/// see that, they all run again, and the test ends where it should have.
fn check_python(worker: &mut Worker, job: &Job, suite: &Suite, verdict: &mut Verdict) -> Result<(), SandboxError> {
    let cpu_s = cpu_limit(worker, suite);
    let values = worker.limits().values;
    let mut stops = vec![None; suite.units().count()];
    loop {
        let fields = report::request(job, suite, &stops, values);
        let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
        let reply = worker.run(Call::new("inside", &fields).cpu(cpu_s).bounds(bounds(suite, values)))?;
        if let Some((outcome, detail)) = ended_before_tests(&reply, cpu_s) {
            let doubt = died(&reply, cpu_s).2.filter(|_| reply.ending != Ending::Done);
            *verdict = Verdict { doubt, ..Verdict::unreached(outcome, verdict.tests.len(), verdict.judged, detail) };
            return Ok(());
        }
        let records = report::read(&reply, suite);
        let decisions = decide(worker, job, suite, &records, &reply, cpu_s)?;
        // The first test that went on after a false comparison, and that others follow.
        let strayed = decisions.iter().zip(suite.units()).enumerate().find_map(|(place, (decision, unit))| {
            let (_, reports) = decision.reports?;
            (!unit.is_value && stops[place].is_none() && place + 1 < stops.len()).then_some((place, reports))
        });
        if let Some((place, reports)) = strayed
            && reply.ending != Ending::Output
        {
            stops[place] = Some(reports);
            continue;
        }
        write(verdict, suite, &decisions, stops, &reply, cpu_s);
        return Ok(());
    }
}

/// What became of a program that did not come to its setup.
fn ended_before_tests(reply: &Reply, cpu_s: CpuSeconds) -> Option<(Outcome, String)> {
    let mut loaded = false;
    for frame in &reply.frames {
        match frame.iter().map(Vec::as_slice).collect::<Vec<_>>().as_slice() {
            [b"invalid", reason] => return Some((Outcome::Invalid, text(reason))),
            [b"load", tag, words] => return Some((Outcome::of_tag(tag), format!("load: {}", text(words)))),
            [b"begin"] => {}
            _ => loaded = true,
        }
    }
    let (outcome, detail, _) = died(reply, cpu_s);
    (!loaded).then_some((outcome, detail))
}

/// Decides each unit that was reached.
fn decide(
    worker: &mut Worker,
    job: &Job,
    suite: &Suite,
    records: &[Record],
    reply: &Reply,
    cpu_s: CpuSeconds,
) -> Result<Vec<Decision>, SandboxError> {
    let mut comparisons = Comparisons::default();
    records.iter().for_each(|record| comparisons.add(suite, record));
    let mut compared = comparisons.decide(worker)?.into_iter();
    let python = job.tests.iter().zip(&suite.tests).filter(|(_, test)| matches!(test, Test::Python(_)));
    let texts = std::iter::once(job.setup.as_str()).chain(python.map(|(text, _)| text.as_str()));
    let mut decisions = Vec::new();
    for (record, (unit, text)) in records.iter().zip(suite.units().zip(texts)) {
        let texts = [job.setup.as_str(), text];
        decisions.push(decide::unit(suite, unit, texts, record, &mut compared, || died(reply, cpu_s)));
    }
    Ok(decisions)
}

/// Writes what became of each Python test, and the program's outcome.
fn write(
    verdict: &mut Verdict,
    suite: &Suite,
    decisions: &[Decision],
    stops: Vec<Option<usize>>,
    reply: &Reply,
    cpu_s: CpuSeconds,
) {
    let python = (0..suite.tests.len()).filter(|&place| matches!(suite.tests[place], Test::Python(_)));
    let places: Vec<Option<usize>> = std::iter::once(None).chain(python.map(Some)).collect();
    for (decision, place) in decisions.iter().zip(&places) {
        if let Some(test) = place {
            verdict.tests[*test] = Some(decision.outcome);
        }
        verdict.doubt = verdict.doubt.or(decision.doubt);
    }
    if let Some(unit) = decisions.iter().position(|decision| decision.outcome != Outcome::Pass) {
        let decision = &decisions[unit];
        verdict.outcome = decision.outcome;
        verdict.first_failing = places[unit];
        verdict.detail = match places[unit] {
            _ if decision.is_death => decision.detail.clone(),
            None => format!("setup: {}", decision.detail),
            Some(test) => format!("test {}: {}", test + 1, decision.detail),
        };
        let (begin, reports) = decision.reports.map_or((0, None), |(begin, end)| (begin, Some(end)));
        verdict.path = Path { stops: stops.into_iter().take(unit).collect(), begin, reports };
    }
    if reply.ending == Ending::Output {
        (verdict.outcome, verdict.detail, _) = died(reply, cpu_s);
        verdict.path.reports = None;
    }
}

/// Runs the program once for each test of its input and output, up to the first that it fails.
fn check_scripts(worker: &mut Worker, job: &Job, suite: &Suite, verdict: &mut Verdict) -> Result<(), SandboxError> {
    let cpu_s = cpu_limit(worker, suite);
    for (place, test) in suite.tests.iter().enumerate() {
        let Test::Script(script) = test else { continue };
        if verdict.outcome != Outcome::Pass {
            return Ok(());
        }
        let fields = [job.source.as_bytes(), job.prelude.as_bytes(), script.stdin.as_bytes()];
        let reply = worker.run(Call::new("script", &fields).cpu(cpu_s).bounds(Bounds::frames(4)).with_output())?;
        let last = reply.frames.iter().rev().find(|frame| !matches!(frame[0].as_slice(), b"begin" | b"done"));
        let (outcome, detail, doubt) =
            match last.map(|frame| frame.iter().map(Vec::as_slice).collect::<Vec<_>>()).as_deref() {
                _ if reply.ending == Ending::Output => died(&reply, cpu_s),
                Some([b"invalid", reason]) => {
                    let detail = text(reason);
                    *verdict = Verdict::unreached(Outcome::Invalid, verdict.tests.len(), verdict.judged, detail);
                    return Ok(());
                }
                Some([b"end"]) => with_no_doubt(script.judge(&reply.output)),
                Some([tag, words]) => (Outcome::of_tag(tag), text(words), None),
                _ if reply.ending == Ending::Exit(0) => with_no_doubt(script.judge(&reply.output)),
                _ => died(&reply, cpu_s),
            };
        verdict.tests[place] = Some(outcome);
        if outcome != Outcome::Pass {
            verdict.outcome = outcome;
            verdict.detail = format!("test {}: {detail}", place + 1);
            verdict.first_failing = Some(place);
            verdict.doubt = doubt;
        }
    }
    Ok(())
}

fn with_no_doubt((outcome, detail): (Outcome, String)) -> (Outcome, String, Option<crate::sandbox::Doubt>) {
    (outcome, detail, None)
}
