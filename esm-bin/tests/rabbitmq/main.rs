//! The whole service on a real RabbitMQ: the binary, a function behind HTTP, an independent
//! publisher.

mod delivery;
mod faults;
mod function;
mod hostile;
mod large;
mod proxy;
mod service;
mod shutdown;
mod virtual_hosts;
