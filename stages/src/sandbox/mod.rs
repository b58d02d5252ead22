//! Runs untrusted Python programs: fast, side by side, and so that none can hang, write, multiply or look around.
//!
//! A [`Sandbox`] has a warm interpreter per worker (a fork server, `zygote.py`) that forks a child for each job. The
//! child is one of our embedded scripts (a *runner*), which loads the candidate and sends back frames. What a frame
//! claims is the candidate's word: callers compare outside, see `value.rs`.
//!
//! Limits are CPU time, memory and output. Wall time is a backstop for programs that wait; a job that meets it is to
//! be tried once more alone ([`Ending::WallTime`]). Faults of the machine are [`SandboxError`]s, never verdicts.

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
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracetune_engine::stage::StageError;

use crate::python::Python;
use cgroup::Cgroup;
pub(crate) use frame::Frame;
pub use layers::Layers;
pub use limits::{CpuSeconds, Isolation, Limits};
use memory::SharedMemory;
use spawner::Spawner;
use walls::Walls;
use zygote::{Bounds, Zygote};

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
    ("verify", include_str!("../verify/verify.py")),
    ("remote", include_str!("../verify/remote.py")),
    ("prepare", include_str!("../verify/prepare.py")),
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
    /// It met the wall limit: try once more alone before believing it.
    WallTime,
    /// It printed more than it may.
    Output,
    /// It wrote nonsense on its job's socket.
    Malformed,
}

/// What came back from a job.
#[derive(Debug)]
pub struct Reply {
    pub(crate) frames: Vec<Frame>,
    pub(crate) ending: Ending,
    pub(crate) output_bytes: u64,
    /// What it wrote into memory that it shared with us; empty where it had none.
    pub(crate) memory: Vec<u8>,
    /// CPU time; known where a SIGKILL of unknown origin ended it.
    pub(crate) cpu: Option<Duration>,
}

impl Default for Reply {
    fn default() -> Self {
        Self { frames: Vec::new(), ending: Ending::Exit(0), output_bytes: 0, memory: Vec::new(), cpu: None }
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
    layers: Layers,
    walls: Walls,
    /// What each child lays on itself.
    filters: Vec<u8>,
    spawner: Spawner,
    workers: Vec<Mutex<Servers>>,
}

/// A worker's fork servers, each started when it is needed.
#[derive(Default)]
struct Servers {
    candidate: Option<Zygote>,
    /// For tests that run beside a candidate, in a process of their own.
    tests: Option<Zygote>,
    /// Declared after them: a control group can go when they are gone.
    place: Place,
}

/// Where a worker and all that it starts run.
#[derive(Default)]
struct Place {
    /// The worker waits while a child runs, so one processor is enough, and caches and wake-ups are cheapest there.
    processor: Option<usize>,
    cgroup: Option<Cgroup>,
}

impl Place {
    fn take_in(&self, zygote: &Zygote) -> io::Result<()> {
        processor::pin(Some(zygote.pid()), self.processor);
        self.cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.add(zygote.id()))
    }
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
        let (walls, mut layers) = Walls::find(&python.readable)?;
        let workers = workers.max(1);
        let (cgroups, grouped) = cgroups(workers, &limits);
        layers.add_behind("control group", grouped);
        if !limits.isolation.allows(&layers) {
            return Err(SandboxError::Unsafe(layers.missing.join("; ")));
        }
        let filters = if layers.filtered { walls::child_filters().map_err(SandboxError::Unsafe)? } else { Vec::new() };
        // With fewer workers other sandboxes may have the rest, with more some wait: the kernel had better choose.
        let processors = processor::allowed().filter(|processors| processors.len() == workers).unwrap_or_default();
        let servers = |(worker, cgroup)| {
            let processor = processors.get(worker).copied();
            Mutex::new(Servers { place: Place { processor, cgroup }, ..Servers::default() })
        };
        let workers = cgroups.into_iter().enumerate().map(servers).collect();
        let (python, spawner) = (python.clone(), Spawner::start()?);
        let sandbox = Self { python, limits, layers, walls, filters, spawner, workers };
        // The workers prove themselves: what fails here would otherwise look like a candidate's fault.
        let workers = vec![(); sandbox.workers.len()];
        sandbox.map(&workers, &|| false, &|_| {}, |worker, ()| {
            let reply = worker.call("prepare", &[b"assert True"])?;
            match reply.ending {
                Ending::Done => Ok(()),
                ending => Err(SandboxError::ForkServer(format!("a child of it ended at once: {ending:?}"))),
            }
        })?;
        Ok(sandbox)
    }

    /// The walls in force.
    pub fn layers(&self) -> &Layers {
        &self.layers
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
        bounds: &Bounds,
        link: Option<OwnedFd>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Reply, SandboxError> {
        let mut zygote = match slot.take() {
            Some(zygote) if zygote.jobs < JOBS_PER_SERVER => zygote,
            old => {
                drop(old);
                let zygote = self.spawn()?;
                place.take_in(&zygote)?;
                zygote
            }
        };
        let reply = zygote.call(job, bounds, link, cancelled)?;
        // Its runner sends something before it hands over to a candidate.
        if reply.frames.is_empty() && reply.ending == Ending::Exit(SETUP_FAILED) {
            return Err(SandboxError::ForkServer("a child could not be restricted".to_owned()));
        }
        *slot = Some(zygote);
        Ok(reply)
    }

    fn spawn(&self) -> Result<Zygote, SandboxError> {
        let (control, control_end) = UnixStream::pair()?;
        let (mut job, job_end) = UnixStream::pair()?;
        let (errors, errors_end) = io::pipe()?;
        let mut command = self.python.command();
        command.args(["-c", BOOTSTRAP]);
        command.stdin(OwnedFd::from(control_end)).stdout(OwnedFd::from(job_end)).stderr(errors_end);
        self.walls.surround(&mut command);
        let mut zygote = Zygote::new(self.spawner.spawn(command)?, control, errors);
        let source = include_bytes!("zygote.py");
        let mut hello = (source.len() as u32).to_le_bytes().to_vec();
        hello.extend(source);
        let memory_bytes = self.limits.memory_bytes.to_string();
        let scripts = RUNNERS.iter().flat_map(|(name, source)| [name.as_bytes(), source.as_bytes()]);
        hello.extend(frame::encode([memory_bytes.as_bytes(), &self.filters].into_iter().chain(scripts)));
        // A server that dies before it has read this says why on its error output.
        let _ = job.write_all(&hello);
        zygote.await_ready(&mut job)?;
        Ok(zygote)
    }
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

    /// Runs `runner` with `fields` in a fresh child, under the sandbox's limits.
    pub(crate) fn call(&mut self, runner: &str, fields: &[&[u8]]) -> Result<Reply, SandboxError> {
        self.call_for(runner, fields, self.sandbox.limits.cpu_s)
    }

    /// As [`Worker::call`], with a CPU limit of its own.
    pub(crate) fn call_for(
        &mut self,
        runner: &str,
        fields: &[&[u8]],
        cpu_s: CpuSeconds,
    ) -> Result<Reply, SandboxError> {
        let job = job(runner, cpu_s, fields);
        let bounds = Bounds::of(&Limits { cpu_s, ..self.sandbox.limits });
        let Servers { candidate, place, .. } = &mut *self.servers;
        retried(|| self.sandbox.attempt((candidate, place), &job, &bounds, None, self.cancelled))
    }

    /// As [`Worker::call`], with memory shared between the child and the reply.
    pub(crate) fn call_with_memory(&mut self, runner: &str, fields: &[&[u8]]) -> Result<Reply, SandboxError> {
        let limits = &self.sandbox.limits;
        let job = job(runner, limits.cpu_s, fields);
        let bounds = Bounds::of(limits);
        let Servers { candidate, place, .. } = &mut *self.servers;
        retried(|| {
            let memory = SharedMemory::create()?;
            let link = Some(memory.link()?);
            let reply = self.sandbox.attempt((candidate, place), &job, &bounds, link, self.cancelled)?;
            Ok(Reply { memory: memory.read()?, ..reply })
        })
    }

    /// Runs `runner` in two children at once, joined by a link, each with its fields. The first is the candidate's:
    /// it ends when the second does.
    pub(crate) fn call_pair(
        &mut self,
        runner: &str,
        candidate: &[&[u8]],
        tests: &[&[u8]],
    ) -> Result<(Reply, Reply), SandboxError> {
        let limits = &self.sandbox.limits;
        let (sandbox, cancelled, servers) = (self.sandbox, self.cancelled, &mut *self.servers);
        let [candidate, tests] = [candidate, tests].map(|fields| job(runner, limits.cpu_s, fields));
        retried(|| {
            let (ours, theirs) = UnixStream::pair()?;
            let over = AtomicBool::new(false);
            let beside = Bounds { over: Some(&over), ..Bounds::of(limits) };
            let Servers { candidate: first, tests: second, place } = &mut *servers;
            let (first, second) = ((first, &*place), (second, &*place));
            std::thread::scope(|scope| {
                let candidate =
                    scope.spawn(|| sandbox.attempt(first, &candidate, &beside, Some(ours.into()), cancelled));
                let judged = sandbox.attempt(second, &tests, &Bounds::of(limits), Some(theirs.into()), cancelled);
                over.store(true, Ordering::Relaxed);
                let served = candidate.join().map_err(|_| io::Error::other("a worker panicked"))?;
                Ok((served?, judged?))
            })
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
        Err(error) if !matches!(error, SandboxError::Cancelled) => attempt(),
        result => result,
    }
}
