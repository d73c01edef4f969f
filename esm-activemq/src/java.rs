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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openwire::{encode_properties, properties};

    fn double(number: f64) -> String {
        let mut text = String::new();
        push_double(&mut text, number);
        text
    }

    fn float(number: f32) -> String {
        let mut text = String::new();
        push_float(&mut text, number);
        text
    }

    /// Printed by a Java virtual machine; the last four follow the rules since Java 19, which mended them.
    #[test]
    fn doubles_are_printed_as_java_prints_them() {
        let table = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.0, "-1.0"),
            (1.5, "1.5"),
            (-2.25, "-2.25"),
            (0.1, "0.1"),
            (0.300_000_000_000_000_04, "0.30000000000000004"),
            (1.0 / 3.0, "0.3333333333333333"),
            (0.0123, "0.0123"),
            (0.001_23, "0.00123"),
            (0.001, "0.001"),
            (0.000_999_999_999_999_999_8, "9.999999999999998E-4"),
            (0.000_999_9, "9.999E-4"),
            (0.000_01, "1.0E-5"),
            (0.000_011, "1.1E-5"),
            (100.0, "100.0"),
            (1_200.0, "1200.0"),
            (120_000.5, "120000.5"),
            (123_456.789, "123456.789"),
            (1_000_000.0, "1000000.0"),
            (9_999_999.0, "9999999.0"),
            (9_999_999.5, "9999999.5"),
            (1e7, "1.0E7"),
            (12_345_678.9, "1.23456789E7"),
            (1e10, "1.0E10"),
            (1e16, "1.0E16"),
            (1e21, "1.0E21"),
            (123_456_789_012_345_680.0, "1.2345678901234568E17"),
            (9_007_199_254_740_993.0, "9.007199254740992E15"),
            (70_368_744_177_664.125, "7.036874417766412E13"),
            (1e100, "1.0E100"),
            (1e-100, "1.0E-100"),
            (f64::MAX, "1.7976931348623157E308"),
            (f64::MIN_POSITIVE, "2.2250738585072014E-308"),
            (f64::from_bits(1), "4.9E-324"),
            (-f64::from_bits(1), "-4.9E-324"),
            (f64::from_bits(3), "1.5E-323"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::from_bits(2), "9.9E-324"),
            (1e23, "1.0E23"),
            (2e23, "2.0E23"),
            (8.41e21, "8.41E21"),
        ];
        for (number, expected) in table {
            assert_eq!(double(number), expected);
        }
    }

    /// Likewise; the last one follows the rules since Java 19.
    #[test]
    fn floats_are_printed_as_java_prints_them() {
        let table = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (1.5, "1.5"),
            (-2.25, "-2.25"),
            (0.1, "0.1"),
            (0.3, "0.3"),
            (1.1, "1.1"),
            (1.0 / 3.0, "0.33333334"),
            (0.001, "0.001"),
            (0.000_999_9, "9.999E-4"),
            (0.000_01, "1.0E-5"),
            (1e-10, "1.0E-10"),
            (100.0, "100.0"),
            (123_456.79, "123456.79"),
            (8_388_607.5, "8388607.5"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (16_777_216.0, "1.6777216E7"),
            (1e10, "1.0E10"),
            (f32::MAX, "3.4028235E38"),
            (f32::from_bits(1), "1.4E-45"),
            (f32::from_bits(2), "2.8E-45"),
            (f32::NAN, "NaN"),
            (f32::INFINITY, "Infinity"),
            (f32::NEG_INFINITY, "-Infinity"),
            (f32::MIN_POSITIVE, "1.1754944E-38"),
        ];
        for (number, expected) in table {
            assert_eq!(float(number), expected);
        }
    }

    #[test]
    fn everything_else_is_printed_as_java_prints_it() {
        let inner = encode_properties([("c", Primitive::Null), ("d", Primitive::Double(1.0))]).expect("fits");
        let map = || Primitive::Map(properties(&inner).expect("is a map"));
        let table = [
            (Primitive::Boolean(true), "true"),
            (Primitive::Boolean(false), "false"),
            (Primitive::Byte(i8::MIN), "-128"),
            (Primitive::Short(i16::MIN), "-32768"),
            (Primitive::Int(i32::MIN), "-2147483648"),
            (Primitive::Long(i64::MIN), "-9223372036854775808"),
            (Primitive::Long(i64::MAX), "9223372036854775807"),
            (Primitive::Float(0.1), "0.1"),
            (Primitive::Double(1e10), "1.0E10"),
            (Primitive::Char(0xe9), "é"),
            (Primitive::Char(0xd800), "\u{fffd}"),
            (Primitive::String("a=b".into()), "a=b"),
            (Primitive::Bytes(&[0, 255]), "AP8="),
            (map(), "{c=null, d=1.0}"),
        ];
        for (value, expected) in table {
            let mut text = String::new();
            push_value(&mut text, value).expect("is well-formed");
            assert_eq!(text, expected);
        }
    }
}
