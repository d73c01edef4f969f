//! The pieces of a record as JSON, written straight into its buffer.

use bytes::{BufMut, BytesMut};

/// A whole number.
pub fn put_integer(out: &mut BytesMut, number: impl itoa::Integer) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A number or a text as JSON; NaN and infinities become null.
pub fn put_json(out: &mut BytesMut, value: &impl serde::Serialize) {
    // Neither a number nor a text can fail, nor can a buffer that grows.
    let _ = serde_json::to_writer(out.writer(), value);
}

/// A text in quotes.
pub fn put_string(out: &mut BytesMut, text: &str) {
    // Nearly every name and id is plain: what needs no escape is copied at once.
    let escapes = text.bytes().fold(0, |found, byte| found | NEEDS_ESCAPE[usize::from(byte)]);
    if escapes != 0 {
        return put_json(out, &text);
    }
    out.reserve(text.len() + 2);
    out.put_u8(b'"');
    out.put_slice(text.as_bytes());
    out.put_u8(b'"');
}

/// Bytes that JSON does not allow in a string as they are (RFC 8259, 7).
static NEEDS_ESCAPE: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = 1;
        control += 1;
    }
    table[b'"' as usize] = 1;
    table[b'\\' as usize] = 1;
    table
};

/// Bytes in base64, without quotes.
pub fn put_base64(out: &mut BytesMut, data: &[u8]) {
    let start = out.len();
    out.put_bytes(0, base64_simd::STANDARD.encoded_length(data.len()));
    let _ = base64_simd::STANDARD.encode(data, base64_simd::Out::from_slice(&mut out[start..]));
}
