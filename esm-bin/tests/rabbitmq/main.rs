//! The whole service on a real RabbitMQ: the binary, a function behind HTTP, an independent
//! publisher.

mod broker;
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod delivery;
mod failures;
mod faults;
mod hostile;
mod large;
mod memory;
mod processes;
mod returns;
mod rotation;
mod shutdown;
mod virtual_hosts;
