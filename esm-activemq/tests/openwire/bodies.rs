//! Bodies of text and bytes messages.

use std::{borrow::Cow, io::Write as _};

use bytes::Bytes;
use esm_activemq::openwire::{BodyError, Command, Message, MessageKind};
use flate2::{Compression, write::ZlibEncoder};

use crate::vectors;

const LIMIT: usize = 1 << 20;

fn message(kind: MessageKind, content: Option<Vec<u8>>, compressed: bool) -> Message {
    Message { kind, content: content.map(Bytes::from), compressed, ..Message::default() }
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes behind a length of four bytes.
fn prefixed(length: usize, bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(length).unwrap().to_be_bytes(), bytes].concat()
}

#[test]
fn texts_are_read() {
    for (content, expected) in [
        (None, Ok(None)),
        (Some(&b"\xff\xff\xff\xff"[..]), Ok(None)),
        (Some(b"\0\0\0\0"), Ok(Some(""))),
        (Some(b"\0\0\0\x05hello"), Ok(Some("hello"))),
        (Some(b"\0\0\0\x02hello"), Ok(Some("he"))),
        (Some(b"\0\0\0\x0fA\xc0\x80\xc3\xa9\xe2\x82\xac\xed\xa0\xbd\xed\xb8\x80z"), Ok(Some("A\0é€😀z"))),
        (Some(b"\0\0\0\x04\xf0\x9f\x98\x80"), Ok(Some("😀"))),
        (Some(b"\0\0\0\x05hell"), Err(BodyError::Truncated(1))),
        (Some(b"\0\0"), Err(BodyError::Truncated(2))),
        (Some(b""), Err(BodyError::Truncated(4))),
        (Some(b"\xff\xff\xff\xfe"), Err(BodyError::NegativeLength(-2))),
        (Some(b"\x7f\xff\xff\xff"), Err(BodyError::Truncated(0x7fff_ffff))),
    ] {
        let message = message(MessageKind::Text, content.map(<[u8]>::to_vec), false);
        assert_eq!(message.text(LIMIT), expected.map(|text| text.map(Cow::Borrowed)), "{content:x?}");
    }
}

#[test]
fn plain_texts_and_bytes_are_not_copied() {
    let text = Message::with_text("grüße");
    assert!(matches!(text.text(LIMIT), Ok(Some(Cow::Borrowed("grüße")))));
    let bytes = Message::with_bytes(Bytes::from_static(&[0, 1, 0xff]));
    assert!(matches!(bytes.bytes(LIMIT), Ok(Cow::Borrowed([0, 1, 0xff]))));
}

#[test]
fn texts_of_ours_are_read_as_they_were() {
    for text in ["", "plain", "A\0é€😀z", &"x".repeat(100_000)] {
        assert_eq!(Message::with_text(text).text(LIMIT), Ok(Some(text.into())));
    }
}

#[test]
fn a_body_is_not_taken_for_one_of_another_type() {
    assert_eq!(Message::with_text("x").bytes(LIMIT), Err(BodyError::OtherKind));
    assert_eq!(Message::with_bytes(Bytes::new()).text(LIMIT), Err(BodyError::OtherKind));
    assert_eq!(message(MessageKind::Object, Some(vec![1]), false).bytes(LIMIT), Err(BodyError::OtherKind));
}

#[test]
fn bytes_without_content_are_empty() {
    for (content, compressed) in [(None, false), (None, true), (Some(vec![]), false), (Some(vec![]), true)] {
        assert_eq!(message(MessageKind::Bytes, content, compressed).bytes(LIMIT), Ok(Cow::Borrowed(&[][..])));
    }
}

#[test]
fn compressed_texts_are_inflated() {
    let long = "grüße ".repeat(10_000);
    for text in ["", "hello", &long] {
        let content = deflated(&prefixed(text.len(), text.as_bytes()));
        assert_eq!(message(MessageKind::Text, Some(content), true).text(LIMIT), Ok(Some(text.into())));
    }
    let null = message(MessageKind::Text, Some(deflated(b"\xff\xff\xff\xff")), true);
    assert_eq!(null.text(LIMIT), Ok(None));
}

#[test]
fn compressed_bytes_end_where_their_length_says() {
    let buffer = [&b"short"[..], &[0; 1023]].concat();
    for (length, inflated, expected) in [
        (5000, &vec![b'b'; 5000][..], Ok(&vec![b'b'; 5000][..])),
        (5, &buffer, Ok(&b"short"[..])),
        (0, &buffer, Ok(&b""[..])),
        (6, b"short", Err(BodyError::Truncated(1))),
        (5000, b"", Err(BodyError::Truncated(5000))),
    ] {
        let content = prefixed(length, &deflated(inflated));
        let message = message(MessageKind::Bytes, Some(content), true);
        assert_eq!(message.bytes(LIMIT), expected.map(Cow::Borrowed), "{length}");
    }
}

#[test]
fn what_is_no_zlib_stream_is_an_error_of_its_message() {
    let text = message(MessageKind::Text, Some(b"garbage".to_vec()), true);
    assert_eq!(text.text(LIMIT), Err(BodyError::Damaged));
    let bytes = message(MessageKind::Bytes, Some(b"\0\0\0\x05garbage".to_vec()), true);
    assert_eq!(bytes.bytes(LIMIT), Err(BodyError::Damaged));
    let nothing = message(MessageKind::Text, Some(vec![]), true);
    assert_eq!(nothing.text(LIMIT), Err(BodyError::Truncated(4)));
    let negative = message(MessageKind::Bytes, Some(b"\xff\xff\xff\xff".to_vec()), true);
    assert_eq!(negative.bytes(LIMIT), Err(BodyError::NegativeLength(-1)));
}

#[test]
fn a_stream_that_is_cut_off_is_an_error_of_its_message() {
    let noise: Vec<u8> = std::iter::repeat_with({
        let mut random = fastrand::Rng::with_seed(1);
        move || random.u8(..)
    })
    .take(5000)
    .collect();
    let mut content = prefixed(5000, &deflated(&noise));
    content.truncate(content.len() / 2);
    let result = message(MessageKind::Bytes, Some(content), true).bytes(LIMIT).map(Cow::into_owned);
    assert!(matches!(result, Err(BodyError::Truncated(1..5000))), "{result:?}");
}

#[test]
fn bombs_are_refused_before_they_are_inflated() {
    let zeros = deflated(&vec![0; 50 << 20]);
    let huge = usize::try_from(i32::MAX).unwrap();
    let text = message(MessageKind::Text, Some(deflated(&prefixed(huge, &[0; 1000]))), true);
    let bytes = message(MessageKind::Bytes, Some(prefixed(huge, &zeros)), true);
    let allocated = allocation_counter::measure(|| {
        assert_eq!(text.text(LIMIT), Err(BodyError::TooLong { length: huge, limit: LIMIT }));
        assert_eq!(bytes.bytes(LIMIT), Err(BodyError::TooLong { length: huge, limit: LIMIT }));
    });
    assert!(allocated.bytes_max < 100_000, "{allocated:?}");
}

#[test]
fn memory_is_taken_as_a_body_inflates_and_not_as_it_announces() {
    let bytes = message(MessageKind::Bytes, Some(prefixed(1 << 30, &deflated(b"short"))), true);
    let allocated = allocation_counter::measure(|| {
        assert_eq!(bytes.bytes(usize::MAX), Err(BodyError::Truncated((1 << 30) - 5)));
    });
    assert!(allocated.bytes_max < 100_000, "{allocated:?}");
}

#[test]
fn recorded_bodies_are_read() {
    let bodies = |capture: &str| {
        let commands = vectors::commands(&vectors::folder().join(capture), "broker_to_client");
        let messages = commands.into_iter().filter_map(|command| match command {
            Command::MessageDispatch(dispatch) => dispatch.message,
            _ => None,
        });
        let body = |message: Message| match message.kind {
            MessageKind::Text => message.text(LIMIT).unwrap().map(|text| text.into_owned().into_bytes()),
            MessageKind::Bytes => Some(message.bytes(LIMIT).unwrap().into_owned()),
            _ => Some(b"not read".to_vec()),
        };
        messages.map(body).collect::<Vec<_>>()
    };
    let plain: Vec<Vec<u8>> = vec![b"hello".to_vec(), b"\0\x01\x02\xff".to_vec()];
    for capture in ["basic-loose-nocache", "basic-loose-cache", "basic-tight-nocache", "basic-tight-cache"] {
        assert_eq!(bodies(capture), plain.iter().cloned().map(Some).collect::<Vec<_>>());
    }
    for capture in ["compressed-loose-nocache", "compressed-tight-cache"] {
        let bodies = bodies(capture);
        assert_eq!(
            bodies[1..].iter().map(|body| body.as_ref().map(Vec::len)).collect::<Vec<_>>(),
            [Some(5000), Some(5), None, Some(0), Some(0), Some(8)]
        );
        assert!(bodies[0].as_ref().unwrap().starts_with(b"compress me compress me"));
    }
    let stomp = bodies("from-stomp-standard-utf8-loose-nocache-nostack");
    assert!(stomp.iter().flatten().any(|body| String::from_utf8_lossy(body).contains('😀')), "{stomp:?}");
}
