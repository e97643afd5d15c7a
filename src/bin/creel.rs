//! The `creel` program: parse, call the library, exit with its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    creel::cli::main()
}
