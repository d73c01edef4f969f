//! The RabbitMQ adapter: reads queues over AMQP 0-9-1 and settles what it lent.
//!
//! Reading order: [`settings`] (what it is told), `connections` (shared connections, failover, TLS), `greeting`
//! (the broker's version), [`source`] (a session on one queue), `stream` and `reader` (deliveries come in), `record` and `json`
//! (a message becomes its JSON record), `ledger` and `consumer` (what was lent is settled), [`destination`] (dead
//! letters) with `portable` (those of other brokers), `stream_probe` (tells streams from other queues), `errors` (the broker's words become causes).
//!
//! It is passive: it never declares, changes or deletes anything on a broker.

mod connections;
mod consumer;
pub mod destination;
mod errors;
mod greeting;
mod json;
mod ledger;
mod portable;
mod reader;
mod record;
pub mod settings;
pub mod source;
mod stream;
mod stream_probe;
#[cfg(feature = "testing")]
pub mod testing;

pub use connections::Connections;
pub use destination::RabbitDestination;
pub use record::{HeaderBytes, RecordEncoder};
pub use settings::{DeliveryLimit, Endpoint, Settings};
pub use source::RabbitSource;
