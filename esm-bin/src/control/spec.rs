//! What somebody asked for, in AWS's members, whether in the configuration file or through the API;
//! and the one place where that meets brokers, functions and secrets and becomes a mapping that runs.

use std::{collections::BTreeMap, sync::Arc};

use esm_core::{
    filter::FilterCriteria,
    mapping::{
        BatchSize, BatchingWindow, DeadLetter, Mapping, MaximumConcurrency, MaximumRecordAge, MaximumRetryAttempts,
        RedeliveryPolicy,
    },
    source::Connect,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    destination::OnFailure,
    tags::{self, EventProfile, Tags},
};
use crate::{
    adapters::QueueSettings,
    config::{Broker, Cause, Engine, Function, FunctionName, Reported, Targets, Unknown, Unresolved, uuid_of},
    secrets::Secret,
};

const DEFAULT_VIRTUAL_HOST: &str = "/";
/// Tools try again for a while when they read this, since permissions take a moment to become effective.
const NOT_PERMITTED: &str = "The function execution role does not have permissions to call DescribeBroker on MQ";
/// AMQP's limit for the names of queues and virtual hosts.
const LONGEST_AMQP_NAME: usize = 255;
/// AWS's limit for the name of a queue.
const LONGEST_QUEUE_NAME: usize = 1_000;

/// What somebody asked for. Absent is its own value everywhere: it is shown as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappingSpec {
    /// `FunctionName`, as it was given.
    pub function_name: FunctionName,
    /// `EventSourceArn`, or a broker's name in the configuration.
    pub event_source: String,
    /// `Queues[0]`.
    pub queue: String,
    /// The URI of `VIRTUAL_HOST`, as it was sent. Absent, it is `/` for RabbitMQ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_host: Option<String>,
    /// The URI of `BASIC_AUTH`.
    pub secret: String,
    /// `Enabled`.
    pub enabled: bool,
    /// `BatchSize`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "number")]
    pub batch_size: Option<BatchSize>,
    /// `MaximumBatchingWindowInSeconds`.
    #[serde(default, skip_serializing_if = "is_absent", with = "window")]
    pub window: BatchingWindow,
    /// `FilterCriteria`; no filters at all are absent.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "filter")]
    pub filter: Option<Arc<FilterCriteria>>,
    /// `ScalingConfig.MaximumConcurrency`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "number")]
    pub maximum_concurrency: Option<MaximumConcurrency>,
    /// `FunctionResponseTypes` with `ReportBatchItemFailures`.
    #[serde(default)]
    pub report_batch_item_failures: bool,
    /// `BisectBatchOnFunctionError`.
    #[serde(default)]
    pub bisect_batch_on_function_error: bool,
    /// `MaximumRetryAttempts`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "number")]
    pub maximum_retry_attempts: Option<MaximumRetryAttempts>,
    /// `MaximumRecordAgeInSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "number")]
    pub maximum_record_age_in_seconds: Option<MaximumRecordAge>,
    /// `DestinationConfig.OnFailure.Destination`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<String>,
}

impl MappingSpec {
    /// What has every default, from a queue to a function.
    pub fn new(function_name: FunctionName, event_source: String, queue: String, secret: String) -> Self {
        Self {
            function_name,
            event_source,
            queue,
            virtual_host: None,
            secret,
            enabled: true,
            batch_size: None,
            window: BatchingWindow::default(),
            filter: None,
            maximum_concurrency: None,
            report_batch_item_failures: false,
            bisect_batch_on_function_error: false,
            maximum_retry_attempts: None,
            maximum_record_age_in_seconds: None,
            on_failure: None,
        }
    }
}

/// The member of a specification that a violation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The mapping as a whole.
    Whole,
    /// `FunctionName`.
    FunctionName,
    /// `EventSourceArn`.
    EventSource,
    /// `Queues[0]`.
    Queue,
    /// `VIRTUAL_HOST` in `SourceAccessConfigurations`.
    VirtualHost,
    /// `BASIC_AUTH` in `SourceAccessConfigurations`.
    Secret,
    /// `ScalingConfig`.
    ScalingConfig,
    /// `FunctionResponseTypes`.
    FunctionResponseTypes,
    /// `BisectBatchOnFunctionError`.
    BisectBatchOnFunctionError,
    /// `MaximumRetryAttempts`.
    MaximumRetryAttempts,
    /// `MaximumRecordAgeInSeconds`.
    MaximumRecordAge,
    /// `DestinationConfig`.
    DestinationConfig,
    /// `Tags`.
    Tags,
}

impl Member {
    /// Its key in the configuration file; `None` for the mapping as a whole.
    pub fn key(self) -> Option<&'static str> {
        Some(match self {
            Self::Whole => return None,
            Self::FunctionName => "function_name",
            Self::EventSource => "event_source",
            Self::Queue => "queues[0]",
            Self::VirtualHost => "virtual_host",
            Self::Secret => "secret",
            Self::ScalingConfig => "scaling_config",
            Self::FunctionResponseTypes => "function_response_types",
            Self::BisectBatchOnFunctionError => "bisect_batch_on_function_error",
            Self::MaximumRetryAttempts => "maximum_retry_attempts",
            Self::MaximumRecordAge => "maximum_record_age_in_seconds",
            Self::DestinationConfig => "destination_config.on_failure.destination",
            Self::Tags => "tags",
        })
    }

    /// Whether tags may be what is wrong with it.
    pub(super) fn heeds_tags(self) -> bool {
        matches!(self, Self::Tags | Self::ScalingConfig | Self::MaximumRetryAttempts | Self::MaximumRecordAge)
    }

    /// Its name in AWS's API; `None` for the mapping as a whole.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Whole => return None,
            Self::FunctionName => "FunctionName",
            Self::EventSource => "EventSourceArn",
            Self::Queue => "Queues",
            Self::VirtualHost => "VIRTUAL_HOST",
            Self::Secret => "BASIC_AUTH",
            Self::ScalingConfig => "ScalingConfig",
            Self::FunctionResponseTypes => "FunctionResponseTypes",
            Self::BisectBatchOnFunctionError => "BisectBatchOnFunctionError",
            Self::MaximumRetryAttempts => "MaximumRetryAttempts",
            Self::MaximumRecordAge => "MaximumRecordAgeInSeconds",
            Self::DestinationConfig => "DestinationConfig",
            Self::Tags => "Tags",
        })
    }
}

/// Why a specification cannot become a mapping.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Where.
    pub member: Member,
    /// What is wrong, and what would be right.
    pub words: String,
    /// AWS's own sentence for it, where there is one.
    pub aws: Option<&'static str>,
    /// Its broker is not known, for this reason; Amazon MQ is asked again.
    pub unknown: Option<Cause>,
    /// What it leads to has problems of its own, which were reported.
    pub(crate) reported: Option<Reported>,
}

impl Violation {
    pub(super) fn new(member: Member, words: impl Into<String>) -> Self {
        Self { member, words: words.into(), aws: None, unknown: None, reported: None }
    }

    /// Keeps a sentence that was more exact.
    fn in_awss_words(self, aws: &'static str) -> Self {
        Self { aws: self.aws.or(Some(aws)), ..self }
    }

    /// Whether it may be none once the broker is known.
    pub(super) fn may_pass(&self) -> bool {
        self.unknown.is_some_and(|cause| !cause.is_certain())
    }

    pub(super) fn unresolved(member: Member, why: Unresolved) -> Self {
        match why {
            Unresolved::Because(words) => Self::new(member, words),
            Unresolved::Unknown(Unknown { cause, words }) => {
                let words = format!("is the ARN of none of [brokers], and cannot be looked up: {words}");
                let violation = Self { unknown: Some(cause), ..Self::new(member, words) };
                if cause == Cause::Denied { violation.in_awss_words(NOT_PERMITTED) } else { violation }
            }
            Unresolved::Reported(reported) => {
                Self { reported: Some(reported), ..Self::new(member, "leads to what has problems of its own") }
            }
        }
    }

    /// For who called the API: AWS's sentence first, where there is one.
    pub fn message(&self) -> String {
        let ours = self.words_with_name();
        match self.aws {
            Some(aws) => format!("{aws} ({ours})"),
            None => ours,
        }
    }

    /// The words after the member's name in AWS's API.
    pub fn words_with_name(&self) -> String {
        match self.member.name() {
            Some(name) => format!("{name}: {}", self.words),
            None => self.words.clone(),
        }
    }
}

/// A mapping and everything that it takes to run it.
pub struct Planned {
    /// What the core runs.
    pub mapping: Mapping,
    /// The virtual host that has the queue, where brokers have such.
    pub virtual_host: Option<String>,
    /// The broker that has the queue.
    pub broker: Arc<Broker>,
    /// What is invoked.
    pub function: Arc<Function>,
    /// Reads the queue.
    pub source: Arc<dyn Connect>,
    reading: Reading,
}

/// What a source is made with, beside its broker: another one takes another session.
#[derive(Clone)]
struct Reading {
    secret: Arc<Secret>,
    strict_consumers: bool,
    unsigned_header_bytes: bool,
    event_profile: EventProfile,
    item_identifiers: bool,
    on_failure: Option<String>,
}

/// What lies between a mapping as it runs and as it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// What a running mapping can be handed.
    Settings,
    /// It has to end, and to begin anew.
    Restart,
}

impl Planned {
    /// What it takes to come from this one to another of the same mapping.
    pub fn change_to(&self, other: &Self) -> Change {
        let same_ends = Arc::ptr_eq(&self.broker, &other.broker) && Arc::ptr_eq(&self.function, &other.function);
        let (Self { mapping: old, .. }, Self { mapping: new, .. }) = (self, other);
        let same_queue = old.queue == new.queue && self.virtual_host == other.virtual_host;
        if !(same_ends && same_queue && self.reading.is_like(&other.reading)) {
            return Change::Restart;
        }
        if old == new { Change::None } else { Change::Settings }
    }

    /// Whether both read one queue.
    pub(super) fn reads_the_queue_of(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    /// What no two queues have in common: the broker's ARN, the virtual host and the queue's name.
    pub(super) fn place(&self) -> (&str, Option<&str>, &str) {
        (&self.broker.arn, self.virtual_host.as_deref(), &self.mapping.queue)
    }
}

impl Reading {
    fn is_like(&self, other: &Self) -> bool {
        self.strict_consumers == other.strict_consumers
            && self.unsigned_header_bytes == other.unsigned_header_bytes
            && self.event_profile == other.event_profile
            && self.item_identifiers == other.item_identifiers
            && self.on_failure == other.on_failure
            && self.secret.is_like(&other.secret)
    }
}

/// Plans what a specification asks for, or says everything that is in its way. Without a UUID it gets
/// the one that its function, broker, virtual host and queue always have.
pub fn plan(
    uuid: Option<Uuid>,
    spec: &MappingSpec,
    tags: &BTreeMap<String, String>,
    targets: &Targets,
) -> Result<Planned, Vec<Violation>> {
    let mut violations = Vec::new();
    let mut note = |violation| violations.push(violation);
    let function = targets.function(&spec.function_name);
    let function = function.map_err(|why| {
        note(Violation::unresolved(Member::FunctionName, why).in_awss_words("Function does not exist"));
    });
    let broker = targets.broker(&spec.event_source);
    let broker = broker.map_err(|why| {
        note(Violation::unresolved(Member::EventSource, why).in_awss_words("Unrecognized event source."));
    });
    let secret = targets.secret(&spec.secret).map_err(|why| note(Violation::unresolved(Member::Secret, why)));
    let read_tags = tags::parse(tags).map_err(|problems| {
        for problem in problems {
            let key = problem.key.map(|key| format!("{key} ")).unwrap_or_default();
            note(Violation::new(Member::Tags, format!("{key}{}", problem.words)));
        }
    });
    let (Ok(function), Ok(broker), Ok(secret), Ok(read_tags)) = (function, broker, secret, read_tags) else {
        return Err(violations);
    };

    let engine = broker.engine;
    let virtual_host = virtual_host(spec, engine);
    let on_failure = spec.on_failure.as_ref().map(|arn| OnFailure::find(arn, &broker, targets)).transpose();
    let on_failure = on_failure.map_err(|violation| violations.push(violation)).ok().flatten();
    let dead_letter = match engine {
        _ if spec.on_failure.is_some() => DeadLetter::Destination,
        Engine::Activemq => DeadLetter::Broker,
        Engine::Rabbitmq => read_tags.dead_letter,
    };
    let checks = [
        check_queue(spec, engine),
        virtual_host.as_ref().err().cloned(),
        check_hold(spec, &function, &broker),
        check_concurrency(spec, &read_tags),
    ];
    violations.extend(checks.into_iter().flatten());
    violations.extend(check_ends(spec, dead_letter));
    violations.extend(tags::without_effect(tags, engine).map(|words| Violation::new(Member::Tags, words)));
    let Ok(virtual_host) = virtual_host else { return Err(violations) };
    let place = virtual_host.as_deref();
    violations.extend(on_failure.as_ref().and_then(|on_failure| on_failure.check(&broker, place, &spec.queue)));

    let uuid = uuid.unwrap_or_else(|| {
        let place = virtual_host.as_deref().unwrap_or_default();
        uuid_of(&["mapping", &function.name, &broker.name, place, &spec.queue])
    });
    let source = (broker.sources)(QueueSettings {
        virtual_host: virtual_host.clone().unwrap_or_default(),
        queue: spec.queue.clone(),
        credentials: secret.clone(),
        consumer: uuid.to_string(),
        event_source_arn: broker.arn.clone(),
        strict_consumers: read_tags.strict_consumers,
        unsigned_header_bytes: read_tags.unsigned_header_bytes,
        event_profile: read_tags.event_profile,
        item_identifiers: spec.report_batch_item_failures,
        destination: on_failure.as_ref().map(|on_failure| on_failure.open(uuid, secret.clone())),
        consumer_timeout: broker.consumer_timeout,
        delivery_limit: broker.delivery_limit,
        dead_letter_queue: broker.dead_letter_queue.clone(),
    });
    let source = match source {
        Ok(source) if violations.is_empty() => source,
        Ok(_) => return Err(violations),
        Err(words) => {
            violations.push(Violation::new(Member::Queue, words));
            return Err(violations);
        }
    };
    Ok(Planned {
        mapping: Mapping {
            uuid,
            function: function.name.clone(),
            event_source: broker.name.clone(),
            queue: spec.queue.clone(),
            batch_size: spec.batch_size.unwrap_or_default(),
            window: spec.window,
            maximum_concurrency: spec.maximum_concurrency.or(read_tags.maximum_concurrency).unwrap_or(match engine {
                Engine::Activemq => MaximumConcurrency::FIVE,
                Engine::Rabbitmq => MaximumConcurrency::ONE,
            }),
            redelivery: redelivery(spec, engine),
            dead_letter,
            filter: spec.filter.clone(),
        },
        virtual_host,
        broker,
        function,
        source,
        reading: Reading {
            secret,
            strict_consumers: read_tags.strict_consumers,
            unsigned_header_bytes: read_tags.unsigned_header_bytes,
            event_profile: read_tags.event_profile,
            item_identifiers: spec.report_batch_item_failures,
            on_failure: spec.on_failure.clone(),
        },
    })
}

/// The virtual host in the route of a mapping whose broker is looked up: the same before it is known as afterwards.
pub(crate) fn place_of_looked_up(spec: &MappingSpec) -> &str {
    spec.virtual_host.as_deref().unwrap_or(DEFAULT_VIRTUAL_HOST)
}

/// The UUID of a mapping of the file whose broker is looked up.
pub(crate) fn uuid_of_looked_up(spec: &MappingSpec) -> Uuid {
    uuid_of(&["mapping", spec.function_name.name(), &spec.event_source, place_of_looked_up(spec), &spec.queue])
}

fn check_queue(spec: &MappingSpec, engine: Engine) -> Option<Violation> {
    let longest = match engine {
        Engine::Activemq => LONGEST_QUEUE_NAME,
        Engine::Rabbitmq => LONGEST_AMQP_NAME,
    };
    check_name(Member::Queue, &spec.queue, 1, longest)
}

fn virtual_host(spec: &MappingSpec, engine: Engine) -> Result<Option<String>, Violation> {
    match (engine, &spec.virtual_host) {
        (Engine::Rabbitmq, Some(name)) => match check_name(Member::VirtualHost, name, 0, LONGEST_AMQP_NAME) {
            None => Ok(Some(name.clone())),
            Some(violation) => Err(violation),
        },
        (Engine::Rabbitmq, None) => Ok(Some(DEFAULT_VIRTUAL_HOST.into())),
        (Engine::Activemq, Some(_)) => {
            let violation = Violation::new(Member::VirtualHost, "ActiveMQ has no virtual hosts; remove it");
            Err(violation
                .in_awss_words("Unsupported source access configurations type for given event source mapping type."))
        }
        (Engine::Activemq, None) => Ok(None),
    }
}

fn check_name(member: Member, name: &str, least: usize, most: usize) -> Option<Violation> {
    let words = || format!("must have from {least} to {most} bytes of UTF-8, has {}", name.len());
    (!(least..=most).contains(&name.len())).then(|| Violation::new(member, words()))
}

/// A batch that fills, is invoked and is retried once must fit into the time for which the broker
/// lets it be held.
fn check_hold(spec: &MappingSpec, function: &Function, broker: &Broker) -> Option<Violation> {
    let (limit, timeout, window) = (broker.consumer_timeout?, function.timeout, spec.window.duration());
    let held = window + 2 * timeout;
    (held >= limit).then(|| {
        let words = format!(
            "the batching window ({window:?}) and twice the function's timeout ({timeout:?}) are {held:?}, and must \
             stay below the broker's consumer timeout ({limit:?}): shorten them, or raise it at the broker and in \
             brokers.{}.consumer_timeout_in_seconds",
            broker.name,
        );
        Violation::new(Member::Whole, words)
    })
}

fn check_concurrency(spec: &MappingSpec, tags: &Tags) -> Option<Violation> {
    (spec.maximum_concurrency.is_some() && tags.maximum_concurrency.is_some()).then(|| {
        let words = "the tag esm:maximum-concurrency sets the same number; keep one of the two";
        Violation::new(Member::ScalingConfig, words)
    })
}

/// What is given up needs somewhere to go.
fn check_ends(spec: &MappingSpec, dead_letter: DeadLetter) -> impl Iterator<Item = Violation> {
    let words = "needs somewhere for messages to go that are given up: name a queue as the destination on failure, or give the \
                 queue a dead-letter exchange and say so by the tag esm:dead-letter = \"broker\"";
    [
        (Member::MaximumRetryAttempts, spec.maximum_retry_attempts.and_then(MaximumRetryAttempts::limit).is_some()),
        (Member::MaximumRecordAge, spec.maximum_record_age_in_seconds.and_then(MaximumRecordAge::limit).is_some()),
    ]
    .into_iter()
    .filter(move |(_, is_set)| *is_set && dead_letter == DeadLetter::Park)
    .map(move |(member, _)| Violation::new(member, words))
}

fn redelivery(spec: &MappingSpec, engine: Engine) -> RedeliveryPolicy {
    let default = match engine {
        Engine::Activemq => RedeliveryPolicy::ACTIVEMQ,
        Engine::Rabbitmq => RedeliveryPolicy::RABBITMQ,
    };
    let attempts = spec.maximum_retry_attempts;
    RedeliveryPolicy {
        maximum_redeliveries: attempts.map_or(default.maximum_redeliveries, MaximumRetryAttempts::limit),
        reports_item_failures: spec.report_batch_item_failures,
        bisects: spec.bisect_batch_on_function_error,
        maximum_age: spec.maximum_record_age_in_seconds.and_then(MaximumRecordAge::limit),
        ..default
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_absent(window: &BatchingWindow) -> bool {
    window.seconds().is_none()
}

/// A number that a type restricts.
#[allow(clippy::ref_option, reason = "as serde calls it")]
mod number {
    use std::fmt::Display;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    pub(super) fn serialize<T: Copy + Into<i64>, S: Serializer>(number: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        number.map(Into::into).serialize(to)
    }

    pub(super) fn deserialize<'de, T: TryFrom<i64, Error: Display>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        Option::<i64>::deserialize(from)?.map(T::try_from).transpose().map_err(D::Error::custom)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
mod window {
    use esm_core::mapping::BatchingWindow;
    use serde::{Deserializer, Serialize as _, Serializer};

    use super::number;

    pub(super) fn serialize<S: Serializer>(window: &BatchingWindow, to: S) -> Result<S::Ok, S::Error> {
        window.seconds().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BatchingWindow, D::Error> {
        number::deserialize(from).map(Option::unwrap_or_default)
    }
}

/// Filters as their patterns.
#[allow(clippy::ref_option, reason = "as serde calls it")]
mod filter {
    use std::sync::Arc;

    use esm_core::filter::FilterCriteria;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(filter: &Option<Arc<FilterCriteria>>, to: S) -> Result<S::Ok, S::Error> {
        filter.as_ref().map(|filter| filter.patterns()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<FilterCriteria>>, D::Error> {
        let Some(patterns) = Option::<Vec<String>>::deserialize(from)? else { return Ok(None) };
        FilterCriteria::parse(&patterns).map(Arc::new).map(Some).map_err(|_| D::Error::custom("a pattern is not valid"))
    }
}
