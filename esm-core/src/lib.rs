//! The part of `esm` that knows no broker, no HTTP and no SQL: what a mapping is, how records become
//! batches, when a batch is retried, and how one mapping and many are kept running.
//!
//! Reading order: [`mapping`] (what is asked for), [`event`] and [`batch`] (data on its way to a
//! function), [`filter`] (what never gets there), [`memory`] (how much is in hand), [`source`] with [`credentials`] and [`invoker`] (the
//! seams to brokers and functions), [`function`] (one function shared by mappings), [`retry`] (what an outcome
//! means), `pipeline` (one session of one mapping), [`supervisor`] (mappings through connections
//! lost and found), [`status`] and [`metrics`] (what people see), [`store`] (the seam to what keeps
//! the mappings that were asked for).

pub mod batch;
pub mod credentials;
pub mod destination;
pub mod event;
mod failures;
pub mod filter;
pub mod function;
mod gate;
mod groups;
pub mod invoker;
mod item_failures;
pub mod json;
pub mod mapping;
pub mod memory;
pub mod metrics;
mod pipeline;
pub mod retry;
mod returns;
pub mod source;
pub mod status;
pub mod store;
pub mod supervisor;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;
