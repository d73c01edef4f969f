//! Becomes a function, as the program `esm` does for the functions that it starts.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    esm_invoke::process::launch(env::args_os().skip(1))
}
