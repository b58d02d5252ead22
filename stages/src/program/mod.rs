//! Programs of the user's own: started with what they are given and nothing else, heard, and ended with all that they
//! have started.
//!
//! On Linux a program runs below a supervisor, a process of this binary: see [`supervisor`]. Elsewhere, and where the
//! binary is another one, it runs as the leader of a process group, which is ended with it.

mod output;
pub mod supervisor;
mod worker;

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tracetune_engine::stage::{Context, StageError};

use self::output::Listener;
pub(crate) use self::worker::Worker;

/// How long a program has to end by itself once it is asked to, by SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// A program that is to be started.
pub(crate) struct Program {
    /// Its path and its arguments.
    pub(crate) command: Vec<OsString>,
    /// All of its environment.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Where it starts.
    pub(crate) folder: PathBuf,
}

/// How a program ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The end of what it wrote to its standard output and error.
    pub(crate) tail: String,
}

impl Program {
    /// Runs it to its end. What it writes goes to the stage's log as it comes.
    ///
    /// # Errors
    /// It can't be started; or the run is interrupted.
    pub(crate) fn run(&self, cx: &Context) -> Result<Ended, StageError> {
        let (reader, writer) = std::io::pipe()?;
        let mut command = self.command(false, Stdio::null());
        command.stdout(writer.try_clone()?).stderr(writer);
        let running = self.spawn(command)?;
        let listener = Listener::start(reader, cx)?;
        let status = running.wait(cx, None)?;
        Ok(Ended { status, tail: listener.tail() })
    }

    /// The command that starts it: below a supervisor, whose standard input is a pipe from here, or by itself with this
    /// standard input.
    fn command(&self, is_worker: bool, input: Stdio) -> Command {
        match supervisor::command(is_worker) {
            Some(mut command) => {
                command.args(&self.command).stdin(Stdio::piped());
                command
            }
            None => {
                let mut command = Command::new(&self.command[0]);
                command.args(&self.command[1..]).stdin(input);
                command
            }
        }
    }

    /// Starts a command of this program. The command, and with it its ends of pipes, is dropped: what is read from them ends
    /// when the program's do.
    fn spawn(&self, mut command: Command) -> Result<Running, StageError> {
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.folder).process_group(0);
        let shown = self.command[0].to_string_lossy();
        let child = command.spawn().map_err(|error| StageError::input(format!("can't start `{shown}`: {error}")))?;
        Ok(Running::new(child))
    }
}

/// A program that runs.
struct Running {
    child: Child,
    group: Option<Pid>,
    /// To its supervisor: closed when this process ends, however it ends.
    supervisor: Option<ChildStdin>,
}

impl Running {
    fn new(mut child: Child) -> Self {
        Self { group: Pid::from_raw(child.id() as i32), supervisor: child.stdin.take(), child }
    }

    /// Waits for it; an interrupted run ends it, and so does a while after it was asked to end. What it has started and left
    /// behind is ended in any case.
    fn wait(mut self, cx: &Context, mut asked: Option<Instant>) -> Result<ExitStatus, StageError> {
        let mut patience = Patience::of(&self.child);
        let mut is_interrupted = false;
        loop {
            let mut ended = self.child.try_wait()?;
            if ended.is_none() && asked.is_some_and(|asked| asked.elapsed() >= GRACE) {
                self.kill();
                ended = Some(self.child.wait()?);
            }
            match ended {
                Some(status) => {
                    self.kill();
                    return if is_interrupted { Err(StageError::Cancelled) } else { Ok(status) };
                }
                None if cx.cancelled() && !is_interrupted => {
                    self.terminate();
                    is_interrupted = true;
                    asked.get_or_insert_with(Instant::now);
                }
                _ => patience.wait(),
            }
        }
    }

    /// Asks it to end.
    fn terminate(&mut self) {
        match &mut self.supervisor {
            Some(supervisor) => _ = supervisor.write_all(supervisor::TERMINATE),
            None => _ = self.group.map(|group| kill_process_group(group, Signal::TERM)),
        }
    }

    /// Ends it and all that it started.
    fn kill(&mut self) {
        // A supervisor that hears no more ends everything, and then itself.
        if self.supervisor.take().is_some() {
            self.group = None;
        } else {
            // Once: the number may be another's when the child is waited for.
            let _ = self.group.take().map(|group| kill_process_group(group, Signal::KILL));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// How to wait for a child a little, so that an interrupt is noticed as well as its end.
enum Patience {
    /// Until the system says that it has ended.
    #[cfg(target_os = "linux")]
    Told(std::os::fd::OwnedFd),
    /// So long: short programs are not kept waiting, long ones are not asked all the time.
    Asking(Duration),
}

impl Patience {
    const LONGEST: Duration = Duration::from_millis(20);

    #[cfg_attr(not(target_os = "linux"), expect(unused_variables))]
    fn of(child: &Child) -> Self {
        #[cfg(target_os = "linux")]
        if let Some(pid) = Pid::from_raw(child.id() as i32)
            && let Ok(descriptor) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        {
            return Self::Told(descriptor);
        }
        Self::Asking(Duration::from_micros(200))
    }

    fn wait(&mut self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Told(descriptor) => {
                use rustix::event::{PollFd, PollFlags, Timespec, poll};
                let longest = Timespec { tv_sec: 0, tv_nsec: Self::LONGEST.subsec_nanos().into() };
                let _ = poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&longest));
            }
            Self::Asking(pause) => {
                std::thread::sleep(*pause);
                *pause = (*pause * 3 / 2).min(Self::LONGEST);
            }
        }
    }
}

/// The program's path, as the system would find it. Given a path, Rust starts it without a copy of this process, whose
/// threads would all have to wait for that.
pub(crate) fn found_in(path: &OsStr, program: &str) -> PathBuf {
    let found = if program.contains('/') { None } else { in_path(path, program) };
    found.unwrap_or_else(|| program.into())
}

/// The first program of that name in the folders of PATH.
pub(crate) fn in_path(path: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(program)).find(|path| is_program(path))
}

/// Whether a program is a script that starts another one: whom it starts may depend on more than its own bytes.
pub(crate) fn is_wrapper(program: &Path) -> bool {
    let mut start = [0; 2];
    std::fs::File::open(program).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"#!"
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
