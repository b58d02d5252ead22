//! Starts the user's program, waits for it, and reads what it left.

use std::ffi::OsStr;
use std::fs::File;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

#[cfg(target_os = "linux")]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
#[cfg(target_os = "linux")]
use rustix::process::{PidfdFlags, pidfd_open};
use tracetune_engine::stage::{Artifact, Context, Inputs, StageError};
use tracetune_engine::table::{TableFile, table_to_bytes};

use super::Params;

/// `EX_TEMPFAIL` of sysexits.h: the program asks to be tried again.
const TEMPORARY_FAILURE: i32 = 75;

/// Runs the program with `folder` for its files; gives the path of the Parquet file that it wrote.
pub(super) fn run(params: &Params, inputs: &Inputs, folder: &Path, cx: &Context) -> Result<PathBuf, StageError> {
    let out = folder.join("out.parquet");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut command = Command::new(found_in(&path, &params.run[0]));
    command.args(&params.run[1..]).current_dir(&cx.root).env_clear().envs(&params.env);
    command.env("PATH", &path).env("TRACETUNE_OUT", &out);
    for (port, artifact) in &inputs.0 {
        let name = format!("TRACETUNE_IN_{}", port.to_uppercase().replace('-', "_"));
        command.env(name, path_of(port, artifact, folder)?);
    }
    let log = folder.join("log.txt");
    let written = File::create(&log)?;
    command.stdin(Stdio::null()).stdout(written.try_clone()?).stderr(written).process_group(0);
    let program = params.run.join(" ");
    let child = command.spawn().map_err(|error| StageError::input(format!("can't start `{program}`: {error}")))?;
    let status = wait(child, cx)?;
    let log = String::from_utf8_lossy(&fs_err::read(&log)?).into_owned();
    if status.code() == Some(TEMPORARY_FAILURE) {
        let message = format!("`{program}` ended with {status}: try again\n{}", tail(&log));
        return Err(StageError::Transient { message, help: None });
    }
    if !status.success() {
        return Err(StageError::input(format!("`{program}` ended with {status}\n{}", tail(&log))));
    }
    if !log.trim().is_empty() {
        cx.note(tail(&log));
    }
    if !out.is_file() {
        return Err(StageError::input(format!("`{program}` wrote nothing to TRACETUNE_OUT\n{}", tail(&log))));
    }
    match TableFile::open(&out) {
        Ok(_) => Ok(out),
        Err(error) => Err(StageError::input(format!("what `{program}` wrote to TRACETUNE_OUT: {error}"))),
    }
}

/// The program's path, as the system would find it. Given a path, Rust starts it without a copy of this process, whose
/// threads would all have to wait for that.
fn found_in(path: &OsStr, program: &str) -> PathBuf {
    let found = if program.contains('/') { None } else { in_path(path, program) };
    found.unwrap_or_else(|| program.into())
}

/// The first program of that name in the folders of PATH.
pub(super) fn in_path(path: &OsStr, program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).map(|folder| folder.join(program)).find(is_program)
}

/// Where the program finds an input.
fn path_of(port: &str, artifact: &Artifact, folder: &Path) -> Result<PathBuf, StageError> {
    let path = folder.join(format!("in-{port}.parquet"));
    match artifact {
        Artifact::Directory(directory) => return Ok(directory.clone()),
        // Under a name that says what it is; no bytes are copied where the file system can do without.
        Artifact::File(file) if path.exists() || std::fs::hard_link(file, &path).is_ok() => {}
        Artifact::File(file) => _ = fs_err::copy(file, &path)?,
        Artifact::Table(table) => {
            let bytes = table_to_bytes(table).map_err(|error| StageError::input(error.to_string()))?;
            fs_err::write(&path, bytes)?;
        }
    }
    Ok(path)
}

/// Waits for the program; an interrupted run ends it. What it has started and left behind is ended in any case.
fn wait(mut child: Child, cx: &Context) -> Result<ExitStatus, StageError> {
    let group = Pid::from_raw(child.id() as i32);
    let end_group = || group.map(|group| kill_process_group(group, Signal::KILL));
    let mut patience = Patience::of(&child);
    loop {
        if let Some(status) = child.try_wait()? {
            end_group();
            return Ok(status);
        }
        if cx.cancelled() {
            end_group();
            child.wait()?;
            return Err(StageError::Cancelled);
        }
        patience.wait();
    }
}

/// How to wait for a child a little, so that an interrupt is noticed as well as its end.
enum Patience {
    /// Until the system says that it has ended.
    #[cfg(target_os = "linux")]
    Told(OwnedFd),
    /// So long: short programs are not kept waiting, long ones are not asked all the time.
    Asking(Duration),
}

impl Patience {
    const LONGEST: Duration = Duration::from_millis(20);

    #[cfg_attr(not(target_os = "linux"), expect(unused_variables))]
    fn of(child: &Child) -> Self {
        #[cfg(target_os = "linux")]
        if let Some(pid) = Pid::from_raw(child.id() as i32)
            && let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty())
        {
            return Self::Told(descriptor);
        }
        Self::Asking(Duration::from_micros(200))
    }

    fn wait(&mut self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Told(descriptor) => {
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

/// The last lines of a log.
fn tail(log: &str) -> &str {
    const BYTES: usize = 4000;
    let log = log.trim_end();
    let start = log.len().saturating_sub(BYTES);
    let start = (start..=log.len()).find(|&at| log.is_char_boundary(at)).unwrap_or(log.len());
    &log[start..]
}
