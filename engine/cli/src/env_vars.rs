//! The environment variables that are read, in one place.

/// The store's folder; `--store` wins over it.
pub(crate) const STORE: &str = "TRACETUNE_STORE";
/// How many threads stages may use; `--threads` wins over it.
pub(crate) const THREADS: &str = "TRACETUNE_THREADS";
/// How the processes that use a store keep out of each other's way: `flock` or `lease`, the same for all of them.
pub(crate) const LOCKS: &str = "TRACETUNE_LOCKS";
