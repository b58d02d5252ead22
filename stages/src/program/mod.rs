//! Programs of the user's own: started with what they are given and nothing else, heard, and ended with all that they
//! have started.
//!
//! On Linux a program runs below a supervisor, a process of this binary: see [`supervisor`]. Elsewhere, and where the
//! binary is another one, it runs as the leader of a process group, which is ended with it.

mod output;
pub mod supervisor;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tracetune_engine::stage::{Context, StageError};

use self::output::Listener;

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
        let mut command = self.command();
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.folder).process_group(0);
        command.stdout(writer.try_clone()?).stderr(writer);
        let shown = self.command[0].to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| StageError::input(format!("can't start `{shown}`: {error}")))?;
        // Its ends of the pipe: what is read ends when the program's do.
        drop(command);
        let listener = Listener::start(reader, cx)?;
        let status = Running::new(child).wait(cx)?;
        Ok(Ended { status, tail: listener.tail() })
    }

    /// Starts it as a worker that is spoken to over its standard input and output; what it writes to its standard error is
    /// heard as in [`Program::run`].
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) fn converse(&self, cx: &Context) -> Result<(Conversation, ChildStdin, ChildStdout), StageError> {
        let (reader, writer) = std::io::pipe()?;
        // No supervisor: a worker ends when its standard input does, as it does when this process is gone.
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(writer);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.folder).process_group(0);
        let shown = self.command[0].to_string_lossy().into_owned();
        let mut child =
            command.spawn().map_err(|error| StageError::input(format!("can't start `{shown}`: {error}")))?;
        drop(command);
        let listener = Listener::start(reader, cx)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(StageError::input(format!("`{shown}` has no pipes")));
        };
        let group = Pid::from_raw(child.id() as i32);
        Ok((Conversation { child, group, listener: Some(listener) }, stdin, stdout))
    }

    fn command(&self) -> Command {
        match supervisor::command() {
            Some(mut command) => {
                command.args(&self.command).stdin(Stdio::piped());
                command
            }
            None => {
                let mut command = Command::new(&self.command[0]);
                command.args(&self.command[1..]).stdin(Stdio::null());
                command
            }
        }
    }
}

/// A program that is spoken to. Ended, with all of its process group, when it is dropped.
pub(crate) struct Conversation {
    child: Child,
    group: Option<Pid>,
    listener: Option<Listener>,
}

impl Conversation {
    /// Ends it; gives how it ended and the end of what it wrote to its standard error.
    pub(crate) fn end(&mut self) -> (String, String) {
        // One that is about to end by itself says more.
        let deadline = Instant::now() + Duration::from_millis(500);
        let mut status = self.child.try_wait();
        while matches!(status, Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            status = self.child.try_wait();
        }
        self.kill();
        let status = match status {
            Ok(Some(status)) => status.to_string(),
            _ => "no answer".to_owned(),
        };
        (status, self.listener.take().map(Listener::tail).unwrap_or_default())
    }

    fn kill(&mut self) {
        let _ = self.group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = self.child.wait();
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.kill();
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

    /// Waits for it; an interrupted run ends it. What it has started and left behind is ended in any case.
    fn wait(mut self, cx: &Context) -> Result<ExitStatus, StageError> {
        let mut patience = Patience::of(&self.child);
        let mut asked: Option<Instant> = None;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.kill();
                return if asked.is_some() { Err(StageError::Cancelled) } else { Ok(status) };
            }
            match asked {
                Some(asked) if asked.elapsed() >= GRACE => {
                    self.kill();
                    self.child.wait()?;
                    return Err(StageError::Cancelled);
                }
                None if cx.cancelled() => {
                    self.terminate();
                    asked = Some(Instant::now());
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
        if self.supervisor.take().is_none() {
            let _ = self.group.map(|group| kill_process_group(group, Signal::KILL));
        }
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

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
