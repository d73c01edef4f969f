//! The recorded bytes as what the fuzzers start from.

use std::{fs, path::Path};

use bytes::Bytes;
use esm_activemq::openwire::{Command, Message, WireFormat};

use crate::{all_commands, targets, vectors};

/// Inputs of each fuzz target.
struct Corpora {
    frames: Vec<Vec<u8>>,
    properties: Vec<Vec<u8>>,
    bodies: Vec<Vec<u8>>,
    negotiation: Vec<Vec<u8>>,
}

#[test]
fn the_fuzz_targets_take_all_recorded_bytes() {
    let corpora = corpora();
    for stream in &corpora.frames {
        assert!(targets::frames(stream) > 0);
    }
    assert!(corpora.properties.len() > 10 && corpora.bodies.len() > 50 && corpora.negotiation.len() > 40);
    corpora.properties.iter().for_each(|input| targets::properties(input));
    corpora.bodies.iter().for_each(|input| targets::bodies(input));
    corpora.negotiation.iter().for_each(|input| targets::negotiation(input));
}

#[test]
#[ignore = "writes files"]
fn recorded_bytes_become_the_corpora() {
    let corpora = corpora();
    for (target, inputs) in [
        ("frames", corpora.frames),
        ("properties", corpora.properties),
        ("bodies", corpora.bodies),
        ("negotiation", corpora.negotiation),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        fs::create_dir_all(&folder).unwrap();
        for (index, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("recorded-{index:04}")), input).unwrap();
        }
    }
}

fn corpora() -> Corpora {
    let mut corpora =
        Corpora { frames: Vec::new(), properties: Vec::new(), bodies: Vec::new(), negotiation: Vec::new() };
    for stream in streams() {
        if stream.format == WireFormat::INITIAL {
            corpora.negotiation.extend(stream.frames.iter().map(|frame| frame.to_vec()));
            continue;
        }
        let mut input = vec![targets::byte_of(stream.format)];
        for frame in &stream.frames {
            input.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
            input.extend_from_slice(frame);
        }
        corpora.frames.push(input);
    }
    for message in messages() {
        corpora.properties.extend(message.marshalled_properties.map(|bytes| bytes.to_vec()));
        corpora.bodies.extend(message.content.map(|content| [&[u8::from(message.compressed)], &content[..]].concat()));
    }
    corpora
}

/// Every recorded message.
fn messages() -> Vec<Message> {
    let mut messages = Vec::new();
    for capture in vectors::captures() {
        for command in vectors::DIRECTIONS.iter().flat_map(|direction| vectors::commands(&capture, direction)) {
            match command {
                Command::Message(message) => messages.push(*message),
                Command::MessageDispatch(dispatch) => messages.extend(dispatch.message),
                _ => {}
            }
        }
    }
    messages
}

/// Frames in a row that belong together, since a cache may tie them.
pub(crate) struct Stream {
    pub(crate) format: WireFormat,
    pub(crate) frames: Vec<Bytes>,
}

/// Every recorded direction behind its first frame, the first frames, and every file of all commands.
pub(crate) fn streams() -> Vec<Stream> {
    let mut streams = Vec::new();
    let mut firsts = Stream { format: WireFormat::INITIAL, frames: Vec::new() };
    for capture in vectors::captures() {
        for direction in vectors::DIRECTIONS {
            let mut frames = vectors::frames(&capture, direction);
            firsts.frames.push(frames.remove(0));
            streams.push(Stream { format: vectors::negotiated(&capture), frames });
        }
    }
    streams.push(firsts);
    streams.extend(all_commands::streams().map(|(format, frames)| Stream { format, frames }));
    streams
}
