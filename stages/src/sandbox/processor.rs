//! Which processor a worker keeps to, where the system lets one choose.

use rustix::process::Pid;
#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The processors that this process may use.
#[cfg(target_os = "linux")]
pub(super) fn allowed() -> Option<Vec<usize>> {
    let allowed = sched_getaffinity(None).ok()?;
    Some((0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)).collect())
}

/// Keeps a process, or else this thread, on a processor; where that can't be had nothing is lost but time.
#[cfg(target_os = "linux")]
pub(super) fn pin(process: Option<Pid>, processor: Option<usize>) {
    if let Some(processor) = processor {
        let mut one = CpuSet::new();
        one.set(processor);
        let _ = sched_setaffinity(process, &one);
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allowed() -> Option<Vec<usize>> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(super) fn pin(_: Option<Pid>, _: Option<usize>) {}
