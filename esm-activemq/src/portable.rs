//! Messages of other brokers as this one has them, and the reverse, for what is given up and lies on a broker of
//! another kind.

use std::borrow::Cow;

use esm_core::{
    destination::{Body, Kept, Portable, Value},
    event::EVENT_SIZE_LIMIT,
};

use crate::{
    java,
    openwire::{Message, MessageKind, Primitive, encode_properties, properties},
    record::type_name,
};

/// As JMS has it for messages that say nothing.
const DEFAULT_PRIORITY: u8 = 4;
const HIGHEST_PRIORITY: u8 = 9;

impl Kept for Message {
    fn portable(&self) -> Portable {
        let mut kept = Vec::new();
        if let Some(group) = &self.group_id {
            kept.push(("JMSXGroupID".to_owned(), Value::Text(group.to_str().into_owned())));
            kept.push(("JMSXGroupSeq".to_owned(), Value::Int(self.group_sequence)));
        }
        if let Some(reply_to) = &self.reply_to {
            let reply_to = reply_to.physical_name().to_str().into_owned();
            kept.push(("esm_original_reply_to".to_owned(), Value::Text(reply_to)));
        }
        if self.expiration > 0 {
            kept.push(("esm_original_expiration".to_owned(), Value::Text(self.expiration.to_string())));
        }
        // What cannot be read of it stays behind.
        let own = self.marshalled_properties.as_ref().and_then(|bytes| properties(bytes).ok());
        for (name, value) in own.into_iter().flatten().map_while(Result::ok) {
            kept.push((name.into_owned(), portable(value)));
        }
        Portable {
            body: body(self, &mut kept),
            message_id: self.message_id.as_ref().map(ToString::to_string),
            correlation_id: self.correlation_id.as_ref().map(|id| id.to_str().into_owned()),
            message_type: self.message_type.as_ref().map(|kind| kind.to_str().into_owned()),
            priority: u8::try_from(self.priority).ok(),
            sent_at_ms: (self.timestamp > 0).then_some(self.timestamp),
            properties: kept,
        }
    }
}

/// What is neither text nor bytes goes as it stood in the message, and its properties say what that is.
fn body(message: &Message, properties: &mut Vec<(String, Value)>) -> Body {
    let body = match message.kind {
        MessageKind::Text => {
            message.text(EVENT_SIZE_LIMIT).ok().map(|text| Body::Text(text.unwrap_or_default().into_owned()))
        }
        MessageKind::Bytes => message.bytes(EVENT_SIZE_LIMIT).ok().map(|bytes| Body::Bytes(bytes.into_owned())),
        _ => None,
    };
    body.unwrap_or_else(|| {
        properties.push(("esm_original_body".to_owned(), Value::Text(type_name(message.kind).into())));
        properties.push(("esm_original_compressed".to_owned(), Value::Boolean(message.compressed)));
        Body::Bytes(message.content.as_ref().map(|content| content.to_vec()).unwrap_or_default())
    })
}

/// What only this broker has becomes the text that stands for it in an event.
fn portable(value: Primitive<'_>) -> Value {
    match value {
        Primitive::Null => Value::Null,
        Primitive::Boolean(value) => Value::Boolean(value),
        Primitive::Byte(number) => Value::Byte(number),
        Primitive::Short(number) => Value::Short(number),
        Primitive::Int(number) => Value::Int(number),
        Primitive::Long(number) => Value::Long(number),
        Primitive::Float(number) => Value::Float(number),
        Primitive::Double(number) => Value::Double(number),
        Primitive::String(text) => Value::Text(text.into_owned()),
        other @ (Primitive::Char(_) | Primitive::Bytes(_) | Primitive::Map(_) | Primitive::List(_)) => {
            let mut text = String::new();
            // What cannot be read of it stays behind.
            let _ = java::push_value(&mut text, other);
            Value::Text(text)
        }
    }
}

/// The message of another broker as this one would have lent it. This one makes ids itself, so the other's becomes a
/// property.
pub(crate) fn received(message: Portable) -> Result<Message, String> {
    let received = match message.body {
        Body::Text(text) => Message::with_text(&text),
        Body::Bytes(bytes) => Message::with_bytes(bytes.into()),
    };
    let id = message.message_id.map(|id| ("esm_original_message_id".to_owned(), Value::Text(id)));
    let named = message.properties.into_iter().chain(id).map(|(name, value)| (name, primitive(value)));
    let properties = encode_properties(named).map_err(|error| error.to_string())?;
    Ok(Message {
        correlation_id: message.correlation_id.map(Into::into),
        message_type: message.message_type.map(Into::into),
        priority: i8::try_from(message.priority.unwrap_or(DEFAULT_PRIORITY).min(HIGHEST_PRIORITY)).unwrap_or_default(),
        timestamp: message.sent_at_ms.unwrap_or_default(),
        marshalled_properties: Some(properties),
        ..received
    })
}

fn primitive(value: Value) -> Primitive<'static> {
    match value {
        Value::Null => Primitive::Null,
        Value::Boolean(value) => Primitive::Boolean(value),
        Value::Byte(number) => Primitive::Byte(number),
        Value::Short(number) => Primitive::Short(number),
        Value::Int(number) => Primitive::Int(number),
        Value::Long(number) => Primitive::Long(number),
        Value::Float(number) => Primitive::Float(number),
        Value::Double(number) => Primitive::Double(number),
        Value::Text(text) => Primitive::String(Cow::Owned(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openwire::Destination;

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
        values.into_iter().enumerate().map(|(number, value)| (format!("property{number}"), value)).collect()
    }

    #[test]
    fn what_comes_from_another_broker_can_be_read_back() {
        for body in [Body::Text("body".into()), Body::Bytes(vec![0, 255])] {
            let message = Portable {
                body,
                message_id: Some("id".into()),
                correlation_id: Some("c".into()),
                message_type: Some("order".into()),
                priority: Some(7),
                sent_at_ms: Some(5_000),
                properties: values(),
            };
            let id = ("esm_original_message_id".to_owned(), Value::Text("id".into()));
            let back = received(message.clone()).unwrap().portable();
            let properties = values().into_iter().chain([id]).collect();
            assert_eq!(back, Portable { message_id: None, properties, ..message });
        }
    }

    #[test]
    fn a_priority_that_is_higher_than_ours_is_our_highest() {
        let priority = |priority| received(Portable { priority, ..Portable::default() }).unwrap().priority;
        assert_eq!([priority(None), priority(Some(3)), priority(Some(255))], [4, 3, 9]);
    }

    #[test]
    fn what_others_do_not_have_becomes_a_property() {
        let message = Message {
            group_id: Some("g".into()),
            group_sequence: 2,
            reply_to: Some(Destination::Queue("answers".into())),
            expiration: 9,
            marshalled_properties: Some(encode_properties([("bytes", Primitive::Bytes(b"hi"))]).unwrap()),
            ..Message::with_text("")
        };
        let expected = [
            ("JMSXGroupID", Value::Text("g".into())),
            ("JMSXGroupSeq", Value::Int(2)),
            ("esm_original_reply_to", Value::Text("answers".into())),
            ("esm_original_expiration", Value::Text("9".into())),
            ("bytes", Value::Text("aGk=".into())),
        ];
        assert_eq!(message.portable().properties, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn a_body_that_is_neither_text_nor_bytes_goes_as_it_is() {
        let map = Message { kind: MessageKind::Map, content: Some(vec![0, 0, 0, 0].into()), ..Message::default() };
        let damaged = Message { kind: MessageKind::Text, content: Some(vec![0, 0, 0, 9].into()), ..Message::default() };
        for (message, name) in [(map, "jms/map-message"), (damaged, "jms/text-message")] {
            let Portable { body, properties, .. } = message.portable();
            assert_eq!(body, Body::Bytes(message.content.unwrap().to_vec()));
            assert_eq!(properties[0], ("esm_original_body".to_owned(), Value::Text(name.into())));
        }
    }
}
