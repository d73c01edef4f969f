//! `[[event_source_mappings]]`: which queue of which broker is read for which function, and how.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
    time::Duration,
};

use esm_core::{
    destination::Destination,
    filter::{FilterCriteria, FilterErrors},
    mapping::{BatchSize, BatchingWindow, DeadLetter, Mapping, MaximumConcurrency, RedeliveryPolicy},
    source::Connect,
};
use uuid::Uuid;

use super::{
    broker::{Broker, Engine},
    destination,
    entry::{Entry, all},
    function::Function,
    problem::Reported,
    secret::Login,
    table::Table,
    tags::{self, Tags},
    targets::Targets,
};
use crate::adapters::QueueSettings;

const DEFAULT_VIRTUAL_HOST: &str = "/";
/// AMQP's limit for the names of queues and virtual hosts.
const LONGEST_AMQP_NAME: usize = 255;
/// AWS's limit for the name of a queue.
const LONGEST_QUEUE_NAME: usize = 1_000;

/// Keys of the format whose behaviour this build does not have.
const LATER: &[&str] = &["metrics_config"];

/// A mapping and everything that it takes to run it.
pub struct ConfiguredMapping {
    /// Its table, such as `event_source_mappings[0]`.
    pub key: String,
    /// What the core runs.
    pub mapping: Mapping,
    /// Whether it is to run.
    pub enabled: bool,
    /// The virtual host that has the queue, where brokers have such.
    pub virtual_host: Option<String>,
    /// The broker that has the queue.
    pub broker: Arc<Broker>,
    /// What is invoked.
    pub function: Arc<Function>,
    /// Where messages go that are given up, as the file names it.
    pub on_failure: Option<String>,
    /// Reads the queue.
    pub source: Arc<dyn Connect>,
    /// All tags, as they were given.
    pub tags: BTreeMap<String, String>,
}

/// The tables of the mappings that were read so far, to find one that is there twice.
pub(super) type Seen = BTreeMap<Uuid, String>;

pub(super) fn read(table: &mut Table<'_>, targets: &Targets, seen: &mut Seen) -> Result<ConfiguredMapping, Reported> {
    let route = Route::read(table, targets, seen);
    let settings = Settings::read(table);
    let enabled = table.optional("enabled", Entry::boolean);
    let on_failure = table.optional("destination_config", |entry| destination::read(entry, targets));
    let on_failure = on_failure.map(Option::flatten);
    table.not_yet(LATER);
    let (route, settings) = (route?, settings?);
    route.check_hold(table, settings.window)?;
    let engine = route.broker.engine;
    settings.tags.suit(engine, |words| table.report_at("tags", words))?;
    let on_failure = on_failure?;
    let destination = on_failure.as_ref().map(|on_failure| on_failure.open(&route)).transpose()?;
    let dead_letter = match (&destination, engine) {
        (Some(_), _) => DeadLetter::Destination,
        (None, Engine::Activemq) => DeadLetter::Broker,
        (None, Engine::Rabbitmq) => settings.tags.dead_letter,
    };
    let redelivery = settings.redelivery(table, engine, dead_letter);
    let source = (route.broker.sources)(route.queue_settings(&settings, destination));
    Ok(ConfiguredMapping {
        key: table.key().into(),
        enabled: enabled?.unwrap_or(true),
        source: source.map_err(|words| route.queue_entry.report(words))?,
        mapping: Mapping {
            uuid: route.uuid,
            function: route.function.name.clone(),
            event_source: route.broker.name.clone(),
            queue: route.queue,
            batch_size: settings.batch_size,
            window: settings.window,
            maximum_concurrency: settings.maximum_concurrency.unwrap_or(match engine {
                Engine::Activemq => MaximumConcurrency::FIVE,
                Engine::Rabbitmq => MaximumConcurrency::ONE,
            }),
            redelivery: redelivery?,
            dead_letter,
            filter: settings.filter,
        },
        on_failure: on_failure.map(|on_failure| on_failure.arn),
        virtual_host: route.virtual_host,
        broker: route.broker,
        function: route.function,
        tags: settings.tags.all,
    })
}

/// From where to where.
pub(super) struct Route<'a> {
    pub(super) uuid: Uuid,
    function: Arc<Function>,
    pub(super) broker: Arc<Broker>,
    pub(super) login: Arc<Login>,
    pub(super) virtual_host: Option<String>,
    pub(super) queue: String,
    queue_entry: Entry<'a>,
}

impl<'a> Route<'a> {
    fn read(table: &mut Table<'a>, targets: &Targets, seen: &mut Seen) -> Result<Self, Reported> {
        let function = table.required("function_name", |entry| targets.function(entry));
        let broker = table.required("event_source", |entry| targets.broker(entry));
        let login = table.required("secret", |entry| targets.login(entry));
        let queue = table.required("queues", queue);
        let virtual_host = table.optional("virtual_host", |entry| Ok(entry.clone()));
        let (function, broker, queue_entry, virtual_host) = (function?, broker?, queue?, virtual_host?);
        let longest = match broker.engine {
            Engine::Activemq => LONGEST_QUEUE_NAME,
            Engine::Rabbitmq => LONGEST_AMQP_NAME,
        };
        let queue = name(&queue_entry, 1, longest);
        let virtual_host = match (broker.engine, virtual_host) {
            (Engine::Rabbitmq, Some(entry)) => name(&entry, 0, LONGEST_AMQP_NAME).map(Some),
            (Engine::Rabbitmq, None) => Ok(Some(DEFAULT_VIRTUAL_HOST.into())),
            (Engine::Activemq, Some(entry)) => Err(entry.report("ActiveMQ has no virtual hosts; remove it")),
            (Engine::Activemq, None) => Ok(None),
        };
        let (queue, virtual_host) = (queue?, virtual_host?);
        let place = virtual_host.as_deref().unwrap_or_default();
        let uuid = super::uuid_of(&["mapping", &function.name, &broker.name, place, &queue]);
        match seen.entry(uuid) {
            btree_map::Entry::Vacant(entry) => drop(entry.insert(table.key().into())),
            btree_map::Entry::Occupied(first) => {
                let words = "has the function, broker, virtual host and queue of";
                return Err(table.report(format_args!("{words} {}; remove one of them", first.get())));
            }
        }
        Ok(Self { uuid, function, broker, login: login?, virtual_host, queue, queue_entry })
    }

    /// A batch that fills, is invoked and is retried once must fit into the time for which the
    /// broker lets it be held.
    fn check_hold(&self, table: &Table<'_>, window: BatchingWindow) -> Result<(), Reported> {
        let Some(limit) = self.broker.consumer_timeout else { return Ok(()) };
        let timeout = self.function.timeout;
        let held = window.duration() + 2 * timeout;
        if held < limit {
            return Ok(());
        }
        Err(table.report(format_args!(
            "the batching window ({:?}) and twice the function's timeout ({timeout:?}) are {held:?}, and must stay \
             below the broker's consumer timeout ({limit:?}): shorten them, or raise it at the broker and in \
             brokers.{}.consumer_timeout_in_seconds",
            window.duration(),
            self.broker.name,
        )))
    }

    fn queue_settings(&self, settings: &Settings, destination: Option<Arc<dyn Destination>>) -> QueueSettings {
        let tags = &settings.tags;
        QueueSettings {
            virtual_host: self.virtual_host.clone().unwrap_or_default(),
            queue: self.queue.clone(),
            login: Login::clone(&self.login),
            consumer: self.uuid.to_string(),
            event_source_arn: self.broker.arn.clone(),
            strict_consumers: tags.strict_consumers,
            unsigned_header_bytes: tags.unsigned_header_bytes,
            event_profile: tags.event_profile,
            item_identifiers: settings.reports_item_failures,
            destination,
            consumer_timeout: self.broker.consumer_timeout,
            dead_letter_queue: self.broker.dead_letter_queue.clone(),
        }
    }
}

/// How batches are made.
struct Settings {
    batch_size: BatchSize,
    window: BatchingWindow,
    maximum_concurrency: Option<MaximumConcurrency>,
    /// -1: without end.
    maximum_retry_attempts: Option<i64>,
    maximum_age: Option<Duration>,
    reports_item_failures: bool,
    bisects: bool,
    tags: Tags,
    filter: Option<Arc<FilterCriteria>>,
}

impl Settings {
    fn read(table: &mut Table<'_>) -> Result<Self, Reported> {
        let batch_size = table.optional("batch_size", Entry::number);
        let window = table.optional("maximum_batching_window_in_seconds", Entry::number);
        let scaling = table.optional("scaling_config", |entry| entry.table(scaling_config));
        let retries = table.optional("maximum_retry_attempts", |entry| entry.within(-1..=10_000));
        let age = table.optional("maximum_record_age_in_seconds", maximum_age);
        let response_types = table.optional("function_response_types", function_response_types);
        let bisects = table.optional("bisect_batch_on_function_error", Entry::boolean);
        let filter = table.optional("filter_criteria", filter_criteria);
        let tags = table.optional("tags", tags::read);
        let (scaling, tags) = (scaling?, tags?.unwrap_or_default());
        if scaling.is_some() && tags.maximum_concurrency.is_some() {
            return Err(table.report_at(
                "scaling_config",
                "the tag esm:maximum-concurrency sets the same number; keep one of the two",
            ));
        }
        Ok(Self {
            batch_size: batch_size?.unwrap_or_default(),
            window: window?.unwrap_or_default(),
            maximum_concurrency: scaling.or(tags.maximum_concurrency),
            maximum_retry_attempts: retries?,
            maximum_age: age?.flatten(),
            reports_item_failures: response_types?.unwrap_or(false),
            bisects: bisects?.unwrap_or(false),
            filter: filter?.flatten(),
            tags,
        })
    }

    /// What is given up after some attempts needs somewhere to go.
    fn redelivery(
        &self,
        table: &Table<'_>,
        engine: Engine,
        dead_letter: DeadLetter,
    ) -> Result<RedeliveryPolicy, Reported> {
        let default = match engine {
            Engine::Activemq => RedeliveryPolicy::ACTIVEMQ,
            Engine::Rabbitmq => RedeliveryPolicy::RABBITMQ,
        };
        let (reports_item_failures, bisects) = (self.reports_item_failures, self.bisects);
        let maximum_age = self.maximum_age;
        let default = RedeliveryPolicy { reports_item_failures, bisects, maximum_age, ..default };
        let maximum_redeliveries = match self.maximum_retry_attempts {
            None => default.maximum_redeliveries,
            Some(attempts) => u32::try_from(attempts).ok(),
        };
        let has_no_target = engine == Engine::Rabbitmq && dead_letter == DeadLetter::Park;
        let bounds = [
            ("maximum_retry_attempts", maximum_redeliveries.is_some()),
            ("maximum_record_age_in_seconds", maximum_age.is_some()),
        ];
        all(bounds.into_iter().filter(|(_, is_set)| *is_set && has_no_target).map(|(key, _)| {
            Err::<(), _>(table.report_at(
                key,
                "needs somewhere for messages to go that are given up: name a queue in destination_config, or give the \
                 queue a dead-letter exchange and say so by the tag esm:dead-letter = \"broker\"",
            ))
        }))?;
        Ok(RedeliveryPolicy { maximum_redeliveries, ..default })
    }
}

/// AWS allows -1, which is no bound, and nothing below a minute otherwise.
fn maximum_age(entry: &Entry<'_>) -> Result<Option<Duration>, Reported> {
    match entry.within::<i64>(-1..=604_800)? {
        -1 => Ok(None),
        seconds @ 60.. => Ok(Some(Duration::from_secs(seconds.unsigned_abs()))),
        seconds => Err(entry.report(format_args!("must be -1, or from 60 to 604800, is {seconds}"))),
    }
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

fn queue<'a>(entry: &Entry<'a>) -> Result<Entry<'a>, Reported> {
    match <[Entry<'a>; 1]>::try_from(entry.list()?) {
        Ok([queue]) => Ok(queue),
        Err(queues) => Err(entry.report(format_args!("must name exactly one queue, names {}", queues.len()))),
    }
}

fn name(entry: &Entry<'_>, least: usize, most: usize) -> Result<String, Reported> {
    let name = entry.text()?;
    if !(least..=most).contains(&name.len()) {
        let words = format!("must have from {least} to {most} bytes of UTF-8, has {}", name.len());
        return Err(entry.report(words));
    }
    Ok(name)
}
