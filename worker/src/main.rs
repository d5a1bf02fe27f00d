//! The program `mandate`. All of it is in the library, so that tests may call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    mandate_worker::main()
}
