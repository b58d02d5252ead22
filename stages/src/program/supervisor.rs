//! A process between tracetune and a program, so that nothing that the program starts outlives either.
//!
//! It adopts what the program's processes leave behind (`PR_SET_CHILD_SUBREAPER`), also those that made a session of their
//! own, and listens on its standard input, a pipe from tracetune: when that closes, because the program is to end or
//! because tracetune is gone (SIGKILL included), it ends all its descendants. Its exit status is the program's.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// The argument that makes this binary a supervisor.
const ARGUMENT: &str = "__supervise";
/// The same for a worker, whose standard input is what the supervisor has as its standard output: a socket.
const WORKER: &str = "__supervise-worker";
/// Asks for SIGTERM to be sent to the program.
pub(super) const TERMINATE: &[u8] = b"t";

/// Whether this process's binary knows [`ARGUMENT`] and [`WORKER`].
static AVAILABLE: AtomicBool = AtomicBool::new(false);

/// A command that supervises the program whose path and arguments are added to it.
pub(super) fn command(is_worker: bool) -> Option<Command> {
    if !AVAILABLE.load(Ordering::Relaxed) {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.arg(if is_worker { WORKER } else { ARGUMENT });
    Some(command)
}

/// For `main`, before anything else: supervises if that is what the arguments say, and then does not return.
pub fn supervise_if_asked() {
    #[cfg(target_os = "linux")]
    {
        let mut arguments = std::env::args_os().skip(1);
        let first = arguments.next().unwrap_or_default();
        if first == ARGUMENT || first == WORKER {
            std::process::exit(linux::supervise(&arguments.collect::<Vec<_>>(), first == WORKER));
        }
        AVAILABLE.store(true, Ordering::Relaxed);
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsString;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper};

    use super::TERMINATE;

    /// As shells have it.
    const CANNOT_START: i32 = 127;

    /// Runs a program; gives its exit status.
    pub(super) fn supervise(program: &[OsString], is_worker: bool) -> i32 {
        let Some(first) = program.first() else { return CANNOT_START };
        // Without it (a kernel before 3.4) what made a session of its own is not found.
        let _ = set_child_subreaper(Some(getpid()));
        let spawn = || {
            let socket = std::io::stdout().as_fd().try_clone_to_owned();
            let input = if is_worker { Stdio::from(socket?) } else { Stdio::null() };
            Command::new(first).args(&program[1..]).stdin(input).process_group(0).spawn()
        };
        let mut child = match spawn() {
            Ok(child) => child,
            Err(error) => {
                let text = format!("can't start `{}`: {error}\n", first.to_string_lossy());
                let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
                return CANNOT_START;
            }
        };
        let group = Pid::from_raw(child.id() as i32);
        std::thread::spawn(move || {
            let mut byte = [0];
            while let Ok(1) = std::io::stdin().read(&mut byte) {
                if byte == TERMINATE {
                    let _ = group.map(|group| kill_process_group(group, Signal::TERM));
                }
            }
            kill_descendants();
            std::process::exit(CANNOT_START);
        });
        let status = child.wait();
        kill_descendants();
        match status {
            Ok(status) => match (status.code(), status.signal().and_then(Signal::from_named_raw)) {
                (Some(code), _) => code,
                (None, Some(signal)) => {
                    // Dies as the program did, so that its status says so.
                    let _ = kill_process(getpid(), signal);
                    let _ = kill_process(getpid(), Signal::KILL);
                    CANNOT_START
                }
                (None, None) => CANNOT_START,
            },
            Err(_) => CANNOT_START,
        }
    }

    /// Ends all processes below this one: orphans are adopted, so that none is out of reach. Several rounds, as one may
    /// start another meanwhile.
    fn kill_descendants() {
        for _ in 0..1000 {
            let descendants = descendants(getpid());
            if descendants.is_empty() {
                return;
            }
            descendants.into_iter().for_each(|pid| _ = kill_process(pid, Signal::KILL));
            while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// The processes below one that have not ended, as `/proc` has them.
    fn descendants(root: Pid) -> Vec<Pid> {
        let processes: Vec<(i32, i32)> = std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid: i32| Some((pid, parent(pid)?)))
            .collect();
        let mut found = vec![root.as_raw_nonzero().get()];
        let mut next = 0;
        while next < found.len() {
            let parent = found[next];
            found.extend(processes.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        found[1..].iter().filter_map(|&pid| Pid::from_raw(pid)).collect()
    }

    /// `None` for a process that is gone or has ended.
    fn parent(pid: i32) -> Option<i32> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in brackets, may hold anything.
        let mut words = text.rsplit_once(')')?.1.split_whitespace();
        let state = words.next()?;
        if state == "Z" { None } else { words.next()?.parse().ok() }
    }
}
