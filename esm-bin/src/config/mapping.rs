//! `[[event_source_mappings]]`: which queue of which broker is read for which function, and how.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use esm_core::{
    filter::{FilterCriteria, FilterErrors},
    mapping::{BatchSize, BatchingWindow, DeadLetter, Mapping, MaximumConcurrency, RedeliveryPolicy},
    source::Connect,
};
use uuid::Uuid;

use super::{
    broker::{Broker, Engine},
    entry::{Entry, all},
    function::Function,
    problem::Reported,
    table::Table,
    tags::{self, Tags},
    targets::Targets,
};
use crate::{adapters::QueueSettings, secrets::Secret};

const DEFAULT_VIRTUAL_HOST: &str = "/";
/// AMQP's limit for the names of queues and virtual hosts.
const LONGEST_AMQP_NAME: usize = 255;
/// AWS's limit for the name of a queue.
const LONGEST_QUEUE_NAME: usize = 1_000;

/// Keys of the format whose behaviour this build does not have.
const LATER: &[&str] = &[
    "function_response_types",
    "bisect_batch_on_function_error",
    "maximum_record_age_in_seconds",
    "destination_config",
    "metrics_config",
];

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
    table.not_yet(LATER);
    let (route, settings) = (route?, settings?);
    route.check_hold(table, settings.window)?;
    let engine = route.broker.engine;
    settings.tags.suit(engine, |words| table.report_at("tags", words))?;
    let source = (route.broker.sources)(route.queue_settings(&settings.tags));
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
            redelivery: settings.redelivery(table, engine)?,
            dead_letter: match engine {
                Engine::Activemq => DeadLetter::Broker,
                Engine::Rabbitmq => settings.tags.dead_letter,
            },
            filter: settings.filter,
        },
        virtual_host: route.virtual_host,
        broker: route.broker,
        function: route.function,
        tags: settings.tags.all,
    })
}

/// From where to where.
struct Route<'a> {
    uuid: Uuid,
    function: Arc<Function>,
    broker: Arc<Broker>,
    secret: Arc<Secret>,
    virtual_host: Option<String>,
    queue: String,
    queue_entry: Entry<'a>,
}

impl<'a> Route<'a> {
    fn read(table: &mut Table<'a>, targets: &Targets, seen: &mut Seen) -> Result<Self, Reported> {
        let function = table.required("function_name", |entry| targets.function(entry));
        let broker = table.required("event_source", |entry| targets.broker(entry));
        let secret = table.required("secret", |entry| targets.secret(entry));
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
        Ok(Self { uuid, function, broker, secret: secret?, virtual_host, queue, queue_entry })
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

    fn queue_settings(&self, tags: &Tags) -> QueueSettings {
        QueueSettings {
            virtual_host: self.virtual_host.clone().unwrap_or_default(),
            queue: self.queue.clone(),
            credentials: self.secret.clone(),
            consumer: self.uuid.to_string(),
            event_source_arn: self.broker.arn.clone(),
            strict_consumers: tags.strict_consumers,
            unsigned_header_bytes: tags.unsigned_header_bytes,
            event_profile: tags.event_profile,
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
    tags: Tags,
    filter: Option<Arc<FilterCriteria>>,
}

impl Settings {
    fn read(table: &mut Table<'_>) -> Result<Self, Reported> {
        let batch_size = table.optional("batch_size", Entry::number);
        let window = table.optional("maximum_batching_window_in_seconds", Entry::number);
        let scaling = table.optional("scaling_config", |entry| entry.table(scaling_config));
        let retries = table.optional("maximum_retry_attempts", |entry| entry.within(-1..=10_000));
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
            filter: filter?.flatten(),
            tags,
        })
    }

    /// What is given up after some attempts needs somewhere to go.
    fn redelivery(&self, table: &Table<'_>, engine: Engine) -> Result<RedeliveryPolicy, Reported> {
        let default = match engine {
            Engine::Activemq => RedeliveryPolicy::ACTIVEMQ,
            Engine::Rabbitmq => RedeliveryPolicy::RABBITMQ,
        };
        let Some(attempts) = self.maximum_retry_attempts else { return Ok(default) };
        let maximum_redeliveries = u32::try_from(attempts).ok();
        if maximum_redeliveries.is_some() && engine == Engine::Rabbitmq && self.tags.dead_letter == DeadLetter::Park {
            return Err(table.report_at(
                "maximum_retry_attempts",
                "needs somewhere for messages to go after their last attempt: give the queue a dead-letter exchange \
                 and say so by the tag esm:dead-letter = \"broker\"",
            ));
        }
        Ok(RedeliveryPolicy { maximum_redeliveries, ..default })
    }
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
