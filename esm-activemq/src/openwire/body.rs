//! Bodies of text and bytes messages, which may be compressed.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};
use thiserror::Error;

use super::{
    message::{Message, MessageKind},
    text,
};

/// The bytes of a body's length.
const PREFIX: usize = size_of::<i32>();

/// Inflated bodies grow by this much at first, whatever they announce.
const FIRST_PIECE: usize = 4096;

/// Why a body cannot be read. The rest of the message can.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// It has another type of body.
    #[error("the message has no body of this type")]
    OtherKind,
    /// The body ends before the length that it announces.
    #[error("the body ends {0} bytes before its announced end")]
    Truncated(usize),
    /// The body announces a length below zero.
    #[error("the body announces a length of {0}")]
    NegativeLength(i32),
    /// The body would be longer than the caller wants.
    #[error("the compressed body is {length} bytes long, more than the limit of {limit}")]
    TooLong {
        /// Its length when inflated.
        length: usize,
        /// The caller's limit.
        limit: usize,
    },
    /// The compressed body is no zlib stream.
    #[error("the compressed body is damaged")]
    Damaged,
}

impl Message {
    /// A message with this text, and nothing else.
    pub fn with_text(text: &str) -> Self {
        let encoded = text::encode(text);
        let mut content = BytesMut::with_capacity(PREFIX + encoded.len());
        // A text that is longer than this cannot be sent anyway: no frame is long enough.
        content.put_i32(i32::try_from(encoded.len()).unwrap_or(i32::MAX));
        content.put_slice(&encoded);
        Self { kind: MessageKind::Text, content: Some(content.freeze()), ..Self::default() }
    }

    /// A message with these bytes, and nothing else.
    pub fn with_bytes(content: Bytes) -> Self {
        Self { kind: MessageKind::Bytes, content: Some(content), ..Self::default() }
    }

    /// The text of a text message; the null text is nothing. It is borrowed where it is plain UTF-8, and what is
    /// no character in it becomes U+FFFD. A compressed one is inflated if it is at most `limit` bytes long.
    pub fn text(&self, limit: usize) -> Result<Option<Cow<'_, str>>, BodyError> {
        self.check_kind(MessageKind::Text)?;
        let Some(content) = &self.content else { return Ok(None) };
        if self.compressed {
            let mut inflater = Inflater::new(content);
            let prefix = inflater.inflate(PREFIX)?;
            let Some(length) = announced(&prefix)? else { return Ok(None) };
            let body = inflater.inflate(within(limit, length)?)?;
            return Ok(Some(Cow::Owned(text::decode(&body).into_owned())));
        }
        let Some(length) = announced(content)? else { return Ok(None) };
        let body = &content[PREFIX..];
        match body.get(..length) {
            Some(text) => Ok(Some(text::decode(text))),
            None => Err(BodyError::Truncated(length - body.len())),
        }
    }

    /// The bytes of a bytes message; null is empty. Compressed ones are inflated if they are at most `limit` bytes.
    pub fn bytes(&self, limit: usize) -> Result<Cow<'_, [u8]>, BodyError> {
        self.check_kind(MessageKind::Bytes)?;
        match &self.content {
            // Nothing is left uncompressed, whatever the flag says.
            None => Ok(Cow::Borrowed(&[])),
            Some(content) if !self.compressed || content.is_empty() => Ok(Cow::Borrowed(content)),
            Some(content) => {
                let Some(length) = announced(content)? else { return Err(BodyError::NegativeLength(-1)) };
                // Java deflates its whole buffer, so the stream may go on behind the end of the body.
                Inflater::new(&content[PREFIX..]).inflate(within(limit, length)?).map(Cow::Owned)
            }
        }
    }

    fn check_kind(&self, kind: MessageKind) -> Result<(), BodyError> {
        if self.kind == kind { Ok(()) } else { Err(BodyError::OtherKind) }
    }
}

/// The length at the start of a body, or nothing for the null text.
fn announced(body: &[u8]) -> Result<Option<usize>, BodyError> {
    let Some(prefix) = body.first_chunk() else { return Err(BodyError::Truncated(PREFIX - body.len())) };
    match i32::from_be_bytes(*prefix) {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| BodyError::NegativeLength(length)),
    }
}

fn within(limit: usize, length: usize) -> Result<usize, BodyError> {
    if length > limit { Err(BodyError::TooLong { length, limit }) } else { Ok(length) }
}

/// A zlib stream that is inflated piece by piece.
struct Inflater<'a> {
    compressed: &'a [u8],
    state: Decompress,
}

impl<'a> Inflater<'a> {
    fn new(compressed: &'a [u8]) -> Self {
        Self { compressed, state: Decompress::new(true) }
    }

    /// The next bytes of the stream, exactly so many. Memory is taken as they come, not as they are announced.
    fn inflate(&mut self, length: usize) -> Result<Vec<u8>, BodyError> {
        let mut inflated = Vec::new();
        while inflated.len() < length {
            let missing = length - inflated.len();
            inflated.reserve_exact(missing.min(inflated.len().max(FIRST_PIECE)));
            let (read, written) = (self.state.total_in(), inflated.len());
            let status = self.state.decompress_vec(self.compressed, &mut inflated, FlushDecompress::None);
            let status = status.map_err(|_| BodyError::Damaged)?;
            let read = usize::try_from(self.state.total_in() - read).unwrap_or(usize::MAX);
            self.compressed = self.compressed.get(read..).unwrap_or_default();
            let is_stuck = read == 0 && inflated.len() == written;
            if inflated.len() < length && (status == Status::StreamEnd || is_stuck) {
                return Err(BodyError::Truncated(length - inflated.len()));
            }
        }
        inflated.truncate(length);
        Ok(inflated)
    }
}
