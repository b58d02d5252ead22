//! Test suites that are sparse, and what to do about it: thinning them, measuring them, adding to them.

mod adequacy;
mod differential;
mod thin;

pub use adequacy::{Adequacy, AdequacyRow};
pub use differential::Differential;
pub use thin::{Thin, Thinning};
