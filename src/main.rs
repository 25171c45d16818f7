//! Turns the result of a command into an exit code.

use std::process::ExitCode;

/// musl's own allocator asks the kernel for every large buffer and gives it back at once: with many
/// threads that costs more than the work itself. This one keeps one small heap for all of them, and
/// is Rust, so that it needs no other compiler.
#[cfg(target_env = "musl")]
#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    ExitCode::from(afferent::cli::run(std::env::args_os()))
}
