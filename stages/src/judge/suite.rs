//! A problem's tests, prepared once for all programs that are held against them (`prepare.py`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tracetune_engine::stage::StageError;

use super::report::text;
use super::script::Script;
use super::{Job, report};
use crate::sandbox::value::Value;
use crate::sandbox::{Call, CpuSeconds, Ending, Frame, Reply, Sandbox, SandboxError, Worker};

/// How many tests one job prepares, about.
const TESTS_PER_JOB: usize = 200;
/// CPU time for preparing tests and for the reference's run.
const PATIENCE: CpuSeconds = CpuSeconds(60.0);

/// Where a problem's comparisons are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// All of them outside the process that runs the program: it can forge none.
    Outside,
    /// Some inside it, as ordinary Python.
    Inside,
}

impl std::fmt::Display for Judged {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::Outside => "outside",
            Self::Inside => "inside",
        })
    }
}

/// How often a site must send its operands while a unit runs; `None`: any number of times.
pub(crate) type Times = Option<usize>;

/// The setup or a test, as it runs in the program's process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unit {
    /// An expression whose value is all that is compared, or statements that report.
    pub(crate) is_value: bool,
    /// Marshalled code of the sandbox's interpreter.
    pub(crate) code: Vec<u8>,
    /// The sites that it passes.
    pub(crate) sites: Vec<(usize, Times)>,
    /// Why some of its comparisons are made inside; empty if none is.
    pub(crate) inside: String,
}

impl Unit {
    pub(crate) fn mode(&self) -> &'static [u8] {
        if self.is_value { b"value" } else { b"exec" }
    }

    fn read(fields: &[Vec<u8>]) -> Option<Self> {
        let [mode, code, sites, inside] = fields else { return None };
        let site = |pair: &str| {
            let (number, times) = pair.split_once(':')?;
            Some((number.parse().ok()?, times.parse().ok()))
        };
        let sites = text(sites).split(',').filter(|pair| !pair.is_empty()).map(site).collect::<Option<_>>()?;
        Some(Self { is_value: mode == b"value", code: code.clone(), sites, inside: text(inside) })
    }
}

/// How a comparison is decided.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Its operand equals, or does not equal, this value.
    Equal { value: Value, wanted: bool },
    /// Its operand is true, or false.
    Truth(bool),
    /// Its operand is, or is not, this single object.
    Is { value: Value, wanted: bool },
    /// Only Python can say.
    Expression,
}

/// A comparison that is made outside.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) kind: Kind,
    /// Marshalled code that compares (`compare.py`).
    pub(crate) code: Vec<u8>,
    /// What the test says.
    pub(crate) text: String,
    /// The operands' text.
    pub(crate) operands: Vec<String>,
}

impl Site {
    fn read(fields: &[Vec<u8>]) -> Option<(usize, Self)> {
        let [number, kind, value, code, shown, operands @ ..] = fields else { return None };
        let value = |wanted, make: fn(Value, bool) -> Kind| Value::parse(value).map(|value| make(value, wanted));
        let equal = |value, wanted| Kind::Equal { value, wanted };
        let is = |value, wanted| Kind::Is { value, wanted };
        let kind = match kind.as_slice() {
            b"equal" => value(true, equal)?,
            b"unequal" => value(false, equal)?,
            b"is" => value(true, is)?,
            b"is not" => value(false, is)?,
            b"true" => Kind::Truth(true),
            b"false" => Kind::Truth(false),
            _ => Kind::Expression,
        };
        let operands = operands.iter().map(|operand| text(operand)).collect();
        Some((text(number).parse().ok()?, Self { kind, code: code.clone(), text: text(shown), operands }))
    }

    /// Whether a value that a correct program sends keeps the comparison from being made outside.
    fn is_beyond(&self, value: &Value) -> bool {
        match self.kind {
            Kind::Is { .. } => false,
            Kind::Truth(_) => value.is_opaque() && value.truth().is_none(),
            _ => value.is_opaque(),
        }
    }
}

/// A test.
#[derive(Clone, Debug)]
pub(crate) enum Test {
    /// Statements.
    Python(Unit),
    /// Standard input and the output that is expected.
    Script(Script),
}

/// A problem's tests.
#[derive(Clone, Debug)]
pub(crate) struct Suite {
    pub(crate) setup: Unit,
    pub(crate) tests: Vec<Test>,
    pub(crate) sites: HashMap<usize, Site>,
    /// CPU time that the reference took for all tests; `None` where it did not get to their end.
    pub(crate) reference_cpu: Option<Duration>,
}

impl Suite {
    /// The setup and the tests that are Python, in the order in which they run.
    pub(crate) fn units(&self) -> impl Iterator<Item = &Unit> {
        let python = self.tests.iter().filter_map(|test| match test {
            Test::Python(unit) => Some(unit),
            Test::Script(_) => None,
        });
        std::iter::once(&self.setup).chain(python)
    }

    pub(crate) fn has_python(&self) -> bool {
        self.tests.iter().any(|test| matches!(test, Test::Python(_)))
    }

    pub(crate) fn judged(&self) -> Judged {
        if self.units().all(|unit| unit.inside.is_empty()) { Judged::Outside } else { Judged::Inside }
    }
}

/// A test, or a setup, that is no Python.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place} does not parse: {reason}")]
pub struct BadTest {
    /// `the setup`, or `test 2`.
    pub place: String,
    /// Its text.
    pub text: String,
    /// The parser's words.
    pub reason: String,
}

/// What identifies a problem's tests.
type Key = blake3::Hash;

/// Prepared tests of many problems.
#[derive(Debug, Default)]
pub struct Suites(HashMap<Key, Arc<Result<Suite, BadTest>>>);

/// A problem whose tests are being prepared.
struct Problem<'a> {
    job: &'a Job,
    scripts: Vec<Option<Script>>,
    /// Sites that stay inside; `None`: all.
    forced: Option<BTreeSet<usize>>,
}

impl<'a> Problem<'a> {
    fn new(job: &'a Job) -> Self {
        let scripts = job.tests.iter().map(|test| Script::parse(test)).collect();
        Self { job, scripts, forced: Some(BTreeSet::new()) }
    }

    /// The tests that are Python.
    fn tests(&self) -> impl Iterator<Item = &'a String> {
        self.job.tests.iter().zip(&self.scripts).filter(|(_, script)| script.is_none()).map(|(test, _)| test)
    }

    fn fields(&self) -> Vec<Vec<u8>> {
        let forced = match &self.forced {
            Some(sites) => sites.iter().map(usize::to_string).collect::<Vec<_>>().join(" "),
            None => "all".to_owned(),
        };
        let reference = self.job.known_reference().unwrap_or_default();
        let head = [self.tests().count().to_string(), self.job.setup.clone(), reference.to_owned(), forced];
        head.into_iter().chain(self.tests().cloned()).map(String::into_bytes).collect()
    }

    /// Reads the frames up to this problem's end.
    fn read(&self, frames: &mut std::slice::Iter<Frame>) -> Option<Result<Suite, BadTest>> {
        let (mut units, mut sites) = (Vec::new(), HashMap::new());
        loop {
            match frames.next()?.split_first()? {
                (tag, fields) if tag == b"unit" => units.push(Unit::read(fields)?),
                (tag, fields) if tag == b"site" => sites.extend([Site::read(fields)?]),
                (tag, [number, reason]) if tag == b"bad" => {
                    // Units are counted from 1, the setup's.
                    let number: usize = text(number).parse().ok()?;
                    let bad = match number.checked_sub(2) {
                        None => ("the setup".to_owned(), self.job.setup.clone()),
                        Some(python) => {
                            let bad = self.tests().nth(python)?;
                            let place = self.job.tests.iter().position(|test| test == bad)?;
                            (format!("test {}", place + 1), bad.clone())
                        }
                    };
                    frames.next();
                    return Some(Err(BadTest { place: bad.0, text: bad.1, reason: text(reason) }));
                }
                (tag, []) if tag == b"problem" => break,
                _ => return None,
            }
        }
        let mut units = units.into_iter();
        let setup = units.next()?;
        let test = |script: &Option<Script>| match script {
            Some(script) => Some(Test::Script(script.clone())),
            None => units.next().map(Test::Python),
        };
        let tests = self.scripts.iter().map(test).collect::<Option<_>>()?;
        Some(Ok(Suite { setup, tests, sites, reference_cpu: None }))
    }
}

impl Suites {
    /// Prepares the tests of all distinct problems among the jobs.
    ///
    /// With a reference it is run once: a comparison with an object of its own stays inside for all programs.
    ///
    /// # Errors
    /// The sandbox failed, or the work was cancelled.
    pub(crate) fn prepare<'a>(
        sandbox: &Sandbox,
        jobs: impl IntoIterator<Item = &'a Job>,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self, SandboxError> {
        let distinct: HashMap<Key, &Job> = jobs.into_iter().map(|job| (key(job), job)).collect();
        let mut keys: Vec<Key> = distinct.keys().copied().collect();
        keys.sort_unstable_by_key(|key| *key.as_bytes());
        let problems = keys.iter().map(|key| Problem::new(distinct[key])).collect();
        let mut prepared = prepare(sandbox, problems, cancelled)?;
        calibrate(sandbox, &mut prepared, cancelled)?;
        let suites = prepared.into_iter().map(|(_, suite)| Arc::new(suite));
        Ok(Self(keys.into_iter().zip(suites).collect()))
    }

    /// The tests of a job's problem.
    pub(crate) fn get(&self, job: &Job) -> Option<Arc<Result<Suite, BadTest>>> {
        self.0.get(&key(job)).cloned()
    }
}

fn key(job: &Job) -> Key {
    let mut hasher = blake3::Hasher::new();
    let reference = job.known_reference().unwrap_or_default();
    for part in [&job.prelude, &job.setup, reference].into_iter().chain(job.tests.iter().map(String::as_str)) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize()
}

type Prepared<'a> = (Problem<'a>, Result<Suite, BadTest>);

fn prepare<'a>(
    sandbox: &Sandbox,
    problems: Vec<Problem<'a>>,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Prepared<'a>>, SandboxError> {
    let mut chunks: Vec<Vec<Problem>> = Vec::new();
    let mut tests = 0;
    for problem in problems {
        let count = problem.job.tests.len() + 1;
        match chunks.last_mut() {
            Some(chunk) if tests + count <= TESTS_PER_JOB => chunk.push(problem),
            _ => {
                chunks.push(vec![problem]);
                tests = 0;
            }
        }
        tests += count;
    }
    let read = |worker: &mut Worker, problems: &[Problem]| {
        let fields: Vec<Vec<u8>> = problems.iter().flat_map(Problem::fields).collect();
        let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
        let reply = worker.call_for("prepare", &fields, PATIENCE)?;
        let mut frames = reply.frames.iter();
        Ok::<_, SandboxError>(problems.iter().map_while(|problem| problem.read(&mut frames)).collect::<Vec<_>>())
    };
    let suites = sandbox.map(&chunks, cancelled, &|_| {}, |worker, chunk| {
        let suites = read(worker, chunk)?;
        if suites.len() == chunk.len() {
            return Ok(suites);
        }
        // One of them takes too long, or too much: each by itself, and that one without a comparison outside.
        let alone = chunk.iter().map(|problem| {
            let mut suites = read(worker, std::slice::from_ref(problem))?;
            if suites.is_empty() {
                let all = Problem { forced: None, ..Problem::new(problem.job) };
                suites = read(worker, &[all])?;
            }
            suites.pop().ok_or_else(|| {
                let message = "a problem's tests can't be prepared: reading them takes too much time or memory";
                SandboxError::ForkServer(message.to_owned())
            })
        });
        alone.collect()
    })?;
    Ok(chunks.into_iter().flatten().zip(suites.into_iter().flatten()).collect())
}

/// Runs each reference once: what it sends says which comparisons can be made outside, and how long the tests take.
fn calibrate<'a>(
    sandbox: &Sandbox,
    prepared: &mut [Prepared<'a>],
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<(), SandboxError> {
    let known: Vec<usize> = (0..prepared.len())
        .filter(|&place| prepared[place].1.is_ok() && prepared[place].0.job.known_reference().is_some())
        .collect();
    let shared = &*prepared;
    let measured = sandbox.map(&known, cancelled, &|_| {}, |worker, &place| {
        let (problem, Ok(suite)) = &shared[place] else { return Ok((BTreeSet::new(), None)) };
        measure(worker, problem.job, suite)
    })?;
    let mut again = Vec::new();
    for (place, (forced, cpu)) in known.into_iter().zip(measured) {
        if let Ok(suite) = &mut prepared[place].1 {
            suite.reference_cpu = cpu;
        }
        if !forced.is_empty() {
            prepared[place].0.forced = Some(forced);
            again.push(place);
        }
    }
    let problems = again.iter().map(|&place| {
        let (problem, _) = &prepared[place];
        Problem { job: problem.job, scripts: problem.scripts.clone(), forced: problem.forced.clone() }
    });
    let second = prepare(sandbox, problems.collect(), cancelled)?;
    for (place, (_, suite)) in again.into_iter().zip(second) {
        let cpu = prepared[place].1.as_ref().ok().and_then(|suite| suite.reference_cpu);
        prepared[place].1 = suite.map(|suite| Suite { reference_cpu: cpu, ..suite });
    }
    Ok(())
}

/// The sites at which the reference sends what can't be compared outside, and the CPU time that it takes.
fn measure(worker: &mut Worker, job: &Job, suite: &Suite) -> Result<(BTreeSet<usize>, Option<Duration>), SandboxError> {
    let source = job.known_reference().unwrap_or_default().to_owned();
    let values = worker.limits().values;
    let fields = report::request(&Job { source, ..job.clone() }, suite, &[], values);
    let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
    let reply = worker.run(Call::new("inside", &fields).cpu(PATIENCE).bounds(super::bounds(suite, values)))?;
    let mut forced = BTreeSet::new();
    for record in report::read(&reply, suite) {
        for event in &record.events {
            let Some(site) = suite.sites.get(&event.site) else { continue };
            let beyond = event.operands.iter().any(|operand| match operand {
                report::Operand::Sent(bytes) => Value::parse(bytes).is_none_or(|value| site.is_beyond(&value)),
                report::Operand::Large(_) => true,
                report::Operand::Missing => false,
            });
            if beyond {
                forced.insert(event.site);
            }
        }
    }
    Ok((forced, cpu_of(&reply)))
}

/// CPU time that a job says it took, where it got to its end.
fn cpu_of(reply: &Reply) -> Option<Duration> {
    let last = reply.frames.last().filter(|_| reply.ending == Ending::Done)?;
    let seconds: f64 = text(last.get(1)?).parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

impl From<BadTest> for StageError {
    fn from(bad: BadTest) -> Self {
        Self::input(format!("test `{}` does not parse: {}", bad.text, bad.reason))
    }
}
