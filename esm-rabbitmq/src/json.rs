//! The pieces of a record as JSON, as Gson prints the Java client's values.

use bytes::{BufMut, BytesMut};
use esm_core::json::put_integer;
use jiff::{Timestamp, tz::Offset};
use lapin::types::DecimalValue;

use crate::record::HeaderBytes;

/// `[104,105]`, by a table of every byte's digits.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8], how: HeaderBytes) {
    let digits = match how {
        HeaderBytes::Signed => &SIGNED,
        HeaderBytes::Unsigned => &UNSIGNED,
    };
    out.put_u8(b'[');
    let start = out.len();
    out.put_bytes(0, bytes.len() * LONGEST_DIGITS);
    let mut end = start;
    for byte in bytes {
        let (text, length) = &digits[usize::from(*byte)];
        out[end..end + LONGEST_DIGITS].copy_from_slice(text);
        end += usize::from(*length);
    }
    // The last one's comma is not wanted.
    out.truncate(if bytes.is_empty() { end } else { end - 1 });
    out.put_u8(b']');
}

/// `-128,`
const LONGEST_DIGITS: usize = 5;
static SIGNED: [([u8; LONGEST_DIGITS], u8); 256] = digits(true);
static UNSIGNED: [([u8; LONGEST_DIGITS], u8); 256] = digits(false);

/// Each byte's number and a comma, and how long that is.
const fn digits(signed: bool) -> [([u8; LONGEST_DIGITS], u8); 256] {
    let mut table = [([b','; LONGEST_DIGITS], 0); 256];
    let mut byte = 0;
    while byte < 256 {
        let negative = signed && byte > 127;
        let number = if negative { 256 - byte } else { byte };
        let mut text = [b','; LONGEST_DIGITS];
        let mut length = 0_u8;
        if negative {
            text[0] = b'-';
            length = 1;
        }
        let mut unit = if number > 99 {
            100
        } else if number > 9 {
            10
        } else {
            1
        };
        while unit > 0 {
            text[length as usize] = b"0123456789"[number / unit % 10];
            length += 1;
            unit /= 10;
        }
        table[byte] = (text, length + 1);
        byte += 1;
    }
    table
}

/// The Java client reads the unscaled value as a signed number.
pub(crate) fn put_decimal(out: &mut BytesMut, number: DecimalValue) {
    let unscaled = number.value.cast_signed();
    if unscaled < 0 {
        out.put_u8(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(unscaled.unsigned_abs());
    let scale = usize::from(number.scale);
    if scale == 0 {
        return out.put_slice(digits.as_bytes());
    }
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(scale));
    out.put_slice(if whole.is_empty() { b"0" } else { whole.as_bytes() });
    out.put_u8(b'.');
    out.put_bytes(b'0', scale - fraction.len());
    out.put_slice(fraction.as_bytes());
}

/// `"Jan 1, 1970, 12:33:41 AM"`: Java's `DateFormat.MEDIUM` for the US, in UTC.
pub(crate) fn put_date(out: &mut BytesMut, seconds: u64) {
    let timestamp = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let Some(timestamp) = timestamp else {
        return out.put_slice(b"null");
    };
    let date = Offset::UTC.to_datetime(timestamp);
    let (morning, hour) = (date.hour() < 12, date.hour() % 12);
    out.put_u8(b'"');
    out.put_slice(MONTHS[usize::from(date.month().unsigned_abs()) - 1]);
    put_integer(out, date.day());
    out.put_slice(b", ");
    put_integer(out, date.year());
    out.put_slice(b", ");
    put_integer(out, if hour == 0 { 12 } else { hour });
    for number in [date.minute(), date.second()] {
        out.put_slice(if number < 10 { b":0" } else { b":" });
        put_integer(out, number);
    }
    out.put_slice(if morning { b" AM\"" } else { b" PM\"" });
}

const MONTHS: [&[u8]; 12] =
    [b"Jan ", b"Feb ", b"Mar ", b"Apr ", b"May ", b"Jun ", b"Jul ", b"Aug ", b"Sep ", b"Oct ", b"Nov ", b"Dec "];
