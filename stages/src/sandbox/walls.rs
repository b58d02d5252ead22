//! What is taken away from a candidate before it runs, as far as this machine can take it away.
//!
//! The walls are raised around a fork server between fork and exec, and hold for all that it starts. Whatever needs
//! memory is done beforehand: a child of a process with threads may call the kernel, and allocate nothing. A second
//! system call filter is laid by each forked child on itself, and resource limits by the fork server (`zygote.py`).

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

pub(super) use super::filters::for_children as child_filters;
use super::layers::Layers;
use super::{filters, namespaces};

/// Raises a wall around the calling process, which has one thread.
pub(super) type Raise = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

/// Walls that this machine has, in the order in which they are raised.
pub(super) struct Walls(Vec<Wall>);

struct Wall {
    name: &'static str,
    /// Whether those before it do without it.
    is_second: bool,
    words: String,
    raise: Raise,
}

impl Walls {
    /// Those that can be had around a process which must read `readable`.
    ///
    /// # Errors
    /// A pipe or a process for the rehearsal can't be made.
    pub(super) fn find(readable: &[PathBuf]) -> io::Result<(Arc<Self>, Layers)> {
        let mut layers = Layers::default();
        layers.add("limits", Ok("CPU time, memory, open files, no file writing, output, wall time".to_owned()));
        let mut walls = Vec::new();
        // Landlock and the filters forbid mounts and changes of the user: in this order.
        let planned = [
            ("namespaces", true, namespaces::separate(readable)),
            ("user", true, namespaces::become_nobody(readable)),
            ("files", false, landlock(readable)),
            ("capabilities", false, Ok(("none, and none to gain".to_owned(), Box::new(drop_capabilities) as Raise))),
            ("system calls", false, filters::for_servers()),
        ];
        let mut refusals = Vec::new();
        for (name, is_second, wall) in planned {
            match wall {
                Ok((words, raise)) => walls.push(Wall { name, is_second, words, raise }),
                Err(reason) => refusals.push((name, is_second, reason)),
            }
        }
        let walls = Arc::new(Self(walls));
        let answers = walls.rehearse()?;
        let walls = Arc::into_inner(walls).map(|walls| walls.0).unwrap_or_default();
        let mut standing = Vec::new();
        for (wall, errno) in walls.into_iter().zip(answers) {
            if errno == 0 {
                standing.push(wall);
            } else {
                let refused = if wall.name == "user" { "candidates run as root" } else { "the kernel refuses" };
                let reason = format!("{refused}: {}", io::Error::from_raw_os_error(errno));
                refusals.push((wall.name, wall.is_second, reason));
            }
        }
        let add = |layers: &mut Layers, name, is_second, result| {
            if is_second { layers.add_behind(name, result) } else { layers.add(name, result) }
        };
        for Wall { name, is_second, words, .. } in &standing {
            add(&mut layers, name, *is_second, Ok(words.clone()));
        }
        for (name, is_second, reason) in refusals {
            add(&mut layers, name, is_second, Err(reason));
        }
        layers.filtered = standing.iter().any(|wall| wall.name == "system calls");
        Ok((Arc::new(Self(standing)), layers))
    }

    /// Has what `command` starts stand behind them.
    pub(super) fn surround(self: &Arc<Self>, command: &mut Command) {
        let walls = Arc::clone(self);
        #[expect(unsafe_code, reason = "what std offers between fork and exec")]
        // SAFETY: the walls only call the kernel.
        unsafe {
            command.pre_exec(move || walls.0.iter().try_for_each(|wall| (wall.raise)()))
        };
    }

    /// Raises each around a child that ends there; the errors, 0 where there is none.
    fn rehearse(self: &Arc<Self>) -> io::Result<Vec<i32>> {
        let (mut answers, writer) = io::pipe()?;
        let walls = Arc::clone(self);
        let mut child = Command::new("/");
        #[expect(unsafe_code, reason = "as in `surround`")]
        // SAFETY: the walls and the pipe only call the kernel.
        unsafe {
            child.pre_exec(move || {
                for wall in &walls.0 {
                    let errno = (wall.raise)()
                        .err()
                        .map_or(0, |error| error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()));
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
        if numbers.len() < self.0.len() {
            return Err(io::Error::other("the sandbox can't fork"));
        }
        Ok(numbers.iter().map(|&number| i32::from_ne_bytes(number)).collect())
    }
}

fn landlock(readable: &[PathBuf]) -> Result<(String, Raise), String> {
    let rules = || -> Result<RulesetCreated, RulesetError> {
        Ruleset::default()
            .handle_access(AccessFs::from_all(ABI::V6))?
            .handle_access(AccessNet::from_all(ABI::V6))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .add_rules(path_beneath_rules(readable, AccessFs::from_read(ABI::V6)))
    };
    let rules = rules().map_err(|error| error.to_string())?;
    let restrict = move || {
        let status = rules.try_clone()?.restrict_self().map_err(|_| io::Error::last_os_error())?;
        Ok::<_, io::Error>(status.ruleset)
    };
    // What the kernel knows of it is said by doing it: to a thread that ends.
    let status = std::thread::scope(|scope| scope.spawn(&restrict).join());
    let status = status.map_err(|_| "its thread panicked".to_owned())?.map_err(|error| error.to_string())?;
    let words = match status {
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
