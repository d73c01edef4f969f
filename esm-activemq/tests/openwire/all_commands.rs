//! Every type with every field set and with none, as the Java library writes it, in every encoding.

use std::{collections::BTreeSet, fs, path::PathBuf};

use bytes::Bytes;
use esm_activemq::openwire::{Command, Decoder, WireFormat};

use crate::vectors::{self, PREFIX};

/// One file of frames in a row.
struct File {
    name: String,
    format: WireFormat,
    frames: Vec<(String, Bytes)>,
}

#[test]
fn every_command_in_every_encoding_is_written_as_it_was_read() {
    let mut types = BTreeSet::new();
    for file in files().filter(|file| !file.format.cache) {
        for (name, frame, command) in decode(&file) {
            types.insert(command.type_id());
            assert_eq!(vectors::encoded(&command, file.format).slice(PREFIX..), frame, "{name} in {}", file.name);
        }
    }
    // All 56 and the null command.
    assert_eq!(types.len(), 57);
}

#[test]
fn every_command_with_a_cache_says_the_same_as_without_one() {
    let plain: Vec<File> = files().filter(|file| !file.format.cache).collect();
    for file in files().filter(|file| file.format.cache) {
        let is_twin = |plain: &&File| {
            let (ours, theirs) = (file.format, plain.format);
            (ours.version, ours.tight, ours.stack_trace) == (theirs.version, theirs.tight, theirs.stack_trace)
        };
        let without = decode(plain.iter().find(is_twin).unwrap());
        let with: Vec<_> = decode(&file).collect();
        for ((name, _, with), (_, _, without)) in with.iter().zip(without) {
            assert_eq!(timeless(with.clone()), timeless(without), "{name} in {}", file.name);
        }

        for (name, _, command) in with {
            let frame = vectors::encoded(&command, file.format).slice(PREFIX..);
            assert_eq!(Decoder::new(file.format).decode(frame).unwrap(), command, "{name} in {}", file.name);
        }
    }
}

/// Every file as its format and its frames.
pub(crate) fn streams() -> impl Iterator<Item = (WireFormat, Vec<Bytes>)> {
    files().map(|file| (file.format, file.frames.into_iter().map(|(_, frame)| frame).collect()))
}

/// The files were written one after another, and a broker's properties say when.
fn timeless(mut command: Command) -> Command {
    if let Command::BrokerInfo(info) = &mut command {
        info.network_properties = None;
    }
    command
}

fn files() -> impl Iterator<Item = File> {
    let mut paths: Vec<PathBuf> = fs::read_dir(vectors::folder().join("all-commands"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .collect();
    paths.sort();
    assert_eq!(paths.len(), 14);
    paths.into_iter().map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let parts: Vec<&str> = name.split('-').collect();
        let format = WireFormat {
            version: parts[1][1..].parse().unwrap(),
            tight: parts[2] == "tight",
            cache: parts[3] == "cache",
            cache_size: 1024,
            stack_trace: parts[4] == "stack",
        };
        let index = fs::read_to_string(path.with_extension("idx")).unwrap();
        let names = index.lines().map(|line| line.split_once(' ').unwrap().1.to_owned());
        let frames = vectors::split(&fs::read(&path).unwrap());
        assert_eq!(frames.len(), names.clone().count());
        File { format, frames: names.zip(frames).collect(), name }
    })
}

/// Every frame but those of destinations without a name, which Java writes and does not read.
fn decode(file: &File) -> impl Iterator<Item = (&str, &Bytes, Command)> {
    let mut decoder = Decoder::new(file.format);
    file.frames.iter().filter_map(move |(name, frame)| match decoder.decode(frame.clone()) {
        Ok(command) => Some((name.as_str(), frame, command)),
        Err(error) => {
            assert_eq!(error.to_string(), "Destination.physical_name is null", "{name} in {}", file.name);
            assert!(["Queue default", "Topic default"].iter().any(|end| name.ends_with(end)), "{name}");
            None
        }
    })
}
