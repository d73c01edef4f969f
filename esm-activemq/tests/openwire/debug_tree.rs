//! What `{:?}` prints, as JSON, so that every field of every command can be compared without naming each.

use std::fmt::Debug;

use serde_json::{Map, Value, json};

/// A value's debug form. Structures become objects with their name in `_name`, variants with one value become
/// objects with `_name` and `0`, byte strings become `{"hex": …}`, and what is optional is itself or null.
pub(crate) fn tree(value: &impl Debug) -> Value {
    let text = format!("{value:?}");
    let mut parser = Parser { rest: &text };
    let tree = parser.value();
    assert_eq!(parser.rest, "", "the end of {text}");
    tree
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn value(&mut self) -> Value {
        if self.rest.starts_with('"') {
            return Value::String(self.quoted());
        }
        if self.eat("b\"") {
            let bytes = self.byte_string();
            return json!({ "hex": hex(&bytes) });
        }
        if self.eat("[") {
            return Value::Array(self.items("]", Self::value));
        }
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || "-_.".contains(c))).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if self.eat(" { ") {
            let fields = self.items(" }", |parser| {
                let (name, rest) = parser.rest.split_once(": ").unwrap();
                parser.rest = rest;
                (name.to_owned(), parser.value())
            });
            let name = std::iter::once(("_name".to_owned(), json!(word)));
            return Value::Object(name.chain(fields).collect());
        }
        if self.eat("(") {
            let mut values = self.items(")", Self::value);
            assert_eq!(values.len(), 1, "{word}");
            return if word == "Some" { values.remove(0) } else { json!({ "_name": word, "0": values.remove(0) }) };
        }
        match word {
            "None" => Value::Null,
            "true" => json!(true),
            "false" => json!(false),
            _ => word.parse::<i64>().map_or_else(|_| json!(word), |number| json!(number)),
        }
    }

    fn items<T>(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        while !self.eat(end) {
            items.push(item(self));
            self.eat(", ");
        }
        items
    }

    /// A string in the way Rust prints it.
    fn quoted(&mut self) -> String {
        let mut text = String::new();
        let mut chars = self.rest[1..].char_indices();
        loop {
            match chars.next().unwrap() {
                (at, '"') => {
                    self.rest = &self.rest[at + 2..];
                    return text;
                }
                (_, '\\') => match chars.next().unwrap().1 {
                    '0' => text.push('\0'),
                    'n' => text.push('\n'),
                    'r' => text.push('\r'),
                    't' => text.push('\t'),
                    'u' => {
                        let digits: String = chars.by_ref().skip(1).map(|(_, c)| c).take_while(|c| *c != '}').collect();
                        text.push(char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap());
                    }
                    other => text.push(other),
                },
                (_, other) => text.push(other),
            }
        }
    }

    /// The rest of a byte string, in the way `bytes` prints it.
    fn byte_string(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut input = self.rest.bytes();
        loop {
            match input.next().unwrap() {
                b'"' => break,
                b'\\' => match input.next().unwrap() {
                    b'0' => bytes.push(0),
                    b'n' => bytes.push(b'\n'),
                    b'r' => bytes.push(b'\r'),
                    b't' => bytes.push(b'\t'),
                    b'x' => {
                        let digits = [input.next().unwrap(), input.next().unwrap()];
                        bytes.push(u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap());
                    }
                    other => bytes.push(other),
                },
                other => bytes.push(other),
            }
        }
        self.rest = &self.rest[self.rest.len() - input.len()..];
        bytes
    }

    fn eat(&mut self, token: &str) -> bool {
        self.rest.strip_prefix(token).map(|rest| self.rest = rest).is_some()
    }
}

/// Bytes as the recordings show them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

/// The members of an object.
pub(crate) fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is no object"),
    }
}
