//! What the fuzzers call with bytes of their choice, and the tests with recorded bytes and damaged ones. Whatever
//! the bytes are, nothing here may panic.

use std::iter;

use bytes::{Bytes, BytesMut};
use esm_activemq::openwire::{
    self, Command, Decoder, Encoder, Message, MessageKind, Primitive, Properties, WireFormat, WireFormatInfo,
};

/// Frames and inflated bodies are read up to this length.
const LIMIT: usize = 1 << 16;

/// A byte that says which format it is, and frames with their lengths. Returns how many of them were read.
pub(crate) fn frames(data: &[u8]) -> usize {
    let Some((format, stream)) = data.split_first() else { return 0 };
    let format = format_of(*format);
    let mut decoder = Decoder::new(format);
    let mut buffer = BytesMut::from(stream);
    let frames = iter::from_fn(|| openwire::split_frame(&mut buffer, LIMIT).ok().flatten());
    frames.map_while(|frame| read_frame(&mut decoder, format, frame)).count()
}

/// The properties of a message. What they say stays the same when it is written and read again.
pub(crate) fn properties(data: &[u8]) {
    let Ok(entries) = openwire::properties(data) else { return };
    let entries: Vec<_> = entries.map_while(Result::ok).collect();
    for (_, value) in &entries {
        read_value(value);
    }
    // A name can become too long, because what is no character in it becomes one of three bytes.
    let Ok(written) = openwire::encode_properties(entries) else { return };
    let again: Vec<_> = openwire::properties(&written).expect("a map").map(|entry| entry.expect("an entry")).collect();
    assert_eq!(openwire::encode_properties(again).expect("the same map"), written);
}

/// A byte that says whether it is compressed, and the content of a message.
pub(crate) fn bodies(data: &[u8]) {
    let Some((compressed, content)) = data.split_first() else { return };
    for kind in [MessageKind::Text, MessageKind::Bytes, MessageKind::Map] {
        read_message(&Message {
            kind,
            compressed: compressed % 2 == 1,
            content: Some(Bytes::copy_from_slice(content)),
            ..Message::default()
        });
    }
}

/// The first frame of a broker, without its length.
pub(crate) fn negotiation(data: &[u8]) {
    let command = Decoder::new(WireFormat::INITIAL).decode(Bytes::copy_from_slice(data));
    if let Ok(Command::WireFormatInfo(theirs)) = command {
        let _ = openwire::negotiate(&WireFormatInfo::request(0, 30_000), &theirs);
    }
}

/// The byte that [`frames`] takes for a format.
pub(crate) fn byte_of(format: WireFormat) -> u8 {
    let version = u8::try_from(format.version - 9).expect("a version from 9 to 12");
    u8::from(format.tight) | u8::from(format.cache) << 1 | u8::from(format.stack_trace) << 2 | version << 3
}

fn format_of(byte: u8) -> WireFormat {
    WireFormat {
        version: 9 + i32::from(byte >> 3 & 3),
        tight: byte & 1 != 0,
        cache: byte & 2 != 0,
        cache_size: 1024,
        stack_trace: byte & 4 != 0,
    }
}

/// Reads all that can be read of a frame, and checks that it is written with the same meaning. Returns nothing if
/// it cannot be read.
pub(crate) fn read_frame(decoder: &mut Decoder, format: WireFormat, frame: Bytes) -> Option<()> {
    let _ = openwire::oversized_dispatch_head(&frame);
    let command = decoder.decode(frame).ok()?;
    match &command {
        Command::Message(message) => read_message(message),
        Command::MessageDispatch(dispatch) => dispatch.message.as_ref().map_or((), read_message),
        Command::WireFormatInfo(info) => drop(info.options()),
        _ => {}
    }
    let mut written = BytesMut::new();
    Encoder::new(format).encode(&command, &mut written).expect("what came from a frame fits into one");
    let frame = openwire::split_frame(&mut written, usize::MAX).expect("a length").expect("a whole frame");
    assert_eq!(Decoder::new(format).decode(frame).expect("a frame of our own"), command);
    Some(())
}

fn read_message(message: &Message) {
    let _ = message.text(LIMIT);
    let _ = message.bytes(LIMIT);
    // The bodies of map messages have the form of properties.
    for map in [&message.marshalled_properties, &message.content].into_iter().flatten() {
        if let Ok(entries) = openwire::properties(map) {
            read_map(entries);
        }
    }
}

fn read_map(entries: Properties<'_>) {
    entries.map_while(Result::ok).for_each(|(_, value)| read_value(&value));
}

fn read_value(value: &Primitive<'_>) {
    match value {
        Primitive::Map(entries) => read_map(entries.clone()),
        Primitive::List(values) => values.clone().map_while(Result::ok).for_each(|value| read_value(&value)),
        _ => {}
    }
}
