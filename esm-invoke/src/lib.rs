//! The backends that invoke functions, one Cargo feature each. A backend implements
//! `esm_core::invoker::Invoke`: it carries an event out, waits, and says what became of it. What that
//! means for the messages is decided by the caller.
//!
//! | Feature | Module | Where the function lives |
//! |---|---|---|
//! | `http` | `http` | behind a URL that speaks Lambda's Invoke API: the Runtime Interface Emulator, SAM, `LocalStack`, any server that answers 200; or behind a webhook |
//! | `process` | `process` | in processes that this one starts, which are clients of Lambda's Runtime API |
//!
//! Reading order: `backend` (what all have in common), `limits`, `frames` (the event on its way
//! out), `members` (what is looked for in an error's JSON). Then `http` (an invocation from start to
//! end) with `body`, `answer` (which answer means what) and `signature`, or `process`, which has an order of its
//! own.

pub mod backend;
#[cfg(any(feature = "http", feature = "process"))]
mod frames;
#[cfg(any(feature = "http", feature = "process"))]
mod limits;
#[cfg(any(feature = "http", feature = "process"))]
mod members;

#[cfg(feature = "http")]
mod answer;
#[cfg(feature = "http")]
mod body;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "http")]
mod signature;

#[cfg(feature = "process")]
pub mod process;
