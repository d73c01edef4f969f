//! A pattern as its author wrote it: a small tree of JSON.

use std::fmt::{self, Write as _};

use super::json::{Malformed, Scanner};

/// Deeper patterns are refused; nobody writes them, and what walks over patterns may call itself.
const DEEPEST: usize = 100;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    Number(f64),
    Text(String),
    List(Vec<Value>),
    /// Of a name that is there twice, the last one counts.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// Reads a pattern, or says what is wrong with it.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut reader = Reader { scanner: Scanner::new(text), refused: None };
        let value = reader.value(0).and_then(|value| reader.scanner.end().map(|()| value));
        value.map_err(|Malformed| {
            let place = reader.scanner.position() + 1;
            reader.refused.unwrap_or_else(|| format!("is not JSON (see byte {place})"))
        })
    }

    /// What it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

struct Reader<'a> {
    scanner: Scanner<'a>,
    /// What is wrong with a pattern that is JSON.
    refused: Option<String>,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, Malformed> {
        if depth > DEEPEST {
            self.refused = Some(format!("is nested deeper than {DEEPEST} levels"));
            return Err(Malformed);
        }
        match self.scanner.peek() {
            Some(b'{') => {
                let mut members: Vec<(String, Value)> = Vec::new();
                let mut reading = self.scanner.open(b'{')?;
                while let Some(name) = self.scanner.key(&mut reading)? {
                    let (name, value) = (self.scanner.unescaped(name), self.value(depth + 1)?);
                    members.retain(|(earlier, _)| *earlier != name);
                    members.push((name.into_owned(), value));
                }
                Ok(Value::Object(members))
            }
            Some(b'[') => {
                let mut elements = Vec::new();
                let mut reading = self.scanner.open(b'[')?;
                while self.scanner.element(&mut reading)? {
                    elements.push(self.value(depth + 1)?);
                }
                Ok(Value::List(elements))
            }
            Some(b'"') => {
                let text = self.scanner.string()?;
                Ok(Value::Text(self.scanner.unescaped(text).into_owned()))
            }
            Some(b't') => self.scanner.word("true").map(|()| Value::Boolean(true)),
            Some(b'f') => self.scanner.word("false").map(|()| Value::Boolean(false)),
            Some(b'n') => self.scanner.word("null").map(|()| Value::Null),
            _ => {
                let text = self.scanner.number()?;
                let number: f64 = text.parse().map_err(|_| Malformed)?;
                if number.is_infinite() {
                    self.refused = Some(format!("has the number {text}, which is too large"));
                    return Err(Malformed);
                }
                Ok(Value::Number(number))
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("null"),
            Self::Boolean(value) => write!(formatter, "{value}"),
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Text(text) => quoted(formatter, text),
            Self::List(elements) => {
                formatter.write_char('[')?;
                for (index, element) in elements.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(formatter, "{comma}{element}")?;
                }
                formatter.write_char(']')
            }
            Self::Object(members) => {
                formatter.write_char('{')?;
                for (index, (name, value)) in members.iter().enumerate() {
                    formatter.write_str(if index > 0 { "," } else { "" })?;
                    quoted(formatter, name)?;
                    write!(formatter, ":{value}")?;
                }
                formatter.write_char('}')
            }
        }
    }
}

fn quoted(formatter: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    formatter.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(formatter, "\\{character}")?,
            control if control.is_control() => write!(formatter, "\\u{:04x}", u32::from(control))?,
            plain => formatter.write_char(plain)?,
        }
    }
    formatter.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_name_that_is_there_twice_the_last_one_counts() {
        assert_eq!(Value::read(r#"{"a":[1],"b":[2],"\u0061":[3]}"#), Value::read(r#"{"b":[2],"a":[3]}"#));
    }

    #[test]
    fn a_pattern_is_shown_as_json_again() {
        let check = |text: &str| assert_eq!(Value::read(text).unwrap().to_string(), text);
        check(r#"{"a":[null,true,1.5,300,"x"],"b":{"c":[{"prefix":"é"}]}}"#);
        check(r#"{"a\"b":["\\","\u000a"]}"#);
        check("{}");
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        let check = |text: &str, expected: &str| assert_eq!(Value::read(text).unwrap_err(), expected);
        check("", "is not JSON (see byte 1)");
        check(r#"{"a":[1,]}"#, "is not JSON (see byte 9)");
        check(r#"{"a":[1]} x"#, "is not JSON (see byte 11)");
        check(r#"{"a":[1e999]}"#, "has the number 1e999, which is too large");
        check(&"[".repeat(2_000), "is nested deeper than 100 levels");
    }
}
