//! The pieces of a record as JSON, written straight into its buffer.

use bytes::{BufMut, BytesMut};

/// A whole number.
pub fn put_integer(out: &mut impl BufMut, number: impl itoa::Integer) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A number or a text as JSON; NaN and infinities become null.
pub fn put_json(out: &mut impl BufMut, value: &impl serde::Serialize) {
    // Neither a number nor a text can fail, nor can a buffer that grows.
    let _ = serde_json::to_writer(out.writer(), value);
}

/// A text in quotes.
pub fn put_string(out: &mut impl BufMut, text: &str) {
    // Nearly every name and id is plain: what needs no escape is copied at once.
    if found_in(text.as_bytes()) & ESCAPE != 0 {
        return put_json(out, &text);
    }
    put_quoted(out, text.as_bytes());
}

/// Bytes in quotes if they are ASCII that needs no escape; otherwise writes nothing and returns false.
pub fn put_plain(out: &mut impl BufMut, bytes: &[u8]) -> bool {
    let is_plain = found_in(bytes) == 0;
    if is_plain {
        put_quoted(out, bytes);
    }
    is_plain
}

fn put_quoted(out: &mut impl BufMut, bytes: &[u8]) {
    out.put_u8(b'"');
    out.put_slice(bytes);
    out.put_u8(b'"');
}

fn found_in(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |found, byte| found | WHAT_IT_IS[usize::from(*byte)])
}

/// A byte that JSON does not allow in a string as it is (RFC 8259, 7).
const ESCAPE: u8 = 1;
/// A byte that is no character of its own.
const NOT_ASCII: u8 = 2;
static WHAT_IT_IS: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = ESCAPE;
        control += 1;
    }
    table[b'"' as usize] = ESCAPE;
    table[b'\\' as usize] = ESCAPE;
    let mut other = 0x80;
    while other < 0x100 {
        table[other] = NOT_ASCII;
        other += 1;
    }
    table
};

/// Bytes in base64, without quotes.
pub fn put_base64(out: &mut BytesMut, data: &[u8]) {
    let start = out.len();
    out.put_bytes(0, base64_simd::STANDARD.encoded_length(data.len()));
    let _ = base64_simd::STANDARD.encode(data, base64_simd::Out::from_slice(&mut out[start..]));
}
