//! Exit codes that a script can rely on.

/// What was asked for is done.
pub const DONE: u8 = 0;
/// A stage failed; what was finished before is kept.
pub const STAGE_FAILED: u8 = 1;
/// The pipeline or the call is wrong, or the store can't be used: nothing was run.
pub const WRONG: u8 = 2;
/// The run was interrupted; what was finished before is kept.
pub const INTERRUPTED: u8 = 130;
