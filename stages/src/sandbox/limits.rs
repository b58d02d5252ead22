//! What a candidate may use, and the walls that must be there for it to run.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::Layers;

/// The walls that must be there for a program to be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// All of them, those behind others too: namespaces, a user and a control group of their own.
    Full,
    /// All that no other wall stands in for: one that this machine lacks is an error.
    Require,
    /// The system call filters; others where this machine has them.
    #[default]
    Available,
    /// None: for machines without filters, and programs that one trusts.
    Unsafe,
}

impl Isolation {
    pub(super) fn allows(self, layers: &Layers) -> bool {
        match self {
            Self::Full => layers.missing.is_empty() && layers.reduced.is_empty(),
            Self::Require => layers.missing.is_empty(),
            Self::Available => layers.filtered,
            Self::Unsafe => true,
        }
    }
}

impl std::str::FromStr for Isolation {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "full" => Ok(Self::Full),
            "require" => Ok(Self::Require),
            "available" => Ok(Self::Available),
            "unsafe" => Ok(Self::Unsafe),
            _ => Err("it is `full`, `require`, `available` or `unsafe`".to_owned()),
        }
    }
}

/// A limit of CPU time in seconds, a twentieth at the least.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct CpuSeconds(#[schemars(range(min = Self::LEAST, max = Self::MOST))] pub f64);

impl CpuSeconds {
    pub(crate) const LEAST: f64 = 0.05;
    pub(crate) const MOST: f64 = 3600.0;

    /// Whether a program can be held to it.
    pub(crate) fn is_possible(self) -> bool {
        (Self::LEAST..=Self::MOST).contains(&self.0)
    }

    pub(crate) fn times(self, factor: u32) -> Self {
        Self(self.0 * f64::from(factor))
    }

    /// In whole seconds, up: the kernel knows no others.
    pub(super) fn whole(self) -> u64 {
        self.0.ceil() as u64
    }

    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs_f64(self.0)
    }
}

/// Whole seconds are written as an integer, as people do.
impl Serialize for CpuSeconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 { serializer.serialize_u64(self.0 as u64) } else { serializer.serialize_f64(self.0) }
    }
}

impl std::fmt::Display for CpuSeconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for CpuSeconds {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.parse().map(Self).ok().filter(|seconds| seconds.is_possible());
        seconds.ok_or_else(|| format!("it is a number of seconds from {} to {}", Self::LEAST, Self::MOST))
    }
}

/// How large a value may be that a program sends to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueBounds {
    /// Bytes of its encoding.
    pub bytes: usize,
    /// Objects in it.
    pub items: usize,
    /// Containers within one another.
    pub depth: usize,
}

impl ValueBounds {
    /// What can be read at all.
    pub(crate) const MOST: Self = Self { bytes: 128 << 20, items: 1 << 24, depth: 900 };
}

impl Default for ValueBounds {
    fn default() -> Self {
        Self { bytes: 16 << 20, items: 1 << 20, depth: 400 }
    }
}

/// What a candidate may use, and what must keep it from the rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// CPU time of a job.
    pub cpu_s: CpuSeconds,
    /// Address space of a job, in bytes, the interpreter's own 30 MB included.
    pub memory_bytes: u64,
    /// What it may print, in bytes.
    pub output_bytes: u64,
    /// What the files may take that it writes, in bytes; 0: it may write none.
    pub scratch_bytes: u64,
    /// The walls that must be there.
    pub isolation: Isolation,
    /// How large a value may be that it sends.
    pub values: ValueBounds,
    /// Where a reference's CPU time is known, a program may use at least this multiple of it.
    pub cpu_factor: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_s: CpuSeconds(2.0),
            memory_bytes: 512 << 20,
            output_bytes: 1 << 20,
            scratch_bytes: 64 << 20,
            isolation: Isolation::default(),
            values: ValueBounds::default(),
            cpu_factor: 10.0,
        }
    }
}

impl Limits {
    /// What a worker's fork servers and their two children need at the most, and some of the kernel's.
    pub(super) fn worker_bytes(&self) -> u64 {
        2 * (self.memory_bytes + self.scratch_bytes) + (256 << 20)
    }

    /// How long a program may sleep, all in all, while nothing keeps it from a CPU.
    pub(super) fn idle(&self) -> Duration {
        self.cpu_s.duration() + Duration::from_secs(1)
    }

    /// A backstop: long enough that only a program that waits meets it, even on a crowded machine.
    pub(super) fn wall(&self) -> Duration {
        self.cpu_s.duration() * 5 + Duration::from_secs(5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_wall_counts_as_the_caller_says() {
        let full = Layers { filtered: true, ..Layers::default() };
        let reduced = Layers { reduced: vec!["namespaces: not root".to_owned()], ..full.clone() };
        let partial = Layers { missing: vec!["files: no Landlock".to_owned()], ..reduced.clone() };
        let none = Layers { filtered: false, ..partial.clone() };
        let allowed = |isolation: Isolation| [&full, &reduced, &partial, &none].map(|layers| isolation.allows(layers));
        assert_eq!(allowed(Isolation::Full), [true, false, false, false]);
        assert_eq!(allowed(Isolation::Require), [true, true, false, false]);
        assert_eq!(allowed(Isolation::Available), [true, true, true, false]);
        assert_eq!(allowed(Isolation::Unsafe), [true; 4]);
    }
}
