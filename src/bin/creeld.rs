//! The `creeld` program: parse, call the library, exit with its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    creel::daemon::main()
}
