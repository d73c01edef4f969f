//! The wire format against bytes recorded from real brokers and clients, and against hostile ones.

mod captures;
mod vectors;
