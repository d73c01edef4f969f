//! The kinds of fields that the table names, and how each is read and written.

use std::marker::PhantomData;

use bytes::Bytes;

use super::{
    cache::Cacheable,
    error::DecodeError,
    reader::Reader,
    text::{Secret, Text},
    throwable::Throwable,
    writer::Writer,
};

/// A kind of field: `bool`, `i8`, `i32` and `i64` stand for themselves; everything else may be null.
pub(super) trait Kind {
    /// What the field of a structure holds.
    type Value;

    fn read(reader: &mut Reader<'_>) -> Result<Self::Value, DecodeError>;

    fn write(value: &Self::Value, writer: &mut Writer<'_>);
}

/// Something with a type number, or one of a family of them.
pub(super) trait Structure: Sized {
    fn type_id(&self) -> u8;

    /// Reads what follows the type number, or fails if the type is none of the family's.
    fn read(type_id: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Writes what follows the type number.
    fn write(&self, writer: &mut Writer<'_>);
}

/// A nested structure.
pub(super) struct Object<T>(PhantomData<T>);

/// A nested structure that may be a reference, if a cache was negotiated.
pub(super) struct Cached<T>(PhantomData<T>);

/// A count and as many nested structures, each of which may be null.
pub(super) struct Array<T>(PhantomData<T>);

impl Kind for bool {
    type Value = Self;

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.flag()
    }

    fn write(value: &Self, writer: &mut Writer<'_>) {
        writer.flag(*value);
    }
}

impl Kind for i8 {
    type Value = Self;

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u8().map(u8::cast_signed)
    }

    fn write(value: &Self, writer: &mut Writer<'_>) {
        writer.u8(value.cast_unsigned());
    }
}

impl Kind for i32 {
    type Value = Self;

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.i32()
    }

    fn write(value: &Self, writer: &mut Writer<'_>) {
        writer.i32(*value);
    }
}

impl Kind for i64 {
    type Value = Self;

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.i64()
    }

    fn write(value: &Self, writer: &mut Writer<'_>) {
        writer.i64(*value);
    }
}

impl Kind for Text {
    type Value = Option<Self>;

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        reader.text()
    }

    fn write(value: &Option<Self>, writer: &mut Writer<'_>) {
        writer.text(value.as_ref());
    }
}

impl Kind for Secret {
    type Value = Option<Self>;

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        Ok(reader.text()?.map(Self::from))
    }

    fn write(value: &Option<Self>, writer: &mut Writer<'_>) {
        writer.text(value.as_ref().map(Self::expose));
    }
}

impl Kind for Bytes {
    type Value = Option<Self>;

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        reader.bytes()
    }

    fn write(value: &Option<Self>, writer: &mut Writer<'_>) {
        writer.bytes(value.as_ref());
    }
}

impl Kind for Throwable {
    type Value = Option<Box<Self>>;

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Option<Box<Self>>, DecodeError> {
        Self::read_chain(reader, 0)
    }

    fn write(value: &Option<Box<Self>>, writer: &mut Writer<'_>) {
        Self::write_chain(value.as_deref(), writer);
    }
}

impl<T: Structure> Kind for Object<T> {
    type Value = Option<T>;

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Option<T>, DecodeError> {
        reader.object()
    }

    fn write(value: &Option<T>, writer: &mut Writer<'_>) {
        writer.object(value.as_ref());
    }
}

impl<T: Structure + Cacheable> Kind for Cached<T> {
    type Value = Option<T>;

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Option<T>, DecodeError> {
        reader.cached()
    }

    fn write(value: &Option<T>, writer: &mut Writer<'_>) {
        writer.cached(value.as_ref());
    }
}

impl<T: Structure> Kind for Array<T> {
    type Value = Option<Vec<Option<T>>>;

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self::Value, DecodeError> {
        if reader.flag()? { reader.elements(Reader::object).map(Some) } else { Ok(None) }
    }

    fn write(value: &Self::Value, writer: &mut Writer<'_>) {
        writer.flag(value.is_some());
        if let Some(elements) = value {
            writer.elements(elements, |writer, element| writer.object(element.as_ref()));
        }
    }
}
