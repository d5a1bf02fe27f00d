//! The program `mandate`. All of it is in the library, so that tests may call it.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A burst of runs needs memory that glibc's allocator does not give back while they wait for people: the bench `waiting`
/// measures it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    mandate_worker::main()
}
