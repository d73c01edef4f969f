//! Values of every structure for tests, made from random bytes, and the round trips that all of them must survive.

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, prelude::*};

use super::{
    Command, Decoder, Destination, Encoder, Message, MessageKind, RemovedId, Secret, StackTraceElement, Text,
    Throwable, TransactionId, WireFormat, WireFormatInfo, message::BlobReference,
};

/// How deep what is optional nests; the decoder allows more.
const MAX_DEPTH: usize = 6;

/// Random bytes. When they are used up everything is zero, empty or absent, so every value ends.
pub(super) struct Source<'a> {
    bytes: &'a [u8],
    depth: usize,
}

/// A value made of random bytes.
pub(super) trait Sample: Sized {
    fn sample(source: &mut Source<'_>) -> Self;
}

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((byte, rest)) => {
                self.bytes = rest;
                *byte
            }
            None => 0,
        }
    }

    fn choose<const N: usize>(&mut self) -> usize {
        usize::from(self.byte()) % N
    }
}

impl Sample for bool {
    fn sample(source: &mut Source<'_>) -> Self {
        source.byte() % 2 == 1
    }
}

impl Sample for i8 {
    fn sample(source: &mut Source<'_>) -> Self {
        source.byte().cast_signed()
    }
}

impl Sample for i32 {
    fn sample(source: &mut Source<'_>) -> Self {
        Self::from_be_bytes([(); 4].map(|()| source.byte()))
    }
}

impl Sample for i64 {
    fn sample(source: &mut Source<'_>) -> Self {
        let all = Self::from_be_bytes([(); 8].map(|()| source.byte()));
        // Each length that a long can have in the tight encoding.
        [0, all & 0xffff, all & 0xffff_ffff, all][source.choose::<4>()]
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(source: &mut Source<'_>) -> Self {
        if source.depth == MAX_DEPTH || source.choose::<4>() == 0 {
            return None;
        }
        source.depth += 1;
        let value = T::sample(source);
        source.depth -= 1;
        Some(value)
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(source: &mut Source<'_>) -> Self {
        (0..source.choose::<4>()).map(|_| T::sample(source)).collect()
    }
}

impl<T: Sample> Sample for Box<T> {
    fn sample(source: &mut Source<'_>) -> Self {
        Self::new(T::sample(source))
    }
}

impl Sample for Text {
    fn sample(source: &mut Source<'_>) -> Self {
        let pieces = ["", "a", "ID:host-1:2", "\0", "é", "€", "😀", "queue"];
        (0..source.choose::<4>()).map(|_| pieces[source.choose::<8>()]).collect::<String>().into()
    }
}

impl Sample for Secret {
    fn sample(source: &mut Source<'_>) -> Self {
        Text::sample(source).into()
    }
}

impl Sample for Bytes {
    fn sample(source: &mut Source<'_>) -> Self {
        (0..source.choose::<20>()).map(|_| source.byte()).collect()
    }
}

impl Sample for Throwable {
    fn sample(source: &mut Source<'_>) -> Self {
        Self {
            class: Sample::sample(source),
            message: Sample::sample(source),
            stack_trace: Sample::sample(source),
            cause: Sample::sample(source),
        }
    }
}

impl Sample for StackTraceElement {
    fn sample(source: &mut Source<'_>) -> Self {
        Self {
            class: Sample::sample(source),
            method: Sample::sample(source),
            file: Sample::sample(source),
            line: Sample::sample(source),
        }
    }
}

impl Sample for Destination {
    fn sample(source: &mut Source<'_>) -> Self {
        [Self::Queue, Self::Topic, Self::TempQueue, Self::TempTopic][source.choose::<4>()](Sample::sample(source))
    }
}

impl Sample for TransactionId {
    fn sample(source: &mut Source<'_>) -> Self {
        if bool::sample(source) { Self::Local(Sample::sample(source)) } else { Self::Xa(Sample::sample(source)) }
    }
}

impl Sample for RemovedId {
    fn sample(source: &mut Source<'_>) -> Self {
        match source.choose::<4>() {
            0 => Self::Connection(Sample::sample(source)),
            1 => Self::Session(Sample::sample(source)),
            2 => Self::Consumer(Sample::sample(source)),
            _ => Self::Producer(Sample::sample(source)),
        }
    }
}

impl Sample for WireFormatInfo {
    fn sample(source: &mut Source<'_>) -> Self {
        Self { version: Sample::sample(source), marshalled_properties: Sample::sample(source) }
    }
}

impl Sample for Message {
    fn sample(source: &mut Source<'_>) -> Self {
        let kind = 23 + source.byte() % 7;
        let kind = MessageKind::from_type(kind).expect("a type of message");
        let mut message = Self::sample_fields(source);
        message.kind = kind;
        message.blob = (kind == MessageKind::Blob).then(|| Box::new(BlobReference::sample_fields(source)));
        message
    }
}

impl Sample for Command {
    fn sample(source: &mut Source<'_>) -> Self {
        let types = usize::from(u8::MAX) + 1;
        let start = usize::from(source.byte());
        let mut candidates = (start..start + types).map(|type_id| u8::try_from(type_id % types).expect("modulo 256"));
        let type_id = candidates.find(|type_id| Self::is_known(*type_id)).expect("one of all is known");
        Self::sample_type(type_id, source)
    }
}

/// Every way in which this version can be written.
fn formats(version: i32) -> impl Iterator<Item = WireFormat> {
    (0..8).map(move |bits| WireFormat {
        version,
        tight: bits & 1 != 0,
        cache: bits & 2 != 0,
        cache_size: 1024,
        stack_trace: bits & 4 != 0,
    })
}

fn encode(command: &Command, format: WireFormat) -> Bytes {
    let mut out = BytesMut::new();
    Encoder::new(format).encode(command, &mut out).expect("a command that can be written");
    out.freeze().slice(size_of::<i32>()..)
}

fn decode(frame: &Bytes, format: WireFormat) -> Command {
    Decoder::new(format).decode(frame.clone()).expect("a frame of our own")
}

fn samples(bytes: &[u8]) -> impl Iterator<Item = Command> {
    (0..=u8::MAX)
        .filter(|type_id| Command::is_known(*type_id))
        .map(|type_id| Command::sample_type(type_id, &mut Source { bytes, depth: 0 }))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn every_structure_comes_back_as_it_was(bytes in vec(any::<u8>(), 0..600)) {
        for command in samples(&bytes) {
            for format in formats(12).filter(|format| format.stack_trace) {
                prop_assert_eq!(&decode(&encode(&command, format), format), &command);
            }
        }
    }

    /// What a version or a format leaves out is lost once, and what is left stays as it is.
    #[test]
    fn every_structure_is_written_as_it_was_read(bytes in vec(any::<u8>(), 0..600), version in 9..=12) {
        for command in samples(&bytes) {
            for format in formats(version) {
                let frame = encode(&command, format);
                prop_assert_eq!(&encode(&decode(&frame, format), format), &frame);
            }
        }
    }
}
