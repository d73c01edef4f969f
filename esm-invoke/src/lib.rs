//! The backends that invoke functions, one Cargo feature each. A backend implements
//! `esm_core::invoker::Invoke`: it carries an event out, waits, and says what became of it. What that
//! means for the messages is decided by the caller.
//!
//! | Feature | Module | Where the function lives |
//! |---|---|---|
//! | `http` | `http` | behind a URL that speaks Lambda's Invoke API: the Runtime Interface Emulator, SAM, `LocalStack`, any server that answers 200; or behind a webhook |
//! | `process` | `process` | in processes that this one starts, which are clients of Lambda's Runtime API |
//! | `lambda` | `lambda` | on AWS Lambda, or an emulator of it, behind signed requests |
//!
//! The feature `aws` adds no backend: it asks AWS's other services, in `aws`.
//!
//! Reading order: `backend` (what all have in common), `limits`, `frames` (the event on its way
//! out), `members` (what is looked for in an error's JSON). Then `http` (an invocation from start to
//! end) with `connector`, `body`, `answer` (which answer means what) and `signature`, `lambda` with `aws` (signed
//! requests, and who signs them), or `process`, which has an order of its own.

#[cfg(any(feature = "aws", feature = "lambda"))]
pub mod aws;
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
mod connector;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "http")]
mod signature;

#[cfg(feature = "lambda")]
pub mod lambda;
#[cfg(feature = "process")]
pub mod process;
