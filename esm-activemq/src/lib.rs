//! The ActiveMQ adapter: reads queues over OpenWire, by a client of our own, and settles what it lent.
//!
//! Reading order: [`settings`] (what it is told), `connections` (transports that mappings share, failover),
//! [`source`] (a session on one queue), `reader` (deliveries come in), [`record`] and `java` (a message becomes
//! its JSON record), `ledger` and `consumer` (what was lent is settled), `dead_letters` (what the broker would drop),
//! [`destination`] (dead letters to a queue of choice) with `portable` (those of other brokers), `errors` (the broker's words become causes). Below them, [`client`] is the conversation with a broker, and [`openwire`] the
//! bytes; neither knows anything of `esm`.

pub mod client;
mod connections;
mod consumer;
mod dead_letters;
pub mod destination;
mod errors;
mod java;
mod ledger;
pub mod openwire;
mod portable;
mod reader;
pub mod record;
pub mod settings;
pub mod source;
#[cfg(feature = "testing")]
pub mod testing;

pub use client::Address;
pub use connections::Connections;
pub use destination::ActiveMqDestination;
pub use record::{EventProfile, RecordEncoder};
pub use settings::{Queue, Settings};
pub use source::ActiveMqSource;
