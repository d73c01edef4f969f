//! The first frames of a connection, and what follows from them.

use bytes::Bytes;
use esm_activemq::openwire::{
    Command, Decoder, Negotiated, NegotiationError, Primitive, Problem, WireFormat, WireFormatInfo, WireFormatOptions,
    encode_properties, negotiate,
};

use crate::vectors::{self, DIRECTIONS};

/// What a broker of version 5.17 sends.
fn broker() -> WireFormatInfo {
    match vectors::commands(&vectors::folder().join("basic-tight-cache"), DIRECTIONS[1]).swap_remove(0) {
        Command::WireFormatInfo(info) => info,
        other => panic!("{other:?}"),
    }
}

#[test]
fn our_request_is_the_frame_that_brokers_know() {
    let expected = [
        &[0, 0, 0, 0xf0, 1][..],
        b"ActiveMQ\0\0\0\x0c\x01\0\0\0\xde\0\0\0\x09",
        b"\0\x11StackTraceEnabled\x01\0\0\x11TcpNoDelayEnabled\x01\x01\0\x0cCacheEnabled\x01\0",
        b"\0\x14TightEncodingEnabled\x01\0\0\x12SizePrefixDisabled\x01\0\0\x09CacheSize\x05\0\0\x04\0",
        b"\0\x15MaxInactivityDuration\x06\0\0\0\0\0\0\x75\x30",
        b"\0\x20MaxInactivityDurationInitalDelay\x06\0\0\0\0\0\0\x27\x10",
        b"\0\x0cMaxFrameSize\x06\0\0\0\0\x08\0\0\0",
    ]
    .concat();
    let request = WireFormatInfo::request(0x0800_0000, 30_000);
    assert_eq!(vectors::encoded(&request.into(), WireFormat::INITIAL), expected);
}

#[test]
fn our_request_leads_to_the_loose_format_without_a_cache() {
    let negotiated = negotiate(&WireFormatInfo::request(i64::MAX, 20_000), &broker()).unwrap();
    let expected = Negotiated {
        format: WireFormat { cache_size: 1024, ..WireFormat::LOOSE },
        max_inactivity_duration: 20_000,
        max_inactivity_duration_initial_delay: 10_000,
        max_frame_size: i64::MAX,
    };
    assert_eq!(negotiated, expected);
}

#[test]
fn everything_that_both_sides_want_is_used() {
    let negotiated = negotiate(&broker(), &broker()).unwrap();
    let format = WireFormat { version: 12, tight: true, cache: true, cache_size: 1024, stack_trace: true };
    assert_eq!(negotiated.format, format);
}

#[test]
fn the_smaller_limit_counts_unless_it_is_none() {
    let info = |max_frame_size, max_inactivity_duration, cache_size| {
        let options =
            WireFormatOptions { max_frame_size, max_inactivity_duration, cache_size, ..WireFormatOptions::default() };
        WireFormatInfo::new(12, &options)
    };
    for (ours, theirs, expected) in [
        (info(1000, 500, 200), info(2000, 400, 300), (1000, 400, 200)),
        (info(0, 500, 0), info(2000, 0, 300), (2000, 0, 16_383)),
        (info(0, -1, 300), info(-1, 5, 300), (i64::MAX, 0, 300)),
    ] {
        let result = negotiate(&ours, &theirs).unwrap();
        assert_eq!((result.max_frame_size, result.max_inactivity_duration, result.format.cache_size), expected);
    }
}

#[test]
fn the_lower_version_is_spoken_but_none_below_10() {
    let ours = WireFormatInfo::request(0, 0);
    for (theirs, expected) in
        [(255, Some(12)), (13, Some(12)), (12, Some(12)), (11, Some(11)), (10, Some(10)), (9, None), (0, None)]
    {
        let theirs = WireFormatInfo { version: theirs, marshalled_properties: None };
        match negotiate(&ours, &theirs) {
            Ok(negotiated) => assert_eq!(Some(negotiated.format.version), expected),
            Err(NegotiationError::Version(version)) => assert_eq!((version, None), (theirs.version, expected)),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_version_that_is_too_old_is_refused_in_words_that_help() {
    let theirs = WireFormatInfo { version: 9, marshalled_properties: None };
    let error = negotiate(&WireFormatInfo::request(0, 0), &theirs).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the broker speaks OpenWire version 9, at least 10 is needed (ActiveMQ 5.9 or newer)"
    );
}

#[test]
fn a_property_of_the_wrong_type_is_named() {
    let properties = encode_properties([("CacheSize", Primitive::Long(1024)), ("Unheard", Primitive::Null)]).unwrap();
    let info = WireFormatInfo { version: 12, marshalled_properties: Some(properties) };
    let error = info.options().unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.problem()),
        ("CacheSize has a value of the wrong type", &Problem::WrongType)
    );
}

#[test]
fn properties_that_nobody_knows_are_ignored() {
    let properties = encode_properties([("Unheard", Primitive::Byte(1)), ("CacheEnabled", Primitive::Boolean(true))]);
    let info = WireFormatInfo { version: 12, marshalled_properties: Some(properties.unwrap()) };
    assert!(info.options().unwrap().cache_enabled);
}

#[test]
fn what_is_not_openwire_is_refused_at_the_magic() {
    let frame = Bytes::from_static(b"\x01HTTP/1.1 400 Bad Request\r\n");
    let error = Decoder::new(WireFormat::INITIAL).decode(frame).unwrap_err();
    assert_eq!(error.to_string(), "WireFormatInfo.magic is not the magic of OpenWire");
}
