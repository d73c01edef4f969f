//! `[[event_source_mappings]]`: which queue of which broker is read for which function, and how.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use esm_core::{
    filter::{FilterCriteria, FilterErrors},
    mapping::MaximumConcurrency,
};
use uuid::Uuid;

use super::{
    entry::{Entry, all},
    names::FunctionName,
    problem::Reported,
    table::Table,
    targets::{Targets, Unresolved},
};
use crate::control::{
    spec::{MappingSpec, Planned, Violation, plan, uuid_of_looked_up},
    tags::{self, TagProblem},
};

/// Keys of the format whose behaviour this build does not have.
const LATER: &[&str] = &["metrics_config"];

/// A mapping of the file.
pub struct ConfiguredMapping {
    /// Its table, such as `event_source_mappings[0]`.
    pub key: String,
    /// Always the same for the same function, broker, virtual host and queue.
    pub uuid: Uuid,
    /// What was asked for.
    pub spec: MappingSpec,
    /// All tags, as they were given.
    pub tags: BTreeMap<String, String>,
    /// What that comes to; absent where Amazon MQ has to be asked about the broker.
    pub planned: Option<Arc<Planned>>,
}

/// The tables of the mappings that were read so far, to find one that is there twice.
pub(super) type Seen = BTreeMap<Uuid, String>;

pub(super) fn read(table: &mut Table<'_>, targets: &Targets, seen: &mut Seen) -> Result<ConfiguredMapping, Reported> {
    let function_name = table.required("function_name", |entry| {
        let name: FunctionName = entry.parsed()?;
        targets.function(&name).map_err(|why| why.report(entry)).map(|_| name)
    });
    let event_source = table.required("event_source", |entry| {
        let name = entry.text()?;
        match targets.broker(&name) {
            Ok(_) | Err(Unresolved::Unknown(_)) => Ok(name),
            Err(why) => Err(why.report(entry)),
        }
    });
    let secret = table.required("secret", |entry| {
        let name = entry.text()?;
        targets.secret(&name).map_err(|why| why.report(entry)).map(|_| name)
    });
    let queue = table.required("queues", queue);
    // What is wrong with these is reported; the rest is looked at without them.
    let virtual_host = table.optional("virtual_host", Entry::text);
    let batch_size = table.optional("batch_size", Entry::number);
    let window = table.optional("maximum_batching_window_in_seconds", Entry::number);
    let maximum_concurrency = table.optional("scaling_config", |entry| entry.table(scaling_config));
    let maximum_retry_attempts = table.optional("maximum_retry_attempts", Entry::number);
    let response_types = table.optional("function_response_types", function_response_types);
    let bisects = table.optional("bisect_batch_on_function_error", Entry::boolean);
    let filter = table.optional("filter_criteria", filter_criteria);
    let tags = table.optional("tags", read_tags);
    let enabled = table.optional("enabled", Entry::boolean);
    let age = table.optional("maximum_record_age_in_seconds", Entry::number);
    let on_failure = table.optional("destination_config", destination_config);
    table.not_yet(LATER);

    let mut spec = MappingSpec::new(function_name?, event_source?, queue?, secret?);
    let tags = tags?.unwrap_or_default();
    spec.virtual_host = virtual_host.unwrap_or_default();
    spec.batch_size = batch_size.unwrap_or_default();
    spec.window = window.unwrap_or_default().unwrap_or_default();
    spec.maximum_concurrency = maximum_concurrency.unwrap_or_default();
    spec.maximum_retry_attempts = maximum_retry_attempts.unwrap_or_default();
    spec.report_batch_item_failures = response_types.unwrap_or_default().unwrap_or_default();
    spec.bisect_batch_on_function_error = bisects.unwrap_or_default().unwrap_or_default();
    spec.maximum_record_age_in_seconds = age.unwrap_or_default();
    spec.on_failure = on_failure.unwrap_or_default().flatten();
    spec.filter = filter.unwrap_or_default().flatten();
    spec.enabled = enabled.unwrap_or_default().unwrap_or(true);
    let (uuid, planned) = if targets.lookup(&spec.event_source).is_some() {
        (uuid_of_looked_up(&spec), None)
    } else {
        let planned = plan(None, &spec, &tags, targets).map_err(|violations| report(table, violations))?;
        (planned.mapping.uuid, Some(Arc::new(planned)))
    };
    match seen.entry(uuid) {
        btree_map::Entry::Vacant(entry) => drop(entry.insert(table.key().into())),
        btree_map::Entry::Occupied(first) => {
            let words = "has the function, broker, virtual host and queue of";
            return Err(table.report(format_args!("{words} {}; remove one of them", first.get())));
        }
    }
    Ok(ConfiguredMapping { key: table.key().into(), uuid, spec, tags, planned })
}

/// Each violation at its key.
fn report(table: &Table<'_>, violations: Vec<Violation>) -> Reported {
    let report = |violation: Violation| match (violation.reported, violation.member.key()) {
        (Some(reported), _) => reported,
        (None, Some(key)) => table.report_at(key, violation.words),
        (None, None) => table.report(violation.words),
    };
    violations
        .into_iter()
        .map(report)
        .fold(None, |_, reported| Some(reported))
        .unwrap_or_else(|| table.report("cannot be planned"))
}

fn read_tags(entry: &Entry<'_>) -> Result<BTreeMap<String, String>, Reported> {
    let entries = entry.named()?;
    let texts = all(entries.iter().map(|(key, value)| Ok((key.clone(), value.text()?))));
    let tags: BTreeMap<_, _> = texts?.into_iter().collect();
    let Err(problems) = tags::check(&tags) else { return Ok(tags) };
    all(problems.into_iter().map(|TagProblem { key, words }| {
        let at_fault = entries.iter().find(|(name, _)| Some(name) == key.as_ref()).map_or(entry, |(_, value)| value);
        Err::<(), _>(at_fault.report(words))
    }))
    .map(|_| tags)
}

/// The queue for what is given up. None if nothing is named, as clients of AWS send it.
fn destination_config(entry: &Entry<'_>) -> Result<Option<String>, Reported> {
    entry.table(|table| {
        let on_failure =
            table.optional("on_failure", |entry| entry.table(|table| table.optional("destination", Entry::text)));
        Ok(on_failure?.flatten())
    })
}

/// Whether the function names the messages that it failed with. AWS's list has one element at the most.
fn function_response_types(entry: &Entry<'_>) -> Result<bool, Reported> {
    let types = all(entry.list()?.iter().map(|element| match element.text()?.as_str() {
        "ReportBatchItemFailures" => Ok(()),
        _ => Err(element.report("must be \"ReportBatchItemFailures\"")),
    }))?;
    if types.len() > 1 {
        return Err(entry.report(format_args!("must have one element at the most, has {}", types.len())));
    }
    Ok(!types.is_empty())
}

/// A list of patterns; an empty one filters nothing.
fn filter_criteria(entry: &Entry<'_>) -> Result<Option<Arc<FilterCriteria>>, Reported> {
    let entries = entry.list()?;
    let patterns = all(entries.iter().map(Entry::text))?;
    match FilterCriteria::parse(&patterns) {
        Ok(_) if patterns.is_empty() => Ok(None),
        Ok(filter) => Ok(Some(Arc::new(filter))),
        Err(FilterErrors(problems)) => all(problems.iter().map(|problem| {
            let pattern = entries.get(problem.filter).unwrap_or(entry);
            Err(pattern.report(problem.words()))
        }))
        .map(|_: Vec<()>| None),
    }
}

/// AWS's model begins at 2; the tag `esm:maximum-concurrency` begins at 1.
fn scaling_config(table: &mut Table<'_>) -> Result<MaximumConcurrency, Reported> {
    table.required("maximum_concurrency", |entry| {
        entry.within::<i64>(2..=1_000)?;
        entry.number()
    })
}

fn queue(entry: &Entry<'_>) -> Result<String, Reported> {
    match <[Entry<'_>; 1]>::try_from(entry.list()?) {
        Ok([queue]) => queue.text(),
        Err(queues) => Err(entry.report(format_args!("must name exactly one queue, names {}", queues.len()))),
    }
}
