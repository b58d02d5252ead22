//! The environment variables that are read, in one place.

/// The store's folder; `--store` wins over it.
pub(crate) const STORE: &str = "TRACETUNE_STORE";
/// How many threads stages may use; `--threads` wins over it.
pub(crate) const THREADS: &str = "TRACETUNE_THREADS";
