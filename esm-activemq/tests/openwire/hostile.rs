//! Frames that nobody means well with, and streams cut anywhere.

use std::iter;

use bytes::{Bytes, BytesMut};
use esm_activemq::openwire::{
    Command, DecodeError, Decoder, FrameError, MessageKind, Problem, WireFormat, oversized_dispatch_head, split_frame,
};

use crate::vectors::{self, PREFIX};

const LIMIT: usize = 1 << 20;

const WITH_TRACES: WireFormat = WireFormat { stack_trace: true, ..WireFormat::LOOSE };

fn decode(frame: impl Into<Bytes>, format: WireFormat) -> Result<Command, DecodeError> {
    Decoder::new(format).decode(frame.into())
}

/// A dispatch of a text message, in the loose encoding without a cache.
fn dispatch() -> Bytes {
    let frames = vectors::frames(&vectors::folder().join("basic-loose-nocache"), "broker_to_client");
    frames.into_iter().find(|frame| frame[0] == 21).unwrap()
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    for (length, expected) in [
        (0, FrameError::Length(0)),
        (-1, FrameError::Length(-1)),
        (i32::MIN, FrameError::Length(i32::MIN)),
        (1_048_577, FrameError::TooLong { length: LIMIT + 1, limit: LIMIT }),
        (i32::MAX, FrameError::TooLong { length: 0x7fff_ffff, limit: LIMIT }),
    ] {
        let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
        let allocated = allocation_counter::measure(|| assert_eq!(split_frame(&mut buffer, LIMIT), Err(expected)));
        assert_eq!(allocated.count_total, 0);
        assert_eq!(buffer.len(), PREFIX, "the stream is as it was");
    }
}

#[test]
fn frames_are_found_wherever_the_stream_is_cut() {
    let capture = vectors::folder().join("basic-loose-nocache");
    let stream = std::fs::read(capture.join("broker_to_client.bin")).unwrap();
    let whole = vectors::split(&stream);
    for cut in 0..=stream.len() {
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for part in [&stream[..cut], &stream[cut..]] {
            buffer.extend_from_slice(part);
            while let Some(frame) = split_frame(&mut buffer, LIMIT).unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames, whole, "{cut}");
    }
}

#[test]
fn an_unfinished_frame_reserves_nothing() {
    let mut buffer = BytesMut::from(&b"\0\x0f\xff\xff\x15"[..]);
    let allocated = allocation_counter::measure(|| assert_eq!(split_frame(&mut buffer, LIMIT), Ok(None)));
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn every_frame_that_is_cut_short_is_an_error_that_names_a_field() {
    for capture in vectors::captures() {
        let format = vectors::negotiated(&capture);
        if format.cache {
            continue;
        }
        for frame in &vectors::frames(&capture, "broker_to_client")[1..] {
            for length in 1..frame.len() {
                let error = decode(frame.slice(..length), format).unwrap_err().to_string();
                let is_told = ["needs", "announces", "lies behind"].iter().any(|problem| error.contains(problem));
                assert!(is_told && !error.starts_with("frame"), "{error}");
            }
        }
    }
}

#[test]
fn errors_name_the_field() {
    let pull = vectors::frames(&vectors::folder().join("pull-prefetch0-loose-nocache-nostack"), "client_to_broker")
        .into_iter()
        .find(|frame| frame[0] == 20)
        .unwrap();
    // At the end stand eight bytes of a timeout, no correlation id and no message id.
    let error = decode(pull.slice(..pull.len() - 5), WireFormat::LOOSE).unwrap_err();
    assert_eq!(error.to_string(), "MessagePull.timeout needs 3 more bytes");

    let error = decode(dispatch().slice(..100), WireFormat::LOOSE).unwrap_err();
    assert_eq!(error.to_string(), "MessageDispatch.message.producer_id.connection_id needs 8 more bytes");
}

#[test]
fn bytes_left_over_are_an_error() {
    let frame = [&dispatch()[..], b"xyz"].concat();
    let error = decode(frame, WireFormat::LOOSE).unwrap_err();
    assert_eq!(error.to_string(), "MessageDispatch leaves 3 bytes over");
    assert_eq!(decode(&[0, 0][..], WireFormat::LOOSE).unwrap_err().problem(), &Problem::LeftOver(1));

    let tight = WireFormat { tight: true, ..WireFormat::LOOSE };
    let error = decode(&[53, 2, 0, 0][..], tight).unwrap_err();
    assert_eq!(error.to_string(), "JournalTrace leaves 1 bytes of the boolean stream over");
}

#[test]
fn lengths_and_counts_beyond_the_frame_allocate_nothing() {
    for (frame, expected) in [
        (&b"\x35\x01\xff\xffx"[..], "JournalTrace.message needs 65534 more bytes"),
        (b"\x3c\0\0\0\x01\x01\x7f\xff\xff\xff", "PartialCommand.data needs 2147483647 more bytes"),
        (b"\x3c\0\0\0\x01\x01\xff\xff\xff\xff", "PartialCommand.data announces a length of -1"),
        (
            b"\x21\0\0\0\x01\0\0\0\0\x01\x01\x7f\xff",
            "DataArrayResponse.data announces 32767 elements, more than the frame can hold",
        ),
        (b"\x21\0\0\0\x01\0\0\0\0\x01\x01\xff\xff", "DataArrayResponse.data announces a length of -1"),
        (
            b"\x1f\0\0\0\x01\0\0\0\0\x01\x01\0\0\x7f\xff",
            "ExceptionResponse.exception.stack_trace announces 32767 elements, more than the frame can hold",
        ),
    ] {
        let frame = Bytes::from_static(frame);
        let allocated = allocation_counter::measure(|| {
            assert_eq!(decode(frame, WITH_TRACES).unwrap_err().to_string(), expected);
        });
        // The error itself, and the comparison.
        assert!(allocated.bytes_max < 1000, "{expected}: {allocated:?}");
    }
}

/// In the tight encoding an element that is null takes a bit, so a small frame can announce a great many.
#[test]
fn arrays_of_nothing_end_somewhere() {
    // Each array begins with a response that holds the next array; everything else in them is null.
    let one: Vec<bool> = iter::chain([false, true], [true, false, true].repeat(9)).collect();
    let mut flags = vec![0_u8; 65_535];
    for (index, flag) in one.iter().enumerate() {
        flags[index / 8] |= u8::from(*flag) << (index % 8);
    }
    let level = [33, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff];
    let frame = Bytes::from([&[33, 0x80, 0xff, 0xff], &flags[..], &level[1..], &level.repeat(9)].concat());
    let tight = WireFormat { tight: true, ..WireFormat::LOOSE };
    let mut result = None;
    let allocated = allocation_counter::measure(|| result = Some(decode(frame, tight)));
    assert_eq!(result.unwrap().unwrap_err().problem(), &Problem::TooManyElementsInFrame);
    assert!(allocated.bytes_max < 1 << 20, "{allocated:?}");
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    // A response that holds a response that holds a response.
    let one = [1, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let nested = |levels: usize| [&one[1..], &one.repeat(levels)[..], &[0]].concat();
    assert!(decode(nested(16), WireFormat::LOOSE).is_ok());
    for levels in [17, 1000, 100_000] {
        let error = decode(nested(levels), WireFormat::LOOSE).unwrap_err();
        assert_eq!(error.problem(), &Problem::TooDeep);
    }
}

#[test]
fn long_chains_of_causes_are_refused_and_not_followed() {
    // Present, without class, message and stack trace.
    let one = [1, 0, 0, 0, 0];
    let chain = |causes: usize| [&[31, 0, 0, 0, 1, 0, 0, 0, 0, 1][..], &one.repeat(1 + causes), &[0]].concat();
    assert!(decode(chain(32), WITH_TRACES).is_ok());
    for causes in [33, 1000, 100_000] {
        assert_eq!(decode(chain(causes), WITH_TRACES).unwrap_err().problem(), &Problem::TooDeep);
    }
}

#[test]
fn unknown_commands_are_kept_as_they_are() {
    let frame = Bytes::from_static(b"\x4dwhatever");
    for tight in [false, true] {
        let format = WireFormat { tight, ..WireFormat::LOOSE };
        let command = decode(frame.clone(), format).unwrap();
        assert_eq!(command, Command::Unknown { type_id: 77, payload: Bytes::from_static(b"whatever") });
        assert_eq!(vectors::encoded(&command, format)[PREFIX..], frame);
    }
}

#[test]
fn unknown_and_misplaced_structures_inside_a_command_are_errors() {
    for (frame, expected) in [
        (&b"\x20\0\0\0\x01\0\0\0\0\x01\x01\x4d"[..], "DataResponse.data is of the unknown type 77"),
        (b"\x20\0\0\0\x01\0\0\0\0\x01\x01\0", "DataResponse.data is of the unknown type 0"),
        (b"\x0c\0\0\0\x01\0\x01\x6e", "RemoveInfo.object_id is of type 110, which has no place here"),
        (b"\x04\0\0\0\x01\0\x01\x78", "SessionInfo.session_id is of type 120, which has no place here"),
        (b"\x15\0\0\0\0\0\0\0\x01\x16", "MessageDispatch.message is of type 22, which has no place here"),
    ] {
        assert_eq!(decode(frame, WireFormat::LOOSE).unwrap_err().to_string(), expected);
    }
}

#[test]
fn marshalled_forms_are_refused() {
    // No response, no consumer, no destination, a message, in marshalled form.
    let frame = &[21, 1, 0b0001_1000, 0, 0, 0, 0, 28][..];
    let tight = WireFormat { tight: true, ..WireFormat::LOOSE };
    let error = decode(frame, tight).unwrap_err();
    assert_eq!(error.to_string(), "MessageDispatch.message is in marshalled form, which is not supported");
}

#[test]
fn classes_are_nothing_but_names() {
    let class = b"org.springframework.context.support.ClassPathXmlApplicationContext";
    let length = u8::try_from(class.len()).unwrap();
    let frame = [&b"\x1f\0\0\0\x01\0\0\0\0\x02\x01\x01\0"[..], &[length], class, b"\x01\0\x01x"].concat();
    let Ok(Command::ExceptionResponse(response)) = decode(frame, WireFormat::LOOSE) else { panic!("no exception") };
    assert_eq!(response.exception.unwrap().class.unwrap().as_bytes(), class);
}

#[test]
fn passwords_are_not_printed() {
    let commands = vectors::commands(&vectors::folder().join("basic-loose-nocache"), "client_to_broker");
    let Command::ConnectionInfo(info) = &commands[1] else { panic!("{commands:?}") };
    assert_eq!(info.password.as_ref().unwrap().expose().to_str(), "secret");
    assert!(!format!("{info:?}").contains("secret"));
}

#[test]
fn the_head_of_a_dispatch_is_read_as_soon_as_it_is_there() {
    let frame = dispatch();
    let Ok(Command::MessageDispatch(whole)) = decode(frame.clone(), WireFormat::LOOSE) else { panic!("no dispatch") };
    let message = whole.message.unwrap();
    let mut heads = (0..=frame.len()).filter_map(|length| oversized_dispatch_head(&frame[..length]).unwrap());
    let head = heads.next().unwrap();
    assert_eq!(head.consumer_id, whole.consumer_id);
    assert_eq!(head.destination, whole.destination);
    assert_eq!(head.message_id, message.message_id);
    assert_eq!((head.kind, head.persistent), (MessageKind::Text, true));
    assert!(heads.all(|other| other == head));
}

#[test]
fn what_is_no_dispatch_of_a_message_has_no_head() {
    for (frame, expected) in [
        (&[22, 0, 0][..], "MessageDispatch is of type 22, which has no place here"),
        (&[21, 0, 0, 0, 0, 0, 0, 0, 0], "MessageDispatch.message is null"),
        (&[21, 0, 0, 0, 0, 0, 0, 0, 1, 99], "MessageDispatch is of type 99, which has no place here"),
    ] {
        assert_eq!(oversized_dispatch_head(frame).unwrap_err().to_string(), expected);
    }
}

#[test]
fn decoding_a_dispatch_allocates_its_box_and_nothing_else() {
    let frame = dispatch();
    let mut decoder = Decoder::new(WireFormat::LOOSE);
    let allocated = allocation_counter::measure(|| {
        let Ok(Command::MessageDispatch(dispatch)) = decoder.decode(frame.clone()) else { panic!("no dispatch") };
        assert!(dispatch.message.unwrap().text(0).unwrap().is_some());
    });
    assert_eq!(allocated.count_total, 1);
}
