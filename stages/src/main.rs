//! The `tracetune` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracetune_cli::main(tracetune::app())
}
