//! A table whose keys are taken one by one; what is left over nobody knows.

use std::{fmt::Display, path::Path};

use config::{Map, Value};

use super::{
    Environment,
    entry::{Context, Entry},
    problem::Reported,
};

/// From this likeness (0 to 1) on, a key is taken for a misspelling of another.
const LIKENESS: f64 = 0.85;

pub(super) struct Table<'a> {
    key: String,
    entries: Map<String, Value>,
    known: Vec<&'static str>,
    context: &'a Context<'a>,
    /// As it was, and how much had been read beside it.
    begun: (Map<String, Value>, usize),
}

/// A table and all that was read for it: who has the same is the same.
#[derive(Clone, PartialEq)]
pub(super) struct Definition {
    entries: Map<String, Value>,
    readings: Vec<u64>,
}

impl<'a> Table<'a> {
    pub(super) fn new(key: String, entries: Map<String, Value>, context: &'a Context<'a>) -> Self {
        let begun = (entries.clone(), context.readings.borrow().len());
        Self { key, entries, known: Vec::new(), context, begun }
    }

    /// What this table says, with what was read for it so far.
    pub(super) fn definition(&self) -> Definition {
        let (entries, readings) = &self.begun;
        let readings = self.context.readings.borrow().get(*readings..).unwrap_or_default().to_vec();
        Definition { entries: entries.clone(), readings }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Where relative paths start.
    pub(super) fn folder(&self) -> &'a Path {
        self.context.folder
    }

    pub(super) fn environment(&self) -> &'a Environment {
        self.context.environment
    }

    /// Reports a problem that no single key of the table has.
    pub(super) fn report(&self, words: impl Display) -> Reported {
        self.context.problems.report(&self.key, words)
    }

    /// Reports a problem with a key that was taken, or with a part of it, such as `queues[0]`.
    pub(super) fn report_at(&self, name: &str, words: impl Display) -> Reported {
        let dot = if self.key.is_empty() { "" } else { "." };
        self.context.problems.report(&format!("{}{dot}{name}", self.key), words)
    }

    /// The value at a key that may be absent.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Entry<'a>) -> Result<T, Reported>,
    ) -> Result<Option<T>, Reported> {
        self.take(name).as_ref().map(read).transpose()
    }

    /// The value at a key that must be there.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Entry<'a>) -> Result<T, Reported>,
    ) -> Result<T, Reported> {
        match self.take(name) {
            Some(entry) => read(&entry),
            None => Err(self.report_at(name, "is missing")),
        }
    }

    /// A table inside this one; absent, it counts as empty.
    pub(super) fn section(&mut self, name: &'static str) -> Entry<'a> {
        match self.take(name) {
            Some(entry) => entry,
            None => Entry::new(join(&self.key, name), Map::<String, Value>::new().into(), self.context),
        }
    }

    /// Reports keys that are known and whose behaviour this build does not have.
    pub(super) fn not_yet(&mut self, names: &[&str]) -> Option<Reported> {
        names
            .iter()
            .filter_map(|name| self.remove(name))
            .map(|entry| entry.not_yet())
            .fold(None, |_, reported| Some(reported))
    }

    fn take(&mut self, name: &'static str) -> Option<Entry<'a>> {
        self.known.push(name);
        self.remove(name)
    }

    fn remove(&mut self, name: &str) -> Option<Entry<'a>> {
        let value = self.entries.remove(name)?;
        Some(Entry::new(join(&self.key, name), value, self.context))
    }

    /// Reports every key that was not taken.
    pub(super) fn finish(self) {
        let known = self.known.clone();
        for (name, entry) in self.into_entries() {
            match closest(&name, &known) {
                Some(meant) => entry.report(format_args!("is not a known key; did you mean `{meant}`?")),
                None => entry.report(format_args!("is not a known key; known here: {}", known.join(", "))),
            };
        }
    }

    /// What is left, by name.
    pub(super) fn into_entries(self) -> Vec<(String, Entry<'a>)> {
        let mut entries: Vec<_> = self.entries.into_iter().collect();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        let entry = |(name, value): (String, Value)| {
            let key = join(&self.key, &name);
            (name, Entry::new(key, value, self.context))
        };
        entries.into_iter().map(entry).collect()
    }
}

/// A key as TOML has it, with quotes around a part that needs them.
fn join(parent: &str, name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let dot = if parent.is_empty() { "" } else { "." };
    if is_bare { format!("{parent}{dot}{name}") } else { format!("{parent}{dot}{name:?}") }
}

fn closest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    let likeness = |candidate: &&str| strsim::jaro_winkler(name, candidate);
    let best = known.iter().copied().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(&best) >= LIKENESS).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_key_is_quoted_where_toml_needs_it() {
        assert_eq!(join("", "server"), "server");
        assert_eq!(join("functions", "MQ-Example_1"), "functions.MQ-Example_1");
        assert_eq!(join("secrets", "arn:aws:x"), r#"secrets."arn:aws:x""#);
    }

    #[test]
    fn only_a_likely_misspelling_gets_a_suggestion() {
        let known = ["batch_size", "queues", "event_source", "virtual_host"];
        assert_eq!(closest("batchsize", &known), Some("batch_size"));
        assert_eq!(closest("event_source_arn", &known), Some("event_source"));
        assert_eq!(closest("queue", &known), Some("queues"));
        assert_eq!(closest("colour", &known), None);
    }
}
