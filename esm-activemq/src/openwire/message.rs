//! Messages: seven types with the same fields.

use bytes::Bytes;

#[cfg(test)]
use super::sample::{Sample, Source};
use super::{
    commands::{Any, BrokerId, ConsumerId, MessageId, ProducerId},
    destination::Destination,
    error::{DecodeError, Problem},
    kinds::{Array, Cached, Kind, Object, Structure},
    reader::Reader,
    table::{Fields, structure, value, with_base},
    text::Text,
    transaction::TransactionId,
    writer::Writer,
};

/// What a message's body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// No body.
    #[default]
    Plain,
    /// Bytes, see [`Message::bytes`].
    Bytes,
    /// A map of primitives.
    Map,
    /// A serialized Java object, which nobody should read.
    Object,
    /// Primitives in a row.
    Stream,
    /// A string, see [`Message::text`].
    Text,
    /// A body that is somewhere else.
    Blob,
}

impl MessageKind {
    pub(super) fn from_type(type_id: u8) -> Option<Self> {
        Some(match type_id {
            23 => Self::Plain,
            24 => Self::Bytes,
            25 => Self::Map,
            26 => Self::Object,
            27 => Self::Stream,
            28 => Self::Text,
            29 => Self::Blob,
            _ => return None,
        })
    }

    fn type_id(self) -> u8 {
        match self {
            Self::Plain => 23,
            Self::Bytes => 24,
            Self::Map => 25,
            Self::Object => 26,
            Self::Stream => 27,
            Self::Text => 28,
            Self::Blob => 29,
        }
    }
}

with_base! { [Base]; [
    /// A message with its headers. Nothing in it was looked at beyond its encoding: `content` may be compressed,
    /// and `marshalled_properties` is read by [`properties`](super::properties).
    Message [
        /// Which of the seven types it is.
        kind: MessageKind,
        /// Where the body is, for [`MessageKind::Blob`] alone.
        blob: Option<Box<BlobReference>>,
    ]]
    producer_id: Cached<ProducerId>,
    /// Where it is now.
    destination: Cached<Destination>,
    transaction_id: Cached<TransactionId>,
    /// Where it was sent to, if it was moved since.
    original_destination: Cached<Destination>,
    message_id: Object<MessageId>,
    original_transaction_id: Cached<TransactionId>,
    /// `JMSXGroupID`.
    group_id: Text,
    /// `JMSXGroupSeq`.
    group_sequence: i32,
    /// `JMSCorrelationID`.
    correlation_id: Text,
    /// `JMSDeliveryMode`: whether it survives the broker's restart.
    persistent: bool,
    /// `JMSExpiration` in milliseconds since 1970, 0 for never.
    expiration: i64,
    /// `JMSPriority`, 0 to 9.
    priority: i8,
    /// `JMSReplyTo`.
    reply_to: Object<Destination>,
    /// `JMSTimestamp` by the producer's clock, in milliseconds since 1970.
    timestamp: i64,
    /// `JMSType`.
    message_type: Text,
    /// The body.
    content: Bytes,
    /// The application's properties.
    marshalled_properties: Bytes,
    /// What an advisory message tells.
    data_structure: Object<Any>,
    target_consumer_id: Cached<ConsumerId>,
    /// Whether `content` is deflated.
    compressed: bool,
    /// Not kept up to date: see [`MessageDispatch`](super::MessageDispatch).
    redelivery_counter: i32,
    /// The brokers of a network that it came through.
    broker_path: Array<BrokerId>,
    arrival: i64,
    /// `JMSXUserID`, if the broker fills it in.
    user_id: Text,
    received_by_df_bridge: bool,
    droppable: bool,
    cluster: Array<BrokerId>,
    /// When the broker took it, in milliseconds since 1970.
    broker_in_time: i64,
    /// When the broker dispatched it, in milliseconds since 1970.
    broker_out_time: i64,
    /// Whether it is the first of its group for this consumer.
    group_first_for_consumer: bool = 10,
}

structure! {
    /// Where the body of a [`MessageKind::Blob`] is. Its address is never followed.
    BlobReference {
        remote_blob_url: Text,
        mime_type: Text,
        deleted_by_broker: bool,
    }
}

impl Structure for Message {
    fn type_id(&self) -> u8 {
        self.kind.type_id()
    }

    fn read(type_id: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let Some(kind) = MessageKind::from_type(type_id) else {
            return Err(Problem::UnexpectedType(type_id).into());
        };
        let mut message = Self { kind, ..Self::default() };
        message.read_fields(reader)?;
        if kind == MessageKind::Blob {
            let mut blob = Box::<BlobReference>::default();
            blob.read_fields(reader)?;
            message.blob = Some(blob);
        }
        Ok(message)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        self.write_fields(writer);
        if self.kind == MessageKind::Blob {
            match &self.blob {
                Some(blob) => blob.write_fields(writer),
                None => BlobReference::default().write_fields(writer),
            }
        }
    }
}
