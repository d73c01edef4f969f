//! The backends that invoke functions, one Cargo feature each. A backend implements
//! `esm_core::invoker::Invoke`: it carries an event out, waits, and says what became of it. What that
//! means for the messages is decided by the caller.
//!
//! | Feature | Module | Where the function lives |
//! |---|---|---|
//! | `http` | `http` | behind a URL that speaks Lambda's Invoke API: the Runtime Interface Emulator, SAM, `LocalStack`, any server that answers 200 |
//!
//! Reading order: `http` (an invocation from start to end), `body` (the event on its way out),
//! `answer` (which answer means what), `members` (what is looked for in its JSON).

#[cfg(feature = "http")]
mod answer;
#[cfg(feature = "http")]
mod body;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "http")]
mod members;
