//! `tags`: those that begin with `esm:` change what a mapping does, the others are kept as they are.

use std::collections::BTreeMap;

use esm_core::mapping::{DeadLetter, MaximumConcurrency};

use super::{
    broker::Engine,
    entry::{self, Entry},
    problem::Reported,
};

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
#[derive(Clone, Debug)]
pub(super) struct Tags {
    pub(super) dead_letter: DeadLetter,
    pub(super) event_profile: EventProfile,
    pub(super) strict_consumers: bool,
    pub(super) unsigned_header_bytes: bool,
    pub(super) maximum_concurrency: Option<MaximumConcurrency>,
    /// All of them, as they were given.
    pub(super) all: BTreeMap<String, String>,
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            dead_letter: DeadLetter::Park,
            event_profile: EventProfile::default(),
            strict_consumers: false,
            unsigned_header_bytes: false,
            maximum_concurrency: None,
            all: BTreeMap::new(),
        }
    }
}

pub(super) fn read(entry: &Entry<'_>) -> Result<Tags, Reported> {
    let entries = entry.named()?;
    if entries.len() > MOST {
        return Err(entry.report(format_args!("must be at most {MOST} tags, are {}", entries.len())));
    }
    let mut tags = Tags::default();
    entry::all(entries.iter().map(|(key, value)| tags.add(key, value)))?;
    Ok(tags)
}

impl Tags {
    /// Reports what brokers of this kind do not heed. The event's profile is the same for RabbitMQ in both spellings.
    pub(super) fn suit(&self, engine: Engine, report: impl Fn(&str) -> Reported) -> Result<(), Reported> {
        const RABBITMQ_ONLY: [&str; 3] = ["esm:dead-letter", "esm:header-bytes", "esm:strict-consumers"];
        match RABBITMQ_ONLY.into_iter().find(|tag| self.all.contains_key(*tag)) {
            Some(tag) if engine == Engine::Activemq => {
                Err(report(&format!("the tag {tag} has no effect: it concerns RabbitMQ only")))
            }
            _ => Ok(()),
        }
    }

    fn add(&mut self, key: &str, entry: &Entry<'_>) -> Result<(), Reported> {
        let value = entry.text()?;
        match key.strip_prefix(OURS) {
            Some(name) => self.heed(name, &value).map_err(|words| entry.report(words))?,
            None => check(key, &value).map_err(|words| entry.report(words))?,
        }
        self.all.insert(key.into(), value);
        Ok(())
    }

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
fn check(key: &str, value: &str) -> Result<(), &'static str> {
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
