//! What the stages of a run share.

use std::collections::BTreeMap;

use crate::pipeline::Resources;

/// Threads, memory and other things, e.g. GPUs: what a run has, what is free of it, what a stage takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Threads; at least 1.
    pub threads: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// By name; one of each that is not named.
    pub slots: BTreeMap<String, usize>,
}

impl Default for Machine {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads, memory_bytes: memory(), slots: BTreeMap::new() }
    }
}

/// The memory of this machine, as far as the system tells.
fn memory() -> u64 {
    #[cfg(target_os = "linux")]
    {
        let found = rustix::system::sysinfo();
        u64::from(found.mem_unit) * found.totalram
    }
    #[cfg(not(target_os = "linux"))]
    u64::MAX
}

impl Machine {
    /// How many there are of a name.
    pub(crate) fn slots_of(&self, name: &str) -> usize {
        self.slots.get(name).copied().unwrap_or(1)
    }

    /// The first kind of slots of which a stage takes more than there are: its name, how many it takes, how many there are.
    pub fn lacking<'r>(&self, resources: &'r Resources) -> Option<(&'r str, usize, usize)> {
        let slots = resources.slots.iter().map(|(name, &count)| (name.as_str(), count, self.slots_of(name)));
        slots.into_iter().find(|(_, count, there)| count > there)
    }

    pub(super) fn has(&self, wanted: &Self) -> bool {
        wanted.threads <= self.threads
            && wanted.memory_bytes <= self.memory_bytes
            && wanted.slots.iter().all(|(name, &count)| count <= self.slots_of(name))
    }

    pub(super) fn take(&mut self, taken: &Self) {
        self.threads -= taken.threads;
        self.memory_bytes -= taken.memory_bytes;
        for (name, count) in &taken.slots {
            let left = self.slots_of(name) - count;
            self.slots.insert(name.clone(), left);
        }
    }

    pub(super) fn give_back(&mut self, taken: &Self) {
        self.threads += taken.threads;
        self.memory_bytes += taken.memory_bytes;
        for (name, count) in &taken.slots {
            let left = self.slots_of(name) + count;
            self.slots.insert(name.clone(), left);
        }
    }
}
