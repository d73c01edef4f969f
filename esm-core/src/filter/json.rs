//! Reads JSON (RFC 8259) in one pass, without a tree: whatever is stepped over is checked, and only
//! what is asked for is looked at.

use std::borrow::Cow;

/// The text is not JSON; the [`Scanner`] stands where that shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A place in a JSON text.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Where it stands, in bytes.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The first byte of what comes next, blanks passed over.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Nothing but blanks may follow.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        if self.peek().is_none() { Ok(()) } else { Err(Malformed) }
    }

    /// Steps into an object or an array.
    pub(super) fn open(&mut self, bracket: u8) -> Result<Members, Malformed> {
        self.expect(bracket)?;
        Ok(Members { none_yet: true })
    }

    /// The name of an object's next member, whose value comes next; none at the object's end.
    #[inline]
    pub(super) fn key(&mut self, members: &mut Members) -> Result<Option<Text>, Malformed> {
        if !self.has_next(members, b'}')? {
            return Ok(None);
        }
        self.name().map(Some)
    }

    /// Whether an array has a further element, which comes next; if not, its end was stepped over.
    pub(super) fn element(&mut self, members: &mut Members) -> Result<bool, Malformed> {
        self.has_next(members, b']')
    }

    #[inline]
    fn has_next(&mut self, members: &mut Members, end: u8) -> Result<bool, Malformed> {
        let is_first = std::mem::take(&mut members.none_yet);
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !is_first => self.at += 1,
            Some(_) if is_first => {}
            _ => return Err(Malformed),
        }
        Ok(true)
    }

    #[inline]
    fn name(&mut self) -> Result<Text, Malformed> {
        if self.peek() != Some(b'"') {
            return Err(Malformed);
        }
        let name = self.string()?;
        self.expect(b':')?;
        Ok(name)
    }

    /// A string, at whose quote it stands.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Text, Malformed> {
        let start = self.at + 1;
        let has_escapes = self.skip_string()?;
        Ok(Text { start, end: self.at - 1, has_escapes })
    }

    /// Steps over a string, at whose quote it stands; returns whether it has escapes.
    fn skip_string(&mut self) -> Result<bool, Malformed> {
        let bytes = self.text.as_bytes();
        let mut has_escapes = false;
        let mut at = self.at + 1;
        loop {
            at = plain_end(bytes, at);
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(has_escapes);
                }
                Some(b'\\') => {
                    has_escapes = true;
                    at += escape_length(&bytes[at..])?;
                }
                _ => {
                    self.at = at;
                    return Err(Malformed); // a control character, or the text ends
                }
            }
        }
    }

    /// What a string says. Half a surrogate pair, which says nothing, becomes U+FFFD.
    pub(super) fn unescaped(&self, text: Text) -> Cow<'a, str> {
        let raw = &self.text[text.start..text.end];
        if text.has_escapes { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }
    }

    /// Likewise, as bytes.
    pub(super) fn unescaped_bytes(&self, text: Text) -> Cow<'a, [u8]> {
        if text.has_escapes {
            Cow::Owned(self.unescaped(text).into_owned().into_bytes())
        } else {
            Cow::Borrowed(&self.text.as_bytes()[text.start..text.end])
        }
    }

    /// The text of a number.
    pub(super) fn number(&mut self) -> Result<&'a str, Malformed> {
        let start = self.at;
        self.pass(b"-");
        if !self.pass(b"0") {
            self.digits()?;
        }
        if self.pass(b".") {
            self.digits()?;
        }
        if self.pass(b"eE") {
            self.pass(b"+-");
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Malformed) }
    }

    fn pass(&mut self, any_of: &[u8]) -> bool {
        let passes = self.byte().is_some_and(|byte| any_of.contains(&byte));
        self.at += usize::from(passes);
        passes
    }

    /// `null`, `true` or `false`.
    pub(super) fn word(&mut self, word: &str) -> Result<(), Malformed> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Malformed);
        }
        self.at += word.len();
        Ok(())
    }

    /// Steps over the next value, however deep it is.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        let mut nesting = Nesting::default();
        loop {
            match self.peek() {
                Some(b'"') => drop(self.skip_string()?),
                Some(bracket @ (b'{' | b'[')) => {
                    self.at += 1;
                    let is_object = bracket == b'{';
                    let is_empty = self.peek() == Some(if is_object { b'}' } else { b']' });
                    nesting.push(is_object);
                    if !is_empty {
                        if is_object {
                            self.name()?;
                        }
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => drop(self.number()?),
                Some(b't') => self.word("true")?,
                Some(b'f') => self.word("false")?,
                Some(b'n') => self.word("null")?,
                _ => return Err(Malformed),
            }
            if !self.skip_ends(&mut nesting)? {
                return Ok(());
            }
        }
    }

    /// Steps over the ends that follow a value, up to the next value; `false`: there is none.
    fn skip_ends(&mut self, nesting: &mut Nesting) -> Result<bool, Malformed> {
        while let Some(is_object) = nesting.innermost() {
            let byte = self.peek().ok_or(Malformed)?;
            self.at += 1;
            match (byte, is_object) {
                (b',', true) => return self.name().map(|_| true),
                (b',', false) => return Ok(true),
                (b'}', true) | (b']', false) => nesting.pop(),
                _ => return Err(Malformed),
            }
        }
        Ok(false)
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

/// How far the members of an object or the elements of an array were read. At their end it is as far
/// as those around them: past the first.
pub(super) struct Members {
    none_yet: bool,
}

/// Where a string stands between its quotes.
#[derive(Clone, Copy)]
pub(super) struct Text {
    start: usize,
    end: usize,
    has_escapes: bool,
}

/// The scanner has seen that every escape is whole.
fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let (letter, after) = escape.split_at(1);
        rest = after;
        match letter {
            "u" => {
                let mut units = vec![unit(after)];
                rest = &after[4..];
                while let Some(digits) = rest.strip_prefix("\\u") {
                    units.push(unit(digits));
                    rest = &digits[4..];
                }
                text.push_str(&String::from_utf16_lossy(&units));
            }
            "b" => text.push('\u{8}'),
            "f" => text.push('\u{c}'),
            "n" => text.push('\n'),
            "r" => text.push('\r'),
            "t" => text.push('\t'),
            itself => text.push_str(itself),
        }
    }
    text.push_str(rest);
    text
}

fn unit(digits: &str) -> u16 {
    u16::from_str_radix(&digits[..4], 16).unwrap_or_default()
}

/// The length of an escape.
fn escape_length(rest: &[u8]) -> Result<usize, Malformed> {
    match rest.get(1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
        Some(b'u') if rest.get(2..6).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) => Ok(6),
        _ => Err(Malformed),
    }
}

/// Where the next quote, backslash or control character stands; eight bytes are looked at at once.
#[inline]
fn plain_end(bytes: &[u8], start: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 0x80;
    let mut at = start;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let chunk = u64::from_le_bytes(*chunk);
        let quotes = chunk ^ (ONES * u64::from(b'"'));
        let backslashes = chunk ^ (ONES * u64::from(b'\\'));
        // The lowest flag is right; a borrow can set wrong ones only above it.
        let flags = (quotes.wrapping_sub(ONES) & !quotes)
            | (backslashes.wrapping_sub(ONES) & !backslashes)
            | (chunk.wrapping_sub(ONES * 0x20) & !chunk);
        if flags & HIGHS != 0 {
            return at + (flags & HIGHS).trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// Which brackets are open, as bits: the first 64 levels cost no allocation, each further 64 eight bytes.
#[derive(Default)]
struct Nesting {
    depth: usize,
    bits: u64,
    outer: Vec<u64>,
}

impl Nesting {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.bits >>= 1;
        if self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().unwrap_or_default();
        }
    }

    fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.bits & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{
        prelude::{ProptestConfig, proptest},
        prop_assert_eq,
    };
    use serde::de::IgnoredAny;

    use super::*;

    fn is_json(text: &str) -> bool {
        let mut scanner = Scanner::new(text);
        scanner.skip().and_then(|()| scanner.end()).is_ok()
    }

    #[test]
    fn what_rfc_8259_allows_is_json() {
        for text in [
            "{}",
            "[]",
            " [ { } , [ ] ]\n",
            r#"{"":0}"#,
            r#"{"a":{"b":[1,-0,0.5,1e9,1E-9,1.25e+3]},"c":[true,false,null,"x"]}"#,
            r#""\"\\\/\b\f\n\r\tA\ud83d""#,
            r#""long enough for more than one chunk of eight""#,
            "\"\u{7f} é \u{1f600}\"",
            "-0.0",
        ] {
            assert!(is_json(text), "{text}");
        }
    }

    #[test]
    fn what_rfc_8259_does_not_allow_is_not_json() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "{]",
            "[}",
            "[1,]",
            "[,1]",
            "[1 2]",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            "{a:1}",
            r#"{"a":1}}"#,
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "NaN",
            "tru",
            "nul",
            "True",
            r#"""#,
            r#""\"#,
            r#""\x""#,
            r#""\u12g4""#,
            r#""\u12"#,
            "\"\t\"",
            "\"12345678\u{1}\"",
            "[1]x",
            "'a'",
            "[1]\u{a0}",
            "\u{feff}{}",
        ] {
            assert!(!is_json(text), "{text}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let levels = 1_000_000;
        let text = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(is_json(&text));
        assert!(!is_json(&text[1..]));
        assert!(!is_json(&text[..text.len() - 1]));
        let mixed = format!("{}1{}", r#"{"a":["#.repeat(200), "]}".repeat(200));
        assert!(is_json(&mixed));
        assert!(!is_json(&mixed.replacen("]}", "}]", 1)));
    }

    #[test]
    fn escapes_say_what_rfc_8259_says() {
        let check = |raw: &str, expected: &str| {
            let quoted = format!("\"{raw}\"");
            let mut scanner = Scanner::new(&quoted);
            let text = scanner.string().unwrap();
            assert_eq!(scanner.unescaped(text), expected);
        };
        check("plain", "plain");
        check(r"\u0061\u00e9\u20AC", "aé€");
        check(r#"\"\\\/\b\f\n\r\t."#, "\"\\/\u{8}\u{c}\n\r\t.");
        check(r"a\\nb\\\\c\\", r"a\nb\\c\");
        check(r"\ud83d\ude00!", "\u{1f600}!");
        check(r"\ud83d", "\u{fffd}");
        check(r"\ud83dx\ude00", "\u{fffd}x\u{fffd}");
        check(r"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}");
        check(r"\ud83d\n", "\u{fffd}\n");
        check(r"\ud83d\u0061", "\u{fffd}a");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn json_is_what_another_reader_takes_for_json(text in r#"[\[\]{}:, 01.eE+\-tn"ab\\]{0,12}|(\[|\]|\{"a":|\}|,|1|"x"|null|true|-0.1e5| ){0,9}"#) {
            prop_assert_eq!(is_json(&text), serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn strings_say_what_another_reader_says(text in r#"([a-z]{0,9}|\\["\\/bfnrt]|\\u(0[0-9a-f]{3}|d83d\\ude00)|é|😀){0,6}"#) {
            let quoted = format!("\"{text}\"");
            let mut scanner = Scanner::new(&quoted);
            let found = scanner.string().unwrap();
            prop_assert_eq!(scanner.unescaped(found), serde_json::from_str::<String>(&quoted).unwrap());
        }
    }
}
