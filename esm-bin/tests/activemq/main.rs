//! The whole service on a real ActiveMQ: the binary, a function behind HTTP, and ActiveMQ's own client in Java.

mod broker;
#[path = "../common/mod.rs"]
mod common;
mod dead_letters;
mod delivery;
mod directed;
mod failover;
mod failures;
mod faults;
mod groups;
mod memory;
mod processes;
mod queues;
mod sharing;
mod shutdown;
