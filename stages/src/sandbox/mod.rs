//! Runs untrusted Python programs: fast, side by side, and so that none can hang, write, multiply or look around.
//!
//! A [`Sandbox`] has a warm interpreter per worker (a fork server, `zygote.py`) that forks a child for each job. The
//! child is one of our embedded scripts (a *runner*), which loads the candidate and sends back frames. What a frame
//! claims is the candidate's word: callers compare outside, see `value.rs`.
//!
//! Limits are CPU time, memory, files and output, and the time that a program sleeps while nothing keeps it from a CPU.
//! Wall time is a backstop; a job that meets it is to be tried once more ([`Ending::WallTime`], [`Sandbox::map_twice`]).
//! Faults of the machine are [`SandboxError`]s, never verdicts. A second wall that fails is said and left out.

mod activity;
mod call;
mod cgroup;
#[cfg(target_os = "linux")]
mod filters;
mod frame;
mod layers;
mod limits;
mod memory;
#[cfg(target_os = "linux")]
mod namespaces;
mod processor;
mod spawner;
#[cfg(target_os = "linux")]
mod syscalls;
#[cfg(test)]
mod tests;
pub(crate) mod value;
#[cfg(target_os = "linux")]
mod walls;
#[cfg(not(target_os = "linux"))]
#[path = "no_walls.rs"]
mod walls;
mod zygote;

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracetune_engine::stage::{Context, StageError};

use crate::python::Python;
pub(crate) use call::{Bounds, Call};
use cgroup::Cgroup;
pub(crate) use frame::Frame;
pub use layers::Layers;
pub use limits::{CpuSeconds, Isolation, Limits, ValueBounds};
use memory::SharedMemory;
use spawner::Spawner;
use walls::Walls;
use zygote::{Terms, Zygote};

/// The status of a child that could not lay a filter on itself (`zygote.py`).
const SETUP_FAILED: i32 = 98;
/// A fork server is replaced after this many jobs.
const JOBS_PER_SERVER: usize = 2000;
/// Reads the fork server's source from its first job socket: no file, no long command line.
const BOOTSTRAP: &str = "
import os, sys
sys.path[:] = [p for p in sys.path if p]
def read(n):
    data = b''
    while len(data) < n:
        part = os.read(1, n - len(data))
        if not part:
            raise SystemExit('no source')
        data += part
    return data
source = read(int.from_bytes(read(4), 'little'))
exec(compile(source, '<tracetune zygote>', 'exec'), {'__name__': 'tracetune_zygote'})
";
/// The runners, in the order in which they are loaded: later ones use earlier ones through `shared`.
const RUNNERS: &[(&str, &str)] = &[
    ("encode", include_str!("encode.py")),
    ("outcome", include_str!("outcome.py")),
    ("decode", include_str!("decode.py")),
    ("rewrite", include_str!("../judge/rewrite.py")),
    ("closed", include_str!("../judge/closed.py")),
    ("lift", include_str!("../judge/lift.py")),
    ("split", include_str!("../judge/split.py")),
    ("prepare", include_str!("../judge/prepare.py")),
    ("inside", include_str!("../judge/inside.py")),
    ("compare", include_str!("../judge/compare.py")),
    ("script", include_str!("../judge/script.py")),
    ("render", include_str!("../trace/render.py")),
    ("inert", include_str!("../trace/inert.py")),
    ("syntax", include_str!("../trace/syntax.py")),
    ("hooks", include_str!("../trace/hooks.py")),
    ("trace", include_str!("../trace/tracer.py")),
    ("edits", include_str!("../mutate/edits.py")),
    ("structure", include_str!("../mutate/structure.py")),
    ("mutate", include_str!("../mutate/mutate.py")),
    ("humaneval", include_str!("../dataset/humaneval.py")),
    ("asserts", include_str!("../suite/asserts.py")),
    ("cover", include_str!("../suite/cover.py")),
    ("differential", include_str!("../suite/differential.py")),
    ("evalplus", include_str!("../dataset/evalplus.py")),
    ("pytest_calls", include_str!("../dataset/pytest_calls.py")),
    ("test_module", include_str!("../dataset/test_module.py")),
    ("contest", include_str!("../dataset/contest.py")),
    ("quixbugs", include_str!("../dataset/quixbugs.py")),
];

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It said that it is done.
    Done,
    /// Its process ended with this status before it was done.
    Exit(i32),
    /// Its process was killed by this signal, not by us.
    Signal(i32),
    /// It met the CPU limit, and was killed by us.
    CpuTime,
    /// It waited too long: try once more before believing it.
    WallTime,
    /// It printed more than it may.
    Output,
    /// It wrote nonsense on its job's socket, or more than its caller accepts.
    Malformed,
}

/// What came back from a job.
#[derive(Debug)]
pub struct Reply {
    pub(crate) frames: Vec<Frame>,
    pub(crate) ending: Ending,
    pub(crate) output_bytes: u64,
    /// What it printed, where its caller asked for it.
    pub(crate) output: Vec<u8>,
    /// What it wrote into memory that it shared with us; empty where it had none.
    pub(crate) memory: Vec<u8>,
    /// CPU time; known where a SIGKILL of unknown origin ended it.
    pub(crate) cpu: Option<Duration>,
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            frames: Vec::new(),
            ending: Ending::Exit(0),
            output_bytes: 0,
            output: Vec::new(),
            memory: Vec::new(),
            cpu: None,
        }
    }
}

/// The machine could not do the work; says nothing about a candidate.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A fork server did not start or died, twice in a row.
    #[error("the Python fork server failed: {0}")]
    ForkServer(String),
    /// Walls that the caller asks for are missing; the words say which and why.
    #[error("programs that nobody has checked can't be run safely here: {0}")]
    Unsafe(String),
    /// A module that fork servers are to import can't be.
    #[error("`warm` names `{module}`, which can't be imported: {reason}")]
    Warm {
        /// Its name.
        module: String,
        /// What its import raised.
        reason: String,
    },
    /// The run was interrupted.
    #[error("interrupted")]
    Cancelled,
    /// A socket, pipe or thread could not be made.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<SandboxError> for StageError {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::Cancelled => Self::Cancelled,
            SandboxError::Io(error) => Self::Io(error),
            SandboxError::Unsafe(_) => Self::environment(
                error.to_string(),
                "run on Linux, in a container that allows seccomp filters if in one; `isolation = \"unsafe\"` does without",
            ),
            SandboxError::Warm { .. } => Self::environment(
                error.to_string(),
                "add it to the folder that `packages` names, or raise `memory_bytes` if it ran out of memory",
            ),
            SandboxError::ForkServer(_) => Self::Transient {
                message: error.to_string(),
                help: Some("`tracetune doctor` shows what the sandbox needs".to_owned()),
            },
        }
    }
}

/// Workers that run jobs. Dropping it ends them and everything they run.
pub struct Sandbox {
    python: Python,
    limits: Limits,
    walls: Mutex<(Walls, Layers)>,
    /// What each child lays on itself.
    filters: Vec<u8>,
    spawner: Spawner,
    /// Hears of second walls that had to be left out later on.
    note: Box<dyn Fn(&str) + Send + Sync>,
    workers: Vec<Mutex<Servers>>,
}

/// A worker's fork server, started when it is needed.
#[derive(Default)]
struct Servers {
    zygote: Option<Zygote>,
    /// Declared after it: a control group can go when it is gone.
    place: Place,
}

/// Where a worker and all that it starts run.
#[derive(Default)]
struct Place {
    /// The worker waits while a child runs, so one processor is enough, and caches and wake-ups are cheapest there.
    processor: Option<usize>,
    cgroup: Option<Cgroup>,
}

/// A control group for each worker, or why there are none.
fn cgroups(workers: usize, limits: &Limits) -> (Vec<Option<Cgroup>>, Result<String, String>) {
    let made: Result<Vec<_>, _> = (0..workers).map(|_| Cgroup::create(limits.worker_bytes()).map(Some)).collect();
    match made {
        Ok(groups) => (groups, Ok("memory and processes of a worker".to_owned())),
        Err(reason) => ((0..workers).map(|_| None).collect(), Err(reason)),
    }
}

impl Sandbox {
    /// Starts `workers` fork servers.
    ///
    /// # Errors
    /// One could not be started.
    pub fn start(python: &Python, limits: Limits, workers: usize) -> Result<Self, SandboxError> {
        Self::start_noting(python, limits, workers, Box::new(|_| {}))
    }

    /// For a stage: with as many workers as it has threads; what becomes of the walls is noted in its run.
    ///
    /// # Errors
    /// As [`Sandbox::start`].
    pub fn open(python: &Python, limits: Limits, cx: &Context) -> Result<Self, SandboxError> {
        let reporter = cx.reporter.clone();
        Self::start_noting(python, limits, cx.threads, Box::new(move |text| reporter.note(text)))
    }

    fn start_noting(
        python: &Python,
        limits: Limits,
        workers: usize,
        note: Box<dyn Fn(&str) + Send + Sync>,
    ) -> Result<Self, SandboxError> {
        let (walls, mut layers) = Walls::find(&python.readable, limits.scratch_bytes)?;
        let workers = workers.max(1);
        let (cgroups, grouped) = cgroups(workers, &limits);
        layers.add_behind("control group", grouped);
        check(&layers, limits.isolation)?;
        let filters = if layers.filtered { walls::child_filters().map_err(SandboxError::Unsafe)? } else { Vec::new() };
        // With fewer workers other sandboxes may have the rest, with more some wait: the kernel had better choose.
        let processors = processor::allowed().filter(|processors| processors.len() == workers).unwrap_or_default();
        let servers = |(worker, cgroup)| {
            let processor = processors.get(worker).copied();
            Mutex::new(Servers { place: Place { processor, cgroup }, ..Servers::default() })
        };
        let workers = cgroups.into_iter().enumerate().map(servers).collect();
        let (python, spawner) = (python.clone(), Spawner::start()?);
        let sandbox = Self { python, limits, walls: Mutex::new((walls, layers)), filters, spawner, note, workers };
        // The workers prove themselves: what fails here would otherwise look like a candidate's fault.
        let workers = vec![(); sandbox.workers.len()];
        sandbox.map(&workers, &|| false, &|_| {}, |worker, ()| {
            let reply = worker.call("prepare", &[b"1", b"", b"", b"", b"assert True"])?;
            match reply.ending {
                Ending::Done => Ok(()),
                ending => Err(SandboxError::ForkServer(format!("a child of it ended at once: {ending:?}"))),
            }
        })?;
        Ok(sandbox)
    }

    /// The walls in force.
    pub fn layers(&self) -> Layers {
        self.walls().1.clone()
    }

    fn walls(&self) -> MutexGuard<'_, (Walls, Layers)> {
        self.walls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Sandbox::map`]; then what `doubt` finds doubtful is done once more: side by side what waited too long, alone
    /// what the system killed.
    ///
    /// # Errors
    /// As [`Sandbox::map`].
    pub fn map_twice<T: Sync, R: Send>(
        &self,
        items: &[T],
        cancelled: &(dyn Fn() -> bool + Sync),
        on_done: &(dyn Fn(usize) + Sync),
        work: impl Fn(&mut Worker, &T) -> Result<R, SandboxError> + Sync,
        doubt: impl Fn(&R) -> Option<Doubt>,
    ) -> Result<Vec<R>, SandboxError> {
        let mut results = self.map(items, cancelled, on_done, &work)?;
        let places = |results: &[R], which| -> Vec<usize> {
            (0..results.len()).filter(|&place| doubt(&results[place]) == Some(which)).collect()
        };
        let waited = places(&results, Doubt::Waited);
        let again = self.map(&waited, cancelled, &|_| {}, |worker, &place| work(worker, &items[place]))?;
        for (place, result) in waited.into_iter().zip(again) {
            results[place] = result;
        }
        for place in places(&results, Doubt::Killed) {
            for result in self.map(&[place], cancelled, &|_| {}, |worker, &place| work(worker, &items[place]))? {
                results[place] = result;
            }
        }
        Ok(results)
    }

    /// Calls `work` for each item, on all workers; results in the items' order.
    ///
    /// # Errors
    /// The first error by position of what was done before all workers stopped.
    pub fn map<T: Sync, R: Send>(
        &self,
        items: &[T],
        cancelled: &(dyn Fn() -> bool + Sync),
        on_done: &(dyn Fn(usize) + Sync),
        work: impl Fn(&mut Worker, &T) -> Result<R, SandboxError> + Sync,
    ) -> Result<Vec<R>, SandboxError> {
        let next = AtomicUsize::new(0);
        let done = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let stop = || failed.load(Ordering::Relaxed) || cancelled();
        let drive = |slot: &Mutex<Servers>| {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            processor::pin(None, slot.place.processor);
            let mut worker = Worker { sandbox: self, servers: &mut slot, cancelled: &stop };
            let mut results = Vec::new();
            while !stop() {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(index) else { break };
                let result = work(&mut worker, item);
                failed.fetch_or(result.is_err(), Ordering::Relaxed);
                results.push((index, result));
                on_done(done.fetch_add(1, Ordering::Relaxed) + 1);
            }
            results
        };
        let mut results = std::thread::scope(|scope| {
            let threads: Vec<_> =
                self.workers.iter().take(items.len()).map(|slot| scope.spawn(|| drive(slot))).collect();
            let mut results = Vec::with_capacity(items.len());
            for thread in threads {
                results.extend(thread.join().map_err(|_| io::Error::other("a worker panicked"))?);
            }
            Ok::<_, SandboxError>(results)
        })?;
        results.sort_by_key(|(index, _)| *index);
        // A job that another job's failure interrupted is not the news.
        let real = |(_, result): &(usize, Result<R, SandboxError>)| matches!(result, Err(error) if !matches!(error, SandboxError::Cancelled));
        if let Some(position) = results.iter().position(real) {
            return results.swap_remove(position).1.map(|result| vec![result]);
        }
        if results.len() < items.len() {
            return Err(SandboxError::Cancelled);
        }
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Runs a job once on the fork server in `slot`, which is started if need be and given up if it fails.
    fn attempt(
        &self,
        (slot, place): (&mut Option<Zygote>, &Place),
        job: &[u8],
        terms: &Terms,
        link: Option<OwnedFd>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Reply, SandboxError> {
        let mut zygote = match slot.take() {
            Some(zygote) if zygote.jobs < JOBS_PER_SERVER && !zygote.is_soiled => zygote,
            old => {
                drop(old);
                let zygote = self.spawn()?;
                processor::pin(Some(zygote.pid()), place.processor);
                if let Some(Err(error)) = place.cgroup.as_ref().map(|cgroup| cgroup.add(zygote.id())) {
                    self.do_without("control group", &error.to_string())?;
                }
                zygote
            }
        };
        let reply = zygote.call(job, terms, link, cancelled)?;
        // Its runner sends something before it hands over to a candidate.
        if reply.frames.is_empty() && reply.ending == Ending::Exit(SETUP_FAILED) {
            return Err(SandboxError::ForkServer("a child could not be restricted".to_owned()));
        }
        *slot = Some(zygote);
        Ok(reply)
    }

    fn spawn(&self) -> Result<Zygote, SandboxError> {
        let walls = self.walls().0.clone();
        match self.spawn_behind(&walls) {
            Err(SandboxError::Io(error)) => {
                // A wall that stood a moment ago may be refused now: the kernel counts namespaces, for one.
                self.look_again(&error)?;
                let walls = self.walls().0.clone();
                self.spawn_behind(&walls)
            }
            spawned => spawned,
        }
    }

    /// Finds out which walls still stand.
    ///
    /// # Errors
    /// The caller of the sandbox asks for one that does not.
    fn look_again(&self, error: &io::Error) -> Result<(), SandboxError> {
        let (found, standing) = Walls::find(&self.python.readable, self.limits.scratch_bytes)?;
        let mut walls = self.walls();
        let group = |line: &&String| line.starts_with("control group");
        let layers = Layers {
            present: standing.present.iter().chain(walls.1.present.iter().filter(group)).cloned().collect(),
            reduced: standing.reduced.iter().chain(walls.1.reduced.iter().filter(group)).cloned().collect(),
            ..standing.clone()
        };
        check(&layers, self.limits.isolation)?;
        if layers != walls.1 {
            (self.note)(&format!("sandbox: a fork server did not start: {error}; now {layers}"));
        }
        *walls = (found, layers);
        Ok(())
    }

    /// Goes on without a second wall.
    ///
    /// # Errors
    /// The caller of the sandbox asks for it.
    fn do_without(&self, wall: &str, reason: &str) -> Result<(), SandboxError> {
        let mut walls = self.walls();
        if walls.1.lose(wall, reason) {
            check(&walls.1, self.limits.isolation)?;
            (self.note)(&format!("sandbox: from now on without {wall}: {reason}"));
        }
        Ok(())
    }

    fn spawn_behind(&self, walls: &Walls) -> Result<Zygote, SandboxError> {
        let (control, control_end) = UnixStream::pair()?;
        let (mut job, job_end) = UnixStream::pair()?;
        let (errors, errors_end) = io::pipe()?;
        let mut command = self.python.command();
        let scratch = if walls.scratch_bytes() > 0 { walls::SCRATCH } else { "" };
        if !scratch.is_empty() {
            command.env("TMPDIR", scratch);
        }
        command.args(["-c", BOOTSTRAP]);
        command.stdin(OwnedFd::from(control_end)).stdout(OwnedFd::from(job_end)).stderr(errors_end);
        walls.surround(&mut command);
        let mut zygote = Zygote::new(self.spawner.spawn(command)?, control, errors);
        let source = include_bytes!("zygote.py");
        let mut hello = (source.len() as u32).to_le_bytes().to_vec();
        hello.extend(source);
        let [memory_bytes, scratch_bytes] = [self.limits.memory_bytes, walls.scratch_bytes()].map(|n| n.to_string());
        let packages = self.python.packages.as_deref().map_or(&b""[..], |folder| folder.as_os_str().as_bytes());
        let warm = self.python.warm.join("\n");
        let setup = [
            memory_bytes.as_bytes(),
            scratch.as_bytes(),
            scratch_bytes.as_bytes(),
            packages,
            warm.as_bytes(),
            &self.filters,
        ];
        let scripts = RUNNERS.iter().flat_map(|(name, source)| [name.as_bytes(), source.as_bytes()]);
        hello.extend(frame::encode(setup.into_iter().chain(scripts)));
        // A server that dies before it has read this says why on its error output.
        let _ = job.write_all(&hello);
        zygote.await_ready(&mut job)?;
        Ok(zygote)
    }
}

/// # Errors
/// The caller asks for a wall that is not there.
fn check(layers: &Layers, isolation: Isolation) -> Result<(), SandboxError> {
    if isolation.allows(layers) {
        return Ok(());
    }
    let absent = layers.missing.iter().chain(layers.reduced.iter().filter(|_| isolation == Isolation::Full));
    Err(SandboxError::Unsafe(absent.cloned().collect::<Vec<_>>().join("; ")))
}

/// Why a job's result may be the machine's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It waited too long.
    Waited,
    /// The system killed it: for memory, most likely.
    Killed,
}

/// Its fork servers in the hands of the thread that works with them.
pub struct Worker<'a> {
    sandbox: &'a Sandbox,
    servers: &'a mut Servers,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl Worker<'_> {
    /// The limits of every job.
    pub fn limits(&self) -> Limits {
        self.sandbox.limits
    }

    /// Runs `runner` with `fields` in a fresh child, under the sandbox's limits and the default bounds.
    pub(crate) fn call(&mut self, runner: &str, fields: &[&[u8]]) -> Result<Reply, SandboxError> {
        self.run(Call::new(runner, fields))
    }

    /// As [`Worker::call`], with a CPU limit of its own.
    pub(crate) fn call_for(
        &mut self,
        runner: &str,
        fields: &[&[u8]],
        cpu_s: CpuSeconds,
    ) -> Result<Reply, SandboxError> {
        self.run(Call::new(runner, fields).cpu(cpu_s))
    }

    /// Runs a job in a fresh child, as its caller says.
    pub(crate) fn run(&mut self, call: Call) -> Result<Reply, SandboxError> {
        let limits = self.sandbox.limits;
        let limits = Limits { cpu_s: call.cpu_s.unwrap_or(limits.cpu_s), ..limits };
        let job = job(call.runner, limits.cpu_s, call.fields);
        let terms = Terms { keeps_output: call.keeps_output, ..Terms::of(&limits, call.bounds) };
        let Servers { zygote, place } = &mut *self.servers;
        retried(|| {
            let memory = call.has_memory.then(SharedMemory::create).transpose()?;
            let link = memory.as_ref().map(SharedMemory::link).transpose()?;
            let reply = self.sandbox.attempt((zygote, place), &job, &terms, link, self.cancelled)?;
            Ok(Reply { memory: memory.map_or(Ok(Vec::new()), |memory| memory.read())?, ..reply })
        })
    }
}

/// The bytes of a job.
fn job(runner: &str, cpu_s: CpuSeconds, fields: &[&[u8]]) -> Vec<u8> {
    let cpu = cpu_s.whole().to_string();
    frame::encode([runner.as_bytes(), cpu.as_bytes()].into_iter().chain(fields.iter().copied()))
}

/// What the machine got wrong is tried once more: it says nothing about a candidate.
fn retried<T>(mut attempt: impl FnMut() -> Result<T, SandboxError>) -> Result<T, SandboxError> {
    match attempt() {
        Err(error) if !matches!(error, SandboxError::Cancelled | SandboxError::Warm { .. }) => attempt(),
        result => result,
    }
}
