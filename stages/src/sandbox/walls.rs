//! What is taken away from a candidate before it runs, as far as this machine can take it away.
//!
//! The walls are raised around a fork server between fork and exec, and hold for all that it starts. Whatever needs
//! memory is done beforehand: a child of a process with threads may call the kernel, and allocate nothing. A second
//! system call filter is laid by each forked child on itself, and resource limits by the fork server (`zygote.py`).

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

pub(super) use super::filters::for_children as child_filters;
use super::layers::Layers;
pub(super) use super::namespaces::SCRATCH;
use super::{filters, namespaces};

/// Raises a wall around the calling process, which has one thread.
pub(super) type Raise = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

/// Walls that this machine has, in the order in which they are raised.
#[derive(Clone)]
pub(super) struct Walls {
    standing: Vec<Arc<Wall>>,
    scratch_bytes: u64,
}

struct Wall {
    name: &'static str,
    /// Whether those before it do without it.
    is_second: bool,
    words: String,
    raise: Raise,
}

impl Walls {
    /// Those that can be had around a process which must read `readable`, and may write `scratch_bytes` into a folder
    /// of its own if it can have one.
    ///
    /// # Errors
    /// A pipe or a process for the rehearsal can't be made.
    pub(super) fn find(readable: &[PathBuf], scratch_bytes: u64) -> io::Result<(Self, Layers)> {
        let mut layers = Layers::default();
        let mut plan = Plan::default();
        plan.add("namespaces", true, namespaces::separate(readable, scratch_bytes));
        // The folder stands in a root folder of its own, or nowhere: what may be written depends on it.
        let wants_scratch = scratch_bytes > 0;
        let has_scratch = wants_scratch && rehearse(&plan.walls)?.iter().any(Option::is_none);
        let scratch_bytes = if has_scratch { scratch_bytes } else { 0 };
        // Landlock and the filters forbid mounts and changes of the user: in this order.
        plan.add("user", true, namespaces::become_nobody(readable));
        plan.add("files", false, landlock(readable, has_scratch));
        plan.add("capabilities", false, Ok(("none, and none to gain".to_owned(), Box::new(drop_capabilities))));
        plan.add("system calls", false, filters::for_servers(has_scratch));
        let Plan { walls, mut reasons } = plan;
        layers.add("limits", Ok("CPU time, memory, files, output, wall time".to_owned()));
        let mut standing = Vec::new();
        for (wall, refused) in walls.iter().zip(rehearse(&walls)?) {
            match refused {
                Some(error) => {
                    let without = if wall.name == "user" { "candidates run as root" } else { "the kernel refuses" };
                    reasons.push((wall.name, wall.is_second, format!("{without}: {error}")));
                }
                None => {
                    layers.add_wall(wall.name, wall.is_second, Ok(wall.words.clone()));
                    standing.push(Arc::clone(wall));
                }
            }
        }
        for (name, is_second, reason) in reasons {
            layers.add_wall(name, is_second, Err(reason));
        }
        let stands = |name: &str| standing.iter().any(|wall| wall.name == name);
        if has_scratch && !stands("namespaces") {
            // They stood a moment ago. Files that may be written must not be the machine's.
            let (walls, mut layers) = Self::find(readable, 0)?;
            layers.add_behind("scratch folder", without_scratch());
            return Ok((walls, layers));
        }
        if wants_scratch {
            let scratch = format!("{} MiB in memory for a job's files", scratch_bytes >> 20);
            layers.add_behind("scratch folder", if has_scratch { Ok(scratch) } else { without_scratch() });
        }
        layers.filtered = stands("system calls");
        Ok((Self { standing, scratch_bytes }, layers))
    }

    /// What a job may write, in bytes; 0 where it has no folder.
    pub(super) fn scratch_bytes(&self) -> u64 {
        self.scratch_bytes
    }

    /// With one more, that the kernel refuses.
    #[cfg(test)]
    pub(super) fn with_one_refused(mut self) -> Self {
        let raise = Box::new(|| Err(Errno::NOSPC.into()));
        self.standing.push(Arc::new(Wall { name: "user", is_second: true, words: String::new(), raise }));
        self
    }

    /// Has what `command` starts stand behind them.
    pub(super) fn surround(&self, command: &mut Command) {
        let walls = self.standing.clone();
        #[expect(unsafe_code, reason = "what std offers between fork and exec")]
        // SAFETY: the walls only call the kernel.
        unsafe {
            command.pre_exec(move || walls.iter().try_for_each(|wall| (wall.raise)()))
        };
    }
}

fn without_scratch() -> Result<String, String> {
    Err("programs can't write files: that needs namespaces".to_owned())
}

/// Walls that are to be had, and why others are not.
#[derive(Default)]
struct Plan {
    walls: Vec<Arc<Wall>>,
    reasons: Vec<(&'static str, bool, String)>,
}

impl Plan {
    fn add(&mut self, name: &'static str, is_second: bool, wall: Result<(String, Raise), String>) {
        match wall {
            Ok((words, raise)) => self.walls.push(Arc::new(Wall { name, is_second, words, raise })),
            Err(reason) => self.reasons.push((name, is_second, reason)),
        }
    }
}

/// Raises each around a child that ends there; what the kernel said where it refused.
fn rehearse(walls: &[Arc<Wall>]) -> io::Result<Vec<Option<io::Error>>> {
    let (mut answers, writer) = io::pipe()?;
    let raised = walls.to_vec();
    let mut child = Command::new("/");
    #[expect(unsafe_code, reason = "as in `surround`")]
    // SAFETY: the walls and the pipe only call the kernel.
    unsafe {
        child.pre_exec(move || {
            for wall in &raised {
                let errno =
                    (wall.raise)().err().map_or(0, |error| error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()));
                (&writer).write_all(&errno.to_ne_bytes())?;
            }
            Err(Errno::CANCELED.into())
        })
    };
    let _ended = child.spawn();
    drop(child);
    let mut bytes = Vec::new();
    answers.read_to_end(&mut bytes)?;
    let (numbers, _) = bytes.as_chunks();
    if numbers.len() < walls.len() {
        return Err(io::Error::other("the sandbox can't fork"));
    }
    let refusal = |number: &[u8; 4]| Some(i32::from_ne_bytes(*number)).filter(|errno| *errno != 0);
    Ok(numbers.iter().map(|number| refusal(number).map(io::Error::from_raw_os_error)).collect())
}

/// What may be done in the jobs' folder: all but devices, sockets, pipes and programs to execute.
fn scratch_access() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}

/// The rules are made where they hold, as the jobs' folder of a fork server is there only then.
fn landlock(readable: &[PathBuf], has_scratch: bool) -> Result<(String, Raise), String> {
    let readable: Vec<(PathFd, BitFlags<AccessFs>)> = readable
        .iter()
        .filter_map(|path| {
            let mut access = AccessFs::from_read(ABI::V6);
            if !path.is_dir() {
                access &= AccessFs::from_file(ABI::V6);
            }
            // Where a job may write, it may also throw away what it writes.
            if has_scratch && path == Path::new("/dev/null") {
                access |= AccessFs::WriteFile | AccessFs::Truncate;
            }
            Some((PathFd::new(path).ok()?, access))
        })
        .collect();
    let restrict = move || -> io::Result<RulesetStatus> {
        let refused = |_: RulesetError| io::Error::last_os_error();
        let rules = Ruleset::default()
            .handle_access(AccessFs::from_all(ABI::V6))
            .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V6)))
            .and_then(|rules| rules.scope(Scope::from_all(ABI::V6)))
            .and_then(Ruleset::create);
        let mut rules = rules.map_err(refused)?;
        for (path, access) in &readable {
            rules = rules.add_rule(PathBeneath::new(path, *access)).map_err(refused)?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if has_scratch && let Ok(folder) = open(namespaces::SCRATCH, flags, Mode::empty()) {
            rules = rules.add_rule(PathBeneath::new(folder, scratch_access())).map_err(refused)?;
        }
        Ok(rules.restrict_self().map_err(refused)?.ruleset)
    };
    // What the kernel knows of it is said by doing it: to a thread that ends.
    let status = std::thread::scope(|scope| scope.spawn(&restrict).join());
    let status = status.map_err(|_| "its thread panicked".to_owned())?.map_err(|error| error.to_string())?;
    let words = match status {
        RulesetStatus::FullyEnforced if has_scratch => {
            "Landlock: a job's own folder to write, Python's library to read"
        }
        RulesetStatus::FullyEnforced => "Landlock: nothing to write, only Python's library to read",
        RulesetStatus::PartiallyEnforced => "Landlock, with what this kernel knows of it",
        RulesetStatus::NotEnforced => return Err("this kernel has no Landlock (Linux 5.13 or newer has)".to_owned()),
    };
    Ok((words.to_owned(), Box::new(move || restrict().map(drop))))
}

fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}
