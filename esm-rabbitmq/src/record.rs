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
    source::{Delivery, Receipt},
};
use jiff::Timestamp;
use lapin::{
    BasicProperties,
    message::Delivery as Message,
    types::{AMQPValue, DecimalValue, FieldTable, ShortString},
};
use tokio::time::Instant;

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
    buffer: BytesMut,
}

impl RecordEncoder {
    /// With `strict_consumers`, `deliveryMode`, `priority` and `headers` are never null.
    pub fn new(header_bytes: HeaderBytes, strict_consumers: bool) -> Self {
        Self { header_bytes, strict_consumers, buffer: BytesMut::new() }
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
    pub fn delivery(&mut self, message: &Message, now: Instant) -> Delivery {
        let properties = &message.properties;
        let time_to_live = properties.expiration().as_ref().and_then(|text| text.as_str().parse().ok());
        Delivery {
            record: self.record(message),
            receipt: Receipt(message.delivery_tag),
            received_at: now,
            expires_at: time_to_live.and_then(|milliseconds| now.checked_add(Duration::from_millis(milliseconds))),
            sent_at: sent_at(properties),
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
        put_base64(out, &message.data);
        out.put_slice(br#""}"#);
        Record::new(self.buffer.split().freeze(), redelivered_at, message_id)
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
    put_text(out, br#",{"basicProperties":{"contentType":null"#, properties.content_type());
    put_text(out, br#","contentEncoding":null"#, properties.content_encoding());
    match properties.headers() {
        Some(headers) => {
            out.put_slice(br#","headers":"#);
            put_table(out, headers, header_bytes, 0);
        }
        None => out.put_slice(if strict { br#","headers":{}"# } else { br#","headers":null"# }),
    }
    put_number(out, br#","deliveryMode":null"#, properties.delivery_mode().or(strict.then_some(1)));
    put_number(out, br#","priority":null"#, properties.priority().or(strict.then_some(0)));
    put_text(out, br#","correlationId":null"#, properties.correlation_id());
    put_text(out, br#","replyTo":null"#, properties.reply_to());
    put_text(out, br#","expiration":null"#, properties.expiration());
    let message_id = put_text(out, br#","messageId":null"#, properties.message_id());
    match properties.timestamp() {
        Some(seconds) => {
            out.put_slice(br#","timestamp":"#);
            put_date(out, *seconds);
        }
        None => out.put_slice(br#","timestamp":null"#),
    }
    put_text(out, br#","type":null"#, properties.kind());
    put_text(out, br#","userId":null"#, properties.user_id());
    put_text(out, br#","appId":null"#, properties.app_id());
    put_text(out, br#","clusterId":null"#, properties.cluster_id());
    out.put_slice(br#","bodySize":"#);
    put_integer(out, message.data.len());
    out.put_u8(b'}');
    message_id
}

/// When the message was sent: by the broker's clock if it stamps messages, else by the sender's.
fn sent_at(properties: &BasicProperties) -> Option<SystemTime> {
    let stamped = properties.headers().as_ref().and_then(|headers| headers.inner().get("timestamp_in_ms"));
    let since_epoch = match stamped {
        Some(AMQPValue::LongLongInt(milliseconds)) => Duration::from_millis(u64::try_from(*milliseconds).ok()?),
        _ => Duration::from_secs((*properties.timestamp())?),
    };
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}

/// Writes `null_member`, such as `,"type":null`, with the text instead of the null if there is one;
/// returns where the text stands.
fn put_text(out: &mut BytesMut, null_member: &[u8], text: &Option<ShortString>) -> Range<usize> {
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

fn put_value(out: &mut BytesMut, value: &AMQPValue, bytes: HeaderBytes, depth: usize) {
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

fn put_integer(out: &mut BytesMut, number: impl itoa::Integer) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A number or a text as JSON; NaN and infinities become null.
fn put_json(out: &mut BytesMut, value: &impl serde::Serialize) {
    // Neither a number nor a text can fail, nor can a buffer that grows.
    let _ = serde_json::to_writer(out.writer(), value);
}

fn put_string(out: &mut BytesMut, text: &str) {
    // Nearly every name and id is plain: what needs no escape is copied at once.
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.put_u8(b'"');
        out.put_slice(text.as_bytes());
        out.put_u8(b'"');
    } else {
        put_json(out, &text);
    }
}

/// `[104,105]`, by a table of every byte's digits.
fn put_bytes(out: &mut BytesMut, bytes: &[u8], how: HeaderBytes) {
    let digits = match how {
        HeaderBytes::Signed => &SIGNED,
        HeaderBytes::Unsigned => &UNSIGNED,
    };
    out.put_u8(b'[');
    let start = out.len();
    out.put_bytes(0, bytes.len() * LONGEST_DIGITS);
    let mut end = start;
    for byte in bytes {
        let (text, length) = &digits[usize::from(*byte)];
        out[end..end + LONGEST_DIGITS].copy_from_slice(text);
        end += usize::from(*length);
    }
    // The last one's comma is not wanted.
    out.truncate(if bytes.is_empty() { end } else { end - 1 });
    out.put_u8(b']');
}

/// `-128,`
const LONGEST_DIGITS: usize = 5;
static SIGNED: [([u8; LONGEST_DIGITS], u8); 256] = digits(true);
static UNSIGNED: [([u8; LONGEST_DIGITS], u8); 256] = digits(false);

/// Each byte's number and a comma, and how long that is.
const fn digits(signed: bool) -> [([u8; LONGEST_DIGITS], u8); 256] {
    let mut table = [([b','; LONGEST_DIGITS], 0); 256];
    let mut byte = 0;
    while byte < 256 {
        let negative = signed && byte > 127;
        let number = if negative { 256 - byte } else { byte };
        let mut text = [b','; LONGEST_DIGITS];
        let mut length = 0;
        if negative {
            text[0] = b'-';
            length = 1;
        }
        let mut unit = if number > 99 {
            100
        } else if number > 9 {
            10
        } else {
            1
        };
        while unit > 0 {
            text[length] = b'0' + (number / unit % 10) as u8;
            length += 1;
            unit /= 10;
        }
        table[byte] = (text, length as u8 + 1);
        byte += 1;
    }
    table
}

/// The Java client reads the unscaled value as a signed number.
fn put_decimal(out: &mut BytesMut, number: DecimalValue) {
    let unscaled = number.value.cast_signed();
    if unscaled < 0 {
        out.put_u8(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(unscaled.unsigned_abs());
    let scale = usize::from(number.scale);
    if scale == 0 {
        return out.put_slice(digits.as_bytes());
    }
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(scale));
    out.put_slice(if whole.is_empty() { b"0" } else { whole.as_bytes() });
    out.put_u8(b'.');
    out.put_bytes(b'0', scale - fraction.len());
    out.put_slice(fraction.as_bytes());
}

/// `"Jan 1, 1970, 12:33:41 AM"`: Java's `DateFormat.MEDIUM` for the US, in UTC.
fn put_date(out: &mut BytesMut, seconds: u64) {
    let timestamp = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    match timestamp {
        Some(timestamp) => {
            out.put_u8(b'"');
            out.put_slice(timestamp.strftime("%b %-d, %Y, %-I:%M:%S %p").to_string().as_bytes());
            out.put_u8(b'"');
        }
        None => out.put_slice(b"null"),
    }
}

fn put_base64(out: &mut BytesMut, data: &[u8]) {
    let start = out.len();
    out.put_bytes(0, base64_simd::STANDARD.encoded_length(data.len()));
    let _ = base64_simd::STANDARD.encode(data, base64_simd::Out::from_slice(&mut out[start..]));
}
