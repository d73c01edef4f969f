//! A message becomes its record of the `aws:mq` event, encoded once on arrival.
//!
//! Numbers are never null, and `properties` is always there. Every property is a string, printed as Java prints
//! its value; one that is null is left out, since typed functions read a map of strings. The properties are those
//! that Java's `getPropertyNames` lists: beside the message's own, `JMSXGroupID` and `JMSXGroupSeq` of a message
//! in a group, and `JMSXUserID` if the broker fills it in. `JMSXDeliveryCount` is left out, even where another
//! protocol's client put one among the properties: it changes with every delivery, and a record does not.
//! `redelivered` tells what matters of it.
//!
//! A name that stands twice among the properties, as no JMS client writes it, stands twice in the record: readers
//! of JSON keep the last, as Java does.

use std::{
    borrow::Cow,
    ops::Range,
    time::{Duration, SystemTime},
};

use bytes::{BufMut, BytesMut};
use esm_core::{
    event::{EVENT_SIZE_LIMIT, Envelope, REDELIVERED, Record},
    json::{put_base64, put_integer, put_string},
    metrics::DropReason,
    source::{Arrival, Delivery, Group, Receipt, Unusable},
};
use tokio::time::Instant;

use crate::{
    java,
    openwire::{
        BodyError, DecodeError, Destination, Message, MessageDispatch, MessageId, MessageKind, Primitive, Text,
        properties,
    },
};

/// Records share buffers of this size, so that a message costs no allocation of its own.
const BUFFER: usize = 32 * 1024;
/// What a record has besides its properties and its data.
const TYPICAL_OVERHEAD: usize = 768;
/// A longer body has no room in an event, whatever stands around it.
const LONGEST_BODY: usize = EVENT_SIZE_LIMIT / 4 * 3;
/// The broker's clock is shown in milliseconds, and what lies between us and it is not known: no message expires
/// here before this much more time has passed.
const EXPIRY_MARGIN: i64 = 1_000;
/// Java's client takes a higher one for this.
const HIGHEST_PRIORITY: i8 = 9;
/// Left out of the properties.
const DELIVERY_COUNT: &str = "JMSXDeliveryCount";

/// The spelling of the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventProfile {
    /// As AWS documents it, and its wire names beside the documented ones where they differ.
    #[default]
    Documented,
    /// As AWS sends it, which typed functions in Rust and Go need.
    Wire,
}

/// Why no record can be made of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// How it is counted.
    pub reason: DropReason,
    /// For people.
    pub cause: String,
}

/// Encodes the messages of one queue.
pub struct RecordEncoder {
    profile: EventProfile,
    buffer: BytesMut,
    /// For the properties that are not strings.
    scratch: String,
}

impl RecordEncoder {
    /// Encodes in this spelling.
    pub fn new(profile: EventProfile) -> Self {
        Self { profile, buffer: BytesMut::new(), scratch: String::new() }
    }

    /// What stands around the records of an event.
    pub fn envelope(event_source_arn: &str) -> Envelope {
        let mut head = BytesMut::new();
        head.put_slice(br#"{"eventSource":"aws:mq","eventSourceArn":"#);
        put_string(&mut head, event_source_arn);
        head.put_slice(br#","messages":["#);
        Envelope::new(head, &b"]}"[..])
    }

    /// A message that arrived at `now`.
    pub(crate) fn arrival(&mut self, dispatch: &MessageDispatch, receipt: Receipt, now: Instant) -> Arrival {
        let message = dispatch.message.as_ref();
        match self.record(dispatch) {
            Ok(record) => Arrival::Delivery(Delivery {
                record,
                receipt,
                received_at: now,
                expires_at: message.and_then(time_to_live).and_then(|left| now.checked_add(left)),
                sent_at: message.and_then(sent_at),
                group: message.and_then(|message| message.group_id.as_ref()).map(|id| Group(id.to_str().into())),
                failed: 0,
            }),
            Err(Unfit { reason, cause }) => Arrival::Unusable(Unusable {
                receipt,
                message_id: message.and_then(|message| message.message_id.as_ref()).map(ToString::to_string),
                size: message.map_or(0, size),
                reason,
                cause,
            }),
        }
    }

    /// The finished record.
    pub fn record(&mut self, dispatch: &MessageDispatch) -> Result<Record, Unfit> {
        let message = dispatch.message.as_ref().ok_or_else(|| unfit("it is a dispatch without a message"))?;
        let body = body(message)?;
        self.reserve(message, &body);
        let out = &mut self.buffer;
        let places = match self.profile {
            EventProfile::Documented => put_documented(out, dispatch, message, &body),
            EventProfile::Wire => put_wire(out, dispatch, message, &body),
        };
        if let Err(error) = put_properties(out, message, &mut self.scratch) {
            out.clear();
            return Err(unfit(&format!("its properties cannot be decoded: {error}")));
        }
        out.put_u8(b'}');
        Ok(Record::new(self.buffer.split().freeze(), places.redelivered, places.message_id))
    }

    /// Makes room, so that a record is rarely moved while it grows, and a large one has a buffer
    /// of its own.
    fn reserve(&mut self, message: &Message, body: &[u8]) {
        let properties = message.marshalled_properties.as_ref().map_or(0, |properties| properties.len() * 2);
        let wanted = TYPICAL_OVERHEAD + properties + base64_simd::STANDARD.encoded_length(body.len());
        if self.buffer.capacity() < wanted {
            self.buffer = BytesMut::with_capacity(wanted.max(BUFFER));
        }
    }
}

fn unfit(cause: &str) -> Unfit {
    Unfit { reason: DropReason::MessageType, cause: cause.to_owned() }
}

/// What becomes `data`: the null text and the null body are empty.
fn body(message: &Message) -> Result<Cow<'_, [u8]>, Unfit> {
    let body = match message.kind {
        MessageKind::Text => message.text(LONGEST_BODY).map(|text| match text {
            None => Cow::Borrowed(&[][..]),
            Some(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
            Some(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        }),
        MessageKind::Bytes => message.bytes(LONGEST_BODY),
        kind => {
            let name = type_name(kind);
            return Err(unfit(&format!("it is a {name}: only text and bytes messages can be events")));
        }
    };
    match body {
        Ok(body) if body.len() > LONGEST_BODY => Err(too_large(body.len())),
        Ok(body) => Ok(body),
        Err(BodyError::TooLong { length, .. }) => Err(too_large(length)),
        Err(error) => Err(unfit(&format!("its body cannot be decoded: {error}"))),
    }
}

fn too_large(length: usize) -> Unfit {
    let cause = format!("its body of {length} bytes is more than an event can hold");
    Unfit { reason: DropReason::TooLarge, cause }
}

/// As Java's messages call their own type.
fn type_name(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Plain => "jms/message",
        MessageKind::Bytes => "jms/bytes-message",
        MessageKind::Map => "jms/map-message",
        MessageKind::Object => "jms/object-message",
        MessageKind::Stream => "jms/stream-message",
        MessageKind::Text => "jms/text-message",
        MessageKind::Blob => "jms/blob-message",
    }
}

/// The bytes that a message is counted with when no record can be made of it.
fn size(message: &Message) -> usize {
    [&message.content, &message.marshalled_properties].into_iter().flatten().map(bytes::Bytes::len).sum()
}

/// What was left of it when the broker sent it, judged by the broker's clock alone.
fn time_to_live(message: &Message) -> Option<Duration> {
    if message.expiration <= 0 || message.broker_out_time <= 0 {
        return None;
    }
    let left = message.expiration.saturating_add(EXPIRY_MARGIN).saturating_sub(message.broker_out_time);
    Some(Duration::from_millis(left.max(0).unsigned_abs()))
}

fn sent_at(message: &Message) -> Option<SystemTime> {
    let since_epoch = u64::try_from(message.timestamp).ok().filter(|milliseconds| *milliseconds > 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(since_epoch))
}

/// Where `redelivered` and the message id stand in a record.
struct Places {
    redelivered: usize,
    message_id: Range<usize>,
}

/// Writes everything in front of the properties, as AWS documents it.
fn put_documented(out: &mut BytesMut, dispatch: &MessageDispatch, message: &Message, body: &[u8]) -> Places {
    const ABSENT: &[u8] = b"null";
    let message_id = put_head(out, message);
    put_text(out, br#","correlationId":"#, message.correlation_id.as_ref(), ABSENT);
    put_text(out, br#","correlationID":"#, message.correlation_id.as_ref(), ABSENT);
    put_reply_to(out, message, ABSENT);
    put_text(out, br#","type":"#, message.message_type.as_ref(), ABSENT);
    put_number(out, br#","expiration":""#, message.expiration);
    put_number(out, br#"","priority":"#, message.priority.clamp(0, HIGHEST_PRIORITY));
    let redelivered = put_redelivered(out, dispatch);
    put_text(out, br#","destination":{"physicalname":"#, physical_name(dispatch), ABSENT);
    put_text(out, br#","physicalName":"#, physical_name(dispatch), ABSENT);
    out.put_u8(b'}');
    put_data(out, message, body);
    Places { redelivered, message_id }
}

/// Likewise, as AWS sends it, in its order.
fn put_wire(out: &mut BytesMut, dispatch: &MessageDispatch, message: &Message, body: &[u8]) -> Places {
    const ABSENT: &[u8] = br#""""#;
    let message_id = put_head(out, message);
    put_text(out, br#","correlationID":"#, message.correlation_id.as_ref(), ABSENT);
    put_reply_to(out, message, br#""null""#);
    put_text(out, br#","destination":{"physicalName":"#, physical_name(dispatch), ABSENT);
    out.put_u8(b'}');
    let redelivered = put_redelivered(out, dispatch);
    put_text(out, br#","type":"#, message.message_type.as_ref(), ABSENT);
    put_number(out, br#","expiration":"#, message.expiration);
    put_number(out, br#","priority":"#, message.priority.clamp(0, HIGHEST_PRIORITY));
    put_data(out, message, body);
    Places { redelivered, message_id }
}

/// Writes what both spellings begin with; returns where the message id stands.
fn put_head(out: &mut BytesMut, message: &Message) -> Range<usize> {
    out.put_slice(br#",{"messageID":"#);
    let start = out.len() + 1;
    put_message_id(out, message.message_id.as_ref());
    let message_id = start..out.len() - 1;
    out.put_slice(br#","messageType":""#);
    out.put_slice(type_name(message.kind).as_bytes());
    put_number(out, br#"","timestamp":"#, message.timestamp);
    out.put_slice(if message.persistent { br#","deliveryMode":2"# } else { br#","deliveryMode":1"# });
    message_id
}

/// As the id's own `Display` has it, which is slower.
fn put_message_id(out: &mut BytesMut, message_id: Option<&MessageId>) {
    let Some(message_id) = message_id else { return put_string(out, "") };
    let (None, Some(producer_id)) = (&message_id.text_view, &message_id.producer_id) else {
        return put_string(out, &message_id.to_string());
    };
    put_string(out, &producer_id.connection_id.as_ref().map(Text::to_str).unwrap_or_default());
    out.truncate(out.len() - 1);
    for number in [producer_id.session_id, producer_id.value, message_id.producer_sequence_id] {
        put_number(out, b":", number);
    }
    out.put_u8(b'"');
}

fn put_redelivered(out: &mut BytesMut, dispatch: &MessageDispatch) -> usize {
    out.put_slice(br#","redelivered":"#);
    let redelivered = out.len();
    out.put_slice(REDELIVERED[usize::from(dispatch.redelivery_counter > 0)]);
    redelivered
}

fn put_reply_to(out: &mut BytesMut, message: &Message, absent: &[u8]) {
    out.put_slice(br#","replyTo":"#);
    match &message.reply_to {
        None => out.put_slice(absent),
        Some(destination) => put_string(out, &destination.to_string()),
    }
}

fn put_data(out: &mut BytesMut, message: &Message, body: &[u8]) {
    out.put_slice(br#","data":""#);
    put_base64(out, body);
    put_number(out, br#"","brokerInTime":"#, message.broker_in_time);
    put_number(out, br#","brokerOutTime":"#, message.broker_out_time);
}

fn put_text(out: &mut BytesMut, name: &[u8], text: Option<&Text>, absent: &[u8]) {
    out.put_slice(name);
    match text {
        None => out.put_slice(absent),
        Some(text) => put_string(out, &text.to_str()),
    }
}

fn put_number(out: &mut BytesMut, name: &[u8], number: impl itoa::Integer) {
    out.put_slice(name);
    put_integer(out, number);
}

/// The queue that the message is on, which a consumer of several queues cannot know otherwise.
fn physical_name(dispatch: &MessageDispatch) -> Option<&Text> {
    dispatch.destination.as_ref().map(Destination::physical_name)
}

fn put_properties(out: &mut BytesMut, message: &Message, scratch: &mut String) -> Result<(), DecodeError> {
    out.put_slice(br#","properties":{"#);
    let start = out.len();
    let marshalled = message.marshalled_properties.as_deref().map(properties).transpose()?;
    for property in marshalled.into_iter().flatten() {
        match property? {
            (name, _) if name == DELIVERY_COUNT => {}
            (_, Primitive::Null) => {}
            (name, Primitive::String(text)) => put_property(out, &name, &text),
            (name, value) => {
                scratch.clear();
                java::push_value(scratch, value)?;
                put_property(out, &name, scratch);
            }
        }
    }
    if let Some(group_id) = &message.group_id {
        put_property(out, "JMSXGroupID", &group_id.to_str());
        put_property(out, "JMSXGroupSeq", itoa::Buffer::new().format(message.group_sequence));
    }
    if let Some(user_id) = &message.user_id {
        put_property(out, "JMSXUserID", &user_id.to_str());
    }
    // Each brings a comma, and the last one's is not wanted.
    let end = if out.len() == start { start } else { out.len() - 1 };
    out.truncate(end);
    out.put_u8(b'}');
    Ok(())
}

fn put_property(out: &mut BytesMut, name: &str, value: &str) {
    put_string(out, name);
    out.put_u8(b':');
    put_string(out, value);
    out.put_u8(b',');
}
