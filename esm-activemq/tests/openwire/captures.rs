//! Connections that were recorded between real programs.

use esm_activemq::openwire::{Decoder, WireFormat};

use crate::{
    expected::{actual, expected},
    vectors::{self, DIRECTIONS, PREFIX},
};

#[test]
fn recorded_connections_mean_what_was_written_down_with_them() {
    for capture in vectors::captures() {
        for direction in DIRECTIONS {
            let commands = vectors::commands(&capture, direction);
            let expected = expected(&capture, direction);
            assert_eq!(commands.len(), expected.len());
            for (command, expected) in commands.iter().zip(expected) {
                assert_eq!(actual(command), expected, "{} {direction}", capture.display());
            }
        }
    }
}

#[test]
fn recorded_connections_without_a_cache_are_written_as_they_were_read() {
    let mut frames = 0;
    for capture in vectors::captures() {
        let format = vectors::negotiated(&capture);
        if format.cache {
            continue;
        }
        for direction in DIRECTIONS {
            let recorded = vectors::frames(&capture, direction);
            for (index, command) in vectors::commands(&capture, direction).iter().enumerate() {
                let format = if index == 0 { WireFormat::INITIAL } else { format };
                assert_eq!(vectors::encoded(command, format)[PREFIX..], recorded[index], "{}", capture.display());
                frames += 1;
            }
        }
    }
    assert!(frames > 200, "{frames} frames");
}

/// What we write with a cache refers to nothing, so it reads the same without what came before.
#[test]
fn recorded_connections_with_a_cache_say_the_same_when_written_anew() {
    for capture in vectors::captures() {
        let format = vectors::negotiated(&capture);
        for direction in DIRECTIONS {
            for command in &vectors::commands(&capture, direction)[1..] {
                let frame = vectors::encoded(command, format).slice(PREFIX..);
                assert_eq!(&Decoder::new(format).decode(frame).unwrap(), command, "{}", capture.display());
            }
        }
    }
}
