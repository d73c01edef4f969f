//! The model's language: what a member may be, whether a value is that, in the words that AWS has
//! for it when not, and the same as JSON Schema.

use std::{collections::HashMap, fmt::Write as _, sync::LazyLock};

use regex::Regex;
use serde_json::{Map, Value, json};

use super::errors::ApiError;

/// What a member may be.
pub(super) enum Shape {
    Boolean,
    Integer {
        least: i64,
        most: i64,
    },
    /// Seconds since 1970, with a fraction.
    Timestamp,
    /// Lengths are in characters.
    Text {
        least: usize,
        most: usize,
        pattern: Option<&'static str>,
    },
    OneOf(&'static [&'static str]),
    List {
        least: usize,
        most: usize,
        of: &'static Shape,
    },
    Map {
        most: usize,
        key: &'static Shape,
        value: &'static Shape,
    },
    Structure(&'static [Member]),
    /// Not looked into: sending it at all is what matters. Not in the `OpenAPI` document.
    Unchecked,
}

/// A member of a structure.
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) shape: &'static Shape,
    pub(super) is_required: bool,
}

impl Member {
    pub(super) const fn new(name: &'static str, shape: &'static Shape) -> Self {
        Self { name, shape, is_required: false }
    }

    pub(super) const fn required(self) -> Self {
        Self { is_required: true, ..self }
    }
}

/// Everything that is wrong with a request. Values of a wrong type come first, as on AWS, where
/// nothing else is looked at then.
#[derive(Default)]
pub(super) struct Violations {
    types: Vec<String>,
    constraints: Vec<String>,
    /// Of constraints, told or not.
    count: usize,
}

/// So many are told; a body may be wrong in thousands of places.
const MOST_TOLD: usize = 40;

/// Longer values are not repeated to whoever sent them.
const LONGEST_QUOTE: usize = 256;
/// How alike names have to be for one to be meant by the other.
const ALIKE: f64 = 0.85;

impl Violations {
    /// Checks the members of a request or of a structure in it.
    pub(super) fn members(&mut self, members: &Map<String, Value>, known: &[Member], path: &str) {
        for member in known {
            match members.get(member.name) {
                Some(value) if !value.is_null() => self.value(value, member.shape, &below(path, member.name)),
                _ if member.is_required => self.missing(&below(path, member.name)),
                _ => {}
            }
        }
        for (name, value) in members {
            if !known.iter().any(|member| member.name == name) {
                self.unknown_member(name, value, known, path);
            }
        }
    }

    /// Checks one value.
    pub(super) fn value(&mut self, value: &Value, shape: &Shape, path: &str) {
        match (shape, value) {
            (Shape::Boolean, Value::Bool(_)) | (Shape::Timestamp, Value::Number(_)) | (Shape::Unchecked, _) => {}
            (Shape::Integer { least, most }, Value::Number(number)) => match number.as_i64() {
                Some(number) => self.range(number, *least, *most, path),
                None if number.is_f64() => self.wrong_type("DECIMAL_VALUE", "an Integer", path),
                None => self.range(i64::MAX, *least, *most, path),
            },
            (Shape::Text { least, most, pattern }, Value::String(text)) => {
                self.text(text, *least, *most, *pattern, path);
            }
            (Shape::OneOf(words), Value::String(text)) => {
                if !words.contains(&text.as_str()) {
                    let constraint = format!("Member must satisfy enum value set: [{}]", words.join(", "));
                    self.constraint(&quoted(text), path, &constraint);
                }
            }
            (Shape::List { least, most, of }, Value::Array(elements)) => {
                if self.length(elements.len(), *least, *most, path) {
                    for (index, element) in elements.iter().enumerate() {
                        self.value(element, of, &format!("{path}.{}.member", index + 1));
                    }
                }
            }
            (Shape::Map { most, key, value }, Value::Object(entries)) => {
                if self.length(entries.len(), 0, *most, path) {
                    for (name, entry) in entries {
                        self.value(&Value::String(name.clone()), key, &format!("{path}.key"));
                        self.value(entry, value, &format!("{path}.value"));
                    }
                }
            }
            (Shape::Structure(known), Value::Object(members)) => self.members(members, known, path),
            (shape, value) => self.wrong_type(kind(value), shape.title(), path),
        }
    }

    /// What to answer if anything is wrong.
    pub(super) fn into_result(self) -> Result<(), ApiError> {
        if !self.types.is_empty() {
            return Err(ApiError::Serialization(self.types.join("; ")));
        }
        let all = self.constraints.join("; ");
        match self.count {
            0 => Ok(()),
            1 => Err(ApiError::Validation(format!("1 validation error detected: {all}"))),
            count => Err(ApiError::Validation(format!("{count} validation errors detected: {all}"))),
        }
    }

    fn range(&mut self, number: i64, least: i64, most: i64, path: &str) {
        if number < least {
            let constraint = format!("Member must have value greater than or equal to {least}");
            self.constraint(&quoted(&number.to_string()), path, &constraint);
        } else if number > most {
            let constraint = format!("Member must have value less than or equal to {most}");
            self.constraint(&quoted(&number.to_string()), path, &constraint);
        }
    }

    fn text(&mut self, text: &str, least: usize, most: usize, pattern: Option<&str>, path: &str) {
        let length = text.chars().count();
        if length < least {
            let constraint = format!("Member must have length greater than or equal to {least}");
            self.constraint(&quoted(text), path, &constraint);
        } else if length > most {
            let constraint = format!("Member must have length less than or equal to {most}");
            self.constraint(&quoted(text), path, &constraint);
        } else if let Some(pattern) = pattern
            && !matches(pattern, text)
        {
            let constraint = format!("Member must satisfy regular expression pattern: {pattern}");
            self.constraint(&quoted(text), path, &constraint);
        }
    }

    /// Whether a list's or map's length is allowed; what is in it is looked at only then.
    fn length(&mut self, length: usize, least: usize, most: usize, path: &str) -> bool {
        let constraint = if length < least {
            format!("Member must have length greater than or equal to {least}")
        } else if length > most {
            format!("Member must have length less than or equal to {most}")
        } else {
            return true;
        };
        self.constraint(&format!("with length {length}"), path, &constraint);
        false
    }

    /// AWS ignores what it does not know; here it would be an option that silently does nothing.
    fn unknown_member(&mut self, name: &str, value: &Value, known: &[Member], path: &str) {
        let lowercase = name.to_lowercase();
        let likeness = |member: &&Member| strsim::jaro_winkler(&member.name.to_lowercase(), &lowercase);
        let alike = known.iter().filter(|member| likeness(member) > ALIKE);
        let closest = alike.max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
        let meant = closest.map(|member| format!("; did you mean {}?", member.name)).unwrap_or_default();
        let path = if path.is_empty() { clean(name) } else { format!("{path}.{}", clean(name)) };
        self.constraint(&shown(value), &path, &format!("Member must be one of this operation's{meant}"));
    }

    /// A parameter that the operation does not have.
    pub(super) fn unknown(&mut self, name: &str, value: &str) {
        self.constraint(&quoted(value), &clean(name), "Parameter must be one of this operation's");
    }

    /// A member or parameter that has to be there.
    pub(super) fn missing(&mut self, path: &str) {
        self.constraint("null", path, "Member must not be null");
    }

    /// A parameter that is there several times.
    pub(super) fn repeated(&mut self, times: usize, name: &str) {
        self.constraint(&format!("given {times} times"), name, "Parameter must be given once");
    }

    fn constraint(&mut self, value: &str, path: &str, constraint: &str) {
        self.count += 1;
        if self.constraints.len() < MOST_TOLD {
            self.constraints.push(format!("Value {value} at '{path}' failed to satisfy constraint: {constraint}"));
        }
    }

    fn wrong_type(&mut self, is: &str, must_be: &str, path: &str) {
        if self.types.len() < MOST_TOLD {
            self.types.push(format!("{is} at '{path}' can not be converted to {must_be}"));
        }
    }
}

impl Shape {
    /// As JSON Schema, for the `OpenAPI` document.
    pub(super) fn schema(&self) -> Value {
        match self {
            Self::Boolean => json!({ "type": "boolean" }),
            Self::Integer { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
            Self::Timestamp => json!({ "type": "number" }),
            Self::Text { least, most, pattern } => {
                let mut schema = json!({ "type": "string", "minLength": least, "maxLength": most });
                if let Some(pattern) = pattern {
                    schema["pattern"] = format!("^(?:{pattern})$").into();
                }
                schema
            }
            Self::OneOf(words) => json!({ "type": "string", "enum": words }),
            Self::List { least, most, of } => {
                json!({ "type": "array", "minItems": least, "maxItems": most, "items": of.schema() })
            }
            Self::Map { most, key, value } => json!({
                "type": "object",
                "maxProperties": most,
                "propertyNames": key.schema(),
                "additionalProperties": value.schema(),
            }),
            Self::Structure(members) => structure(members),
            Self::Unchecked => json!({}),
        }
    }

    /// The value that a parameter's text stands for.
    pub(super) fn parameter(&self, text: &str) -> Value {
        match self {
            Self::Integer { .. } => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
            _ => text.into(),
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Boolean => "a Boolean",
            Self::Integer { .. } => "an Integer",
            Self::Timestamp => "a Timestamp",
            Self::Text { .. } | Self::OneOf(_) => "a String",
            Self::List { .. } => "a List",
            Self::Map { .. } => "a Map",
            Self::Structure(_) | Self::Unchecked => "a Structure",
        }
    }
}

/// The schema of an object that has these members and no others.
pub(super) fn structure(members: &[Member]) -> Value {
    let accepted = members.iter().filter(|member| !matches!(member.shape, Shape::Unchecked));
    let properties: Map<_, _> = accepted.map(|member| (member.name.into(), member.shape.schema())).collect();
    let required: Vec<_> = members.iter().filter(|member| member.is_required).map(|member| member.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

/// A member's name as AWS has it in messages.
pub(super) fn decapitalised(name: &str) -> String {
    let mut characters = name.chars();
    characters.next().map(|first| format!("{}{}", first.to_ascii_lowercase(), characters.as_str())).unwrap_or_default()
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { decapitalised(name) } else { format!("{path}.{}", decapitalised(name)) }
}

fn quoted(text: &str) -> String {
    format!("'{}'", clean(text))
}

/// What may be repeated: bounded, and in one line.
fn clean(text: &str) -> String {
    let mut clean: String = text.chars().filter(|character| !character.is_control()).take(LONGEST_QUOTE).collect();
    if text.chars().nth(LONGEST_QUOTE).is_some() {
        let _ = write!(clean, "…");
    }
    clean
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::String(text) => quoted(text),
        Value::Array(_) => "(a list)".into(),
        Value::Object(_) => "(a structure)".into(),
        other => quoted(&other.to_string()),
    }
}

/// As AWS's parser names what it found.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "NULL_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
        Value::Array(_) => "START_ARRAY",
        Value::Object(_) => "START_OBJECT",
    }
}

/// Whether the whole text matches.
fn matches(pattern: &str, text: &str) -> bool {
    PATTERNS.get(pattern).is_some_and(|regex| regex.is_match(text))
}

/// The model's patterns, compiled once.
static PATTERNS: LazyLock<HashMap<&'static str, Regex>> = LazyLock::new(|| {
    let whole = |pattern: &&'static str| Some((*pattern, Regex::new(&format!("^(?:{pattern})$")).ok()?));
    super::shapes::PATTERNS.iter().filter_map(whole).collect()
});
