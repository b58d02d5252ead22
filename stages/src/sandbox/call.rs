//! A job as its caller asks for it: what runs, with what, and how much may come back.

use super::CpuSeconds;
use super::frame::MAX_FRAME;

/// How much of a job's report is accepted. A job that sends more is killed at once, as [`super::Ending::Malformed`];
/// the frames up to there are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Frames, `done` included.
    pub(crate) frames: usize,
    /// Bytes of one frame.
    pub(crate) frame_bytes: usize,
    /// Bytes of memory that all frames together take here.
    pub(crate) bytes: usize,
}

impl Bounds {
    /// For a job that is asked for at most `frames` frames, `done` included.
    pub(crate) fn frames(frames: usize) -> Self {
        Self { frames, ..Self::default() }
    }
}

/// For a caller that can't say how much it asks for.
impl Default for Bounds {
    fn default() -> Self {
        Self { frames: 1 << 16, frame_bytes: MAX_FRAME, bytes: 256 << 20 }
    }
}

/// A job for [`super::Worker::run`].
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(super) runner: &'a str,
    pub(super) fields: &'a [&'a [u8]],
    pub(super) cpu_s: Option<CpuSeconds>,
    pub(super) bounds: Bounds,
    pub(super) has_memory: bool,
    pub(super) keeps_output: bool,
}

impl<'a> Call<'a> {
    /// `runner` with `fields`, under the sandbox's limits and the default bounds.
    pub(crate) fn new(runner: &'a str, fields: &'a [&'a [u8]]) -> Self {
        Self { runner, fields, cpu_s: None, bounds: Bounds::default(), has_memory: false, keeps_output: false }
    }

    /// A CPU limit of its own.
    pub(crate) fn cpu(self, cpu_s: CpuSeconds) -> Self {
        Self { cpu_s: Some(cpu_s), ..self }
    }

    /// How much may come back.
    pub(crate) fn bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Keeps what the job prints ([`super::Reply::output`]).
    pub(crate) fn with_output(self) -> Self {
        Self { keeps_output: true, ..self }
    }

    /// Memory that the job shares with the reply ([`super::Reply::memory`]).
    pub(crate) fn with_memory(self) -> Self {
        Self { has_memory: true, ..self }
    }
}
