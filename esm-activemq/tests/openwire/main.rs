//! The wire format against bytes recorded from real brokers and clients, and against hostile ones.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod all_commands;
mod bodies;
mod cache;
mod captures;
mod corpus;
mod debug_tree;
mod expected;
mod hostile;
mod mutations;
mod negotiation;
mod primitives;
mod structures;
#[path = "../../fuzz/targets.rs"]
mod targets;
mod vectors;
