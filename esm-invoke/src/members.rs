//! The few members of a JSON answer that say what went wrong, read without building the rest.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Texts in logs and error messages are cut to this many bytes.
const TEXT_LIMIT: usize = 1024;

/// What error bodies of Lambda and its emulators hold. A member that is not a string counts as
/// absent, and of members with the same name the last one counts, as in JavaScript.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) error_type: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
}

impl Members {
    /// The members of a JSON text: none when it is something else than an object, `None` when it is
    /// not JSON at all. Skipping is iterative in `serde_json`, so depth costs no stack.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        if json.trim_ascii_start().starts_with(b"{") {
            serde_json::from_slice(json).ok()
        } else {
            serde_json::from_slice(json).ok().map(|IgnoredAny| Self::default())
        }
    }
}

/// A text as people should meet it in a log: one line, bounded, without control characters.
pub(crate) fn for_log(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(TEXT_LIMIT)];
    let line = cut.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    line.chain((cut.len() < text.len()).then_some('…')).collect()
}

#[derive(Deserialize)]
#[serde(field_identifier)]
enum Name {
    #[serde(rename = "errorType")]
    ErrorType,
    #[serde(rename = "errorMessage")]
    ErrorMessage,
    Reason,
    #[serde(rename = "message", alias = "Message")]
    Message,
    #[serde(other)]
    Other,
}

/// A member's value if it is a string, cut for logs.
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        Ok(Self(raw.starts_with('"').then(|| {
            // JavaScript prints strings that are not Unicode (a lone surrogate): shown as written.
            let text = serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned());
            for_log(&text)
        })))
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members::default();
                while let Some(name) = map.next_key()? {
                    let member = match name {
                        Name::ErrorType => &mut members.error_type,
                        Name::ErrorMessage => &mut members.error_message,
                        Name::Reason => &mut members.reason,
                        Name::Message => &mut members.message,
                        Name::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *member = map.next_value::<Text>()?.0;
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, error_type: Option<&str>, error_message: Option<&str>) {
        let members = Members::parse(json.as_bytes()).expect(json);
        let found = (members.error_type.as_deref(), members.error_message.as_deref());
        assert_eq!(found, (error_type, error_message), "{json}");
    }

    #[test]
    fn only_strings_count_and_the_last_of_a_name_wins() {
        check(r#"{"errorType":"A","errorMessage":"b"}"#, Some("A"), Some("b"));
        check(r#" {"errorMessage":"b\n","x":[{}],"errorType":"A"} "#, Some("A"), Some("b"));
        check(r#"{"errorType":"A","errorType":"B"}"#, Some("B"), None);
        check(r#"{"errorType":"A","errorType":1}"#, None, None);
        check(r#"{"errorType":{"a":1e999},"errorMessage":["b"]}"#, None, None);
        check(r#"{"errorMessage":"lone \ud800","errorType":""}"#, Some(""), Some(r#""lone \ud800""#));
        check(r#"["errorType"]"#, None, None);
        check("1e999", None, None);
        check("null", None, None);
    }

    #[test]
    fn what_is_not_json_is_told_apart() {
        for text in ["", "ok", "{", r#"{"a":1}x"#, "{'a':1}", "\u{feff}{}", "[1,]"] {
            assert_eq!(Members::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Members::parse(b"{\"errorType\":\"\xff\"}"), None);
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        check(&deep, None, None);
        check(&format!(r#"{{"errorType":{deep},"x":{deep}}}"#), None, None);
    }

    #[test]
    fn a_text_for_logs_is_one_bounded_line() {
        assert_eq!(for_log(" a\r\nb\u{1b}[31m "), "a  b [31m");
        let long = "ü".repeat(TEXT_LIMIT);
        assert_eq!(for_log(&long), "ü".repeat(TEXT_LIMIT / 2) + "…");
        assert_eq!(for_log(&format!("x{long}")).len(), TEXT_LIMIT - 1 + "…".len());
    }
}
