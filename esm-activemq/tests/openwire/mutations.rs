//! Recorded frames with random damage: whatever arrives, decoding ends, and takes little memory.

use std::env;

use bytes::Bytes;
use esm_activemq::openwire::{
    Command, Decoder, Message, Primitive, Primitives, Properties, WireFormat, oversized_dispatch_head, properties,
};

use crate::{
    all_commands,
    vectors::{self, DIRECTIONS},
};

/// Bodies are inflated up to this length.
const LIMIT: usize = 1 << 16;

/// Frames in a row that belong together, since a cache may tie them.
struct Stream {
    format: WireFormat,
    frames: Vec<Bytes>,
}

#[test]
fn damaged_frames_bring_neither_panic_nor_large_allocations() {
    let rounds = if env::var_os("ESM_TEST_ALL").is_some() { 10_000_000 } else { 200_000 };
    let streams = streams();
    let mut random = fastrand::Rng::with_seed(0x5eed);
    let mut refused = 0;
    for _ in 0..rounds {
        let stream = &streams[random.usize(..streams.len())];
        let index = random.usize(..stream.frames.len());
        let other = &streams[random.usize(..streams.len())].frames;
        let damaged = damage(&stream.frames[index], &other[random.usize(..other.len())], &mut random);
        let mut decoder = Decoder::new(stream.format);
        if stream.format.cache {
            // What the frame may refer to.
            for frame in &stream.frames[index.saturating_sub(8)..index] {
                let _ = decoder.decode(frame.clone());
            }
        }
        let length = damaged.len();
        let mut result = None;
        let allocated = allocation_counter::measure(|| result = Some(read_all(&mut decoder, damaged)));
        assert!(allocated.bytes_max < (1 << 18) + 64 * length as u64, "{length} bytes: {allocated:?}");
        refused += u32::from(result.unwrap().is_none());
    }
    assert!(refused > rounds / 10, "{refused} of {rounds} were refused, so hardly any was damaged");
    assert!(refused < rounds / 10 * 9, "{refused} of {rounds} were refused, so hardly any was looked into");
}

/// Reads everything that can be read of a frame, or nothing if it is refused.
fn read_all(decoder: &mut Decoder, frame: Bytes) -> Option<()> {
    let _ = oversized_dispatch_head(&frame);
    let command = decoder.decode(frame).ok()?;
    match &command {
        Command::Message(message) => read_message(message),
        Command::MessageDispatch(dispatch) => dispatch.message.as_ref().map_or((), read_message),
        Command::WireFormatInfo(info) => drop(info.options()),
        _ => {}
    }
    Some(())
}

fn read_message(message: &Message) {
    let _ = message.text(LIMIT);
    let _ = message.bytes(LIMIT);
    if let Some(Ok(entries)) = message.marshalled_properties.as_deref().map(properties) {
        read_map(entries);
    }
    // Map messages have the same form in their bodies.
    if let Some(Ok(entries)) = message.content.as_deref().map(properties) {
        read_map(entries);
    }
}

fn read_map(entries: Properties<'_>) {
    entries.map_while(Result::ok).for_each(|(_, value)| read_value(value));
}

fn read_list(values: Primitives<'_>) {
    values.map_while(Result::ok).for_each(read_value);
}

fn read_value(value: Primitive<'_>) {
    match value {
        Primitive::Map(entries) => read_map(entries),
        Primitive::List(values) => read_list(values),
        _ => {}
    }
}

fn damage(frame: &Bytes, other: &Bytes, random: &mut fastrand::Rng) -> Bytes {
    let mut bytes = frame.to_vec();
    for _ in 0..random.usize(1..=3) {
        if bytes.is_empty() {
            break;
        }
        let at = random.usize(..bytes.len());
        match random.u8(..8) {
            0 => bytes[at] ^= 1 << random.u8(..8),
            1 => bytes[at] = random.u8(..),
            2 => bytes[at] = *random.choice(&[0, 1, 0x7f, 0x80, 0xc0, 0xff]).unwrap(),
            3 => bytes.truncate(at),
            4 => bytes.insert(at, random.u8(..)),
            5 => drop(bytes.drain(at..(at + random.usize(1..=8)).min(frame.len()).min(bytes.len()).max(at))),
            6 => {
                let length = random.choice(&[0, 1, 127, 32_767, 65_535, 0x7fff_ffff, 0xffff_ffff_u32]).unwrap();
                let length = length.to_be_bytes();
                let end = bytes.len().min(at + 4);
                bytes[at..end].copy_from_slice(&length[..end - at]);
            }
            _ => {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.usize(..other.len())..]);
            }
        }
    }
    bytes.into()
}

/// Every recorded direction behind its first frame, the first frames, and every file of all commands.
fn streams() -> Vec<Stream> {
    let mut streams = Vec::new();
    let mut firsts = Stream { format: WireFormat::INITIAL, frames: Vec::new() };
    for capture in vectors::captures() {
        for direction in DIRECTIONS {
            let mut frames = vectors::frames(&capture, direction);
            firsts.frames.push(frames.remove(0));
            streams.push(Stream { format: vectors::negotiated(&capture), frames });
        }
    }
    streams.push(firsts);
    streams.extend(all_commands::streams().map(|(format, frames)| Stream { format, frames }));
    streams
}
