//! Where one frame ends and the next begins, and what can be told of one that is too long to keep.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::{
    commands::{ConsumerId, MessageDispatch, MessageId},
    destination::Destination,
    error::{DecodeError, Problem},
    format::WireFormat,
    kinds::{Cached, Kind, Object},
    message::MessageKind,
    reader::Reader,
    text::Text,
    transaction::TransactionId,
};

/// The bytes of a frame's length, which does not count them.
const PREFIX: usize = size_of::<i32>();

/// The head of a dispatch is ten strings of 64 KiB at the most, and numbers.
const MAX_HEAD: usize = 1 << 20;

/// A frame that cannot be taken from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Not even a type, or a negative length: what follows is no `OpenWire`.
    #[error("a frame announces a length of {0}")]
    Length(i32),
    /// Longer than what we take. The buffer is as it was, so the frame can be skipped.
    #[error("a frame of {length} bytes is longer than the limit of {limit}")]
    TooLong {
        /// Its length, without the four bytes that announce it.
        length: usize,
        /// The limit.
        limit: usize,
    },
}

/// Takes one frame from the front of the buffer, without its length, or nothing if not all of it is there.
///
/// Nothing is copied, and nothing is reserved for what was only announced.
pub fn split_frame(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else { return Ok(None) };
    let announced = i32::from_be_bytes(*prefix);
    let Ok(length @ 1..) = usize::try_from(announced) else { return Err(FrameError::Length(announced)) };
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    if buffer.len() - PREFIX < length {
        return Ok(None);
    }
    let frame = buffer.split_to(PREFIX + length).freeze();
    Ok(Some(frame.slice(PREFIX..)))
}

/// What stands before the body in a dispatch: enough to acknowledge a message without having read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatchHead {
    /// Whose message it is.
    pub consumer_id: Option<ConsumerId>,
    /// Where it was consumed from.
    pub destination: Option<Destination>,
    /// Which type of message it is.
    pub kind: MessageKind,
    /// Which message it is.
    pub message_id: Option<MessageId>,
    /// Whether it survives the broker's restart.
    pub persistent: bool,
}

/// Reads the head of a [`MessageDispatch`] of which only the first bytes are there, without the frame's length,
/// in the loose encoding without a cache. Nothing means that more bytes are needed; behind the first MiB none are
/// looked at.
///
/// It also reads the head of a dispatch whose later fields cannot be decoded.
pub fn oversized_dispatch_head(prefix: &[u8]) -> Result<Option<DispatchHead>, DecodeError> {
    let frame = Bytes::copy_from_slice(&prefix[..prefix.len().min(MAX_HEAD)]);
    let mut reader = Reader::new(&frame, &WireFormat::LOOSE, None);
    match read_head(&mut reader) {
        Ok(head) => Ok(Some(head)),
        Err(error) if matches!(error.problem(), Problem::NeedsBytes(_)) => Ok(None),
        Err(error) => Err(error.inside("MessageDispatch")),
    }
}

/// The fields of [`MessageDispatch`] and of its message, as far as they are wanted.
fn read_head(reader: &mut Reader<'_>) -> Result<DispatchHead, DecodeError> {
    let type_id = reader.u8()?;
    if type_id != MessageDispatch::TYPE {
        return Err(Problem::UnexpectedType(type_id).into());
    }
    read_base(reader)?;
    let consumer_id = Cached::<ConsumerId>::read(reader).map_err(|error| error.inside("consumer_id"))?;
    let destination = Cached::<Destination>::read(reader).map_err(|error| error.inside("destination"))?;
    if !reader.flag()? {
        return Err(DecodeError::from(Problem::Null).inside("message"));
    }
    let type_id = reader.u8()?;
    let kind = MessageKind::from_type(type_id).ok_or(Problem::UnexpectedType(type_id))?;
    let (message_id, persistent) = read_message_head(reader).map_err(|error| error.inside("message"))?;
    Ok(DispatchHead { consumer_id, destination, kind, message_id, persistent })
}

fn read_message_head(reader: &mut Reader<'_>) -> Result<(Option<MessageId>, bool), DecodeError> {
    read_base(reader)?;
    skip::<Cached<super::ProducerId>>(reader, "producer_id")?;
    skip::<Cached<Destination>>(reader, "destination")?;
    skip::<Cached<TransactionId>>(reader, "transaction_id")?;
    skip::<Cached<Destination>>(reader, "original_destination")?;
    let message_id = Object::<MessageId>::read(reader).map_err(|error| error.inside("message_id"))?;
    skip::<Cached<TransactionId>>(reader, "original_transaction_id")?;
    skip::<Text>(reader, "group_id")?;
    skip::<i32>(reader, "group_sequence")?;
    skip::<Text>(reader, "correlation_id")?;
    Ok((message_id, reader.flag()?))
}

fn read_base(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    skip::<i32>(reader, "command_id")?;
    skip::<bool>(reader, "response_required")
}

fn skip<K: Kind>(reader: &mut Reader<'_>, name: &str) -> Result<(), DecodeError> {
    K::read(reader).map(drop).map_err(|error| error.inside(name))
}
