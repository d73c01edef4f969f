//! Properties: maps of tagged values.

use std::borrow::Cow;

use esm_activemq::openwire::{EncodeError, Primitive, Problem, encode_properties, properties};

/// A map with one entry named `n`.
fn one(tagged: &[u8]) -> Vec<u8> {
    [b"\0\0\0\x01\0\x01n", tagged].concat()
}

#[test]
fn every_type_of_value_is_read_and_written() {
    for (tagged, expected) in [
        (&[0][..], Primitive::Null),
        (&[1, 1], Primitive::Boolean(true)),
        (&[1, 0], Primitive::Boolean(false)),
        (&[2, 0xfe], Primitive::Byte(-2)),
        (&[3, 0x20, 0xac], Primitive::Char(0x20ac)),
        (&[4, 0xfe, 0xd4], Primitive::Short(-300)),
        (&[5, 0xff, 0xff, 0xff, 0xff], Primitive::Int(-1)),
        (&[6, 0, 0, 0, 1, 0, 0, 0, 0], Primitive::Long(1 << 32)),
        (&[7, 0xc0, 0x02, 0, 0, 0, 0, 0, 0], Primitive::Double(-2.25)),
        (&[8, 0x3f, 0xc0, 0, 0], Primitive::Float(1.5)),
        (&[9, 0, 2, 0xc0, 0x80], Primitive::String(Cow::Borrowed("\0"))),
        (&[10, 0, 0, 0, 2, 7, 8], Primitive::Bytes(&[7, 8])),
    ] {
        let map = one(tagged);
        let entries: Vec<_> = properties(&map).unwrap().map(Result::unwrap).collect();
        assert_eq!(entries, [("n".into(), expected)]);
        assert_eq!(encode_properties(entries).unwrap(), map);
    }
}

#[test]
fn maps_and_lists_are_values_that_can_be_read_in_turn() {
    let inner = encode_properties([("k", Primitive::String("v".into())), ("i", Primitive::Int(5))]).unwrap();
    let list = [&[12, 0, 0, 0, 2, 1, 1, 11][..], &inner].concat();
    let map = one(&list);
    let entries: Vec<_> = properties(&map).unwrap().map(Result::unwrap).collect();
    assert_eq!(encode_properties(entries.clone()).unwrap(), map);

    let Primitive::List(list) = &entries[0].1 else { panic!("{entries:?}") };
    let values: Vec<_> = list.clone().map(Result::unwrap).collect();
    let [Primitive::Boolean(true), Primitive::Map(map)] = &values[..] else { panic!("{values:?}") };
    let inner: Vec<_> = map.clone().map(Result::unwrap).collect();
    assert_eq!(inner, [("k".into(), Primitive::String("v".into())), ("i".into(), Primitive::Int(5))]);
}

#[test]
fn what_follows_a_nested_value_is_found() {
    let nested = one(&[12, 0, 0, 0, 1, 0]);
    let nested = [&[11][..], &nested].concat();
    let map = [b"\0\0\0\x02\0\x01n", &nested[..], b"\0\x01m\x02\x07"].concat();
    let names: Vec<_> = properties(&map).unwrap().map(|entry| entry.unwrap().0).collect();
    assert_eq!(names, ["n", "m"]);
}

#[test]
fn strings_from_8191_characters_on_are_written_as_big_ones() {
    for (text, tag) in [
        ("x".repeat(8190), 9),
        ("x".repeat(8191), 13),
        // Characters count as Java counts them, not as bytes.
        ("é".repeat(8190), 9),
        ("😀".repeat(4096), 13),
        ("€".repeat(70_000), 13),
    ] {
        let map = encode_properties([("n", Primitive::String(text.as_str().into()))]).unwrap();
        assert_eq!(map[7], tag);
        assert_eq!(properties(&map).unwrap().next().unwrap().unwrap().1, Primitive::String(text.into()));
    }
}

#[test]
fn a_null_map_has_no_properties() {
    assert_eq!(properties(b"\xff\xff\xff\xff").unwrap().count(), 0);
    assert_eq!(properties(b"\0\0\0\0").unwrap().count(), 0);
}

#[test]
fn a_name_that_is_too_long_is_not_written() {
    let error = encode_properties([("n".repeat(65_536), Primitive::Null)]).unwrap_err();
    assert_eq!(error, EncodeError::StringTooLong(65_536));
}

#[test]
fn what_is_wrong_with_a_map_is_said_once_and_ends_it() {
    for (map, expected) in [
        (&b"\0\0"[..], "properties needs 2 more bytes"),
        (b"\xff\xff\xff\xfe", "properties announces a length of -2"),
        (b"\0\0\0\x02\0\0\0\0\0", "properties announces 2 elements, more than the frame can hold"),
        (b"\x7f\xff\xff\xff\0\0\0", "properties announces 2147483647 elements, more than the frame can hold"),
        (&one(&[99]), "properties[0] has the unknown primitive tag 99"),
        (&one(&[9, 0xff, 0xff, b'x']), "properties[0] needs 65534 more bytes"),
        (&one(&[10, 0x7f, 0xff, 0xff, 0xff]), "properties[0] needs 2147483647 more bytes"),
        (&one(&[13, 0xff, 0xff, 0xff, 0xff]), "properties[0] announces a length of -1"),
        (&one(&[12, 0, 0, 0, 9, 0]), "properties[0] announces 9 elements, more than the frame can hold"),
        (&one(&[11, 0, 0, 0, 1, 0]), "properties[0] announces 1 elements, more than the frame can hold"),
        (&one(&[12, 0, 0, 0, 1, 77]), "properties[0] has the unknown primitive tag 77"),
    ] {
        let error = match properties(map) {
            Err(error) => error,
            Ok(mut entries) => {
                let error = entries.next().unwrap().unwrap_err();
                assert_eq!(entries.next(), None);
                error
            }
        };
        assert_eq!(error.to_string(), expected, "{map:x?}");
    }
}

#[test]
fn nesting_is_followed_32_levels_deep() {
    let nested = |levels: usize| {
        let lists: Vec<u8> = std::iter::repeat_n([12, 0, 0, 0, 1], levels).flatten().chain([0]).collect();
        properties(&one(&lists)).unwrap().next().unwrap().map(drop)
    };
    assert_eq!(nested(32), Ok(()));
    assert_eq!(nested(33).unwrap_err().problem(), &Problem::TooDeep);
    assert_eq!(nested(100_000).unwrap_err().problem(), &Problem::TooDeep);
}
