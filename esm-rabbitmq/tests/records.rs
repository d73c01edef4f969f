//! Messages as the event shows them: golden files, and a decode by the crate that typed Rust
//! functions use. `UPDATE_GOLDEN=1 cargo test -p esm-rabbitmq --test records` rewrites the files.

use std::path::Path;

use aws_lambda_events::rabbitmq::RabbitMqEvent;
use bytes::Bytes;
use esm_core::testing::event;
use esm_rabbitmq::{HeaderBytes, RecordEncoder};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, DecimalValue, FieldArray, FieldTable},
};
use serde_json::{Value, json};

const ARN: &str = "arn:aws:mq:us-west-2:111122223333:broker:pizzaBroker:b-9bcfa592-423a-4942-879d-eb284b418fc8";

fn message(properties: BasicProperties, redelivered: bool, body: &[u8]) -> Delivery {
    let mut message = Delivery::mock(1, "".into(), "".into(), redelivered, body.to_vec());
    message.properties = properties;
    message
}

fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

fn long(text: impl Into<Vec<u8>>) -> AMQPValue {
    AMQPValue::LongString(text.into().into())
}

fn encode(encoder: &mut RecordEncoder, messages: &[Delivery], queue: &str, virtual_host: &str) -> Bytes {
    let records: Vec<_> = messages.iter().map(|message| encoder.record(message)).collect();
    event(&RecordEncoder::envelope(ARN, queue, virtual_host), &records).to_bytes()
}

fn with_headers(headers: FieldTable) -> Delivery {
    message(BasicProperties::default().with_headers(headers), false, b"")
}

/// The event of one message in a queue that AWS's documentation uses.
fn as_aws(message: Delivery) -> Value {
    let bytes = encode(&mut RecordEncoder::new(HeaderBytes::Signed, false), &[message], "pizzaQueue", "/");
    serde_json::from_slice(&bytes).expect("is JSON")
}

fn headers_of(event: &Value) -> &Value {
    &event["rmqMessagesByQueue"]["pizzaQueue::/"][0]["basicProperties"]["headers"]
}

fn check(name: &str, encoded: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, encoded).expect("writes");
    }
    let golden = std::fs::read(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()));
    assert_eq!(String::from_utf8_lossy(encoded), String::from_utf8_lossy(&golden), "{name}");
}

fn documented_message() -> Delivery {
    let headers =
        table([("header1", long("value1")), ("header2", long("value2")), ("numberInHeader", AMQPValue::LongInt(10))]);
    let properties = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_headers(headers)
        .with_delivery_mode(1)
        .with_priority(34)
        .with_expiration("60000".into())
        .with_timestamp(2_021)
        .with_user_id("AIDACKCEVSQ6C2EXAMPLE".into());
    message(properties, false, br#"{"timeout":0,"data":"CZrmf0Gw8Ov4bqLQxD4E"}"#)
}

#[test]
fn aws_documented_sample_comes_out_as_documented() {
    let encoded =
        encode(&mut RecordEncoder::new(HeaderBytes::Signed, false), &[documented_message()], "pizzaQueue", "/");
    let expected = json!({
      "eventSource": "aws:rmq",
      "eventSourceArn": ARN,
      "rmqMessagesByQueue": { "pizzaQueue::/": [ {
        "basicProperties": {
          "contentType": "text/plain", "contentEncoding": null,
          "headers": {
            "header1": { "bytes": [118, 97, 108, 117, 101, 49] },
            "header2": { "bytes": [118, 97, 108, 117, 101, 50] },
            "numberInHeader": 10
          },
          "deliveryMode": 1, "priority": 34, "correlationId": null, "replyTo": null, "expiration": "60000",
          "messageId": null, "timestamp": "Jan 1, 1970, 12:33:41 AM", "type": null,
          "userId": "AIDACKCEVSQ6C2EXAMPLE", "appId": null, "clusterId": null,
          "bodySize": 43 // the documented sample says 80, which its own body has not
        },
        "redelivered": false,
        "data": "eyJ0aW1lb3V0IjowLCJkYXRhIjoiQ1pybWYwR3c4T3Y0YnFMUXhENEUifQ=="
      } ] }
    });
    assert_eq!(serde_json::from_slice::<Value>(&encoded).expect("is JSON"), expected);
    check("documented", &encoded);
}

#[test]
fn every_header_type_has_its_json() {
    let nested = table([("inner", long("é")), ("deeper", AMQPValue::FieldTable(table([("n", AMQPValue::Void)])))]);
    let array = FieldArray::from(vec![long("a"), AMQPValue::LongInt(-1), AMQPValue::FieldTable(nested.clone())]);
    let decimal = |scale, value| AMQPValue::DecimalValue(DecimalValue { scale, value });
    let headers = table([
        ("array", AMQPValue::FieldArray(array)),
        ("boolean", AMQPValue::Boolean(true)),
        ("bytes", AMQPValue::ByteArray(vec![0, 9, 99, 127, 128, 200, 255].into())),
        ("date", AMQPValue::Timestamp(1_688_261_434)),
        ("date far away", AMQPValue::Timestamp(1_598_827_811_958)),
        ("decimal", decimal(2, 12_345)),
        ("decimal below one", decimal(5, 7)),
        ("decimal negative", decimal(2, (-1_i32).cast_unsigned())),
        ("decimal whole", decimal(0, 7)),
        ("double", AMQPValue::Double(0.1)),
        ("double infinite", AMQPValue::Double(f64::NEG_INFINITY)),
        ("double large", AMQPValue::Double(1e300)),
        ("double nan", AMQPValue::Double(f64::NAN)),
        ("empty", long("")),
        ("float", AMQPValue::Float(1.5)),
        ("float nan", AMQPValue::Float(f32::NAN)),
        ("int16", AMQPValue::ShortInt(i16::MIN)),
        ("int32", AMQPValue::LongInt(i32::MIN)),
        ("int64", AMQPValue::LongLongInt(i64::MIN)),
        ("int8", AMQPValue::ShortShortInt(i8::MIN)),
        ("long string", long("é")),
        ("table", AMQPValue::FieldTable(nested)),
        ("uint16", AMQPValue::ShortUInt(u16::MAX)),
        ("uint32", AMQPValue::LongUInt(u32::MAX)),
        ("uint8", AMQPValue::ShortShortUInt(u8::MAX)),
        ("void", AMQPValue::Void),
    ]);
    let message = with_headers(headers);
    let signed = encode(&mut RecordEncoder::new(HeaderBytes::Signed, false), std::slice::from_ref(&message), "q", "/");
    let unsigned = encode(&mut RecordEncoder::new(HeaderBytes::Unsigned, false), &[message], "q", "/");
    for encoded in [&signed, &unsigned] {
        serde_json::from_slice::<Value>(encoded).expect("is JSON");
    }
    check("every-header-type", &signed);
    check("unsigned-header-bytes", &unsigned);
}

#[test]
fn what_the_publisher_did_not_set_is_null() {
    let bare = message(BasicProperties::default(), true, b"hello world");
    let encoded = encode(&mut RecordEncoder::new(HeaderBytes::Signed, false), &[bare], "q", "");
    check("bare", &encoded);
}

#[test]
fn every_property_has_its_place() {
    let all = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("gzip".into())
        .with_headers(FieldTable::default())
        .with_delivery_mode(2)
        .with_priority(0)
        .with_correlation_id("correlation".into())
        .with_reply_to("reply".into())
        .with_expiration("1".into())
        .with_message_id("m-\"1\"\n".into())
        .with_timestamp(0)
        .with_type("type".into())
        .with_user_id("user".into())
        .with_app_id("app".into())
        .with_cluster_id("cluster".into());
    let messages = [message(all, false, &[0, 255, 128]), message(BasicProperties::default(), false, b"")];
    let encoded = encode(&mut RecordEncoder::new(HeaderBytes::Signed, false), &messages, "häuser/\"x\"", "my vhost");
    serde_json::from_slice::<Value>(&encoded).expect("is JSON");
    check("every-property", &encoded);
}

#[test]
fn a_record_carries_the_identifier_by_which_the_function_names_it_if_it_may() {
    let mut encoder = RecordEncoder::new(HeaderBytes::Signed, false).with_item_identifiers(true);
    let messages =
        [7, 18_446_744_073_709_551_615].map(|tag| Delivery::mock(tag, "".into(), "".into(), false, b"body".to_vec()));
    let event = encode(&mut encoder, &messages, "q", "/");
    let event: Value = serde_json::from_slice(&event).expect("is JSON");
    let records = &event["rmqMessagesByQueue"]["q::/"];
    assert_eq!(records[0]["itemIdentifier"], "7");
    assert_eq!(records[1]["itemIdentifier"], "18446744073709551615");
    assert_eq!(records[1]["data"], "Ym9keQ==");
    let without = encode(&mut RecordEncoder::new(HeaderBytes::Signed, false), &messages, "q", "/");
    assert!(!String::from_utf8_lossy(&without).contains("itemIdentifier"));
}

#[test]
fn dates_are_us_medium_style_in_utc() {
    let date = |seconds| {
        let event = as_aws(with_headers(table([("date", AMQPValue::Timestamp(seconds))])));
        headers_of(&event)["date"].as_str().map(str::to_owned)
    };
    assert_eq!(date(0).as_deref(), Some("Jan 1, 1970, 12:00:00 AM"));
    assert_eq!(date(43_200).as_deref(), Some("Jan 1, 1970, 12:00:00 PM"));
    assert_eq!(date(1_709_251_199).as_deref(), Some("Feb 29, 2024, 11:59:59 PM"));
    assert_eq!(date(253_402_300_799).as_deref(), None, "beyond what the calendar here knows with a margin");
    assert_eq!(date(u64::MAX), None);
}

#[test]
fn tables_too_deep_for_any_consumer_end_in_null() {
    let mut value = AMQPValue::Void;
    for _ in 0..1_000 {
        value = AMQPValue::FieldTable(table([("t", value)]));
    }
    let message = with_headers(table([("t", value)]));
    let event = as_aws(message);
    let mut depth = 0;
    let mut at = headers_of(&event);
    while let Value::Object(inner) = at {
        at = &inner["t"];
        depth += 1;
    }
    assert_eq!(depth, 65);
    assert!(at.is_null());
}

#[test]
fn strict_consumers_decode_what_the_wire_form_leaves_null() {
    let messages = [message(BasicProperties::default(), false, b"a"), documented_message()];
    let wire = encode(&mut RecordEncoder::new(HeaderBytes::Signed, false), &messages, "q", "/");
    assert!(serde_json::from_slice::<RabbitMqEvent>(&wire).is_err(), "the switch would not be needed");

    let strict = encode(&mut RecordEncoder::new(HeaderBytes::Signed, true), &messages, "q", "/");
    let decoded: RabbitMqEvent = serde_json::from_slice(&strict).expect("a typed consumer reads it");
    let records = &decoded.messages_by_queue["q::/"];
    assert_eq!(decoded.event_source.as_deref(), Some("aws:rmq"));
    assert_eq!(decoded.event_source_arn.as_deref(), Some(ARN));
    assert_eq!(records[0].data.as_deref(), Some("YQ=="));
    assert_eq!(records[0].basic_properties.delivery_mode, 1);
    assert_eq!(records[0].basic_properties.priority, 0);
    assert_eq!(records[1].basic_properties.priority, 34);
    assert_eq!(records[1].basic_properties.timestamp.as_deref(), Some("Jan 1, 1970, 12:33:41 AM"));
    assert_eq!(records[1].basic_properties.headers["numberInHeader"], 10);
    assert_eq!(records[1].basic_properties.body_size, 43);
}

#[test]
fn records_of_every_size_share_buffers_without_mixing() {
    let mut encoder = RecordEncoder::new(HeaderBytes::Signed, false);
    let messages: Vec<_> =
        (0..200).map(|n: usize| message(BasicProperties::default(), false, &vec![b'a'; n * n])).collect();
    let bytes = encode(&mut encoder, &messages, "q", "/");
    let event: Value = serde_json::from_slice(&bytes).expect("is JSON");
    let records = event["rmqMessagesByQueue"]["q::/"].as_array().expect("a list");
    for (n, record) in records.iter().enumerate() {
        assert_eq!(record["basicProperties"]["bodySize"], n * n);
        assert_eq!(record["data"].as_str().map(str::len), Some((n * n).div_ceil(3) * 4));
    }
}
