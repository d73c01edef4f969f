//! The adapter against real brokers.

mod bench;
mod connecting;
mod differential;
mod lending;
mod losing;
mod messages;
mod queues;
mod refusals;
mod settling;
