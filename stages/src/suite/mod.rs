//! Test suites that are sparse, and what to do about it: thinning them, measuring them, adding to them.

mod thin;

pub use thin::{Thin, Thinning};
