//! What a stage costs: read from `/proc`, zero where there is none. Nothing depends on these numbers.

use std::time::Instant;

use crate::cache::Cost;

/// Started before a stage, read after it.
pub(super) struct Meter {
    started: Instant,
    cpu_s: f64,
}

impl Meter {
    pub(super) fn start() -> Self {
        // 5 resets the process's peak; stages that run side by side see each other's memory.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { started: Instant::now(), cpu_s: cpu_s().unwrap_or_default() }
    }

    pub(super) fn read(&self) -> Cost {
        Cost {
            wall_s: self.started.elapsed().as_secs_f64(),
            cpu_s: (cpu_s().unwrap_or_default() - self.cpu_s).max(0.0),
            peak_memory_bytes: peak_memory_bytes().unwrap_or_default(),
        }
    }
}

/// CPU time of this process and of its children that have ended.
fn cpu_s() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the program's name, may hold anything but ends at the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    // USER_HZ, which is 100 on every Linux, whatever the kernel's own tick.
    Some(ticks / 100.0)
}

fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
