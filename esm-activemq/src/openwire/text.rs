//! Strings as they stand on the wire: Java's modified UTF-8.

use std::{borrow::Cow, fmt, str};

use bytes::Bytes;

/// A string as it stands on the wire. Cloning it counts a reference.
///
/// Java writes U+0000 as `c0 80`, and a character beyond U+FFFF as its two surrogates, three bytes each; other
/// peers write standard UTF-8. The bytes are kept as they came, so two texts are equal if their bytes are.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Text(Bytes);

impl Text {
    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The string, without a copy where that is possible. What is no character becomes U+FFFD.
    pub fn to_str(&self) -> Cow<'_, str> {
        decode(&self.0)
    }

    /// Whether it is the empty string.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy that does not keep the frame alive that this text is a part of.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// What came from the wire.
    pub(super) fn from_wire(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(&encode(text)))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        let encoded = match encode(&text) {
            Cow::Borrowed(_) => None,
            Cow::Owned(encoded) => Some(encoded),
        };
        Self(encoded.unwrap_or_else(|| text.into_bytes()).into())
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.to_str() == other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.to_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_str(), formatter)
    }
}

/// A text that must reach no log: its debug form does not show it.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Secret(Text);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &Text {
        &self.0
    }
}

impl From<Text> for Secret {
    fn from(text: Text) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// Modified or standard UTF-8 as a string; it never fails, because a bad string must not cost a message.
pub(super) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(decode_modified(bytes)),
    }
}

/// Takes over what is standard UTF-8, and reads what is not one sequence at a time.
fn decode_modified(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    loop {
        let (valid, rest) = match str::from_utf8(bytes) {
            Ok(valid) => (valid, &[][..]),
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                // The head was just found valid, so nothing is looked at twice but this slice.
                (str::from_utf8(valid).unwrap_or_default(), rest)
            }
        };
        text.push_str(valid);
        if rest.is_empty() {
            return text;
        }
        let (character, length) = next_character(rest);
        text.push(character);
        bytes = &rest[length..];
    }
}

/// The character at the start of bytes that are no standard UTF-8, and how many bytes it takes.
fn next_character(bytes: &[u8]) -> (char, usize) {
    match (code_unit(bytes), bytes.get(3..).and_then(code_unit)) {
        (Some((high @ 0xd800..=0xdbff, _)), Some((low @ 0xdc00..=0xdfff, _))) => {
            let scalar = 0x1_0000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(low) - 0xdc00);
            (char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
        }
        (Some((unit, length)), _) => (char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER), length),
        (None, _) => (char::REPLACEMENT_CHARACTER, 1),
    }
}

/// A UTF-16 unit in two or three bytes. Longer forms than necessary are read as Java reads them.
fn code_unit(bytes: &[u8]) -> Option<(u16, usize)> {
    let continuation = |index: usize| match bytes.get(index) {
        Some(byte @ 0x80..=0xbf) => Some(u16::from(byte & 0x3f)),
        _ => None,
    };
    match *bytes.first()? {
        lead @ 0xc0..=0xdf => Some((u16::from(lead & 0x1f) << 6 | continuation(1)?, 2)),
        lead @ 0xe0..=0xef => Some((u16::from(lead & 0x0f) << 12 | continuation(1)? << 6 | continuation(2)?, 3)),
        _ => None,
    }
}

/// A string as modified UTF-8, borrowed if that is the same as UTF-8.
pub(super) fn encode(text: &str) -> Cow<'_, [u8]> {
    // Four-byte sequences, and only they, begin with f0 or more.
    if !text.bytes().any(|byte| byte == 0 || byte >= 0xf0) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut encoded = Vec::with_capacity(text.len() + text.len() / 2);
    for character in text.chars() {
        match character {
            '\0' => encoded.extend([0xc0, 0x80]),
            '\u{10000}'.. => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let [high, low] = unit.to_be_bytes();
                    encoded.extend([0xe0 | high >> 4, 0x80 | (high & 0x0f) << 2 | low >> 6, 0x80 | low & 0x3f]);
                }
            }
            _ => encoded.extend(character.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    Cow::Owned(encoded)
}
