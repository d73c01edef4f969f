//! Strings, numbers, ids and exceptions, as single fields and as single frames.

use bytes::Bytes;
use esm_activemq::openwire::{
    Command, ConsumerId, Decoder, Destination, EncodeError, Encoder, ExceptionResponse, JournalTrace,
    LocalTransactionId, MessageId, MessageKind, ProducerId, Text, Throwable, WireFormat,
};

use crate::vectors::{self, PREFIX};

const TIGHT: WireFormat = WireFormat { tight: true, ..WireFormat::LOOSE };

#[test]
fn a_long_takes_as_many_bytes_as_it_must() {
    // In the tight encoding; in the loose one it is always eight.
    for (value, length) in [
        (0, 0),
        (5, 2),
        (65_535, 2),
        (65_536, 4),
        (i64::from(u32::MAX), 4),
        (i64::from(u32::MAX) + 1, 8),
        (-1, 8),
        (i64::MIN, 8),
    ] {
        let command = Command::from(LocalTransactionId { value, connection_id: None });
        let [loose, tight] = [WireFormat::LOOSE, TIGHT].map(|format| {
            let frame = vectors::encoded(&command, format).slice(PREFIX..);
            assert_eq!(decode(&frame, format), command, "{value}");
            frame.len()
        });
        // A type and the presence of a connection id; a type, and the flags with their length.
        assert_eq!([loose, tight], [2 + 8, 3 + length], "{value}");
    }
}

#[test]
fn strings_are_read_whoever_wrote_them() {
    for (bytes, expected) in [
        (&b""[..], ""),
        (b"plain", "plain"),
        (b"\xc0\x80", "\0"),
        ("é€".as_bytes(), "é€"),
        (b"\xed\xa0\xbd\xed\xb8\x80", "😀"),
        (b"<\xf0\x9f\x98\x80>\xc0\x80", "<😀>\0"),
        (b"\xed\xa0\xbd", "\u{fffd}"),
        (b"\xed\xb8\x80x", "\u{fffd}x"),
        (b"\xed\xa0\xbd\xed\xa0\xbd\xed\xb8\x80", "\u{fffd}😀"),
        (b"a\xff\xc3", "a\u{fffd}\u{fffd}"),
        (b"\xe2\x82", "\u{fffd}\u{fffd}"),
    ] {
        let length = u8::try_from(bytes.len()).unwrap();
        let frame = [&[53, 1, 0, length], bytes].concat();
        assert_eq!(text_of(decode(&frame.into(), WireFormat::LOOSE)).unwrap().to_str(), expected, "{bytes:x?}");
    }
}

#[test]
fn strings_are_written_as_java_reads_them() {
    for (text, bytes, is_ascii) in [
        ("", &b""[..], true),
        ("plain", b"plain", true),
        ("\0", b"\xc0\x80", false),
        ("é€", "é€".as_bytes(), false),
        ("x😀", b"x\xed\xa0\xbd\xed\xb8\x80", false),
    ] {
        let command = trace(Some(Text::from(text)));
        let length = u8::try_from(bytes.len()).unwrap();
        let loose = [&[53, 1, 0, length], bytes].concat();
        assert_eq!(vectors::encoded(&command, WireFormat::LOOSE)[PREFIX..], loose, "{text}");
        let flags = 0b01 | u8::from(is_ascii) << 1;
        let tight = [&[53, 1, flags, 0, length], bytes].concat();
        assert_eq!(vectors::encoded(&command, TIGHT)[PREFIX..], tight, "{text}");
        assert_eq!(Text::from(text), Text::from(text.to_owned()));
    }
}

#[test]
fn null_is_no_empty_string() {
    for format in [WireFormat::LOOSE, TIGHT] {
        let [null, empty] = [None, Some(Text::from(""))].map(|text| vectors::encoded(&trace(text), format));
        assert_ne!(null, empty);
        assert_eq!(text_of(decode(&null.slice(PREFIX..), format)), None);
        assert!(text_of(decode(&empty.slice(PREFIX..), format)).unwrap().is_empty());
    }
}

#[test]
fn strings_may_be_65535_bytes_long_and_no_longer() {
    for format in [WireFormat::LOOSE, TIGHT] {
        for length in [32_767, 32_768, 65_535] {
            let command = trace(Some("x".repeat(length).into()));
            assert_eq!(decode(&vectors::encoded(&command, format).slice(PREFIX..), format), command);
        }
        let mut out = b"before"[..].into();
        let error = Encoder::new(format).encode(&trace(Some("x".repeat(65_536).into())), &mut out);
        assert_eq!(error, Err(EncodeError::StringTooLong(65_536)));
        assert_eq!(out, b"before"[..], "nothing of a frame that failed is sent");
    }
}

#[test]
fn ids_of_producers_and_consumers_have_their_numbers_in_different_order() {
    let numbers = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
    let frame = |type_id| Bytes::from([&[type_id, 1, 0, 1, b'c'][..], &numbers].concat());
    let consumer = Command::from(ConsumerId::new("c", 1, 2));
    let producer = Command::from(ProducerId::new("c", 2, 1));
    for (type_id, id) in [(122, consumer), (123, producer)] {
        assert_eq!(decode(&frame(type_id), WireFormat::LOOSE), id);
        assert_eq!(vectors::encoded(&id, WireFormat::LOOSE)[PREFIX..], frame(type_id));
    }
}

#[test]
fn message_ids_are_shown_as_jms_shows_them() {
    let id = |text_view: Option<&str>, session_id| {
        let producer_id = Some(ProducerId::new("ID:host-43005-1795376260623-1:1", session_id, 1));
        MessageId { text_view: text_view.map(Text::from), producer_id, producer_sequence_id: 3, broker_sequence_id: 7 }
    };
    for (id, expected) in [
        (id(None, 1), "ID:host-43005-1795376260623-1:1:1:1:3"),
        (id(None, -1), "ID:host-43005-1795376260623-1:1:-1:1:3"),
        (id(Some("ID:from-elsewhere"), 1), "ID:from-elsewhere"),
        (id(Some("AMQP-77"), 1), "ID:AMQP-77"),
    ] {
        assert_eq!(id.to_string(), expected);
        assert_eq!(id.detached(), id);
    }
}

#[test]
fn destinations_are_shown_with_their_type() {
    for (destination, expected) in [
        (Destination::Queue("a.b".into()), "queue://a.b"),
        (Destination::Topic("a.b".into()), "topic://a.b"),
        (Destination::TempQueue("a".into()), "temp-queue://a"),
        (Destination::TempTopic("a".into()), "temp-topic://a"),
    ] {
        assert_eq!(destination.to_string(), expected);
    }
}

#[test]
fn causes_and_stack_traces_travel_only_if_that_was_agreed() {
    let throwable = |message: Option<&str>, cause| {
        Some(Box::new(Throwable {
            class: Some("java.lang.SecurityException".into()),
            message: message.map(Text::from),
            stack_trace: Vec::new(),
            cause,
        }))
    };
    let exception = throwable(Some("no"), throwable(None, throwable(Some("deepest"), None)));
    let command = Command::from(ExceptionResponse { correlation_id: 5, exception, ..ExceptionResponse::default() });
    for format in [WireFormat::LOOSE, TIGHT] {
        let format = WireFormat { stack_trace: true, ..format };
        assert_eq!(decode(&vectors::encoded(&command, format).slice(PREFIX..), format), command);

        let format = WireFormat { stack_trace: false, ..format };
        let without = ExceptionResponse {
            correlation_id: 5,
            exception: throwable(Some("no"), None),
            ..ExceptionResponse::default()
        };
        assert_eq!(decode(&vectors::encoded(&command, format).slice(PREFIX..), format), without.into());
    }
}

#[test]
fn long_boolean_streams_have_longer_lengths() {
    let stream = std::fs::read(vectors::folder().join("all-commands/all-v12-tight-nocache-stack.bin")).unwrap();
    let frames = vectors::split(&stream);
    let format = WireFormat { stack_trace: true, ..TIGHT };
    let [.., short, middling, long, _null] = &frames[..] else { panic!("too few frames") };
    for (frame, length_of_stream, elements) in
        [(short, 0..=63, 20), (middling, 0xc0..=0xc0, 100), (long, 0x80..=0x80, 400)]
    {
        assert!(length_of_stream.contains(&frame[1]), "{:x}", frame[1]);
        let Command::ExceptionResponse(response) = decode(frame, format) else { panic!("no exception") };
        assert_eq!(response.exception.unwrap().stack_trace.len(), elements);
    }
}

#[test]
fn messages_of_every_type_are_told_apart_with_their_ids_at_hand() {
    let mut kinds = Vec::new();
    for command in vectors::commands(&vectors::folder().join("rich-loose-nocache"), "broker_to_client") {
        if let Command::MessageDispatch(dispatch) = command {
            let message = dispatch.message.unwrap();
            let id = message.message_id.unwrap().to_string();
            assert!(id.starts_with("ID:vm-"), "{id}");
            kinds.push(message.kind);
        }
    }
    for kind in [MessageKind::Plain, MessageKind::Map, MessageKind::Object, MessageKind::Stream] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
}

#[test]
fn a_pull_that_timed_out_is_answered_without_message_and_destination() {
    let commands =
        vectors::commands(&vectors::folder().join("pull-prefetch0-loose-nocache-nostack"), "broker_to_client");
    let empty = commands.iter().filter(|command| match command {
        Command::MessageDispatch(dispatch) => dispatch.message.is_none() && dispatch.destination.is_none(),
        _ => false,
    });
    assert_eq!(empty.count(), 2);
}

fn decode(frame: &Bytes, format: WireFormat) -> Command {
    Decoder::new(format).decode(frame.clone()).unwrap()
}

fn trace(message: Option<Text>) -> Command {
    JournalTrace { message }.into()
}

fn text_of(command: Command) -> Option<Text> {
    match command {
        Command::JournalTrace(trace) => trace.message,
        other => panic!("{other:?}"),
    }
}
