//! `OpenWire`, the binary protocol of Apache `ActiveMQ`, versions 9 to 12: bytes become commands and commands
//! become bytes. This module knows nothing of sockets, time or our other crates.
//!
//! # Frames
//!
//! Everything that travels is a frame, and all integers are big-endian:
//!
//! ```text
//! length: i32   type: u8   fields                    loose encoding
//! length: i32   type: u8   boolean stream   fields   tight encoding
//! ```
//!
//! `length` counts what follows it, so the smallest frame is `00 00 00 01 00`, the null command. In the loose
//! encoding a flag (a boolean, or whether a value is there at all) is a byte in its place. In the tight encoding
//! all flags of a frame, those of nested structures included, stand as bits in one stream in front, in the order
//! in which the fields are walked, and small `long`s are shortened. The order of the fields is the same, so one
//! table describes both.
//!
//! Each direction begins with a [`WireFormatInfo`] in the loose encoding; what both sides said gives the
//! [`WireFormat`] of everything that follows ([`negotiate`]). If a cache was negotiated, some objects are sent
//! once and referred to by a number later, separately in each direction, so a [`Decoder`] has a memory.
//!
//! # Reading order
//!
//! `commands` is the table of everything that travels; `table` says how to read it, and `kinds` what the kinds of
//! fields are. `reader` and `writer` hold every bounds check. `codec` is the way in. What stands inside a message
//! is opaque to the table: `primitive` reads properties, `body` reads bodies.
//!
//! # What a peer may do to us
//!
//! Every byte may be hostile. A length or a count is compared with what is left of the frame before anything is
//! allocated, nesting is bounded, bytes left over are errors, and errors name the field. Strings and contents are
//! slices of the frame, so a decoded message costs one allocation, its box, and keeps its frame alive. Names of Java
//! classes are text and cause nothing.

mod body;
mod cache;
mod codec;
mod commands;
mod destination;
mod error;
mod format;
mod frame;
mod ids;
mod kinds;
mod message;
mod primitive;
mod reader;
#[cfg(test)]
mod sample;
mod table;
mod text;
mod throwable;
mod transaction;
mod writer;

pub use body::BodyError;
pub use codec::{Decoder, Encoder};
pub use commands::*;
pub use destination::Destination;
pub use error::{DecodeError, EncodeError, Problem};
pub use format::{Negotiated, NegotiationError, WireFormat, WireFormatInfo, WireFormatOptions, negotiate};
pub use frame::{DispatchHead, FrameError, oversized_dispatch_head, split_frame};
pub use ids::RemovedId;
pub use message::{BlobReference, Message, MessageKind};
pub use primitive::{Primitive, Primitives, Properties, encode_properties, properties};
pub use text::{Secret, Text};
pub use throwable::{StackTraceElement, Throwable};
pub use transaction::TransactionId;
