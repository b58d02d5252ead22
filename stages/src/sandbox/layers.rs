//! What is taken away from a candidate before it runs, and which of it this machine can take away.
//!
//! Landlock, capabilities and the first system call filter are laid on the thread that starts the fork servers, so
//! they hold for everything that it starts; so do the walls of `namespaces.rs`. The second filter is laid by each forked
//! child on itself. Resource limits are set by the fork server (`zygote.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};
use rustix::thread::CapabilitySet;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

use super::namespaces;
use super::syscalls::{self, WriteFlags};

/// The walls around a candidate that are in force on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// In force, with a few words each.
    pub present: Vec<String>,
    /// Not in force, with the reason.
    pub missing: Vec<String>,
    /// Not in force either, with the reason: second walls, which those in force do without.
    pub reduced: Vec<String>,
    /// Whether the system call filters are: without them a candidate could start processes and kill others.
    pub(super) filtered: bool,
}

impl std::fmt::Display for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}", self.present.join("; "))?;
        if !self.missing.is_empty() {
            write!(f, "; not in force: {}", self.missing.join("; "))?;
        }
        if !self.reduced.is_empty() {
            write!(f, "; done without: {}", self.reduced.join("; "))?;
        }
        Ok(())
    }
}

impl Layers {
    fn add(&mut self, name: &str, result: Result<String, String>) {
        match result {
            Ok(detail) => self.present.push(format!("{name}: {detail}")),
            Err(reason) => self.missing.push(format!("{name}: {reason}")),
        }
    }

    /// A second wall.
    pub(super) fn add_behind(&mut self, name: &str, result: Result<String, String>) {
        match result {
            Ok(detail) => self.present.push(format!("{name}: {detail}")),
            Err(reason) => self.reduced.push(format!("{name}: {reason}")),
        }
    }
}

/// Restricts the calling thread and everything it starts from now on. Always returns: what can't be had is reported.
/// `folder` is an empty one.
pub(crate) fn restrict_thread(readable: &[PathBuf], folder: &Path) -> Layers {
    let mut layers = Layers::default();
    layers.add("limits", Ok("CPU time, memory, open files, no file writing, output, wall time".to_owned()));
    // Landlock forbids mounts, and nobody may change users: in this order.
    layers.add_behind("namespaces", namespaces::separate(readable, folder));
    layers.add_behind("user", namespaces::become_nobody(readable));
    layers.add("files", landlock(readable));
    layers.add("capabilities", drop_capabilities());
    let filtered = filter_thread().and_then(|words| child_filters().map(|_| words));
    layers.filtered = filtered.is_ok();
    layers.add("system calls", filtered);
    layers
}

fn landlock(readable: &[PathBuf]) -> Result<String, String> {
    let restrict = || -> Result<_, RulesetError> {
        Ruleset::default()
            .handle_access(AccessFs::from_all(ABI::V6))?
            .handle_access(AccessNet::from_all(ABI::V6))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .add_rules(path_beneath_rules(readable, AccessFs::from_read(ABI::V6)))?
            .restrict_self()
    };
    match restrict().map_err(|error| error.to_string())?.ruleset {
        RulesetStatus::FullyEnforced => Ok("Landlock: nothing to write, only Python's library to read".to_owned()),
        RulesetStatus::PartiallyEnforced => Ok("Landlock, with what this kernel knows of it".to_owned()),
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock (Linux 5.13 or newer has)".to_owned()),
    }
}

fn drop_capabilities() -> Result<String, String> {
    let explain = |error: rustix::io::Errno| error.to_string();
    let mut sets = rustix::thread::capabilities(None).map_err(explain)?;
    if !(sets.permitted | sets.effective).is_empty() {
        sets.effective = CapabilitySet::empty();
        sets.permitted = CapabilitySet::empty();
        sets.inheritable = CapabilitySet::empty();
        rustix::thread::set_capabilities(None, sets).map_err(explain)?;
    }
    Ok("none, and none to gain".to_owned())
}

fn filter_thread() -> Result<String, String> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        syscalls::FORBIDDEN.iter().map(|&number| (number, Vec::new())).collect();
    for &(number, argument) in syscalls::OPENING {
        refused.insert(number, writing_rules(argument)?);
    }
    refused.insert(syscalls::PRLIMIT, vec![rule(0, SeccompCmpOp::Ne, 0)?]);
    seccompiler::apply_filter(&compile(refused, syscalls::EPERM)?).map_err(|error| error.to_string())?;
    let unknown = syscalls::ABSENT.iter().map(|&number| (number, Vec::new())).collect();
    seccompiler::apply_filter(&compile(unknown, syscalls::ENOSYS)?).map_err(|error| error.to_string())?;
    Ok("no processes, network, signals, debugging, mounting, nor files opened for writing".to_owned())
}

/// The filter that a forked child lays on itself, as the bytes that `zygote.py` expects: per filter a 16-bit count
/// and its instructions.
pub(crate) fn child_filters() -> Result<Vec<u8>, String> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        syscalls::NO_NEW_PROCESS.iter().map(|&number| (number, Vec::new())).collect();
    let thread = syscalls::CLONE_THREAD;
    refused.insert(syscalls::CLONE, vec![rule(0, SeccompCmpOp::MaskedEq(thread), 0)?]);
    refused.insert(syscalls::PRCTL, vec![rule(0, SeccompCmpOp::Eq, syscalls::PR_SET_PDEATHSIG)?]);
    let program = compile(refused, syscalls::EPERM)?;
    let mut bytes = (program.len() as u16).to_le_bytes().to_vec();
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    Ok(bytes)
}

fn rule(argument: u8, operation: SeccompCmpOp, value: u64) -> Result<SeccompRule, String> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|error| error.to_string())
}

/// One rule a flag that lets an open file change something.
fn writing_rules(argument: u8) -> Result<Vec<SeccompRule>, String> {
    WriteFlags::ALL.iter().map(|&flag| rule(argument, SeccompCmpOp::MaskedEq(flag), flag)).collect()
}

fn compile(refused: BTreeMap<i64, Vec<SeccompRule>>, errno: u32) -> Result<BpfProgram, String> {
    let arch = std::env::consts::ARCH.try_into().map_err(|_| "not known on this processor".to_owned())?;
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, SeccompAction::Errno(errno), arch)
        .map_err(|error| error.to_string())?;
    let program = BpfProgram::try_from(filter).map_err(|error| error.to_string())?;
    // The x32 numbers of x86-64 name the same calls a second time.
    let prologue = if cfg!(target_arch = "x86_64") {
        vec![
            sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 }, // load the call's number
            sock_filter { code: 0x35, jt: 0, jf: 1, k: 0x4000_0000 }, // if it is an x32 one
            sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x0005_0000 | syscalls::EPERM },
        ]
    } else {
        Vec::new()
    };
    Ok(prologue.into_iter().chain(program).collect())
}
