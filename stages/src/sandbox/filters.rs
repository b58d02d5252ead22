//! The system call filters, compiled.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter, sock_filter,
};

use super::syscalls::{self, WriteFlags};
use super::walls::Raise;

/// The filters that hold for the fork servers and for what they start; `may_write` where the only files that there are
/// to write are a job's own.
pub(super) fn for_servers(may_write: bool) -> Result<(String, Raise), String> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        syscalls::FORBIDDEN.iter().map(|&number| (number, Vec::new())).collect();
    if !may_write {
        refused.extend(syscalls::CHANGING_FILES.iter().map(|&number| (number, Vec::new())));
        for &(number, argument) in syscalls::OPENING {
            refused.insert(number, writing_rules(argument)?);
        }
    }
    refused.insert(syscalls::PRLIMIT, vec![rule(0, SeccompCmpOp::Ne, 0)?]);
    refused.insert(syscalls::SOCKETPAIR, socketpair_rules()?);
    let refused = compile(refused, syscalls::EPERM)?;
    let unknown = syscalls::ABSENT.iter().map(|&number| (number, Vec::new())).collect();
    let unknown = compile(unknown, syscalls::ENOSYS)?;
    let apply = move |program: &BpfProgram| apply_filter(program).map_err(|_| io::Error::last_os_error());
    let files = if may_write { "" } else { ", nor files opened for writing" };
    let words = format!("no processes, network, signals, debugging, mounting{files}");
    Ok((words, Box::new(move || apply(&refused).and_then(|()| apply(&unknown)))))
}

/// The filter that a forked child lays on itself, as the bytes that `zygote.py` expects: per filter a 16-bit count
/// and its instructions.
pub(super) fn for_children() -> Result<Vec<u8>, String> {
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

/// What makes a pair of sockets another one than connected streams. A datagram socket can send to others by name.
fn socketpair_rules() -> Result<Vec<SeccompRule>, String> {
    let mut rules = vec![rule(0, SeccompCmpOp::Ne, syscalls::AF_UNIX)?];
    for bit in (0..4).map(|place| 1 << place).filter(|bit| syscalls::SOCKET_TYPES & bit != 0) {
        let wrong = if syscalls::SOCK_STREAM & bit == 0 { bit } else { 0 };
        rules.push(rule(1, SeccompCmpOp::MaskedEq(bit), wrong)?);
    }
    Ok(rules)
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
