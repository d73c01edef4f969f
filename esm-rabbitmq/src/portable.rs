//! Messages of other brokers as this one has them, and the reverse, for what is given up and lies on a broker of
//! another kind.

use bytes::BytesMut;
use esm_core::destination::{Body, Kept, Portable, Value};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};

use crate::{
    destination::ReceivedMessage,
    record::{HeaderBytes, put_value},
};

/// The bytes that names and properties may have.
const LONGEST_SHORT: usize = 255;
const TEXT: &str = "text/plain";
const BYTES: &str = "application/octet-stream";

impl Kept for ReceivedMessage {
    fn portable(&self) -> Portable {
        let Self { properties, body } = self;
        let text = |text: &Option<ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
        let content_type = text(properties.content_type());
        let encoding = text(properties.content_encoding());
        let is_plain = encoding.as_deref().is_none_or(|encoding| encoding.eq_ignore_ascii_case("utf-8"));
        let is_text = is_plain && content_type.as_deref().is_some_and(is_text);
        let body = match str::from_utf8(body) {
            Ok(body) if is_text => Body::Text(body.to_owned()),
            _ => Body::Bytes(body.clone()),
        };
        let headers = properties.headers().iter().flatten();
        let mut kept: Vec<_> = headers.map(|(name, value)| (name.as_str().to_owned(), portable(value))).collect();
        for (name, value) in [
            ("esm_original_content_type", content_type),
            ("esm_original_content_encoding", encoding),
            ("esm_original_reply_to", text(properties.reply_to())),
            ("esm_original_expiration", text(properties.expiration())),
            ("esm_original_user_id", text(properties.user_id())),
            ("esm_original_app_id", text(properties.app_id())),
        ] {
            kept.extend(value.map(|value| (name.to_owned(), Value::Text(value))));
        }
        let seconds = properties.timestamp().and_then(|seconds| i64::try_from(seconds).ok());
        Portable {
            body,
            message_id: text(properties.message_id()),
            correlation_id: text(properties.correlation_id()),
            message_type: text(properties.kind()),
            priority: *properties.priority(),
            sent_at_ms: seconds.map(|seconds| seconds.saturating_mul(1_000)),
            properties: kept,
        }
    }
}

/// Whether a body of this content type is characters.
fn is_text(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or(content_type).trim().to_ascii_lowercase();
    kind.starts_with("text/") || ["json", "xml"].iter().any(|end| kind.ends_with(end))
}

/// What has no counterpart becomes the JSON that stands for it in an event.
fn portable(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Void => Value::Null,
        AMQPValue::Boolean(value) => Value::Boolean(*value),
        AMQPValue::ShortShortInt(number) => Value::Byte(*number),
        AMQPValue::ShortShortUInt(number) => Value::Short(i16::from(*number)),
        AMQPValue::ShortInt(number) => Value::Short(*number),
        AMQPValue::ShortUInt(number) => Value::Int(i32::from(*number)),
        AMQPValue::LongInt(number) => Value::Int(*number),
        AMQPValue::LongUInt(number) => Value::Long(i64::from(*number)),
        AMQPValue::LongLongInt(number) => Value::Long(*number),
        AMQPValue::Float(number) => Value::Float(*number),
        AMQPValue::Double(number) => Value::Double(*number),
        AMQPValue::ShortString(text) => Value::Text(text.as_str().to_owned()),
        AMQPValue::LongString(text) => match str::from_utf8(text.as_bytes()) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => json(value),
        },
        AMQPValue::DecimalValue(_)
        | AMQPValue::Timestamp(_)
        | AMQPValue::ByteArray(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::FieldArray(_) => json(value),
    }
}

fn json(value: &AMQPValue) -> Value {
    let mut json = BytesMut::new();
    put_value(&mut json, value, HeaderBytes::Signed, 0);
    Value::Text(String::from_utf8_lossy(&json).into_owned())
}

/// The message of another broker as this one would have sent it.
pub(crate) fn received(message: Portable) -> ReceivedMessage {
    let mut headers = FieldTable::default();
    for (name, value) in message.properties {
        let name = ShortString::from(&name[..name.floor_char_boundary(LONGEST_SHORT)]);
        headers.insert(name, header(value));
    }
    let mut short = |name: &str, value: Option<String>| {
        let value = value?;
        if value.len() > LONGEST_SHORT {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
            return None;
        }
        Some(ShortString::from(value))
    };
    let mut properties = BasicProperties::default();
    if let Some(id) = short("esm_original_message_id", message.message_id) {
        properties = properties.with_message_id(id);
    }
    if let Some(id) = short("esm_original_correlation_id", message.correlation_id) {
        properties = properties.with_correlation_id(id);
    }
    if let Some(kind) = short("esm_original_type", message.message_type) {
        properties = properties.with_type(kind);
    }
    if let Some(priority) = message.priority {
        properties = properties.with_priority(priority);
    }
    if let Some(seconds) = message.sent_at_ms.and_then(|at| u64::try_from(at / 1_000).ok()) {
        properties = properties.with_timestamp(seconds);
    }
    let (properties, body) = match message.body {
        Body::Text(text) => {
            (properties.with_content_type(TEXT.into()).with_content_encoding("utf-8".into()), text.into_bytes())
        }
        Body::Bytes(bytes) => (properties.with_content_type(BYTES.into()), bytes),
    };
    ReceivedMessage { properties: properties.with_headers(headers), body }
}

fn header(value: Value) -> AMQPValue {
    match value {
        Value::Null => AMQPValue::Void,
        Value::Boolean(value) => AMQPValue::Boolean(value),
        Value::Byte(number) => AMQPValue::ShortShortInt(number),
        Value::Short(number) => AMQPValue::ShortInt(number),
        Value::Int(number) => AMQPValue::LongInt(number),
        Value::Long(number) => AMQPValue::LongLongInt(number),
        Value::Float(number) => AMQPValue::Float(number),
        Value::Double(number) => AMQPValue::Double(number),
        Value::Text(text) => AMQPValue::LongString(LongString::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<(String, Value)> {
        let values = [
            Value::Null,
            Value::Boolean(true),
            Value::Byte(-1),
            Value::Short(2),
            Value::Int(3),
            Value::Long(4),
            Value::Float(0.5),
            Value::Double(0.25),
            Value::Text("ü".into()),
        ];
        values.into_iter().enumerate().map(|(number, value)| (format!("property-{number}"), value)).collect()
    }

    #[test]
    fn what_comes_from_another_broker_can_be_read_back() {
        let message = Portable {
            body: Body::Text("body".into()),
            message_id: Some("id".into()),
            correlation_id: Some("c".into()),
            message_type: Some("order".into()),
            priority: Some(4),
            sent_at_ms: Some(5_000),
            properties: values(),
        };
        let back = received(message.clone()).portable();
        let added = [("esm_original_content_type", TEXT), ("esm_original_content_encoding", "utf-8")];
        let added = added.map(|(name, value)| (name.to_owned(), Value::Text(value.into())));
        let expected = Portable { properties: values().into_iter().chain(added).collect(), ..message };
        assert_eq!(back, expected);
    }

    #[test]
    fn what_is_too_long_for_a_property_becomes_a_header() {
        let long = "x".repeat(LONGEST_SHORT + 1);
        let message = Portable {
            correlation_id: Some(long.clone()),
            properties: vec![(long.clone(), Value::Boolean(true))],
            ..Portable::default()
        };
        let ReceivedMessage { properties, .. } = received(message);
        assert_eq!(properties.correlation_id(), &None);
        let headers = properties.headers().as_ref().expect("has headers").inner();
        assert_eq!(headers.get("esm_original_correlation_id"), Some(&AMQPValue::LongString(long.as_str().into())));
        assert_eq!(headers.get(&long[1..]), Some(&AMQPValue::Boolean(true)));
    }

    #[test]
    fn a_body_is_text_if_its_content_type_says_so_and_it_is() {
        let check = |content_type: &str, encoding: Option<&str>, body: &[u8], expected: bool| {
            let mut properties = BasicProperties::default().with_content_type(content_type.into());
            if let Some(encoding) = encoding {
                properties = properties.with_content_encoding(encoding.into());
            }
            let message = ReceivedMessage { properties, body: body.to_vec() };
            assert_eq!(matches!(message.portable().body, Body::Text(_)), expected, "{content_type} {encoding:?}");
        };
        for text in ["text/plain", "TEXT/html; charset=utf-8", "application/json", "application/soap+xml"] {
            check(text, None, b"{}", true);
            check(text, None, b"\xff", false);
            check(text, Some("UTF-8"), b"{}", true);
            check(text, Some("gzip"), b"{}", false);
        }
        check("application/octet-stream", None, b"{}", false);
        check("", None, b"{}", false);
    }

    #[test]
    fn what_others_do_not_have_becomes_json() {
        let mut table = FieldTable::default();
        table.insert("count".into(), AMQPValue::LongLongInt(2));
        assert_eq!(portable(&AMQPValue::FieldTable(table)), Value::Text(r#"{"count":2}"#.into()));
        assert_eq!(
            portable(&AMQPValue::LongString(b"\xff".as_slice().into())),
            Value::Text(r#"{"bytes":[-1]}"#.into())
        );
    }
}
