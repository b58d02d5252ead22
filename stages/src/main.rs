//! The `tracetune` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracetune::program::supervisor::supervise_if_asked();
    tracetune_cli::main(tracetune::app())
}
