//! Messages as the event shows them: golden files, messages that real brokers sent, and a decode by the crate that
//! typed Rust functions use. `UPDATE_GOLDEN=1 cargo test -p esm-activemq --test records` rewrites the files.

use std::path::Path;

use aws_lambda_events::activemq::ActiveMqEvent;
use bytes::{BufMut, Bytes, BytesMut};
use esm_activemq::{
    EventProfile, RecordEncoder,
    openwire::{
        Command, Destination, Message, MessageDispatch, MessageId, MessageKind, Primitive, ProducerId,
        encode_properties,
    },
    record::Unfit,
};
use esm_core::{event::Record, metrics::DropReason, testing::event};
use proptest::prelude::*;
use serde_json::{Value, json};

#[path = "openwire/vectors.rs"]
#[allow(dead_code, clippy::unwrap_used)] // shared with tests that need more of it
mod vectors;

const ARN: &str = "arn:aws:mq:us-west-2:111122223333:broker:test:b-9bcfa592-423a-4942-879d-eb284b418fc8";
const CONNECTION: &str =
    "ID:b-9bcfa592-423a-4942-879d-eb284b418fc8-1.mq.us-west-2.amazonaws.com-37557-1234520418293-4:1";
const BOTH: [EventProfile; 2] = [EventProfile::Documented, EventProfile::Wire];

/// A message as a broker lends it, from a queue that AWS's documentation uses.
fn lent(message: Message) -> MessageDispatch {
    let destination = Some(Destination::Queue("testQueue".into()));
    let message = Message {
        message_id: message.message_id.or_else(|| {
            Some(MessageId {
                producer_id: Some(ProducerId::new(CONNECTION, 1, 1)),
                producer_sequence_id: 1,
                ..MessageId::default()
            })
        }),
        destination: destination.clone(),
        ..message
    };
    MessageDispatch { destination, message: Some(message), ..MessageDispatch::default() }
}

fn with_properties<'a>(properties: impl IntoIterator<Item = (&'a str, Primitive<'a>)>) -> Message {
    let marshalled_properties = Some(encode_properties(properties).expect("fits"));
    Message { marshalled_properties, ..Message::with_text("") }
}

fn record(profile: EventProfile, message: Message) -> Result<Record, Unfit> {
    RecordEncoder::new(profile).record(&lent(message))
}

fn encode(profile: EventProfile, dispatches: &[MessageDispatch]) -> Bytes {
    let mut encoder = RecordEncoder::new(profile);
    let records: Vec<_> =
        dispatches.iter().map(|dispatch| encoder.record(dispatch).expect("becomes a record")).collect();
    event(&RecordEncoder::envelope(ARN), &records).to_bytes()
}

/// The only record of an event.
fn shown(profile: EventProfile, message: Message) -> Value {
    let bytes = encode(profile, &[lent(message)]);
    let mut event: Value = serde_json::from_slice(&bytes).expect("is JSON");
    event["messages"][0].take()
}

fn cause(message: Message) -> String {
    let unfit = record(EventProfile::Documented, message).expect_err("becomes no record");
    assert_eq!(unfit.reason, DropReason::MessageType);
    unfit.cause
}

fn check(name: &str, encoded: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("json");
    serde_json::from_slice::<Value>(encoded).expect("is JSON");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, encoded).expect("writes");
    }
    let golden = std::fs::read(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()));
    assert_eq!(String::from_utf8_lossy(encoded), String::from_utf8_lossy(&golden), "{name}");
}

fn documented_messages() -> [MessageDispatch; 2] {
    let message = |body: Message, priority, correlation_id: &str| {
        lent(Message {
            priority,
            correlation_id: Some(correlation_id.into()),
            expiration: 60_000,
            timestamp: 1_598_827_811_958,
            broker_in_time: 1_598_827_811_958,
            broker_out_time: 1_598_827_811_959,
            ..body
        })
    };
    let bytes = Bytes::from_static(&[0x2d, 0x06, 0x86, 0x43, 0xcd, 0x92, 0xe3, 0xc9]);
    [message(Message::with_text("ABC:AAAA"), 1, "myJMSCoID"), message(Message::with_bytes(bytes), 2, "myJMSCoID1")]
}

#[test]
fn aws_documented_sample_comes_out_as_documented() {
    let encoded = encode(EventProfile::Documented, &documented_messages());
    let record = |message_type, priority, correlation_id, data| {
        json!({
            "messageID": "ID:b-9bcfa592-423a-4942-879d-eb284b418fc8-1.mq.us-west-2.amazonaws.com-37557-1234520418293-4:1:1:1:1",
            "messageType": message_type,
            "deliveryMode": 1,
            "replyTo": null,
            "type": null,
            "expiration": "60000",
            "priority": priority,
            "correlationId": correlation_id,
            "redelivered": false,
            "destination": { "physicalname": "testQueue", "physicalName": "testQueue" },
            "data": data,
            "timestamp": 1_598_827_811_958_i64,
            "brokerInTime": 1_598_827_811_958_i64,
            "brokerOutTime": 1_598_827_811_959_i64,
            // not in the sample of this page, but in what is sent
            "correlationID": correlation_id,
            "properties": {}
        })
    };
    let expected = json!({
        "eventSource": "aws:mq",
        "eventSourceArn": ARN,
        "messages": [
            record("jms/text-message", 1, "myJMSCoID", "QUJDOkFBQUE="),
            record("jms/bytes-message", 2, "myJMSCoID1", "LQaGQ82S48k="),
        ]
    });
    assert_eq!(serde_json::from_slice::<Value>(&encoded).expect("is JSON"), expected);
    check("documented", &encoded);
}

#[test]
fn the_wire_profile_is_what_aws_sends_in_its_order() {
    let message = Message {
        timestamp: 1_599_863_938_941,
        broker_in_time: 1_599_863_938_943,
        broker_out_time: 1_599_863_938_944,
        marshalled_properties: with_properties([("testKey", Primitive::String("testValue".into()))])
            .marshalled_properties,
        ..Message::with_text("some text")
    };
    let expected =
        format!(r#"{{"eventSource":"aws:mq","eventSourceArn":"{ARN}","messages":[{{"messageID":"{CONNECTION}:1:1:1","#)
            + concat!(
                r#""messageType":"jms/text-message","timestamp":1599863938941,"deliveryMode":1,"correlationID":"","#,
                r#""replyTo":"null","destination":{"physicalName":"testQueue"},"redelivered":false,"type":"","#,
                r#""expiration":0,"priority":0,"data":"c29tZSB0ZXh0","brokerInTime":1599863938943,"#,
                r#""brokerOutTime":1599863938944,"properties":{"testKey":"testValue"}}]}"#
            );
    assert_eq!(encode(EventProfile::Wire, &[lent(message)]), expected);
}

fn full_message() -> MessageDispatch {
    let message = Message {
        message_id: Some(MessageId { text_view: Some("foreign \"id\"".into()), ..MessageId::default() }),
        persistent: true,
        priority: 9,
        correlation_id: Some("häuser\n".into()),
        reply_to: Some(Destination::TempQueue("ID:reply-1".into())),
        message_type: Some("order".into()),
        expiration: 1_599_000_000_000,
        group_id: Some("group".into()),
        group_sequence: -1,
        user_id: Some("admin".into()),
        ..with_properties([("kind", Primitive::String("order".into()))])
    };
    MessageDispatch { redelivery_counter: 1, ..lent(message) }
}

#[test]
fn every_field_has_its_place() {
    let bare =
        MessageDispatch { destination: None, message: Some(Message::with_text("")), ..MessageDispatch::default() };
    let messages = [full_message(), bare];
    check("every-field-documented", &encode(EventProfile::Documented, &messages));
    check("every-field-wire", &encode(EventProfile::Wire, &messages));
}

#[test]
fn typed_functions_read_the_wire_profile() {
    let [text, bytes] = documented_messages();
    let encoded = encode(EventProfile::Wire, &[text, bytes, full_message()]);
    let decoded: ActiveMqEvent = serde_json::from_slice(&encoded).expect("a typed function reads it");
    assert_eq!(decoded.event_source.as_deref(), Some("aws:mq"));
    assert_eq!(decoded.event_source_arn.as_deref(), Some(ARN));
    let [text, _, full] = &decoded.messages[..] else { panic!("{} messages", decoded.messages.len()) };
    assert_eq!(text.expiration, 60_000);
    assert_eq!(text.correlation_id.as_deref(), Some("myJMSCoID"));
    assert_eq!(text.destination.physical_name.as_deref(), Some("testQueue"));
    assert_eq!(text.data.as_deref(), Some("QUJDOkFBQUE="));
    assert_eq!(full.delivery_mode, 2);
    assert_eq!(full.reply_to.as_deref(), Some("temp-queue://ID:reply-1"));
    assert!(full.redelivered);
    assert_eq!(full.properties["kind"], "order");
    assert_eq!(full.properties["JMSXGroupSeq"], "-1");

    let documented = encode(EventProfile::Documented, &documented_messages());
    assert!(serde_json::from_slice::<ActiveMqEvent>(&documented).is_err(), "one profile would do");
}

/// Every message that was recorded between a real broker and a consumer.
fn recorded(capture: &str) -> Vec<MessageDispatch> {
    let dispatches: Vec<_> = vectors::commands(&vectors::folder().join(capture), "broker_to_client")
        .into_iter()
        .filter_map(|command| match command {
            Command::MessageDispatch(dispatch) if dispatch.message.is_some() => Some(*dispatch),
            _ => None,
        })
        .collect();
    assert!(!dispatches.is_empty(), "{capture} has no messages");
    dispatches
}

#[test]
fn recorded_messages_become_records_or_say_why_not() {
    for capture in ["rich-loose-nocache", "compressed-loose-nocache", "from-stomp-standard-utf8-loose-nocache-nostack"]
    {
        let mut encoder = RecordEncoder::new(EventProfile::Documented);
        let (mut records, mut causes) = (Vec::new(), Vec::new());
        for dispatch in recorded(capture) {
            match encoder.record(&dispatch) {
                Ok(record) => records.push(record),
                Err(unfit) => causes.push(unfit.cause),
            }
        }
        check(capture, &event(&RecordEncoder::envelope(ARN), &records).to_bytes());
        let of_other_types: &[&str] = match capture {
            "rich-loose-nocache" => &["jms/map-message", "jms/stream-message", "jms/object-message", "jms/message"],
            "compressed-loose-nocache" => &["jms/map-message"],
            _ => &[],
        };
        let expected: Vec<_> = of_other_types
            .iter()
            .map(|name| format!("it is a {name}: only text and bytes messages can be events"))
            .collect();
        assert_eq!(causes, expected, "{capture}");
    }
}

#[test]
fn a_record_carries_the_identifier_by_which_the_function_names_it_if_it_may() {
    for profile in BOTH {
        let record = RecordEncoder::new(profile).with_item_identifiers(true).record(&lent(Message::with_text("text")));
        let event = event(&RecordEncoder::envelope(ARN), &[record.expect("becomes a record")]).to_bytes();
        let event: Value = serde_json::from_slice(&event).expect("is JSON");
        let record = &event["messages"][0];
        assert!(record["messageID"].as_str().is_some_and(|id| id.starts_with(CONNECTION)));
        assert_eq!(record["itemIdentifier"], record["messageID"]);
        assert!(shown(profile, Message::with_text("text")).get("itemIdentifier").is_none());
    }
}

#[test]
fn redelivered_is_the_dispatch_counter_and_not_the_messages_own() {
    let dispatch = |of_dispatch, of_message| MessageDispatch {
        redelivery_counter: of_dispatch,
        ..lent(Message { redelivery_counter: of_message, ..Message::with_text("") })
    };
    for profile in BOTH {
        let mut encoder = RecordEncoder::new(profile);
        assert!(!encoder.record(&dispatch(0, 3)).expect("becomes a record").is_redelivered());
        assert!(encoder.record(&dispatch(1, 0)).expect("becomes a record").is_redelivered());
    }
}

#[test]
fn a_record_knows_its_message_id_as_jms_has_it() {
    let id = |message_id: MessageId| {
        let message = Message { message_id: Some(message_id), ..Message::with_text("") };
        record(EventProfile::Documented, message).expect("becomes a record").message_id().map(str::to_owned)
    };
    let ours = |connection_id: &str, session_id| MessageId {
        producer_id: Some(ProducerId::new(connection_id, session_id, 1)),
        producer_sequence_id: 3,
        ..MessageId::default()
    };
    let foreign = |text: &str| MessageId { text_view: Some(text.into()), ..ours("ID:host", 1) };
    assert_eq!(id(ours("ID:host-1", -1)).as_deref(), Some("ID:host-1:-1:1:3"));
    assert_eq!(id(ours("ID:\"höst\"", 1)).as_deref(), Some("ID:\\\"höst\\\":1:1:3"));
    assert_eq!(id(foreign("ID:amqp-1")).as_deref(), Some("ID:amqp-1"));
    assert_eq!(id(foreign("amqp-1")).as_deref(), Some("ID:amqp-1"));
    for message_id in [ours("ID:host-1", -1), foreign("amqp-1"), MessageId::default()] {
        assert_eq!(id(message_id.clone()), Some(message_id.to_string()), "both spell it the same");
    }
}

#[test]
fn numbers_are_those_that_javas_getters_give() {
    for (priority, expected) in [(-1, 0), (0, 0), (9, 9), (10, 9), (127, 9)] {
        assert_eq!(shown(EventProfile::Wire, Message { priority, ..Message::with_text("") })["priority"], expected);
    }
    for (persistent, expected) in [(false, 1), (true, 2)] {
        let shown = shown(EventProfile::Wire, Message { persistent, ..Message::with_text("") });
        assert_eq!(shown["deliveryMode"], expected);
    }
    let never = Message::with_text("");
    assert_eq!(shown(EventProfile::Documented, never.clone())["expiration"], "0");
    assert_eq!(shown(EventProfile::Wire, never)["expiration"], 0);
}

#[test]
fn properties_are_strings_as_java_prints_them() {
    let message = with_properties([
        ("boolean", Primitive::Boolean(true)),
        ("byte", Primitive::Byte(-1)),
        ("bytes", Primitive::Bytes(&[0, 255])),
        ("char", Primitive::Char(0xe9)),
        ("double", Primitive::Double(1e10)),
        ("empty", Primitive::String("".into())),
        ("float", Primitive::Float(0.1)),
        ("int", Primitive::Int(7)),
        ("long", Primitive::Long(i64::MIN)),
        ("nan", Primitive::Double(f64::NAN)),
        ("null", Primitive::Null),
        ("quote", Primitive::Char(0x22)),
        ("short", Primitive::Short(-300)),
        ("string \"\u{1}😀\0", Primitive::String("é\"\\\n😀\0".into())),
    ]);
    let expected = json!({
        "boolean": "true",
        "byte": "-1",
        "bytes": "AP8=",
        "char": "é",
        "double": "1.0E10",
        "empty": "",
        "float": "0.1",
        "int": "7",
        "long": "-9223372036854775808",
        "nan": "NaN",
        "quote": "\"",
        "short": "-300",
        "string \"\u{1}😀\0": "é\"\\\n😀\0",
    });
    for profile in BOTH {
        assert_eq!(shown(profile, message.clone())["properties"], expected);
    }
}

#[test]
fn properties_that_java_takes_from_the_header_are_among_them() {
    let grouped = Message {
        group_id: Some("orders".into()),
        group_sequence: 3,
        user_id: Some("admin".into()),
        ..with_properties([
            ("JMSXUserID", Primitive::String("impostor".into())),
            ("JMSXDeliveryCount", Primitive::Int(2)),
        ])
    };
    let expected = json!({ "JMSXGroupID": "orders", "JMSXGroupSeq": "3", "JMSXUserID": "admin" });
    assert_eq!(shown(EventProfile::Documented, grouped)["properties"], expected);

    let ungrouped = Message { group_sequence: 3, ..Message::with_text("") };
    assert_eq!(shown(EventProfile::Documented, ungrouped)["properties"], json!({}));
}

#[test]
fn there_are_no_properties_where_there_is_no_map() {
    let null_map = Bytes::from_static(&[0xff; 4]);
    for marshalled_properties in [None, Some(null_map), Some(Bytes::from_static(&[0; 4]))] {
        let message = Message { marshalled_properties, ..Message::with_text("") };
        assert_eq!(shown(EventProfile::Documented, message)["properties"], json!({}));
    }
}

#[test]
fn the_last_of_two_properties_with_one_name_counts() {
    let twice = with_properties([("a", Primitive::Int(1)), ("b", Primitive::Int(2)), ("a", Primitive::Int(3))]);
    assert_eq!(shown(EventProfile::Documented, twice)["properties"], json!({ "a": "3", "b": "2" }));
}

#[test]
fn an_absent_body_is_empty() {
    let null_text = Message { kind: MessageKind::Text, ..Message::default() };
    let negative_length = Message { content: Some(Bytes::from_static(&[0xff; 4])), ..null_text.clone() };
    let null_bytes = Message { kind: MessageKind::Bytes, ..Message::default() };
    for message in [null_text, negative_length, null_bytes, Message::with_text("")] {
        assert_eq!(shown(EventProfile::Wire, message)["data"], "");
    }
}

#[test]
fn text_becomes_standard_utf_8() {
    // Java's NUL and its surrogate pair, a lone surrogate, and four bytes as other clients write them.
    let body = b"\0\0\0\x0fA\xc0\x80\xed\xa0\xbd\xed\xb8\x80\xed\xa0\xbd\xf0\x9f";
    let body = [body.as_slice(), b"\x98\x80"].concat();
    let length = u8::try_from(body.len() - 4).expect("is short");
    let content = Some(Bytes::from([&[0, 0, 0, length], &body[4..]].concat()));
    let message = Message { content, ..Message::with_text("") };
    assert_eq!(shown(EventProfile::Wire, message)["data"], base64_simd::STANDARD.encode_to_string("A\0😀\u{fffd}😀"));
}

#[test]
fn a_body_that_cannot_be_decoded_is_no_record() {
    let cut_off = Message { content: Some(Bytes::from_static(b"\0\0\0\x05hell")), ..Message::with_text("") };
    let damaged = Message { compressed: true, content: Some(Bytes::from_static(b"garbage")), ..Message::with_text("") };
    for message in [cut_off, damaged] {
        let cause = cause(message);
        assert!(cause.starts_with("its body cannot be decoded: "), "{cause}");
    }
}

#[test]
fn a_body_that_no_event_can_hold_is_too_large_and_not_encoded() {
    let huge = vec![b'x'; 5 * 1024 * 1024];
    let announced = [0x7f, 0xff, 0xff, 0xff, b'x'];
    for message in [
        Message::with_bytes(huge.clone().into()),
        Message::with_text(&String::from_utf8(huge).expect("is text")),
        Message { compressed: true, ..Message::with_bytes(announced.to_vec().into()) },
    ] {
        let unfit = record(EventProfile::Documented, message).expect_err("becomes no record");
        assert_eq!(unfit.reason, DropReason::TooLarge);
    }
}

#[test]
fn properties_that_cannot_be_decoded_are_named_and_leave_no_trace() {
    let mut encoder = RecordEncoder::new(EventProfile::Documented);
    let whole = with_properties([("a", Primitive::Int(1)), ("b", Primitive::String("text".into()))]);
    let bytes = whole.marshalled_properties.clone().expect("has properties");
    let before = encoder.record(&lent(whole.clone())).expect("becomes a record");
    for end in 0..bytes.len() {
        let message = Message { marshalled_properties: Some(bytes.slice(..end)), ..whole.clone() };
        let unfit = encoder.record(&lent(message)).expect_err("is cut off");
        assert_eq!(unfit.reason, DropReason::MessageType);
        assert!(unfit.cause.starts_with("its properties cannot be decoded: properties"), "{}", unfit.cause);
    }
    let after = encoder.record(&lent(whole)).expect("becomes a record");
    let bytes = |record: Record| event(&RecordEncoder::envelope(ARN), &[record]).to_bytes();
    assert_eq!(bytes(before), bytes(after));
}

/// A map of one property: lists in lists, around a number.
fn nested(depth: usize) -> Message {
    let mut map = BytesMut::new();
    map.put_i32(1);
    map.put_slice(b"\0\x01n");
    for _ in 0..depth {
        map.put_u8(12);
        map.put_i32(1);
    }
    map.put_slice(b"\x02\x07");
    Message { marshalled_properties: Some(map.freeze()), ..Message::with_text("") }
}

#[test]
fn nested_properties_are_shown_as_java_shows_collections() {
    let inner = encode_properties([("x", Primitive::Int(1)), ("y", Primitive::Null)]).expect("fits");
    let map = esm_activemq::openwire::properties(&inner).expect("is a map");
    let shown_map = shown(EventProfile::Wire, with_properties([("map", Primitive::Map(map))]));
    assert_eq!(shown_map["properties"]["map"], "{x=1, y=null}");
    assert_eq!(shown(EventProfile::Wire, nested(2))["properties"]["n"], "[[7]]");
}

#[test]
fn properties_nested_too_deep_are_no_record() {
    assert!(record(EventProfile::Wire, nested(20)).is_ok());
    let cause = cause(nested(100_000));
    assert!(cause.ends_with("is nested too deep"), "{cause}");
}

#[test]
fn records_of_every_size_share_buffers_without_mixing() {
    for profile in BOTH {
        let dispatches: Vec<_> = (0..200).map(|n: usize| lent(Message::with_bytes(vec![b'a'; n * n].into()))).collect();
        let event: Value = serde_json::from_slice(&encode(profile, &dispatches)).expect("is JSON");
        let records = event["messages"].as_array().expect("a list");
        assert_eq!(records.len(), dispatches.len());
        for (n, record) in records.iter().enumerate() {
            let data = record["data"].as_str().expect("a string");
            assert_eq!(data, base64_simd::STANDARD.encode_to_string(vec![b'a'; n * n]));
            assert_eq!(record["properties"], json!({}));
        }
    }
}

proptest! {
    #[test]
    fn whatever_stands_in_a_message_is_valid_json_or_no_record(
        properties in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64)),
        content in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64)),
        count in 0_u8..4,
        is_text in any::<bool>(),
        compressed in any::<bool>(),
        text in ".*",
    ) {
        let properties = properties.map(|rest| [&[0, 0, 0, count], &rest[..]].concat().into());
        let message = Message {
            kind: if is_text { MessageKind::Text } else { MessageKind::Bytes },
            compressed,
            content: content.map(Bytes::from),
            marshalled_properties: properties,
            correlation_id: Some(text.as_str().into()),
            message_type: Some(text.as_str().into()),
            ..Message::default()
        };
        for profile in BOTH {
            if let Ok(record) = record(profile, message.clone()) {
                let bytes = event(&RecordEncoder::envelope(ARN), &[record]).to_bytes();
                let event: Value = serde_json::from_slice(&bytes).expect("is JSON");
                prop_assert_eq!(&event["messages"][0]["correlationID"], &text);
                prop_assert!(event["messages"][0]["properties"].is_object());
            }
        }
    }
}
