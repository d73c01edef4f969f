//! Where every byte of a frame is read, with every check of a bound.

use bytes::Bytes;

use super::{
    cache::{Cache, Cacheable},
    error::{DecodeError, Problem},
    format::WireFormat,
    kinds::Structure,
    text::Text,
};

/// How deep structures nest: a dispatch holds a message, that an id, and that a producer's id.
const MAX_DEPTH: u8 = 16;

/// How many array elements one frame may hold, so that a frame of flags cannot become gigabytes of nothing.
const MAX_ELEMENTS: usize = 65_536;

/// Arrays grow as their elements arrive; no count of a peer reserves more than this.
const MAX_RESERVED: usize = 128;

/// The types that say in the tight encoding, behind their presence, whether they are in marshalled form.
pub(super) fn may_be_marshalled(type_id: u8) -> bool {
    matches!(type_id, 1 | 23..=29)
}

/// Reads one frame from front to back.
pub(super) struct Reader<'a> {
    frame: &'a Bytes,
    /// What of it was not read yet.
    rest: &'a [u8],
    /// The boolean stream, in the tight encoding.
    flags: Option<Flags<'a>>,
    cache: Option<&'a mut Cache>,
    version: i32,
    stack_trace: bool,
    depth: u8,
    elements_left: usize,
    /// Whether strings are copied: those in the cache must not keep frames alive.
    copying: bool,
}

/// The boolean stream, and how many of its bits were read.
struct Flags<'a> {
    bits: &'a [u8],
    next: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(frame: &'a Bytes, format: &WireFormat, cache: Option<&'a mut Cache>) -> Self {
        Self {
            frame,
            rest: frame,
            flags: None,
            cache,
            version: format.version,
            stack_trace: format.stack_trace,
            depth: 0,
            elements_left: MAX_ELEMENTS,
            copying: false,
        }
    }

    /// Reads where the boolean stream is. From here on flags are bits.
    pub(super) fn boolean_stream(&mut self) -> Result<(), DecodeError> {
        let length = match self.u8()? {
            0xc0 => usize::from(self.u8()?),
            0x80 => usize::from(self.u16()?),
            length @ 0..64 => usize::from(length),
            length => return Err(Problem::NegativeLength(i32::from(length.cast_signed())).into()),
        };
        self.flags = Some(Flags { bits: self.take(length)?, next: 0 });
        Ok(())
    }

    /// Fails if anything of the frame was not read.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.remaining() > 0 {
            return Err(Problem::LeftOver(self.remaining()).into());
        }
        match self.flags.map(|flags| flags.left() / 8) {
            Some(bytes @ 1..) => Err(Problem::LeftOverFlags(bytes).into()),
            _ => Ok(()),
        }
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether a field exists that appeared in one version and, perhaps, went away after another.
    pub(super) fn speaks(&self, since: i32, until: i32) -> bool {
        (since..=until).contains(&self.version)
    }

    pub(super) fn has_stack_traces(&self) -> bool {
        self.stack_trace
    }

    pub(super) fn is_cached(&self) -> bool {
        self.cache.is_some()
    }

    #[inline]
    pub(super) fn flag(&mut self) -> Result<bool, DecodeError> {
        match &mut self.flags {
            Some(flags) => flags.next(),
            None => self.u8().map(|byte| byte != 0),
        }
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    #[inline]
    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A long: eight bytes, or in the tight encoding two flags that say how many.
    #[inline]
    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        if self.flags.is_some() { self.shortened_i64() } else { self.array().map(i64::from_be_bytes) }
    }

    fn shortened_i64(&mut self) -> Result<i64, DecodeError> {
        match (self.flag()?, self.flag()?) {
            (false, false) => Ok(0),
            (false, true) => self.u16().map(i64::from),
            (true, false) => self.array().map(u32::from_be_bytes).map(i64::from),
            (true, true) => self.array().map(i64::from_be_bytes),
        }
    }

    /// As many raw bytes as the caller knows.
    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(*bytes)
            }
            None => Err(self.needs(N)),
        }
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<Option<Text>, DecodeError> {
        if self.flag()? { self.present_text().map(Some) } else { Ok(None) }
    }

    fn present_text(&mut self) -> Result<Text, DecodeError> {
        if self.flags.is_some() {
            // Whether it is ASCII: nothing that the bytes do not say themselves.
            self.flag()?;
        }
        let length = usize::from(self.u16()?);
        self.part(length).map(Text::from_wire)
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Result<Option<Bytes>, DecodeError> {
        if !self.flag()? {
            return Ok(None);
        }
        let length = self.i32()?;
        let length = usize::try_from(length).map_err(|_| Problem::NegativeLength(length))?;
        self.part(length).map(Some)
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self) -> Bytes {
        self.frame.slice_ref(std::mem::take(&mut self.rest))
    }

    /// A nested structure, whose type stands before it.
    #[inline]
    pub(super) fn object<T: Structure>(&mut self) -> Result<Option<T>, DecodeError> {
        if self.flag()? { self.present_object().map(Some) } else { Ok(None) }
    }

    fn present_object<T: Structure>(&mut self) -> Result<T, DecodeError> {
        let type_id = self.u8()?;
        if self.flags.is_some() && may_be_marshalled(type_id) && self.flag()? {
            return Err(Problem::MarshalledForm.into());
        }
        if self.depth == MAX_DEPTH {
            return Err(Problem::TooDeep.into());
        }
        self.depth += 1;
        let object = T::read(type_id, self)?;
        self.depth -= 1;
        Ok(object)
    }

    /// A nested structure, or a reference to one that came before.
    #[inline]
    pub(super) fn cached<T: Structure + Cacheable>(&mut self) -> Result<Option<T>, DecodeError> {
        if self.cache.is_some() { self.new_or_reference() } else { self.object() }
    }

    fn new_or_reference<T: Structure + Cacheable>(&mut self) -> Result<Option<T>, DecodeError> {
        let is_new = self.flag()?;
        let index = self.i16()?;
        if !is_new {
            return match &self.cache {
                Some(cache) => cache.get(index),
                None => Ok(None),
            };
        }
        let outer = std::mem::replace(&mut self.copying, true);
        let object = self.object::<T>()?;
        self.copying = outer;
        if let Some(cache) = &mut self.cache {
            cache.put(index, object.clone())?;
        }
        Ok(object)
    }

    /// Elements behind their count. Each takes a flag at least, which bounds the count.
    pub(super) fn elements<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.i16()?;
        let count = usize::try_from(count).map_err(|_| Problem::NegativeLength(i32::from(count)))?;
        let room = self.flags.as_ref().map_or(self.remaining(), Flags::left);
        if count > room {
            return Err(Problem::TooManyElements(count).into());
        }
        self.elements_left = self.elements_left.checked_sub(count).ok_or(Problem::TooManyElementsInFrame)?;
        let mut elements = Vec::with_capacity(count.min(MAX_RESERVED));
        for index in 0..count {
            elements.push(read(self).map_err(|error| error.at(index))?);
        }
        Ok(elements)
    }

    /// Bytes that keep the frame alive, unless they are to be remembered.
    fn part(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        let bytes = self.take(length)?;
        Ok(if self.copying { Bytes::copy_from_slice(bytes) } else { self.frame.slice_ref(bytes) })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.needs(length)),
        }
    }

    #[cold]
    fn needs(&self, length: usize) -> DecodeError {
        Problem::NeedsBytes(length - self.remaining()).into()
    }
}

impl Flags<'_> {
    fn next(&mut self) -> Result<bool, DecodeError> {
        let byte = self.bits.get(self.next / 8).ok_or(Problem::NeedsFlags)?;
        let bit = byte >> (self.next % 8) & 1;
        self.next += 1;
        Ok(bit == 1)
    }

    fn left(&self) -> usize {
        self.bits.len() * 8 - self.next
    }
}
