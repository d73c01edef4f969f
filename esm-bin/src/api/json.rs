//! Bodies as JSON: bounded in depth, and no name twice. Their size and the time they take are the guard's business
//! ([`crate::access`]).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::errors::ApiError;

/// The members of a request's body; none if it is empty.
pub(super) fn members(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(bytes) {
        Ok(Strict(Value::Object(members))) => Ok(members),
        Ok(Strict(_)) => Err(ApiError::Serialization("the body must be a JSON object".into())),
        Err(error) => {
            Err(ApiError::Serialization(format!("Could not parse request body into json: {}", cut(&error.to_string()))))
        }
    }
}

/// Words of a parser may repeat what it read.
fn cut(words: &str) -> String {
    words.chars().filter(|character| !character.is_control()).take(200).collect()
}

/// A value in which no object has a name twice: readers would disagree about what it says.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(element)) = elements.next_element()? {
            list.push(element);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("`{name}` is there twice")));
            }
            let Strict(value) = entries.next_value()?;
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_or_nothing_is_a_body() {
        let check = |body: &str, expected: Value| {
            assert_eq!(Value::Object(members(body.as_bytes()).unwrap()), expected, "{body}");
        };
        check("", json!({}));
        check(" \n", json!({}));
        check(r#"{"a":[1,-2,3.5,"é",true,null,{"b":{}}]}"#, json!({ "a": [1, -2, 3.5, "é", true, null, { "b": {} }] }));
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        let check = |body: &[u8], words: &str| {
            let error = members(body).unwrap_err();
            assert_eq!(error.code(), "SerializationException");
            assert!(error.message().contains(words), "{}", error.message());
        };
        check(b"[]", "must be a JSON object");
        check(b"null", "must be a JSON object");
        check(br#"{"a":1"#, "EOF");
        check(br#"{"a":1} {}"#, "trailing characters");
        check(br#"{"a":1,"b":{"c":1,"c":2}}"#, "`c` is there twice");
        check(b"{\"a\":\"\xff\"}", "invalid unicode");
        check(br#"{"a":"\ud800"}"#, "hex escape");
        check(b"{\"a\":1e999}", "number out of range");
        check(format!("{{\"a\":{}", "[".repeat(200)).as_bytes(), "recursion limit");
        check("[".repeat(100_000).as_bytes(), "recursion limit");
    }
}
