//! Properties of messages and of the wire format: maps of tagged values, the same in every encoding.
//!
//! They are read lazily and without a copy. Nested maps and lists are values that can be read in turn; a value
//! that holds one was checked to its end, so that reading goes on behind it.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    error::{DecodeError, EncodeError, Problem},
    text,
};

/// How deep maps and lists nest before they are refused.
const MAX_DEPTH: usize = 32;

/// The fewest bytes that an entry of a map takes: the length of its name, and a tag.
const MIN_ENTRY: usize = 3;

/// From this many UTF-16 units on Java writes a string with a length of four bytes.
const BIG_STRING: usize = 8191;

/// A value of a property, a map or a list.
#[derive(Clone, Debug, PartialEq)]
pub enum Primitive<'a> {
    /// No value.
    Null,
    /// A boolean.
    Boolean(bool),
    /// A signed byte.
    Byte(i8),
    /// A UTF-16 unit, which may be half of a character.
    Char(u16),
    /// A signed number of two bytes.
    Short(i16),
    /// A signed number of four bytes.
    Int(i32),
    /// A signed number of eight bytes.
    Long(i64),
    /// A floating-point number of eight bytes.
    Double(f64),
    /// A floating-point number of four bytes.
    Float(f32),
    /// A string. What is no character in it has become U+FFFD.
    String(Cow<'a, str>),
    /// Bytes, which other protocols than JMS put into properties.
    Bytes(&'a [u8]),
    /// A map of its own.
    Map(Properties<'a>),
    /// A list of values.
    List(Primitives<'a>),
}

/// The entries of a map, in the order on the wire. If a name comes twice, the last one counts for Java.
#[derive(Clone, Debug, PartialEq)]
pub struct Properties<'a>(Entries<'a>);

/// The values of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Primitives<'a>(Entries<'a>);

/// What is left of a map or a list.
#[derive(Clone, Debug, PartialEq)]
struct Entries<'a> {
    bytes: &'a [u8],
    count: usize,
    index: usize,
}

/// Reads the properties of a message, or of anything else that holds such a map.
///
/// After an error there is nothing more. Bytes behind the last entry are nobody's concern.
pub fn properties(bytes: &[u8]) -> Result<Properties<'_>, DecodeError> {
    let mut cursor = Cursor { bytes };
    // A map that is null has no entries either.
    let count = match cursor.i32().map_err(|error| error.inside("properties"))? {
        -1 => 0,
        count => cursor.checked(count, MIN_ENTRY).map_err(|error| error.inside("properties"))?,
    };
    Ok(Properties(Entries { bytes: cursor.bytes, count, index: 0 }))
}

/// The map on the wire. A [`Primitive::Map`] or [`Primitive::List`] is written as it was read.
pub fn encode_properties<'a, N: AsRef<str>>(
    entries: impl IntoIterator<Item = (N, Primitive<'a>)>,
) -> Result<Bytes, EncodeError> {
    let mut out = BytesMut::new();
    out.put_i32(0);
    let mut count: usize = 0;
    for (name, value) in entries {
        count += 1;
        let name = text::encode(name.as_ref());
        out.put_u16(u16::try_from(name.len()).map_err(|_| EncodeError::StringTooLong(name.len()))?);
        out.put_slice(&name);
        value.write(&mut out)?;
    }
    let announced = i32::try_from(count).map_err(|_| EncodeError::TooManyElements(count))?;
    out[..size_of::<i32>()].copy_from_slice(&announced.to_be_bytes());
    Ok(out.freeze())
}

impl<'a> Iterator for Properties<'a> {
    type Item = Result<(Cow<'a, str>, Primitive<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|cursor| {
            let length = usize::from(cursor.u16()?);
            let name = text::decode(cursor.take(length)?);
            Ok((name, cursor.primitive(MAX_DEPTH)?))
        })
    }
}

impl<'a> Iterator for Primitives<'a> {
    type Item = Result<Primitive<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|cursor| cursor.primitive(MAX_DEPTH))
    }
}

impl<'a> Entries<'a> {
    fn next<T>(
        &mut self,
        read: impl FnOnce(&mut Cursor<'a>) -> Result<T, DecodeError>,
    ) -> Option<Result<T, DecodeError>> {
        if self.index == self.count {
            return None;
        }
        let mut cursor = Cursor { bytes: self.bytes };
        let item = read(&mut cursor).map_err(|error| error.at(self.index).inside("properties"));
        self.bytes = cursor.bytes;
        self.index = if item.is_ok() { self.index + 1 } else { self.count };
        Some(item)
    }
}

impl Primitive<'_> {
    fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Self::Null => out.put_u8(0),
            Self::Boolean(value) => out.put_slice(&[1, u8::from(*value)]),
            Self::Byte(value) => out.put_slice(&[2, value.cast_unsigned()]),
            Self::Char(value) => put(3, value.to_be_bytes(), out),
            Self::Short(value) => put(4, value.to_be_bytes(), out),
            Self::Int(value) => put(5, value.to_be_bytes(), out),
            Self::Long(value) => put(6, value.to_be_bytes(), out),
            Self::Double(value) => put(7, value.to_be_bytes(), out),
            Self::Float(value) => put(8, value.to_be_bytes(), out),
            Self::String(value) => put_string(value, out)?,
            Self::Bytes(value) => {
                put(10, length_of(value)?.to_be_bytes(), out);
                out.put_slice(value);
            }
            Self::Map(Properties(entries)) => entries.write(11, out)?,
            Self::List(Primitives(entries)) => entries.write(12, out)?,
        }
        Ok(())
    }
}

impl Entries<'_> {
    fn write(&self, tag: u8, out: &mut BytesMut) -> Result<(), EncodeError> {
        let left = self.count - self.index;
        put(tag, i32::try_from(left).map_err(|_| EncodeError::TooManyElements(left))?.to_be_bytes(), out);
        out.put_slice(self.bytes);
        Ok(())
    }
}

fn put<const N: usize>(tag: u8, value: [u8; N], out: &mut BytesMut) {
    out.put_u8(tag);
    out.put_slice(&value);
}

fn put_string(value: &str, out: &mut BytesMut) -> Result<(), EncodeError> {
    let encoded = text::encode(value);
    let is_big = value.len() >= BIG_STRING && value.encode_utf16().count() >= BIG_STRING;
    match u16::try_from(encoded.len()) {
        Ok(length) if !is_big => put(9, length.to_be_bytes(), out),
        _ => put(13, length_of(&encoded)?.to_be_bytes(), out),
    }
    out.put_slice(&encoded);
    Ok(())
}

fn length_of(bytes: &[u8]) -> Result<i32, EncodeError> {
    i32::try_from(bytes.len()).map_err(|_| EncodeError::BytesTooLong(bytes.len()))
}

/// Reads from the front of bytes, and never past their end.
struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn primitive(&mut self, depth: usize) -> Result<Primitive<'a>, DecodeError> {
        Ok(match self.array().map(|[tag]| tag)? {
            0 => Primitive::Null,
            1 => Primitive::Boolean(self.array().map(|[byte]| byte != 0)?),
            2 => Primitive::Byte(self.array().map(i8::from_be_bytes)?),
            3 => Primitive::Char(self.u16()?),
            4 => Primitive::Short(self.array().map(i16::from_be_bytes)?),
            5 => Primitive::Int(self.i32()?),
            6 => Primitive::Long(self.array().map(i64::from_be_bytes)?),
            7 => Primitive::Double(self.array().map(f64::from_be_bytes)?),
            8 => Primitive::Float(self.array().map(f32::from_be_bytes)?),
            9 => {
                let length = usize::from(self.u16()?);
                Primitive::String(text::decode(self.take(length)?))
            }
            10 => Primitive::Bytes(self.counted()?),
            11 => Primitive::Map(Properties(self.nested(depth, true)?)),
            12 => Primitive::List(Primitives(self.nested(depth, false)?)),
            13 => Primitive::String(text::decode(self.counted()?)),
            tag => return Err(Problem::UnknownTag(tag).into()),
        })
    }

    /// A map or a list: walks through it to find its end.
    fn nested(&mut self, depth: usize, named: bool) -> Result<Entries<'a>, DecodeError> {
        let depth = depth.checked_sub(1).ok_or(Problem::TooDeep)?;
        let count = match self.i32()? {
            -1 => 0,
            count => self.checked(count, if named { MIN_ENTRY } else { 1 })?,
        };
        let start = self.bytes;
        for _ in 0..count {
            if named {
                let length = usize::from(self.u16()?);
                self.take(length)?;
            }
            self.skip_primitive(depth)?;
        }
        let length = start.len() - self.bytes.len();
        Ok(Entries { bytes: &start[..length], count, index: 0 })
    }

    /// Like [`Cursor::primitive`], but looks at no string.
    fn skip_primitive(&mut self, depth: usize) -> Result<(), DecodeError> {
        let length = match self.array().map(|[tag]| tag)? {
            0 => 0,
            1 | 2 => 1,
            3 | 4 => 2,
            5 | 8 => 4,
            6 | 7 => 8,
            9 => usize::from(self.u16()?),
            10 | 13 => return self.counted().map(drop),
            11 => return self.nested(depth, true).map(drop),
            12 => return self.nested(depth, false).map(drop),
            tag => return Err(Problem::UnknownTag(tag).into()),
        };
        self.take(length).map(drop)
    }

    /// Bytes behind a length of four bytes.
    fn counted(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.i32()?;
        let length = usize::try_from(length).map_err(|_| Problem::NegativeLength(length))?;
        self.take(length)
    }

    /// A count of elements, if there is room for so many that each take at least so many bytes.
    fn checked(&self, count: i32, each: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(count).map_err(|_| Problem::NegativeLength(count))?;
        if count > self.bytes.len() / each { Err(Problem::TooManyElements(count).into()) } else { Ok(count) }
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.bytes.split_first_chunk().ok_or(Problem::NeedsBytes(N - self.bytes.len().min(N)))?;
        self.bytes = rest;
        Ok(*bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        match self.bytes.split_at_checked(length) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => Err(Problem::NeedsBytes(length - self.bytes.len()).into()),
        }
    }
}
