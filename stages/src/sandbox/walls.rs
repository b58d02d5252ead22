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
pub(super) struct Walls(Vec<Arc<Wall>>);

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
    pub(super) fn find(readable: &[PathBuf]) -> io::Result<(Self, Layers)> {
        // Landlock and the filters forbid mounts and changes of the user: in this order.
        let planned = [
            ("namespaces", true, namespaces::separate(readable)),
            ("user", true, namespaces::become_nobody(readable)),
            ("files", false, landlock(readable)),
            ("capabilities", false, Ok(("none, and none to gain".to_owned(), Box::new(drop_capabilities) as Raise))),
            ("system calls", false, filters::for_servers()),
        ];
        let (mut walls, mut reasons) = (Vec::new(), Vec::new());
        for (name, is_second, wall) in planned {
            match wall {
                Ok((words, raise)) => walls.push(Arc::new(Wall { name, is_second, words, raise })),
                Err(reason) => reasons.push((name, is_second, reason)),
            }
        }
        let mut layers = Layers::default();
        layers.add("limits", Ok("CPU time, memory, open files, no file writing, output, wall time".to_owned()));
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
        layers.filtered = standing.iter().any(|wall| wall.name == "system calls");
        Ok((Self(standing), layers))
    }

    /// Has what `command` starts stand behind them.
    pub(super) fn surround(&self, command: &mut Command) {
        let walls = self.0.clone();
        #[expect(unsafe_code, reason = "what std offers between fork and exec")]
        // SAFETY: the walls only call the kernel.
        unsafe {
            command.pre_exec(move || walls.iter().try_for_each(|wall| (wall.raise)()))
        };
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
