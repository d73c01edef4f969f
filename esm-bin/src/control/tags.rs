//! Tags: those that begin with `esm:` change what a mapping does, the others are kept as they are.

use std::collections::BTreeMap;

use esm_core::mapping::{DeadLetter, MaximumConcurrency};

use crate::config::Engine;

const OURS: &str = "esm:";
/// AWS's limit for a resource.
const MOST: usize = 50;

/// In which of AWS's spellings an ActiveMQ event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventProfile {
    /// As AWS documents it, with the spellings that it sends beside.
    #[default]
    Documented,
    /// As AWS sends it, which typed consumers need.
    Wire,
}

/// What a mapping's tags say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tags {
    pub(super) dead_letter: DeadLetter,
    pub(super) event_profile: EventProfile,
    pub(super) strict_consumers: bool,
    pub(super) unsigned_header_bytes: bool,
    pub(super) maximum_concurrency: Option<MaximumConcurrency>,
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            dead_letter: DeadLetter::Park,
            event_profile: EventProfile::default(),
            strict_consumers: false,
            unsigned_header_bytes: false,
            maximum_concurrency: None,
        }
    }
}

/// What is wrong with a tag, or with all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagProblem {
    /// The tag's key; absent: it concerns all of them.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub words: String,
}

/// Whether every tag is one that may be set.
pub fn check(tags: &BTreeMap<String, String>) -> Result<(), Vec<TagProblem>> {
    parse(tags).map(drop)
}

pub(super) fn parse(all: &BTreeMap<String, String>) -> Result<Tags, Vec<TagProblem>> {
    let mut tags = Tags::default();
    let mut problems = Vec::new();
    if all.len() > MOST {
        problems.push(TagProblem { key: None, words: format!("must be at most {MOST} tags, are {}", all.len()) });
    }
    for (key, value) in all {
        let read = match key.strip_prefix(OURS) {
            Some(name) => tags.heed(name, value),
            None => check_plain(key, value).map_err(Into::into),
        };
        problems.extend(read.err().map(|words| TagProblem { key: Some(key.clone()), words }));
    }
    if problems.is_empty() { Ok(tags) } else { Err(problems) }
}

/// Tags that brokers of this kind do not heed. The event's profile is the same for RabbitMQ in both spellings.
pub(super) fn without_effect(all: &BTreeMap<String, String>, engine: Engine) -> impl Iterator<Item = String> {
    const RABBITMQ_ONLY: [&str; 3] = ["esm:dead-letter", "esm:header-bytes", "esm:strict-consumers"];
    let wrong = RABBITMQ_ONLY.into_iter().filter(move |tag| engine == Engine::Activemq && all.contains_key(*tag));
    wrong.map(|tag| format!("the tag {tag} has no effect: it concerns RabbitMQ only"))
}

impl Tags {
    fn heed(&mut self, name: &str, value: &str) -> Result<(), String> {
        match (name, value) {
            ("dead-letter", "broker") => self.dead_letter = DeadLetter::Broker,
            ("dead-letter", _) => return Err("must be \"broker\", if the queue has a dead-letter exchange".into()),
            ("strict-consumers", "true") => self.strict_consumers = true,
            ("strict-consumers", "false") => self.strict_consumers = false,
            ("strict-consumers", _) => return Err("must be \"true\" or \"false\"".into()),
            ("header-bytes", "signed") => self.unsigned_header_bytes = false,
            ("header-bytes", "unsigned") => self.unsigned_header_bytes = true,
            ("header-bytes", _) => return Err("must be \"signed\" or \"unsigned\"".into()),
            ("maximum-concurrency", _) => self.maximum_concurrency = Some(concurrency(value)?),
            ("event-profile", "documented") => self.event_profile = EventProfile::Documented,
            ("event-profile", "wire") => self.event_profile = EventProfile::Wire,
            ("event-profile", _) => return Err("must be \"documented\" or \"wire\"".into()),
            _ => {
                return Err("is not a known esm: tag; known are esm:dead-letter, esm:event-profile, \
                            esm:header-bytes, esm:maximum-concurrency, esm:strict-consumers"
                    .into());
            }
        }
        Ok(())
    }
}

fn concurrency(value: &str) -> Result<MaximumConcurrency, String> {
    let number: i64 = value.parse().map_err(|_| "must be a whole number from 1 to 1000 in quotes")?;
    number.try_into().map_err(|error| format!("{error}"))
}

/// AWS's rules for tags.
fn check_plain(key: &str, value: &str) -> Result<(), &'static str> {
    let is_allowed =
        |text: &str| text.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c));
    if key.is_empty() || key.chars().count() > 128 {
        return Err("a tag's key has 1 to 128 characters");
    }
    if value.chars().count() > 256 {
        return Err("a tag's value has at most 256 characters");
    }
    if key.starts_with("aws:") {
        return Err("keys that begin with aws: are reserved");
    }
    if !is_allowed(key) || !is_allowed(value) {
        return Err("a tag has letters, digits, spaces and _.:/=+-@ only");
    }
    Ok(())
}
