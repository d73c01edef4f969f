//! What can be wrong with a frame, and with a command that should become one.

use std::fmt;

use thiserror::Error;

/// A frame, or something in a message, that cannot be read: which field, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    path: String,
    problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The frame ends inside the field.
    #[error("needs {0} more bytes")]
    NeedsBytes(usize),
    /// The tight encoding's boolean stream ends before it.
    #[error("lies behind the end of the boolean stream")]
    NeedsFlags,
    /// A length or a count below zero.
    #[error("announces a length of {0}")]
    NegativeLength(i32),
    /// More elements than the rest of the frame can hold.
    #[error("announces {0} elements, more than the frame can hold")]
    TooManyElements(usize),
    /// A frame may be full of arrays, but not without end.
    #[error("goes past the limit of array elements in one frame")]
    TooManyElementsInFrame,
    /// A type number that no structure has.
    #[error("is of the unknown type {0}")]
    UnknownType(u8),
    /// A known structure where another one belongs.
    #[error("is of type {0}, which has no place here")]
    UnexpectedType(u8),
    /// A tag that no primitive type has.
    #[error("has the unknown primitive tag {0}")]
    UnknownTag(u8),
    /// Structures, maps, lists or causes nested deeper than anybody needs.
    #[error("is nested too deep")]
    TooDeep,
    /// A cached object with a number outside the negotiated cache.
    #[error("has the cache index {0}, which is outside the cache")]
    CacheIndex(i16),
    /// A reference to a cached object that was never sent.
    #[error("refers to cache index {0}, which holds nothing")]
    EmptySlot(i16),
    /// A structure in a second encoding within the frame, which no peer sends.
    #[error("is in marshalled form, which is not supported")]
    MarshalledForm,
    /// The first frame does not say that it is `OpenWire`.
    #[error("is not the magic of OpenWire")]
    Magic,
    /// Null where the format has a null but nothing may be missing.
    #[error("is null")]
    Null,
    /// A property of the wire format with a value of another type.
    #[error("has a value of the wrong type")]
    WrongType,
    /// What is left when every field was read.
    #[error("leaves {0} bytes over")]
    LeftOver(usize),
    /// A boolean stream longer than the fields' flags.
    #[error("leaves {0} bytes of the boolean stream over")]
    LeftOverFlags(usize),
}

impl DecodeError {
    /// What is wrong, without the place.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// The same error seen from outside the field.
    #[cold]
    pub(super) fn inside(mut self, name: &str) -> Self {
        let path = &mut self.0.path;
        if !path.is_empty() && !path.starts_with('[') {
            path.insert(0, '.');
        }
        path.insert_str(0, name);
        self
    }

    /// The same error seen from outside an array, a list or a map.
    #[cold]
    pub(super) fn at(self, index: usize) -> Self {
        self.inside(&format!("[{index}]"))
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.0.path.is_empty() { "frame" } else { &self.0.path };
        write!(formatter, "{path} {}", self.0.problem)
    }
}

impl std::error::Error for DecodeError {}

impl From<Problem> for DecodeError {
    #[cold]
    fn from(problem: Problem) -> Self {
        Self(Box::new(Inner { path: String::new(), problem }))
    }
}

/// A value that the format has no room for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Strings have a length of two bytes.
    #[error("a string of {0} bytes is too long, the format allows 65535")]
    StringTooLong(usize),
    /// Byte arrays have a length of four bytes.
    #[error("{0} bytes are too long for a byte array")]
    BytesTooLong(usize),
    /// Arrays have a count of two bytes, maps and lists one of four.
    #[error("{0} elements are too many")]
    TooManyElements(usize),
    /// Frames have a length of four bytes.
    #[error("a frame of {0} bytes is too long")]
    FrameTooLong(usize),
    /// Unknown commands and the null command stand alone.
    #[error("a command of type {0} cannot be part of another")]
    NotNestable(u8),
}
