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

use base64_simd::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use esm_core::{
    event::{EVENT_SIZE_LIMIT, Envelope, REDELIVERED, Record},
    json::{put_integer, put_plain, put_string},
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
/// A larger record has a buffer of its own.
const LARGE: usize = BUFFER / 4;
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
    item_identifiers: bool,
    /// The record that is being written.
    record: Vec<u8>,
    /// Where finished records are kept.
    buffer: BytesMut,
    /// For the properties that are not strings.
    scratch: String,
}

impl RecordEncoder {
    /// Encodes in this spelling.
    pub fn new(profile: EventProfile) -> Self {
        Self { profile, item_identifiers: false, record: Vec::new(), buffer: BytesMut::new(), scratch: String::new() }
    }

    /// Whether records carry `itemIdentifier`, by which the function names those that it failed with: the message id.
    #[must_use]
    pub fn with_item_identifiers(self, item_identifiers: bool) -> Self {
        Self { item_identifiers, ..self }
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
                age: message.map(age).unwrap_or_default(),
                returns: 0,
                original: None,
                held: None,
            }),
            Err(Unfit { reason, cause }) => Arrival::Unusable(Unusable {
                receipt,
                message_id: message.and_then(|message| message.message_id.as_ref()).map(ToString::to_string),
                size: message.map_or(0, size),
                reason,
                cause,
                original: None,
                held: None,
            }),
        }
    }

    /// The finished record.
    pub fn record(&mut self, dispatch: &MessageDispatch) -> Result<Record, Unfit> {
        let message = dispatch.message.as_ref().ok_or_else(|| unfit("it is a dispatch without a message"))?;
        let body = body(message)?;
        let out = &mut self.record;
        out.clear();
        let places = match self.profile {
            EventProfile::Documented => put_documented(out, dispatch, message, &body),
            EventProfile::Wire => put_wire(out, dispatch, message, &body),
        };
        put_properties(out, message, &mut self.scratch)
            .map_err(|error| unfit(&format!("its properties cannot be decoded: {error}")))?;
        if self.item_identifiers {
            out.put_slice(br#","itemIdentifier":""#);
            out.extend_from_within(places.message_id.clone());
            out.put_u8(b'"');
        }
        out.put_u8(b'}');
        if out.len() >= EVENT_SIZE_LIMIT {
            let cause = format!("its record of {} bytes is too large for an event", out.len());
            (self.record, self.scratch) = Default::default();
            return Err(Unfit { reason: DropReason::TooLarge, cause });
        }
        let json = self.keep();
        Ok(Record::new(json, places.redelivered, places.message_id, places.data))
    }

    /// The record that was written, in a buffer that it shares with others unless it is large.
    fn keep(&mut self) -> Bytes {
        if self.record.len() > LARGE {
            return std::mem::take(&mut self.record).into();
        }
        if self.buffer.capacity() < self.record.len() {
            self.buffer = BytesMut::with_capacity(BUFFER);
        }
        self.buffer.put_slice(&self.record);
        self.buffer.split().freeze()
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
pub(crate) fn type_name(kind: MessageKind) -> &'static str {
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
pub(crate) fn size(message: &Message) -> usize {
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

/// How long it had been at the broker when that sent it, by the broker's clock alone.
fn age(message: &Message) -> Duration {
    if message.broker_in_time <= 0 {
        return Duration::ZERO;
    }
    let waited = message.broker_out_time.saturating_sub(message.broker_in_time);
    Duration::from_millis(u64::try_from(waited).unwrap_or(0))
}

fn sent_at(message: &Message) -> Option<SystemTime> {
    let since_epoch = u64::try_from(message.timestamp).ok().filter(|milliseconds| *milliseconds > 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(since_epoch))
}

/// Where `redelivered`, the message id and the body stand in a record.
struct Places {
    redelivered: usize,
    message_id: Range<usize>,
    data: Range<usize>,
}

/// Writes everything in front of the properties, as AWS documents it.
fn put_documented(out: &mut Vec<u8>, dispatch: &MessageDispatch, message: &Message, body: &[u8]) -> Places {
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
    let data = put_data(out, message, body);
    Places { redelivered, message_id, data }
}

/// Likewise, as AWS sends it, in its order.
fn put_wire(out: &mut Vec<u8>, dispatch: &MessageDispatch, message: &Message, body: &[u8]) -> Places {
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
    let data = put_data(out, message, body);
    Places { redelivered, message_id, data }
}

/// Writes what both spellings begin with; returns where the message id stands.
fn put_head(out: &mut Vec<u8>, message: &Message) -> Range<usize> {
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
fn put_message_id(out: &mut Vec<u8>, message_id: Option<&MessageId>) {
    let Some(message_id) = message_id else { return put_string(out, "") };
    let (None, Some(producer_id)) = (&message_id.text_view, &message_id.producer_id) else {
        return put_string(out, &message_id.to_string());
    };
    put_value(out, producer_id.connection_id.as_ref(), br#""""#);
    out.truncate(out.len() - 1);
    for number in [producer_id.session_id, producer_id.value, message_id.producer_sequence_id] {
        put_number(out, b":", number);
    }
    out.put_u8(b'"');
}

fn put_redelivered(out: &mut Vec<u8>, dispatch: &MessageDispatch) -> usize {
    out.put_slice(br#","redelivered":"#);
    let redelivered = out.len();
    out.put_slice(REDELIVERED[usize::from(dispatch.redelivery_counter > 0)]);
    redelivered
}

fn put_reply_to(out: &mut Vec<u8>, message: &Message, absent: &[u8]) {
    out.put_slice(br#","replyTo":"#);
    match &message.reply_to {
        None => out.put_slice(absent),
        Some(destination) => put_string(out, &destination.to_string()),
    }
}

/// Writes the body and the times that follow it; returns where the body stands.
fn put_data(out: &mut Vec<u8>, message: &Message, body: &[u8]) -> Range<usize> {
    out.put_slice(br#","data":""#);
    let start = out.len();
    STANDARD.encode_append(body, out);
    let end = out.len();
    put_number(out, br#"","brokerInTime":"#, message.broker_in_time);
    put_number(out, br#","brokerOutTime":"#, message.broker_out_time);
    start..end
}

fn put_text(out: &mut Vec<u8>, name: &[u8], text: Option<&Text>, absent: &[u8]) {
    out.put_slice(name);
    put_value(out, text, absent);
}

fn put_value(out: &mut Vec<u8>, text: Option<&Text>, absent: &[u8]) {
    match text {
        None => out.put_slice(absent),
        Some(text) if put_plain(out, text.as_bytes()) => {}
        Some(text) => put_string(out, &text.to_str()),
    }
}

fn put_number(out: &mut Vec<u8>, name: &[u8], number: impl itoa::Integer) {
    out.put_slice(name);
    put_integer(out, number);
}

/// The queue that the message is on, which a consumer of several queues cannot know otherwise.
fn physical_name(dispatch: &MessageDispatch) -> Option<&Text> {
    dispatch.destination.as_ref().map(Destination::physical_name)
}

fn put_properties(out: &mut Vec<u8>, message: &Message, scratch: &mut String) -> Result<(), DecodeError> {
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

fn put_property(out: &mut Vec<u8>, name: &str, value: &str) {
    put_string(out, name);
    out.put_u8(b':');
    put_string(out, value);
    out.put_u8(b',');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openwire::ProducerId;

    fn arrival(message: Message, now: Instant) -> Arrival {
        let dispatch = MessageDispatch { message: Some(message), ..MessageDispatch::default() };
        RecordEncoder::new(EventProfile::Documented).arrival(&dispatch, Receipt(7), now)
    }

    fn delivery(message: Message, now: Instant) -> Delivery {
        match arrival(message, now) {
            Arrival::Delivery(delivery) => delivery,
            other => panic!("{other:?}"),
        }
    }

    fn check_expiry(expiration: i64, broker_out_time: i64, expected: Option<Duration>) {
        let now = Instant::now();
        let message = Message { expiration, broker_out_time, ..Message::with_text("") };
        assert_eq!(
            delivery(message, now).expires_at,
            expected.map(|left| now + left),
            "{expiration} {broker_out_time}"
        );
    }

    #[test]
    fn a_message_expires_by_the_brokers_clock_and_a_second_later() {
        check_expiry(1_700_000_060_000, 1_700_000_000_000, Some(Duration::from_secs(61)));
        check_expiry(1_700_000_000_000, 1_700_000_000_500, Some(Duration::from_millis(500)));
        check_expiry(1_700_000_000_000, 1_700_000_060_000, Some(Duration::ZERO));
    }

    #[test]
    fn without_an_expiration_or_the_brokers_time_nothing_expires() {
        check_expiry(0, 1_700_000_000_000, None);
        check_expiry(-1, 1_700_000_000_000, None);
        check_expiry(1_700_000_060_000, 0, None);
        check_expiry(i64::MIN, i64::MAX, None);
    }

    #[test]
    fn the_senders_time_is_known_unless_it_was_left_out() {
        let sent_at = |timestamp| delivery(Message { timestamp, ..Message::with_text("") }, Instant::now()).sent_at;
        assert_eq!(sent_at(1_500), Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_500)));
        assert_eq!(sent_at(0), None);
        assert_eq!(sent_at(-1), None);
        assert!(sent_at(i64::MAX).is_some(), "far away is no error");
    }

    #[test]
    fn a_delivery_belongs_to_the_group_that_its_message_names() {
        let group = |group_id: Option<&str>| {
            let group_id = group_id.map(Text::from);
            delivery(Message { group_id, ..Message::with_text("") }, Instant::now()).group
        };
        assert_eq!(group(Some("größe")), Some(Group("größe".into())));
        assert_eq!(group(None), None);
    }

    #[test]
    fn a_message_that_is_no_record_keeps_its_receipt_its_id_and_its_size() {
        let message_id = MessageId {
            producer_id: Some(ProducerId::new("ID:host", 1, 2)),
            producer_sequence_id: 3,
            ..MessageId::default()
        };
        let message = Message { kind: MessageKind::Map, message_id: Some(message_id), ..Message::with_text("text") };
        match arrival(message, Instant::now()) {
            Arrival::Unusable(unusable) => {
                assert_eq!(unusable.receipt, Receipt(7));
                assert_eq!(unusable.message_id.as_deref(), Some("ID:host:1:2:3"));
                assert_eq!(unusable.size, 8);
                assert_eq!(unusable.reason, DropReason::MessageType);
                assert_eq!(unusable.cause, "it is a jms/map-message: only text and bytes messages can be events");
            }
            other => panic!("{other:?}"),
        }
    }
}
