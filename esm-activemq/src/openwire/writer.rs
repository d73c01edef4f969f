//! Where every byte of a frame is written.

use bytes::{BufMut, Bytes, BytesMut};

use super::{error::EncodeError, format::WireFormat, kinds::Structure, reader::may_be_marshalled, text::Text};

/// The longest string that is marked as ASCII in the tight encoding, where its length is a signed number.
const MAX_ASCII: usize = 0x7fff;

/// Writes the fields of one frame. What does not fit is remembered, and the frame not sent.
pub(super) struct Writer<'a> {
    out: &'a mut BytesMut,
    /// The boolean stream, in the tight encoding.
    flags: Option<Flags>,
    cache: bool,
    version: i32,
    stack_trace: bool,
    problem: Option<EncodeError>,
}

/// Bits, the first one lowest.
#[derive(Default)]
pub(super) struct Flags {
    bits: Vec<u8>,
    next: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut BytesMut, format: &WireFormat) -> Self {
        Self {
            out,
            flags: format.tight.then(Flags::default),
            cache: format.cache,
            version: format.version,
            stack_trace: format.stack_trace,
            problem: None,
        }
    }

    /// The boolean stream with its length, empty in the loose encoding.
    pub(super) fn finish(self) -> Result<Vec<u8>, EncodeError> {
        match self.problem {
            Some(problem) => Err(problem),
            None => self.flags.map_or(Ok(Vec::new()), Flags::into_stream),
        }
    }

    /// Remembers the first problem.
    pub(super) fn refuse(&mut self, problem: EncodeError) {
        self.problem.get_or_insert(problem);
    }

    /// Whether a field exists that appeared in one version and, perhaps, went away after another.
    pub(super) fn speaks(&self, since: i32, until: i32) -> bool {
        (since..=until).contains(&self.version)
    }

    pub(super) fn has_stack_traces(&self) -> bool {
        self.stack_trace
    }

    pub(super) fn flag(&mut self, value: bool) {
        match &mut self.flags {
            Some(flags) => flags.push(value),
            None => self.out.put_u8(value.into()),
        }
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.out.put_u8(value);
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.out.put_i32(value);
    }

    pub(super) fn i64(&mut self, value: i64) {
        let Some(flags) = &mut self.flags else { return self.out.put_i64(value) };
        match (value, u16::try_from(value), u32::try_from(value)) {
            (0, ..) => flags.extend([false, false]),
            (_, Ok(short), _) => {
                flags.extend([false, true]);
                self.out.put_u16(short);
            }
            (_, _, Ok(middling)) => {
                flags.extend([true, false]);
                self.out.put_u32(middling);
            }
            _ => {
                flags.extend([true, true]);
                self.out.put_i64(value);
            }
        }
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    pub(super) fn text(&mut self, text: Option<&Text>) {
        self.flag(text.is_some());
        let Some(bytes) = text.map(Text::as_bytes) else { return };
        if let Some(flags) = &mut self.flags {
            flags.push(bytes.len() <= MAX_ASCII && bytes.iter().all(|byte| (1..0x80).contains(byte)));
        }
        match u16::try_from(bytes.len()) {
            Ok(length) => self.out.put_u16(length),
            Err(_) => self.refuse(EncodeError::StringTooLong(bytes.len())),
        }
        self.raw(bytes);
    }

    pub(super) fn bytes(&mut self, bytes: Option<&Bytes>) {
        self.flag(bytes.is_some());
        let Some(bytes) = bytes else { return };
        match i32::try_from(bytes.len()) {
            Ok(length) => self.out.put_i32(length),
            Err(_) => self.refuse(EncodeError::BytesTooLong(bytes.len())),
        }
        self.raw(bytes);
    }

    pub(super) fn object<T: Structure>(&mut self, object: Option<&T>) {
        self.flag(object.is_some());
        let Some(object) = object else { return };
        let type_id = object.type_id();
        self.out.put_u8(type_id);
        if let Some(flags) = self.flags.as_mut().filter(|_| may_be_marshalled(type_id)) {
            flags.push(false);
        }
        object.write(self);
    }

    /// With a cache every object is sent as new and not to be remembered, so that nothing needs remembering here.
    pub(super) fn cached<T: Structure>(&mut self, object: Option<&T>) {
        if self.cache {
            self.flag(true);
            self.out.put_i16(-1);
        }
        self.object(object);
    }

    pub(super) fn elements<T>(&mut self, elements: &[T], mut write: impl FnMut(&mut Self, &T)) {
        match i16::try_from(elements.len()) {
            Ok(count) => self.out.put_i16(count),
            Err(_) => self.refuse(EncodeError::TooManyElements(elements.len())),
        }
        for element in elements {
            write(self, element);
        }
    }
}

impl Flags {
    fn push(&mut self, flag: bool) {
        if self.next.is_multiple_of(8) {
            self.bits.push(0);
        }
        if let Some(last) = self.bits.last_mut() {
            *last |= u8::from(flag) << (self.next % 8);
        }
        self.next += 1;
    }

    fn extend(&mut self, flags: [bool; 2]) {
        for flag in flags {
            self.push(flag);
        }
    }

    fn into_stream(self) -> Result<Vec<u8>, EncodeError> {
        let length = self.bits.len();
        let mut stream = match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ 0..64), _) => vec![short],
            (Ok(middling), _) => vec![0xc0, middling],
            (_, Ok(long)) => [&[0x80], &long.to_be_bytes()[..]].concat(),
            _ => return Err(EncodeError::TooManyElements(self.next)),
        };
        stream.extend(self.bits);
        Ok(stream)
    }
}
