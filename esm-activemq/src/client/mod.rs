//! An OpenWire client: the conversation with a broker, from dialling to goodbye.
//!
//! Reading order: [`address`] (where brokers listen), `session` (the conversation as a state
//! machine), `socket` (its two ends), [`transport`] (between these), [`connection`] (logins, consumers and
//! producers on it), and [`error`].

pub mod address;
pub mod connection;
pub mod error;
mod session;
mod socket;
pub mod transport;

pub use address::{Address, AddressError, Endpoint};
pub use connection::{
    AckKind, Acknowledgement, Connection, Consumer, ConsumerOptions, NONE_DELIVERED, Producer, UNKNOWN_DELIVERED,
};
pub use error::{ClientError, Exception};
pub use session::Flaw;
pub use transport::{Answer, ConsumerEvents, Transport};
