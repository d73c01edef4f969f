//! What a pattern asks of one value: the comparisons that may stand in a pattern's lists.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::{Bound, RangeBounds as _},
};

use super::pattern::Value;

/// A value that is neither an object nor an array. A number beyond the range of a double is infinite.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar<'a> {
    Null,
    Boolean(bool),
    Number(f64),
    Text(&'a str),
}

#[derive(Clone, Debug)]
pub(super) enum Operator {
    Null,
    Boolean(bool),
    /// Numbers are compared as doubles, however they are written: 300, 300.0 and 3e2 are equal.
    Number(f64),
    Numeric(Bound<f64>, Bound<f64>),
    Text(Box<str>),
    EqualsIgnoreCase(Box<str>),
    Prefix(Box<str>),
    PrefixIgnoreCase(Box<str>),
    Suffix(Box<str>),
    SuffixIgnoreCase(Box<str>),
    Wildcard(Wildcard),
    Cidr(Cidr),
    Exists,
    /// None of these is met.
    AnythingBut(Vec<Operator>),
}

impl Operator {
    pub(super) fn is_met_by(&self, value: Scalar<'_>) -> bool {
        match (self, value) {
            (Self::Exists, _) | (Self::Null, Scalar::Null) => true,
            (Self::Boolean(wanted), Scalar::Boolean(value)) => *wanted == value,
            #[expect(clippy::float_cmp, reason = "the same number is wanted, not one close to it")]
            (Self::Number(wanted), Scalar::Number(value)) => *wanted == value,
            (Self::Numeric(low, high), Scalar::Number(value)) => value.is_finite() && (*low, *high).contains(&value),
            (Self::AnythingBut(others), value) => !others.iter().any(|other| other.is_met_by(value)),
            (_, Scalar::Text(text)) => self.is_met_by_text(text),
            _ => false,
        }
    }

    fn is_met_by_text(&self, text: &str) -> bool {
        match self {
            Self::Text(wanted) => **wanted == *text,
            Self::EqualsIgnoreCase(wanted) => {
                let mut letters = text.chars();
                begins(&mut letters, wanted.chars()) && letters.next().is_none()
            }
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::PrefixIgnoreCase(prefix) => begins(&mut text.chars(), prefix.chars()),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
            Self::SuffixIgnoreCase(suffix) => begins(&mut text.chars().rev(), suffix.chars().rev()),
            Self::Wildcard(wildcard) => wildcard.matches(text),
            Self::Cidr(network) => text.parse().is_ok_and(|address| network.contains(address)),
            _ => false,
        }
    }
}

/// Whether these letters begin with those, upper and lower case being the same.
fn begins(letters: &mut impl Iterator<Item = char>, mut wanted: impl Iterator<Item = char>) -> bool {
    wanted.all(|wanted| letters.next().is_some_and(|letter| is_same_letter(letter, wanted)))
}

fn is_same_letter(one: char, other: char) -> bool {
    one == other
        || if one.is_ascii() && other.is_ascii() {
            one.eq_ignore_ascii_case(&other)
        } else {
            one.to_lowercase().eq(other.to_lowercase()) || one.to_uppercase().eq(other.to_uppercase())
        }
}

/// Texts in which `*` stands for anything.
#[derive(Clone, Debug)]
pub(super) struct Wildcard {
    head: Box<str>,
    /// What comes between two asterisks.
    middle: Vec<Box<str>>,
    /// What comes after the last asterisk; none: there is no asterisk.
    tail: Option<Box<str>>,
}

impl Wildcard {
    /// `\*` and `\\` stand for `*` and `\`.
    pub(super) fn read(text: &str) -> Result<Self, &'static str> {
        let mut pieces = vec![String::new()];
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            if letter == '*' {
                if letters.peek() == Some(&'*') {
                    return Err("has two asterisks in a row");
                }
                pieces.push(String::new());
                continue;
            }
            let letter = match (letter, letters.peek()) {
                ('\\', Some('*' | '\\')) => letters.next().unwrap_or(letter),
                ('\\', _) => return Err("has a backslash that is followed neither by an asterisk nor by a backslash"),
                (plain, _) => plain,
            };
            if let Some(piece) = pieces.last_mut() {
                piece.push(letter);
            }
        }
        let mut pieces = pieces.into_iter().map(String::into_boxed_str);
        let head = pieces.next().unwrap_or_default();
        let tail = pieces.next_back();
        Ok(Self { head, middle: pieces.collect(), tail })
    }

    /// The first place for each piece is as good as any later one, so no step is ever taken back.
    fn matches(&self, text: &str) -> bool {
        let Some(rest) = text.strip_prefix(&*self.head) else { return false };
        let Some(tail) = &self.tail else { return rest.is_empty() };
        let Some(mut rest) = rest.strip_suffix(&**tail) else { return false };
        self.middle.iter().all(|piece| {
            rest.split_once(&**piece).is_some_and(|(_, after)| {
                rest = after;
                true
            })
        })
    }
}

/// A network of IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cidr {
    address: IpAddr,
    bits: u32,
}

impl Cidr {
    pub(super) fn read(text: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "must be an IP address, a slash and a number of bits, such as \"10.0.0.0/24\"";
        let (address, bits) = text.split_once('/').ok_or(WANTED)?;
        let address: IpAddr = address.parse().map_err(|_| WANTED)?;
        let bits = if bits.bytes().all(|byte| byte.is_ascii_digit()) { bits.parse() } else { return Err(WANTED) };
        let most = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        match bits {
            Ok(bits) if bits <= most => Ok(Self { address, bits }),
            _ => Err("has more bits than an address"),
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let difference = network.to_bits() ^ address.to_bits();
                difference.checked_shr(Ipv4Addr::BITS - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let difference = network.to_bits() ^ address.to_bits();
                difference.checked_shr(Ipv6Addr::BITS - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Reads the argument of `numeric`: `["=", 5]`, or a lower bound, an upper bound, or both in this order.
/// The error has the place inside the list.
pub(super) fn numeric(list: &[Value]) -> Result<Operator, (Option<usize>, String)> {
    let range = match list {
        [Value::Text(equals), Value::Number(number)] if equals == "=" => {
            (Bound::Included(*number), Bound::Included(*number))
        }
        [sign, number] => match bound(sign, number, 0)? {
            Side::Lower(low) => (low, Bound::Unbounded),
            Side::Upper(high) => (Bound::Unbounded, high),
        },
        [low_sign, low, high_sign, high] => match (bound(low_sign, low, 0)?, bound(high_sign, high, 2)?) {
            (Side::Lower(lower), Side::Upper(upper)) => {
                if !matches!((low, high), (Value::Number(low), Value::Number(high)) if low < high) {
                    return Err((None, "must have a lower bound below the upper one".into()));
                }
                (lower, upper)
            }
            _ => return Err((None, "must have > or >= first, then < or <=".into())),
        },
        _ => return Err((None, r#"must be a comparison or two, such as ["=", 5] or [">", 0, "<=", 5]"#.into())),
    };
    Ok(Operator::Numeric(range.0, range.1))
}

enum Side {
    Lower(Bound<f64>),
    Upper(Bound<f64>),
}

fn bound(sign: &Value, number: &Value, place: usize) -> Result<Side, (Option<usize>, String)> {
    let Value::Text(sign) = sign else {
        return Err((Some(place), format!("must be one of =, <, <=, > and >=, is {}", sign.kind())));
    };
    let Value::Number(number) = number else {
        return Err((Some(place + 1), format!("must be a number, is {}", number.kind())));
    };
    match sign.as_str() {
        ">" => Ok(Side::Lower(Bound::Excluded(*number))),
        ">=" => Ok(Side::Lower(Bound::Included(*number))),
        "<" => Ok(Side::Upper(Bound::Excluded(*number))),
        "<=" => Ok(Side::Upper(Bound::Included(*number))),
        "=" => Err((Some(place), "= must stand alone".into())),
        other => Err((Some(place), format!("must be one of =, <, <=, > and >=, is {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asterisk_stands_for_anything_even_nothing() {
        let check = |pattern: &str, text: &str, expected: bool| {
            let met = Wildcard::read(pattern).unwrap().matches(text);
            assert_eq!(met, expected, "{pattern} {text}");
        };
        check("", "", true);
        check("", "a", false);
        check("*", "", true);
        check("*", "anything", true);
        check("a", "a", true);
        check("a", "ab", false);
        check("a*", "a", true);
        check("*a", "ba", true);
        check("*a", "ab", false);
        check("a*a", "a", false);
        check("a*a", "aa", true);
        check("dir/*/file*.txt", "dir/a/b/file1.txt", true);
        check("dir/*/file*.txt", "dir/file.txt", false);
        check("*a*b*", "xbxa", false);
        check("*a*b*", "xaxb", true);
        check("*aab*", "aaab", true);
        check(r"a\*b", "a*b", true);
        check(r"a\*b", "axb", false);
        check(r"a\\*", r"a\b", true);
        check("é*", "éa", true);
    }

    #[test]
    fn a_wildcard_that_means_nothing_is_refused() {
        for pattern in ["**", "a**b", r"\", r"a\b", r"\\\", r"*\"] {
            assert!(Wildcard::read(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_wildcard_takes_one_pass_however_the_text_looks() {
        let pattern = format!("{}b", "*a".repeat(1_000));
        assert!(!Wildcard::read(&pattern).unwrap().matches(&"a".repeat(100_000)));
    }

    #[test]
    fn a_network_holds_its_addresses() {
        let check = |network: &str, address: &str, expected: bool| {
            let operator = Operator::Cidr(Cidr::read(network).unwrap());
            assert_eq!(operator.is_met_by(Scalar::Text(address)), expected, "{network} {address}");
        };
        check("10.0.0.0/24", "10.0.0.255", true);
        check("10.0.0.7/24", "10.0.0.1", true);
        check("10.0.0.0/24", "10.0.1.0", false);
        check("0.0.0.0/0", "255.255.255.255", true);
        check("0.0.0.0/0", "::1", false);
        check("10.1.2.3/32", "10.1.2.3", true);
        check("10.1.2.3/32", "10.1.2.2", false);
        check("2001:db8::/32", "2001:db8::1", true);
        check("2001:db8::/32", "2001:db9::1", false);
        check("::/0", "::1", true);
        check("10.0.0.0/24", "10.0.0", false);
        check("10.0.0.0/24", "10.0.0.1 ", false);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "10.0.0.0", "10.0.0/8", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "x/8", "::/99999999999"]
        {
            assert!(Cidr::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn letters_are_the_same_in_upper_and_lower_case() {
        let check = |operator: Operator, text: &str, expected: bool| {
            assert_eq!(operator.is_met_by(Scalar::Text(text)), expected, "{operator:?} {text}");
        };
        check(Operator::EqualsIgnoreCase("Alice".into()), "aLICE", true);
        check(Operator::EqualsIgnoreCase("Alice".into()), "alices", false);
        check(Operator::EqualsIgnoreCase("Alice".into()), "alic", false);
        check(Operator::EqualsIgnoreCase("ÉTÉ".into()), "été", true);
        check(Operator::EqualsIgnoreCase("Σας".into()), "ΣΑΣ", true);
        check(Operator::PrefixIgnoreCase("EventB".into()), "eventbridge", true);
        check(Operator::PrefixIgnoreCase("EventB".into()), "event", false);
        check(Operator::SuffixIgnoreCase(".PNG".into()), "a.png", true);
        check(Operator::SuffixIgnoreCase(".PNG".into()), "png", false);
    }
}
