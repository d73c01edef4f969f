//! A message becomes its record of the `aws:rmq` event, encoded once on arrival.
//!
//! The shape is that of the RabbitMQ Java client's `BasicProperties` as Gson prints it, nulls kept:
//! long strings are `{"bytes":[…]}` with Java's signed bytes, dates are US medium style in UTC, and
//! `bodySize` comes last. Where JSON has no spelling (NaN, infinities, dates after the year 9999)
//! there is null.

use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

use bytes::{BufMut, BytesMut};
use esm_core::{
    event::{Envelope, REDELIVERED, Record},
    json::{put_base64, put_integer, put_json, put_string},
    source::{Delivery, Receipt},
};
use lapin::{
    message::Delivery as Message,
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::Instant;

use crate::json::{put_bytes, put_date, put_decimal};

/// Records share buffers of this size, so that a message costs no allocation of its own.
const BUFFER: usize = 32 * 1024;
/// What a record has besides its headers and its data: the property names and short values.
const TYPICAL_OVERHEAD: usize = 768;
/// Deeper tables and arrays are shown as null: typed consumers stop at about a hundred.
const DEEPEST: usize = 64;

/// How the bytes of long strings and byte arrays are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderBytes {
    /// -128 to 127, as on AWS.
    #[default]
    Signed,
    /// 0 to 255.
    Unsigned,
}

/// Encodes the messages of one queue.
pub struct RecordEncoder {
    header_bytes: HeaderBytes,
    strict_consumers: bool,
    item_identifiers: bool,
    buffer: BytesMut,
}

impl RecordEncoder {
    /// With `strict_consumers`, `deliveryMode`, `priority` and `headers` are never null.
    pub fn new(header_bytes: HeaderBytes, strict_consumers: bool) -> Self {
        Self { header_bytes, strict_consumers, item_identifiers: false, buffer: BytesMut::new() }
    }

    /// Whether records carry `itemIdentifier`, by which the function names those that it failed with: the delivery tag.
    #[must_use]
    pub fn with_item_identifiers(self, item_identifiers: bool) -> Self {
        Self { item_identifiers, ..self }
    }

    /// What stands around the records of a queue's events.
    pub fn envelope(event_source_arn: &str, queue: &str, virtual_host: &str) -> Envelope {
        let mut head = BytesMut::new();
        head.put_slice(br#"{"eventSource":"aws:rmq","eventSourceArn":"#);
        put_string(&mut head, event_source_arn);
        head.put_slice(br#","rmqMessagesByQueue":{"#);
        put_string(&mut head, &format!("{queue}::{virtual_host}"));
        head.put_slice(b":[");
        Envelope::new(head, &b"]}}"[..])
    }

    /// A message that arrived at `now`.
    pub(crate) fn delivery(&mut self, message: &Message, now: Instant) -> Delivery {
        let properties = &message.properties;
        let (mut age, mut returns) = (Duration::ZERO, 0);
        let mut since_epoch = properties.timestamp().map(Duration::from_secs);
        for (name, value) in properties.headers().iter().flatten() {
            match (name.as_str(), value) {
                // Of quorum queues, on what has come back.
                ("x-delivery-count", AMQPValue::LongLongInt(count)) => returns = u32::try_from(*count).unwrap_or(0),
                // Written by the broker, if it stamps messages: surer than the sender's clock.
                ("timestamp_in_ms", AMQPValue::LongLongInt(milliseconds)) => {
                    since_epoch = u64::try_from(*milliseconds).ok().map(Duration::from_millis);
                    let stamped_at = since_epoch.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
                    let waited = stamped_at.and_then(|at| SystemTime::now().duration_since(at).ok());
                    age = waited.unwrap_or_default();
                }
                _ => {}
            }
        }
        let time_to_live = properties.expiration().as_ref().and_then(|text| text.as_str().parse().ok());
        Delivery {
            record: self.record(message),
            receipt: Receipt(message.delivery_tag),
            received_at: now,
            expires_at: time_to_live.and_then(|milliseconds| now.checked_add(Duration::from_millis(milliseconds))),
            sent_at: since_epoch.and_then(|since_epoch| SystemTime::UNIX_EPOCH.checked_add(since_epoch)),
            age,
            group: None,
            returns,
            failed: 0,
            original: None,
            held: None,
        }
    }

    /// The finished record.
    pub fn record(&mut self, message: &Message) -> Record {
        self.reserve(message);
        let out = &mut self.buffer;
        let message_id = put_properties(out, message, self.header_bytes, self.strict_consumers);
        out.put_slice(br#","redelivered":"#);
        let redelivered_at = out.len();
        out.put_slice(REDELIVERED[usize::from(message.redelivered)]);
        out.put_slice(br#","data":""#);
        let data_at = out.len();
        put_base64(out, &message.data);
        let data = data_at..out.len();
        out.put_u8(b'"');
        let mut item_identifier = 0..0;
        if self.item_identifiers {
            out.put_slice(br#","itemIdentifier":""#);
            let start = out.len();
            put_integer(out, message.delivery_tag);
            item_identifier = start..out.len();
            out.put_u8(b'"');
        }
        out.put_u8(b'}');
        Record::new(self.buffer.split().freeze(), redelivered_at, message_id, data)
            .with_item_identifier(item_identifier)
    }

    /// Makes room, so that a record is rarely moved while it grows, and a large one has a buffer
    /// of its own.
    fn reserve(&mut self, message: &Message) {
        let headers = message.properties.headers().as_ref().map_or(0, |headers| headers.inner().len() * 128);
        let wanted = TYPICAL_OVERHEAD + headers + base64_simd::STANDARD.encoded_length(message.data.len());
        if self.buffer.capacity() < wanted {
            self.buffer = BytesMut::with_capacity(wanted.max(BUFFER));
        }
    }
}

/// Writes everything up to the end of `basicProperties`; returns where the message id stands.
fn put_properties(out: &mut BytesMut, message: &Message, header_bytes: HeaderBytes, strict: bool) -> Range<usize> {
    let properties = &message.properties;
    put_text(out, br#",{"basicProperties":{"contentType":null"#, properties.content_type().as_ref());
    put_text(out, br#","contentEncoding":null"#, properties.content_encoding().as_ref());
    match properties.headers() {
        Some(headers) => {
            out.put_slice(br#","headers":"#);
            put_table(out, headers, header_bytes, 0);
        }
        None => out.put_slice(if strict { br#","headers":{}"# } else { br#","headers":null"# }),
    }
    put_number(out, br#","deliveryMode":null"#, properties.delivery_mode().or(strict.then_some(1)));
    put_number(out, br#","priority":null"#, properties.priority().or(strict.then_some(0)));
    put_text(out, br#","correlationId":null"#, properties.correlation_id().as_ref());
    put_text(out, br#","replyTo":null"#, properties.reply_to().as_ref());
    put_text(out, br#","expiration":null"#, properties.expiration().as_ref());
    let message_id = put_text(out, br#","messageId":null"#, properties.message_id().as_ref());
    match properties.timestamp() {
        Some(seconds) => {
            out.put_slice(br#","timestamp":"#);
            put_date(out, *seconds);
        }
        None => out.put_slice(br#","timestamp":null"#),
    }
    put_text(out, br#","type":null"#, properties.kind().as_ref());
    put_text(out, br#","userId":null"#, properties.user_id().as_ref());
    put_text(out, br#","appId":null"#, properties.app_id().as_ref());
    put_text(out, br#","clusterId":null"#, properties.cluster_id().as_ref());
    out.put_slice(br#","bodySize":"#);
    put_integer(out, message.data.len());
    out.put_u8(b'}');
    message_id
}

/// Writes `null_member`, such as `,"type":null`, with the text instead of the null if there is one;
/// returns where the text stands.
fn put_text(out: &mut BytesMut, null_member: &[u8], text: Option<&ShortString>) -> Range<usize> {
    let Some(text) = text else {
        out.put_slice(null_member);
        return 0..0;
    };
    out.put_slice(&null_member[..null_member.len() - b"null".len()]);
    let start = out.len() + 1;
    put_string(out, text.as_str());
    start..out.len() - 1
}

/// Likewise for a small number.
fn put_number(out: &mut BytesMut, null_member: &[u8], number: Option<u8>) {
    match number {
        None => out.put_slice(null_member),
        Some(number) => {
            out.put_slice(&null_member[..null_member.len() - b"null".len()]);
            put_integer(out, number);
        }
    }
}

fn put_table(out: &mut BytesMut, table: &FieldTable, bytes: HeaderBytes, depth: usize) {
    out.put_u8(b'{');
    for (index, (name, value)) in table.into_iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        put_string(out, name.as_str());
        out.put_u8(b':');
        put_value(out, value, bytes, depth + 1);
    }
    out.put_u8(b'}');
}

fn put_array(out: &mut BytesMut, values: &[AMQPValue], bytes: HeaderBytes, depth: usize) {
    out.put_u8(b'[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        put_value(out, value, bytes, depth + 1);
    }
    out.put_u8(b']');
}

pub(crate) fn put_value(out: &mut BytesMut, value: &AMQPValue, bytes: HeaderBytes, depth: usize) {
    match value {
        AMQPValue::Boolean(true) => out.put_slice(b"true"),
        AMQPValue::Boolean(false) => out.put_slice(b"false"),
        AMQPValue::ShortShortInt(number) => put_integer(out, *number),
        AMQPValue::ShortShortUInt(number) => put_integer(out, *number),
        AMQPValue::ShortInt(number) => put_integer(out, *number),
        AMQPValue::ShortUInt(number) => put_integer(out, *number),
        AMQPValue::LongInt(number) => put_integer(out, *number),
        AMQPValue::LongUInt(number) => put_integer(out, *number),
        AMQPValue::LongLongInt(number) => put_integer(out, *number),
        AMQPValue::Float(number) => put_json(out, number),
        AMQPValue::Double(number) => put_json(out, number),
        AMQPValue::DecimalValue(number) => put_decimal(out, *number),
        AMQPValue::ShortString(text) => put_string(out, text.as_str()),
        AMQPValue::LongString(text) => {
            out.put_slice(br#"{"bytes":"#);
            put_bytes(out, text.as_bytes(), bytes);
            out.put_u8(b'}');
        }
        AMQPValue::ByteArray(array) => put_bytes(out, array.as_slice(), bytes),
        AMQPValue::Timestamp(seconds) => put_date(out, *seconds),
        AMQPValue::FieldTable(_) | AMQPValue::FieldArray(_) if depth > DEEPEST => out.put_slice(b"null"),
        AMQPValue::FieldTable(table) => put_table(out, table, bytes, depth),
        AMQPValue::FieldArray(array) => put_array(out, array.as_slice(), bytes, depth),
        AMQPValue::Void => out.put_slice(b"null"),
    }
}
