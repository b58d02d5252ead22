//! For how long a job has waited of its own accord: asleep, while no other process kept it from a CPU.
//!
//! Wall time says little on a crowded machine. Linux tells a thread that sleeps from one that waits for a CPU or a
//! disk, and how long each thread ran and waited for a CPU (`schedstat`). Only time in which all threads of a job slept
//! counts, so that a verdict does not depend on what else the machine does.

use std::time::{Duration, Instant};

use rustix::process::Pid;

/// How often a job is looked at.
const INTERVAL: Duration = Duration::from_millis(100);
/// What counts of a longer interval: then it was we who were kept from the CPU, and the job perhaps waited for us.
const MOST: Duration = Duration::from_millis(200);

/// The idle time of one job.
pub(super) struct Idleness {
    looked: Instant,
    /// What its threads had run and waited for a CPU by then.
    busy: Duration,
    idle: Duration,
}

impl Idleness {
    pub(super) fn since(start: Instant) -> Self {
        Self { looked: start, busy: Duration::ZERO, idle: Duration::ZERO }
    }

    /// Looks at the job if it is time to; its idle time so far.
    pub(super) fn look(&mut self, pid: Pid, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.looked);
        if passed >= INTERVAL {
            self.looked = now;
            let activity = activity(pid);
            self.add(passed, activity);
        }
        self.idle
    }

    fn add(&mut self, passed: Duration, activity: Option<Activity>) {
        let Some(Activity { busy, asleep }) = activity else { return };
        // Less than before: a thread ended, and what it did in between is not known.
        if let (true, Some(more)) = (asleep, busy.checked_sub(self.busy)) {
            self.idle += passed.min(MOST).saturating_sub(more);
        }
        self.busy = busy;
    }
}

/// What the threads of a process do.
#[derive(Clone, Copy)]
struct Activity {
    /// How long they ran or waited for a CPU, together.
    busy: Duration,
    /// Whether all of them sleep.
    asleep: bool,
}

/// `None` where the system does not say, or the process is gone.
fn activity(pid: Pid) -> Option<Activity> {
    let mut activity = Activity { busy: Duration::ZERO, asleep: true };
    for thread in std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).ok()? {
        let thread = thread.ok()?.path();
        let times = std::fs::read_to_string(thread.join("schedstat")).ok()?;
        let mut times = times.split_whitespace().map_while(|nanoseconds| nanoseconds.parse().ok());
        let (ran, waited): (u64, u64) = (times.next()?, times.next()?);
        // A kernel that does not count writes zeros, and so does one that has not counted yet.
        if ran == 0 {
            return None;
        }
        let stat = std::fs::read_to_string(thread.join("stat")).ok()?;
        activity.asleep &= stat.rsplit_once(')')?.1.trim_start().starts_with('S');
        activity.busy += Duration::from_nanos(ran.saturating_add(waited));
    }
    Some(activity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    /// The idle time after equal steps, by what the threads did in each: milliseconds busy, and whether they sleep.
    fn idle(steps: &[(u64, bool)]) -> Duration {
        let mut idleness = Idleness::since(Instant::now());
        let mut busy = Duration::ZERO;
        for (more, asleep) in steps {
            busy += Duration::from_millis(*more);
            idleness.add(STEP, Some(Activity { busy, asleep: *asleep }));
        }
        idleness.idle
    }

    #[test]
    fn a_sleeper_is_idle_for_the_time_it_sleeps() {
        assert_eq!(idle(&[(5, true), (0, true), (0, true)]), Duration::from_millis(295));
    }

    #[test]
    fn a_job_that_waits_for_a_cpu_is_never_idle() {
        // The kernel counts the waiting once it is over: the second step is a starved one.
        assert_eq!(idle(&[(100, false), (0, false), (200, false), (100, true)]), Duration::ZERO);
    }

    #[test]
    fn time_in_which_the_supervisor_slept_too_counts_little() {
        let mut idleness = Idleness::since(Instant::now());
        idleness.add(Duration::from_secs(60), Some(Activity { busy: Duration::ZERO, asleep: true }));
        assert_eq!(idleness.idle, MOST);
    }

    #[test]
    fn a_thread_that_ended_makes_no_idle_time() {
        let mut idleness = Idleness::since(Instant::now());
        for busy in [90, 20, 20] {
            idleness.add(STEP, Some(Activity { busy: Duration::from_millis(busy), asleep: true }));
        }
        assert_eq!(idleness.idle, Duration::from_millis(10 + 100));
    }

    #[test]
    fn a_sleeping_process_is_seen_to_sleep_and_a_computing_one_to_compute() {
        let own = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
        if own.split(' ').next().is_none_or(|ran| ["", "0"].contains(&ran)) {
            return; // The kernel does not count.
        }
        let becomes = |program: &str, wanted: &dyn Fn(Activity) -> bool| {
            let mut child = std::process::Command::new("sh").args(["-c", program]).spawn().unwrap();
            let pid = Pid::from_child(&child);
            while !activity(pid).is_some_and(wanted) && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let is_seen = activity(pid).is_some_and(wanted);
            child.kill().unwrap();
            child.wait().unwrap();
            is_seen
        };
        assert!(becomes("exec sleep 99", &|activity| activity.asleep));
        assert!(becomes("while :; do :; done", &|activity| activity.busy > STEP && !activity.asleep));
    }
}
