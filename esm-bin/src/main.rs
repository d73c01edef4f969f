//! The program `esm`. Everything that it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    esm::cli::run()
}
