//! tracetune as a user meets it.

mod cli;
mod diagnostics;
mod endpoint;
mod golden;
mod hub;
mod purity;
mod readme;
mod recovery;
mod schema;
mod seeds;
mod shipped;
#[allow(dead_code, reason = "each test binary uses its part of it")]
mod support;
mod verify;

/// An empty project for the real binary.
fn workspace() -> support::Workspace {
    support::Workspace::new(env!("CARGO_BIN_EXE_tracetune"))
}
