//! The same fault with a broker of either kind: what happens then, and a ledger of the messages that came through it.

#[macro_use]
mod bench;
mod brokers;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "other programs need more of it")]
mod common;
mod functions;
mod killed;
mod letters;
mod network;
mod store;
