//! Recorded frames with random damage: whatever arrives, decoding ends, and takes little memory.

use std::env;

use bytes::Bytes;
use esm_activemq::openwire::Decoder;

use crate::{corpus, targets};

#[test]
fn damaged_frames_bring_neither_panic_nor_large_allocations() {
    let rounds = if env::var_os("ESM_TEST_ALL").is_some() { 10_000_000 } else { 200_000 };
    let streams = corpus::streams();
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
        let length = damaged.len() as u64;
        let mut result = None;
        let allocated = allocation_counter::measure(|| {
            result = targets::read_frame(&mut decoder, stream.format, damaged);
        });
        assert!(allocated.bytes_max < (1 << 18) + 64 * length, "{length} bytes: {allocated:?}");
        refused += u32::from(result.is_none());
    }
    assert!(refused > rounds / 10, "{refused} of {rounds} were refused, so hardly any was damaged");
    assert!(refused < rounds / 10 * 9, "{refused} of {rounds} were refused, so hardly any was looked into");
}

/// A frame after one to three accidents.
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
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xc0, 0xff][random.usize(..6)],
            3 => bytes.truncate(at),
            4 => bytes.insert(at, random.u8(..)),
            5 => drop(bytes.drain(at..bytes.len().min(at + random.usize(1..=8)))),
            6 => {
                let lengths = [0, 1, 127, 32_767, 65_535, 0x7fff_ffff, 0xffff_ffff_u32];
                let length = lengths[random.usize(..lengths.len())].to_be_bytes();
                let end = bytes.len().min(at + length.len());
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
