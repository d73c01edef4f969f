//! The recorded bytes in `tests/vectors`, frame by frame. Its README says what is in there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use esm_activemq::openwire::{Command, Decoder, Encoder, WireFormat, WireFormatInfo, negotiate, split_frame};

/// Both directions of a connection.
pub(crate) const DIRECTIONS: [&str; 2] = ["client_to_broker", "broker_to_client"];

/// The bytes that announce a frame's length.
pub(crate) const PREFIX: usize = 4;

/// The folder with all the vectors.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// Every recorded connection, by its folder.
pub(crate) fn captures() -> Vec<PathBuf> {
    let mut captures: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("decoded.jsonl").exists())
        .collect();
    captures.sort();
    assert!(captures.len() > 20, "the captures are not where they should be");
    captures
}

/// One direction of a connection as frames without their lengths.
pub(crate) fn frames(capture: &Path, direction: &str) -> Vec<Bytes> {
    split(&fs::read(capture.join(direction).with_extension("bin")).unwrap())
}

/// Frames in a row, without their lengths.
pub(crate) fn split(stream: &[u8]) -> Vec<Bytes> {
    let mut buffer = BytesMut::from(stream);
    let mut frames = Vec::new();
    while let Some(frame) = split_frame(&mut buffer, stream.len()).unwrap() {
        frames.push(frame);
    }
    assert!(buffer.is_empty(), "the last frame is cut off");
    frames
}

/// What both sides of a recorded connection agreed on.
pub(crate) fn negotiated(capture: &Path) -> WireFormat {
    let [ours, theirs] = DIRECTIONS.map(|direction| first(&frames(capture, direction)));
    negotiate(&ours, &theirs).unwrap().format
}

/// One direction of a connection as commands.
pub(crate) fn commands(capture: &Path, direction: &str) -> Vec<Command> {
    let frames = frames(capture, direction);
    let mut decoder = Decoder::new(negotiated(capture));
    let rest = frames[1..].iter().map(|frame| decoder.decode(frame.clone()).unwrap());
    std::iter::once(first(&frames).into()).chain(rest).collect()
}

/// A frame with its length, written anew.
pub(crate) fn encoded(command: &Command, format: WireFormat) -> Bytes {
    let mut out = BytesMut::new();
    Encoder::new(format).encode(command, &mut out).unwrap();
    out.freeze()
}

fn first(frames: &[Bytes]) -> WireFormatInfo {
    match Decoder::new(WireFormat::INITIAL).decode(frames[0].clone()).unwrap() {
        Command::WireFormatInfo(info) => info,
        other => panic!("a connection began with {other:?}"),
    }
}
