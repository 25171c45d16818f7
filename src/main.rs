//! Turns the result of a command into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(afferent::cli::run(std::env::args_os()))
}
