//! The program `esm`. Everything that it does is in the library.

use std::{env, process::ExitCode};

/// Sizes the stack of every thread, that of the AMQP client too, which nothing else reaches.
const STACK_SIZE: &str = "RUST_MIN_STACK";

/// A message's headers may nest as deep as fits into an AMQP frame, and the client reads them by
/// recursion: with the usual 2 MiB, one message of 18,000 nested tables ended the process. Such a
/// message takes less than 16 MiB, and 30 times as much unoptimised; the largest frames that are
/// may be asked for hold eight times as deep a nest. Memory is taken only when a stack is used.
const ENOUGH: &str = if cfg!(debug_assertions) { "536870912" } else { "268435456" };

fn main() -> ExitCode {
    if let Some(failed) = esm::cli::launch() {
        return failed;
    }
    if env::var_os(STACK_SIZE).is_none() {
        // SAFETY: no other thread exists that could read the environment.
        #[allow(unsafe_code)]
        unsafe {
            env::set_var(STACK_SIZE, ENOUGH);
        }
    }
    esm::cli::run()
}
