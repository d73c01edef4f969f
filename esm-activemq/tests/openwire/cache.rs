//! What a decoder remembers, if a cache was negotiated.

use bytes::Bytes;
use esm_activemq::openwire::{Command, DecodeError, Decoder, Problem, SessionId, WireFormat};

const FORMAT: WireFormat = WireFormat { cache: true, cache_size: 300, ..WireFormat::LOOSE };

#[test]
fn what_was_sent_once_can_be_referred_to() {
    let mut decoder = Decoder::new(FORMAT);
    assert_eq!(session(&mut decoder, new(7, "first")), Ok(Some("first".to_owned())));
    assert_eq!(session(&mut decoder, new(299, "second")), Ok(Some("second".to_owned())));
    assert_eq!(session(&mut decoder, reference(7)), Ok(Some("first".to_owned())));
    assert_eq!(session(&mut decoder, reference(299)), Ok(Some("second".to_owned())));
}

#[test]
fn null_can_be_referred_to() {
    let mut decoder = Decoder::new(FORMAT);
    assert_eq!(session(&mut decoder, frame(&[1, 0, 3, 0])), Ok(None));
    assert_eq!(session(&mut decoder, reference(3)), Ok(None));
}

#[test]
fn a_slot_can_be_used_again() {
    let mut decoder = Decoder::new(FORMAT);
    session(&mut decoder, new(0, "first")).unwrap();
    session(&mut decoder, new(0, "second")).unwrap();
    assert_eq!(session(&mut decoder, reference(0)), Ok(Some("second".to_owned())));
}

#[test]
fn what_is_not_worth_remembering_is_not_remembered() {
    let mut decoder = Decoder::new(FORMAT);
    assert_eq!(session(&mut decoder, new(-1, "once")), Ok(Some("once".to_owned())));
    assert_eq!(session(&mut decoder, reference(0)), Err(Problem::EmptySlot(0)));
    assert_eq!(session(&mut decoder, reference(-1)), Err(Problem::CacheIndex(-1)));
}

#[test]
fn indexes_outside_the_cache_are_refused() {
    let mut decoder = Decoder::new(FORMAT);
    for index in [300, i16::MAX, -2, i16::MIN] {
        assert_eq!(session(&mut decoder, new(index, "x")), Err(Problem::CacheIndex(index)));
        assert_eq!(session(&mut decoder, reference(index)), Err(Problem::CacheIndex(index)));
    }
}

#[test]
fn a_reference_to_something_of_another_type_is_refused() {
    let mut decoder = Decoder::new(FORMAT);
    session(&mut decoder, new(5, "session")).unwrap();
    // A connection that names the session as its id.
    let connection = Bytes::from_static(&[8, 0, 0, 0, 1, 0, 0, 0, 5]);
    let error = decoder.decode(connection).unwrap_err();
    assert_eq!(error.to_string(), "DestinationInfo.connection_id is of type 121, which has no place here");
}

#[test]
fn the_cache_keeps_no_frame_alive() {
    let mut decoder = Decoder::new(FORMAT);
    let frame = new(1, "remembered");
    drop(decoder.decode(frame.clone()).unwrap());
    assert!(frame.is_unique());
    assert_eq!(session(&mut decoder, reference(1)), Ok(Some("remembered".to_owned())));
}

#[test]
fn an_unknown_type_is_fatal_since_it_may_have_filled_slots() {
    let error = Decoder::new(FORMAT).decode(Bytes::from_static(&[77, 1, 2, 3])).unwrap_err();
    assert_eq!(error.problem(), &Problem::UnknownType(77));
}

/// Decodes a frame with a session, and says which connection it belongs to.
fn session(decoder: &mut Decoder, frame: Bytes) -> Result<Option<String>, Problem> {
    match decoder.decode(frame).map_err(|error: DecodeError| error.problem().clone())? {
        Command::SessionInfo(info) => {
            Ok(info.session_id.map(|SessionId { connection_id, .. }| connection_id.unwrap().to_string()))
        }
        other => panic!("{other:?}"),
    }
}

/// A session with an id that was never sent before.
fn new(index: i16, connection: &str) -> Bytes {
    let length = u8::try_from(connection.len()).unwrap();
    let [high, low] = index.to_be_bytes();
    frame(&[&[1, high, low, 1, 121, 1, 0, length], connection.as_bytes(), &[0; 8]].concat())
}

/// A session with an id that was sent before.
fn reference(index: i16) -> Bytes {
    let [high, low] = index.to_be_bytes();
    frame(&[0, high, low])
}

fn frame(cached: &[u8]) -> Bytes {
    [&[4, 0, 0, 0, 1, 0], cached].concat().into()
}
