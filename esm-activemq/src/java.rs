//! Values as Java prints them, since the properties of an event are strings.

use std::fmt::LowerExp;

use base64_simd::STANDARD;

use crate::openwire::{DecodeError, Primitive};

/// Appends a value as its class's `toString` has it.
///
/// Byte arrays, of which Java prints no more than an address, become base64, as all bytes of an event do.
pub(crate) fn push_value(text: &mut String, value: Primitive<'_>) -> Result<(), DecodeError> {
    match value {
        Primitive::Null => text.push_str("null"),
        Primitive::Boolean(true) => text.push_str("true"),
        Primitive::Boolean(false) => text.push_str("false"),
        Primitive::Byte(number) => push_integer(text, number),
        Primitive::Char(unit) => {
            text.push(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        Primitive::Short(number) => push_integer(text, number),
        Primitive::Int(number) => push_integer(text, number),
        Primitive::Long(number) => push_integer(text, number),
        Primitive::Float(number) => push_float(text, number),
        Primitive::Double(number) => push_double(text, number),
        Primitive::String(string) => text.push_str(&string),
        Primitive::Bytes(bytes) => text.push_str(&STANDARD.encode_to_string(bytes)),
        Primitive::Map(entries) => {
            text.push('{');
            for (index, entry) in entries.enumerate() {
                let (name, value) = entry?;
                separate(text, index);
                text.push_str(&name);
                text.push('=');
                push_value(text, value)?;
            }
            text.push('}');
        }
        Primitive::List(values) => {
            text.push('[');
            for (index, value) in values.enumerate() {
                separate(text, index);
                push_value(text, value?)?;
            }
            text.push(']');
        }
    }
    Ok(())
}

fn separate(text: &mut String, index: usize) {
    if index > 0 {
        text.push_str(", ");
    }
}

fn push_integer(text: &mut String, number: impl itoa::Integer) {
    text.push_str(itoa::Buffer::new().format(number));
}

/// `Float.toString` since Java 19: the fewest digits that mean this number and no other, as a plain decimal from
/// 10⁻³ to 10⁷ and with an exponent otherwise.
fn push_float(text: &mut String, number: f32) {
    match (number.is_finite(), number.is_subnormal()) {
        (false, _) => push_not_finite(text, number.into()),
        (true, true) => push_decimal(text, &two_digits(number)),
        (true, false) => push_decimal(text, zmij::Buffer::new().format_finite(number)),
    }
}

/// `Double.toString`, likewise.
fn push_double(text: &mut String, number: f64) {
    match (number.is_finite(), number.is_subnormal()) {
        (false, _) => push_not_finite(text, number),
        (true, true) => push_decimal(text, &two_digits(number)),
        (true, false) => push_decimal(text, zmij::Buffer::new().format_finite(number)),
    }
}

fn push_not_finite(text: &mut String, number: f64) {
    text.push_str(match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    });
}

/// Java prints two digits at least and chooses them closest to the number: the smallest double, for which `5e-324`
/// would do, is `4.9E-324`. Only numbers with so few bits show the difference.
fn two_digits(number: impl LowerExp) -> String {
    let shortest = format!("{number:e}");
    if shortest.contains('.') { shortest } else { format!("{number:.1e}") }
}

/// A decimal in any notation, written in Java's.
fn push_decimal(text: &mut String, decimal: &str) {
    let (sign, decimal) = decimal.split_at(usize::from(decimal.starts_with('-')));
    let (mantissa, exponent) = decimal.split_once('e').unwrap_or((decimal, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [whole, fraction].concat();
    let significant = all.trim_start_matches('0');
    let leading_zeros = all.len() - significant.len();
    let digits = significant.trim_end_matches('0');
    // How many of the digits stand in front of the point; below zero, zeros stand between it and them.
    let point = exponent.parse().unwrap_or(0) + signed(whole.len()) - signed(leading_zeros);
    text.push_str(sign);
    match point {
        _ if digits.is_empty() => text.push_str("0.0"),
        -2..=0 => text.extend(["0.", &"00"[..point.unsigned_abs() as usize], digits]),
        1..=7 => {
            let (whole, fraction) = digits.split_at(digits.len().min(point.unsigned_abs() as usize));
            let zeros = point.unsigned_abs() as usize - whole.len();
            text.extend([whole, &"000000"[..zeros], ".", or_zero(fraction)]);
        }
        _ => {
            let (first, rest) = digits.split_at(1);
            text.extend([first, ".", or_zero(rest), "E"]);
            push_integer(text, point - 1);
        }
    }
}

fn signed(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

fn or_zero(digits: &str) -> &str {
    if digits.is_empty() { "0" } else { digits }
}
