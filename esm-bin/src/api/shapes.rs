//! The JSON shapes of the control API, all of them: what requests may hold, by AWS's limits, and what
//! is answered. They become the control plane's types here, and nowhere else.

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use esm_core::{
    filter::{FilterErrors, LONGEST_PATTERN, MOST_FILTERS},
    mapping::BatchingWindow,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Map, Value};
use tracing::warn;

use super::{
    constraints::{Member, Shape, Violations, decapitalised},
    errors::ApiError,
};
use crate::{
    config::Engine,
    control::{
        plane::{Changes, LONGEST_PAGE, View},
        spec::MappingSpec,
    },
};

// What requests may hold

const ARN_PATTERN: &str = r"arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:([a-z0-9-]+)?:([0-9]{12})?:(.*)";
const FUNCTION_NAME_PATTERN: &str = concat!(
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z0-9-]+:)?([0-9]{12}:)?(function:)?([a-zA-Z0-9-_\.]+)",
    r"(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
);
const KMS_KEY_PATTERN: &str = r"(arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()";
const URI_PATTERN: &str = r"[ a-zA-Z0-9-\/*:_+=.@-]*";
const DESTINATION_PATTERN: &str = concat!(
    r"()|kafka://([^.]([a-zA-Z0-9\-_.]{0,248}))|",
    r"arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:([a-z0-9-]+)?:([0-9]{12})?:(.*)"
);
const TAG_PATTERN: &str = r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)";

const UUID_PATTERN: &str = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}";

/// Every pattern of the model that is checked here; regions may have any name.
pub(super) const PATTERNS: &[&str] =
    &[ARN_PATTERN, FUNCTION_NAME_PATTERN, KMS_KEY_PATTERN, URI_PATTERN, DESTINATION_PATTERN, TAG_PATTERN, UUID_PATTERN];

/// AWS's limit for a resource.
const MOST_TAGS: usize = 50;

static BOOLEAN: Shape = Shape::Boolean;
pub(super) static ARN: Shape = Shape::Text { least: 0, most: 10_000, pattern: Some(ARN_PATTERN) };
/// A mapping's ARN has less; what is longer names none.
pub(super) static RESOURCE: Shape = Shape::Text { least: 1, most: 256, pattern: Some(ARN_PATTERN) };
pub(super) static FUNCTION_NAME: Shape = Shape::Text { least: 1, most: 256, pattern: Some(FUNCTION_NAME_PATTERN) };
static BATCH_SIZE: Shape = Shape::Integer { least: 1, most: 10_000 };
static WINDOW: Shape = Shape::Integer { least: 0, most: 300 };
static FILTER_CRITERIA: Shape = Shape::Structure(&[Member::new("Filters", &FILTERS)]);
static FILTERS: Shape = Shape::List { least: 0, most: MOST_FILTERS, of: &FILTER };
static FILTER: Shape = Shape::Structure(&[Member::new("Pattern", &FILTER_PATTERN)]);
static FILTER_PATTERN: Shape = Shape::Text { least: 0, most: LONGEST_PATTERN, pattern: None };
static KMS_KEY: Shape = Shape::Text { least: 0, most: 10_000, pattern: Some(KMS_KEY_PATTERN) };
static QUEUES: Shape = Shape::List { least: 1, most: 1, of: &QUEUE };
static QUEUE: Shape = Shape::Text { least: 1, most: 1_000, pattern: None };
static ACCESS_CONFIGURATIONS: Shape = Shape::List { least: 0, most: 23, of: &ACCESS_CONFIGURATION };
static ACCESS_CONFIGURATION: Shape =
    Shape::Structure(&[Member::new("Type", &ACCESS_TYPE), Member::new("URI", &ACCESS_URI)]);
static ACCESS_TYPE: Shape = Shape::OneOf(&[
    BASIC_AUTH,
    "VPC_SUBNET",
    "VPC_SECURITY_GROUP",
    "SASL_SCRAM_512_AUTH",
    "SASL_SCRAM_256_AUTH",
    VIRTUAL_HOST,
    "CLIENT_CERTIFICATE_TLS_AUTH",
    "SERVER_ROOT_CA_CERTIFICATE",
    "OAUTHBEARER_AUTH",
    "OAUTHBEARER_SCOPE",
    "OAUTHBEARER_AUDIENCE",
    "OAUTHBEARER_LOGICAL_CLUSTER",
    "OAUTHBEARER_IDENTITY_POOL",
    "IAM_AUTH",
    "IAM_OAUTHBEARER_AUTH",
]);
static ACCESS_URI: Shape = Shape::Text { least: 1, most: 200, pattern: Some(URI_PATTERN) };
static SCALING: Shape = Shape::Structure(&[Member::new("MaximumConcurrency", &CONCURRENCY)]);
static CONCURRENCY: Shape = Shape::Integer { least: 2, most: 1_000 };
static RETRY_ATTEMPTS: Shape = Shape::Integer { least: -1, most: 10_000 };
static RECORD_AGE: Shape = Shape::Integer { least: -1, most: 604_800 };
static RESPONSE_TYPES: Shape = Shape::List { least: 0, most: 1, of: &RESPONSE_TYPE };
static RESPONSE_TYPE: Shape = Shape::OneOf(&[BATCH_ITEM_FAILURES]);
static METRICS_CONFIG: Shape = Shape::Structure(&[Member::new("Metrics", &METRICS)]);
static METRICS: Shape = Shape::List { least: 0, most: 3, of: &METRIC };
static METRIC: Shape = Shape::OneOf(&["EventCount", "ErrorCount", "KafkaMetrics"]);
static DESTINATIONS: Shape =
    Shape::Structure(&[Member::new("OnSuccess", &DESTINATION), Member::new("OnFailure", &DESTINATION)]);
static DESTINATION: Shape = Shape::Structure(&[Member::new("Destination", &DESTINATION_ARN)]);
static DESTINATION_ARN: Shape = Shape::Text { least: 0, most: 350, pattern: Some(DESTINATION_PATTERN) };
static TAGS: Shape = Shape::Map { most: MOST_TAGS, key: &TAG_KEY, value: &TAG_VALUE };
pub(super) static TAG_KEY: Shape = Shape::Text { least: 1, most: 128, pattern: Some(TAG_PATTERN) };
static TAG_KEYS: Shape = Shape::List { least: 1, most: MOST_TAGS, of: &TAG_KEY };
static TAG_VALUE: Shape = Shape::Text { least: 0, most: 256, pattern: Some(TAG_PATTERN) };
pub(super) static MARKER: Shape = Shape::Text { least: 0, most: 1_024, pattern: None };
pub(super) static MAX_ITEMS: Shape = Shape::Integer { least: 1, most: 10_000 };
pub(super) static UUID: Shape = Shape::Text { least: 36, most: 36, pattern: Some(UUID_PATTERN) };
static STATE: Shape =
    Shape::OneOf(&["Creating", "Enabling", "Enabled", "Disabling", "Disabled", "Updating", "Deleting"]);
static WORDS: Shape = Shape::Text { least: 0, most: 100_000, pattern: None };
static CONFIGURATIONS: Shape = Shape::List { least: 0, most: LONGEST_PAGE, of: &Shape::Structure(CONFIGURATION) };
static UNCHECKED: Shape = Shape::Unchecked;

/// What `CreateEventSourceMapping` may hold.
pub(super) static CREATE: &[Member] = &[
    Member::new("EventSourceArn", &ARN),
    Member::new("FunctionName", &FUNCTION_NAME).required(),
    Member::new("Enabled", &BOOLEAN),
    Member::new("BatchSize", &BATCH_SIZE),
    Member::new("FilterCriteria", &FILTER_CRITERIA),
    Member::new("MaximumBatchingWindowInSeconds", &WINDOW),
    Member::new("Queues", &QUEUES),
    Member::new("SourceAccessConfigurations", &ACCESS_CONFIGURATIONS),
    Member::new("Tags", &TAGS),
    Member::new("KMSKeyArn", &KMS_KEY),
    Member::new("ScalingConfig", &SCALING),
    Member::new("MaximumRetryAttempts", &RETRY_ATTEMPTS),
    Member::new("MaximumRecordAgeInSeconds", &RECORD_AGE),
    Member::new("BisectBatchOnFunctionError", &BOOLEAN),
    Member::new("FunctionResponseTypes", &RESPONSE_TYPES),
    Member::new("DestinationConfig", &DESTINATIONS),
    Member::new("MetricsConfig", &METRICS_CONFIG),
    Member::new("AmazonManagedKafkaEventSourceConfig", &UNCHECKED),
    Member::new("DocumentDBEventSourceConfig", &UNCHECKED),
    Member::new("LoggingConfig", &UNCHECKED),
    Member::new("ParallelizationFactor", &UNCHECKED),
    Member::new("ProvisionedPollerConfig", &UNCHECKED),
    Member::new("SelfManagedEventSource", &UNCHECKED),
    Member::new("SelfManagedKafkaEventSourceConfig", &UNCHECKED),
    Member::new("StartingPosition", &UNCHECKED),
    Member::new("StartingPositionTimestamp", &UNCHECKED),
    Member::new("Topics", &UNCHECKED),
    Member::new("TumblingWindowInSeconds", &UNCHECKED),
];

/// What `UpdateEventSourceMapping` may hold. `Queues` is no member of the model, and AWS answers
/// with the queue as it was to whoever sends it.
pub(super) static UPDATE: &[Member] = &[
    Member::new("FunctionName", &FUNCTION_NAME),
    Member::new("Enabled", &BOOLEAN),
    Member::new("BatchSize", &BATCH_SIZE),
    Member::new("FilterCriteria", &FILTER_CRITERIA),
    Member::new("MaximumBatchingWindowInSeconds", &WINDOW),
    Member::new("SourceAccessConfigurations", &ACCESS_CONFIGURATIONS),
    Member::new("KMSKeyArn", &KMS_KEY),
    Member::new("ScalingConfig", &SCALING),
    Member::new("MaximumRetryAttempts", &RETRY_ATTEMPTS),
    Member::new("MaximumRecordAgeInSeconds", &RECORD_AGE),
    Member::new("BisectBatchOnFunctionError", &BOOLEAN),
    Member::new("FunctionResponseTypes", &RESPONSE_TYPES),
    Member::new("DestinationConfig", &DESTINATIONS),
    Member::new("MetricsConfig", &METRICS_CONFIG),
    Member::new("Queues", &UNCHECKED),
    Member::new("AmazonManagedKafkaEventSourceConfig", &UNCHECKED),
    Member::new("DocumentDBEventSourceConfig", &UNCHECKED),
    Member::new("LoggingConfig", &UNCHECKED),
    Member::new("ParallelizationFactor", &UNCHECKED),
    Member::new("ProvisionedPollerConfig", &UNCHECKED),
    Member::new("SelfManagedKafkaEventSourceConfig", &UNCHECKED),
    Member::new("TumblingWindowInSeconds", &UNCHECKED),
];

/// What `TagResource` may hold.
pub(super) static TAG: &[Member] = &[Member::new("Tags", &TAGS).required()];

/// The parameters of `ListEventSourceMappings`.
pub(super) static LIST: &[Member] = &[
    Member::new("EventSourceArn", &ARN),
    Member::new("FunctionName", &FUNCTION_NAME),
    Member::new("Marker", &MARKER),
    Member::new("MaxItems", &MAX_ITEMS),
];

/// The parameters of `UntagResource`.
pub(super) static UNTAG: &[Member] = &[Member::new("tagKeys", &TAG_KEYS).required()];

/// What is answered about a mapping.
pub(super) static CONFIGURATION: &[Member] = &[
    Member::new("UUID", &UUID).required(),
    Member::new("EventSourceMappingArn", &ARN).required(),
    Member::new("FunctionArn", &ARN).required(),
    Member::new("EventSourceArn", &ARN).required(),
    Member::new("Queues", &QUEUES).required(),
    Member::new("SourceAccessConfigurations", &ACCESS_CONFIGURATIONS).required(),
    Member::new("BatchSize", &BATCH_SIZE).required(),
    Member::new("MaximumBatchingWindowInSeconds", &WINDOW),
    Member::new("FilterCriteria", &FILTER_CRITERIA),
    Member::new("ScalingConfig", &SCALING),
    Member::new("MaximumRetryAttempts", &RETRY_ATTEMPTS),
    Member::new("MaximumRecordAgeInSeconds", &RECORD_AGE),
    Member::new("BisectBatchOnFunctionError", &BOOLEAN),
    Member::new("FunctionResponseTypes", &RESPONSE_TYPES),
    Member::new("DestinationConfig", &DESTINATIONS),
    Member::new("State", &STATE).required(),
    Member::new("StateTransitionReason", &WORDS).required(),
    Member::new("LastProcessingResult", &WORDS).required(),
    Member::new("LastModified", &Shape::Timestamp).required(),
];

/// A page of mappings.
pub(super) static PAGE: &[Member] =
    &[Member::new("NextMarker", &MARKER), Member::new("EventSourceMappings", &CONFIGURATIONS).required()];

/// Members for other kinds of event source.
const OF_OTHER_SOURCES: &[&str] = &[
    "AmazonManagedKafkaEventSourceConfig",
    "DocumentDBEventSourceConfig",
    "LoggingConfig",
    "ParallelizationFactor",
    "ProvisionedPollerConfig",
    "SelfManagedEventSource",
    "SelfManagedKafkaEventSourceConfig",
    "StartingPosition",
    "StartingPositionTimestamp",
    "Topics",
    "TumblingWindowInSeconds",
];

const BATCH_ITEM_FAILURES: &str = "ReportBatchItemFailures";
const BASIC_AUTH: &str = "BASIC_AUTH";
const VIRTUAL_HOST: &str = "VIRTUAL_HOST";

// Requests

/// `CreateEventSourceMapping`.
pub(super) fn create(members: Map<String, Value>) -> Result<(MappingSpec, BTreeMap<String, String>), ApiError> {
    check(&members, CREATE)?;
    let Request { event_source_arn, queues, tags, settings } = typed(members)?;
    let mut problems = Problems::default();
    let has_access = settings.source_access_configurations.is_some();
    let Access { secret, virtual_host } =
        problems.access(settings.source_access_configurations.as_deref()).unwrap_or_default();
    let changes = settings.changes(&mut problems);
    let function_name = changes.function_name.clone(); // the model asks for one
    let event_source = problems.needed(event_source_arn, "Unrecognized event source. (EventSourceArn is missing)");
    let queue = problems.needed(queues.unwrap_or_default().pop(), "Required 'queues' parameter is missing.");
    let no_login =
        if has_access { NO_BASIC_AUTH } else { "Required 'sourceAccessConfigurations' parameter is missing." };
    let secret = problems.needed(secret, no_login);
    match (function_name, event_source, queue, secret) {
        (Some(function_name), Some(event_source), Some(queue), Some(secret)) => {
            let mut spec = MappingSpec::new(function_name, event_source, queue, secret);
            spec.virtual_host = virtual_host;
            changes.apply(&mut spec);
            problems.or((spec, tags.unwrap_or_default()))
        }
        _ => Err(problems.into()),
    }
}

/// `UpdateEventSourceMapping`, for a mapping of this engine, if its broker is known.
pub(super) fn update(members: Map<String, Value>, engine: Option<Engine>) -> Result<Changes, ApiError> {
    check(&members, UPDATE)?;
    if members.contains_key("Queues") {
        warn!(
            "an update that holds `Queues` leaves the queue as it is, as on AWS; create another mapping for another queue"
        );
    }
    let Request { settings, .. } = typed(members)?;
    let mut problems = Problems::default();
    let access = problems.access(settings.source_access_configurations.as_deref());
    let mut changes = settings.changes(&mut problems);
    match access {
        None => {}
        Some(Access { virtual_host: Some(_), .. }) => problems.add("Invalid parameters: VIRTUAL_HOST"),
        Some(Access { secret: Some(secret), .. }) => changes.secret = Some(secret),
        Some(_) if engine == Some(Engine::Rabbitmq) => problems.add("Invalid parameters: sourceAccessConfigurations"),
        Some(_) => problems.add(NO_BASIC_AUTH),
    }
    problems.or(changes)
}

/// `TagResource`.
pub(super) fn tags(members: Map<String, Value>) -> Result<BTreeMap<String, String>, ApiError> {
    check(&members, TAG)?;
    let Request { tags, .. } = typed(members)?;
    Ok(tags.unwrap_or_default())
}

const NO_BASIC_AUTH: &str = "BASIC_AUTH source access configuration was not provided";

/// Checks a body's members, and says all that is wrong with them.
fn check(members: &Map<String, Value>, known: &[Member]) -> Result<(), ApiError> {
    let mut violations = Violations::default();
    violations.members(members, known, "");
    violations.into_result()?;
    let mut problems = Problems::default();
    for name in OF_OTHER_SOURCES {
        if members.get(*name).is_some_and(|value| !value.is_null()) {
            problems.unsupported(name, "");
        }
    }
    problems.or(())
}

/// After [`check`], nothing is left that could fail here.
fn typed<T: DeserializeOwned>(members: Map<String, Value>) -> Result<T, ApiError> {
    serde_json::from_value(Value::Object(members)).map_err(|error| ApiError::Serialization(error.to_string()))
}

/// What is wrong with a request beside the model's limits.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, words: impl Into<String>) {
        self.0.push(words.into());
    }

    fn unsupported(&mut self, name: &str, more: &str) {
        let name = decapitalised(name);
        self.add(format!("Unsupported '{name}' parameter for given event source mapping type.{more}"));
    }

    fn needed(&mut self, value: Option<String>, words: &str) -> Option<String> {
        if value.is_none() {
            self.add(words);
        }
        value
    }

    fn built<F, T: TryFrom<F, Error: Display>>(&mut self, name: &str, value: F) -> Option<T> {
        T::try_from(value).map_err(|error| self.add(format!("{name}: {error}"))).ok()
    }

    /// One login, and for some brokers a virtual host.
    fn access(&mut self, configurations: Option<&[SourceAccessConfiguration]>) -> Option<Access> {
        let mut access = Access::default();
        for SourceAccessConfiguration { r#type, uri } in configurations? {
            let place = match r#type.as_deref() {
                Some(BASIC_AUTH) => &mut access.secret,
                Some(VIRTUAL_HOST) => &mut access.virtual_host,
                Some(other) => {
                    let words = "Unsupported source access configurations type for given event source mapping type.";
                    self.add(format!("{words} ({other})"));
                    continue;
                }
                None => {
                    self.add("Invalid parameters: sourceAccessConfigurations (a Type is missing)");
                    continue;
                }
            };
            if uri.is_none() || place.is_some() {
                let words = if uri.is_none() { "needs a URI" } else { "is there twice" };
                let name = r#type.as_deref().unwrap_or_default();
                self.add(format!("Invalid parameters: sourceAccessConfigurations ({name} {words})"));
            }
            place.clone_from(uri);
        }
        Some(access)
    }

    fn filter(&mut self, criteria: FilterCriteria) -> Option<Arc<esm_core::filter::FilterCriteria>> {
        let filters = criteria.filters.unwrap_or_default();
        let patterns: Option<Vec<String>> = filters.into_iter().map(|filter| filter.pattern).collect();
        let Some(patterns) = patterns else {
            self.add("Invalid filter pattern definition. (a filter has no Pattern)");
            return None;
        };
        match esm_core::filter::FilterCriteria::parse(&patterns) {
            Ok(_) if patterns.is_empty() => None,
            Ok(filter) => Some(Arc::new(filter)),
            Err(FilterErrors(problems)) => {
                let words: Vec<_> = problems.iter().map(ToString::to_string).collect();
                self.add(format!("Invalid filter pattern definition. ({})", words.join("; ")));
                None
            }
        }
    }

    fn or<T>(self, value: T) -> Result<T, ApiError> {
        if self.0.is_empty() { Ok(value) } else { Err(self.into()) }
    }
}

impl From<Problems> for ApiError {
    fn from(Problems(problems): Problems) -> Self {
        Self::InvalidParameterValue(problems.join(" "))
    }
}

/// What `SourceAccessConfigurations` say.
#[derive(Default)]
struct Access {
    secret: Option<String>,
    virtual_host: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    event_source_arn: Option<String>,
    queues: Option<Vec<String>>,
    tags: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    settings: Settings,
}

/// Members that can be changed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    function_name: Option<String>,
    enabled: Option<bool>,
    batch_size: Option<i64>,
    filter_criteria: Option<FilterCriteria>,
    /// Null takes away what was set, since no number of seconds means the default.
    #[serde(default, deserialize_with = "window")]
    maximum_batching_window_in_seconds: Option<BatchingWindow>,
    source_access_configurations: Option<Vec<SourceAccessConfiguration>>,
    #[serde(rename = "KMSKeyArn")]
    kms_key_arn: Option<String>,
    scaling_config: Option<ScalingConfig>,
    maximum_retry_attempts: Option<i64>,
    maximum_record_age_in_seconds: Option<i64>,
    bisect_batch_on_function_error: Option<bool>,
    function_response_types: Option<Vec<String>>,
    destination_config: Option<DestinationConfig>,
    metrics_config: Option<MetricsConfig>,
}

fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BatchingWindow>, D::Error> {
    match Option::<i64>::deserialize(deserializer)? {
        None => Ok(Some(BatchingWindow::default())),
        Some(seconds) => seconds.try_into().map(Some).map_err(D::Error::custom),
    }
}

impl Settings {
    fn changes(self, problems: &mut Problems) -> Changes {
        if self.kms_key_arn.is_some_and(|key| !key.is_empty()) {
            problems.unsupported(
                "KMSKeyArn",
                " (filters are kept in this service's own store, which KMS does not encrypt)",
            );
        }
        if self.metrics_config.and_then(|config| config.metrics).is_some_and(|metrics| !metrics.is_empty()) {
            problems.unsupported("MetricsConfig", " (every mapping's events are counted at /metrics, without asking)");
        }
        let DestinationConfig { on_success, on_failure } = self.destination_config.unwrap_or_default();
        let destination = |config: Option<Destination>| config.and_then(|config| config.destination);
        if destination(on_success).is_some_and(|arn| !arn.is_empty()) {
            problems.add("Unsupported DestinationConfig parameter for given event source mapping type. (OnSuccess)");
        }
        let concurrency = self.scaling_config.map(|config| config.maximum_concurrency);
        Changes {
            function_name: self.function_name.and_then(|name| problems.built("FunctionName", name)),
            // Whoever reads the access configurations sets it.
            secret: None,
            enabled: self.enabled,
            batch_size: self.batch_size.and_then(|size| problems.built("BatchSize", size)),
            window: self.maximum_batching_window_in_seconds,
            filter: self.filter_criteria.map(|criteria| problems.filter(criteria)),
            maximum_concurrency: concurrency
                .map(|number| number.and_then(|number| problems.built("ScalingConfig.MaximumConcurrency", number))),
            report_batch_item_failures: self.function_response_types.map(|types| !types.is_empty()),
            bisect_batch_on_function_error: self.bisect_batch_on_function_error,
            maximum_retry_attempts: self
                .maximum_retry_attempts
                .and_then(|attempts| problems.built("MaximumRetryAttempts", attempts)),
            maximum_record_age_in_seconds: self
                .maximum_record_age_in_seconds
                .and_then(|age| problems.built("MaximumRecordAgeInSeconds", age)),
            on_failure: on_failure.map(|config| config.destination.filter(|arn| !arn.is_empty())),
        }
    }
}

// What both requests and answers hold

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct FilterCriteria {
    filters: Option<Vec<Filter>>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Filter {
    pattern: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SourceAccessConfiguration {
    r#type: Option<String>,
    #[serde(rename = "URI")]
    uri: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ScalingConfig {
    maximum_concurrency: Option<i64>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DestinationConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    on_success: Option<Destination>,
    on_failure: Option<Destination>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Destination {
    destination: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetricsConfig {
    metrics: Option<Vec<String>>,
}

// Answers

/// `EventSourceMappingConfiguration`. What was never set is left out; AWS sends null, and SDKs show
/// neither.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Configuration {
    #[serde(rename = "UUID")]
    uuid: String,
    event_source_mapping_arn: String,
    function_arn: String,
    event_source_arn: String,
    queues: [String; 1],
    source_access_configurations: Vec<SourceAccessConfiguration>,
    batch_size: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_batching_window_in_seconds: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter_criteria: Option<FilterCriteria>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scaling_config: Option<ScalingConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_retry_attempts: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_record_age_in_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bisect_batch_on_function_error: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_response_types: Option<[&'static str; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_config: Option<DestinationConfig>,
    state: &'static str,
    state_transition_reason: String,
    last_processing_result: String,
    /// Seconds since 1970, to the millisecond.
    last_modified: f64,
}

impl From<View> for Configuration {
    fn from(view: View) -> Self {
        let spec = view.spec;
        // Of a mapping that cannot be read, it is not known.
        let login = Some(spec.secret).filter(|secret| !secret.is_empty());
        let login =
            login.map(|secret| SourceAccessConfiguration { r#type: Some(BASIC_AUTH.into()), uri: Some(secret) });
        let virtual_host = spec
            .virtual_host
            .map(|name| SourceAccessConfiguration { r#type: Some(VIRTUAL_HOST.into()), uri: Some(name) });
        let filter = |filter: Arc<esm_core::filter::FilterCriteria>| FilterCriteria {
            filters: Some(filter.patterns().iter().map(|pattern| Filter { pattern: Some(pattern.clone()) }).collect()),
        };
        let on_failure =
            |arn| DestinationConfig { on_success: None, on_failure: Some(Destination { destination: Some(arn) }) };
        Self {
            uuid: view.uuid.to_string(),
            event_source_mapping_arn: view.arn,
            function_arn: view.function_arn,
            event_source_arn: view.event_source_arn,
            queues: [spec.queue],
            source_access_configurations: login.into_iter().chain(virtual_host).collect(),
            batch_size: spec.batch_size.unwrap_or_default().into(),
            maximum_batching_window_in_seconds: spec.window.seconds(),
            filter_criteria: spec.filter.map(filter),
            scaling_config: spec
                .maximum_concurrency
                .map(|number| ScalingConfig { maximum_concurrency: Some(number.into()) }),
            maximum_retry_attempts: spec.maximum_retry_attempts.map(Into::into),
            maximum_record_age_in_seconds: spec.maximum_record_age_in_seconds.map(Into::into),
            bisect_batch_on_function_error: spec.bisect_batch_on_function_error.then_some(true),
            function_response_types: spec.report_batch_item_failures.then_some([BATCH_ITEM_FAILURES]),
            destination_config: spec.on_failure.map(on_failure),
            state: view.state.as_str(),
            state_transition_reason: view.state_transition_reason,
            last_processing_result: view.last_processing_result,
            last_modified: view.last_modified_ms as f64 / 1_000.0,
        }
    }
}

/// A page of `ListEventSourceMappings`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Page {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_marker: Option<String>,
    pub(super) event_source_mappings: Vec<Configuration>,
}

/// `ListTags`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TagsOf {
    pub(super) tags: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    /// A specification with every member that there is.
    fn full() -> MappingSpec {
        let mut spec = MappingSpec::new(
            "f:live".parse().unwrap(),
            "arn:aws:mq:eu-west-1:111122223333:broker:b:b-1".into(),
            "q".into(),
            "login".into(),
        );
        spec.virtual_host = Some("/".into());
        spec.batch_size = Some(2.try_into().unwrap());
        spec.window = 0.try_into().unwrap();
        spec.filter = Some(Arc::new(esm_core::filter::FilterCriteria::parse(&["{\"data\":[\"x\"]}".into()]).unwrap()));
        spec.maximum_concurrency = Some(4.try_into().unwrap());
        spec.report_batch_item_failures = true;
        spec.bisect_batch_on_function_error = true;
        spec.maximum_retry_attempts = Some((-1).try_into().unwrap());
        spec.maximum_record_age_in_seconds = Some(60.try_into().unwrap());
        spec.on_failure = Some("arn:aws:mq:eu-west-1:111122223333:queue:b:%2F:dead".into());
        spec
    }

    fn configuration(spec: MappingSpec) -> Value {
        let view = View {
            uuid: Uuid::from_u128(0x91ea_eb7e_c976_1234_9451_8709_db01_f137),
            arn: "arn:aws:lambda:eu-west-1:111122223333:event-source-mapping:91eaeb7e-c976-1234-9451-8709db01f137"
                .into(),
            function_arn: "arn:aws:lambda:eu-west-1:111122223333:function:f:live".into(),
            event_source_arn: spec.event_source.clone(),
            spec,
            state: esm_core::status::State::Creating,
            state_transition_reason: "USER_INITIATED".into(),
            last_processing_result: "No records processed".into(),
            last_modified_ms: 1_601_927_898_741,
        };
        serde_json::to_value(Configuration::from(view)).unwrap()
    }

    fn members(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(members) => members,
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn every_pattern_of_the_model_compiles() {
        for pattern in PATTERNS {
            assert!(regex::Regex::new(pattern).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn what_is_answered_is_what_was_asked_for() {
        let answered = configuration(full());
        assert_eq!(answered["LastModified"].to_string(), "1601927898.741");
        assert_eq!(
            answered["SourceAccessConfigurations"],
            json!([{ "Type": "BASIC_AUTH", "URI": "login" }, { "Type": "VIRTUAL_HOST", "URI": "/" }])
        );
        assert_eq!(answered["DestinationConfig"], json!({ "OnFailure": { "Destination": full().on_failure } }));
        assert_eq!(answered["MaximumBatchingWindowInSeconds"], 0);
        let is_asked = |(name, _): &(String, Value)| CREATE.iter().any(|member| member.name == name);
        let mut asked: Map<_, _> = members(answered).into_iter().filter(is_asked).collect();
        asked.insert("FunctionName".into(), "f:live".into());
        assert_eq!(create(asked).unwrap().0, full());
    }

    #[test]
    fn an_answer_has_the_documented_members_and_leaves_out_what_was_never_set() {
        let check = |spec: MappingSpec| {
            let answered = members(configuration(spec));
            let mut violations = Violations::default();
            violations.members(&answered, CONFIGURATION, "");
            assert_eq!(violations.into_result(), Ok(()));
            answered.len()
        };
        assert_eq!(check(full()), CONFIGURATION.len());
        let MappingSpec { function_name, event_source, queue, secret, .. } = full();
        assert_eq!(check(MappingSpec::new(function_name, event_source, queue, secret)), 11);
    }

    fn refused(request: Value, expected: &ApiError) {
        assert_eq!(&create(members(request)).unwrap_err(), expected);
    }

    fn request(more: Value) -> Value {
        let mut request = members(json!({
            "FunctionName": "f",
            "EventSourceArn": "arn:aws:mq:us-east-1:000000000000:broker:b:b-1",
            "Queues": ["q"],
            "SourceAccessConfigurations": [{ "Type": "BASIC_AUTH", "URI": "login" }],
        }));
        request.extend(members(more));
        Value::Object(request)
    }

    #[test]
    fn every_limit_that_is_broken_is_told_in_one_answer_in_awss_words() {
        let words = "3 validation errors detected: Value 'a b' at 'functionName' failed to satisfy constraint: Member must \
                     satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z0-9-]+:)?([0-9]{12}:)?(function:)?\
                     ([a-zA-Z0-9-_\\.]+)(:(\\$LATEST(\\.PUBLISHED)?|[a-zA-Z0-9-_]+))?; Value '10001' at 'batchSize' failed to \
                     satisfy constraint: Member must have value less than or equal to 10000; Value with length 2 at 'queues' \
                     failed to satisfy constraint: Member must have length less than or equal to 1";
        let request = request(json!({ "FunctionName": "a b", "BatchSize": 10_001, "Queues": ["a", "b"] }));
        refused(request, &ApiError::Validation(words.into()));
    }

    #[test]
    fn a_limit_inside_of_a_list_is_told_with_its_place() {
        let check = |configuration: Value, words: &str| {
            let error = create(members(request(json!({ "SourceAccessConfigurations": [configuration] })))).unwrap_err();
            assert_eq!(error, ApiError::Validation(format!("1 validation error detected: Value {words}")));
        };
        check(
            json!({ "Type": "BASIC_AUTH", "URI": "" }),
            "'' at 'sourceAccessConfigurations.1.member.uRI' failed to satisfy constraint: Member must have length greater \
             than or equal to 1",
        );
        check(
            json!({ "Type": "BASIC_AUTH", "URI": "x", "Uri": "y" }),
            "'y' at 'sourceAccessConfigurations.1.member.Uri' failed to satisfy constraint: Member must be one of this \
             operation's; did you mean URI?",
        );
    }

    #[test]
    fn a_value_of_a_wrong_type_is_refused_before_anything_else() {
        refused(
            request(
                json!({ "BatchSize": "10", "Enabled": 1, "MaximumRetryAttempts": 1.5, "Queues": "q", "Unknown": 1 }),
            ),
            &ApiError::Serialization(
                "NUMBER_VALUE at 'enabled' can not be converted to a Boolean; STRING_VALUE at 'batchSize' can not be \
                 converted to an Integer; STRING_VALUE at 'queues' can not be converted to a List; DECIMAL_VALUE at \
                 'maximumRetryAttempts' can not be converted to an Integer"
                    .into(),
            ),
        );
    }

    #[test]
    fn members_of_other_event_sources_are_refused() {
        for name in OF_OTHER_SOURCES {
            let words = format!("Unsupported '{}' parameter for given event source mapping type.", decapitalised(name));
            let error = create(members(request(json!({ *name: "LATEST" })))).unwrap_err();
            assert_eq!(error, ApiError::InvalidParameterValue(words));
            assert!(CREATE.iter().any(|member| member.name == *name));
        }
    }

    #[test]
    fn what_means_nothing_here_is_refused_unless_it_asks_for_nothing() {
        let check = |more: Value, words: &str| match (create(members(request(more))), words) {
            (Ok(_), "") => {}
            (Err(error), words) if !words.is_empty() => {
                assert!(
                    error.code() == "InvalidParameterValueException" && error.message().contains(words),
                    "{error:?}"
                );
            }
            (other, _) => panic!("{other:?} and not {words}"),
        };
        check(json!({ "KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1" }), "'kMSKeyArn'");
        check(json!({ "KMSKeyArn": "" }), "");
        check(json!({ "MetricsConfig": { "Metrics": ["EventCount"] } }), "'metricsConfig'");
        check(json!({ "MetricsConfig": { "Metrics": [] } }), "");
        check(
            json!({ "DestinationConfig": { "OnSuccess": { "Destination": "arn:aws:sqs:us-east-1:000000000000:q" } } }),
            "OnSuccess",
        );
        check(json!({ "DestinationConfig": { "OnFailure": {}, "OnSuccess": { "Destination": "" } } }), "");
        check(
            json!({ "FilterCriteria": { "Filters": [{ "Pattern": "{" }] } }),
            "Invalid filter pattern definition. (filter 0: ",
        );
        check(json!({ "FilterCriteria": { "Filters": [{}] } }), "a filter has no Pattern");
        check(json!({ "FilterCriteria": { "Filters": [] } }), "");
    }

    #[test]
    fn a_source_needs_an_arn_a_queue_and_one_login() {
        let check = |more: Value, words: &str| {
            refused(request(more), &ApiError::InvalidParameterValue(words.into()));
        };
        check(json!({ "EventSourceArn": null }), "Unrecognized event source. (EventSourceArn is missing)");
        check(json!({ "Queues": null }), "Required 'queues' parameter is missing.");
        check(
            json!({ "SourceAccessConfigurations": null }),
            "Required 'sourceAccessConfigurations' parameter is missing.",
        );
        check(json!({ "SourceAccessConfigurations": [] }), NO_BASIC_AUTH);
        check(
            json!({ "SourceAccessConfigurations": [{ "Type": "BASIC_AUTH", "URI": "a" }, { "Type": "BASIC_AUTH", "URI": "b" }] }),
            "Invalid parameters: sourceAccessConfigurations (BASIC_AUTH is there twice)",
        );
        check(
            json!({ "SourceAccessConfigurations": [{ "Type": "BASIC_AUTH", "URI": "a" }, { "Type": "VPC_SUBNET", "URI": "b" }] }),
            "Unsupported source access configurations type for given event source mapping type. (VPC_SUBNET)",
        );
    }

    #[test]
    fn an_update_changes_what_it_holds_and_nothing_else() {
        let changed = |request: Value| {
            let mut spec = full();
            update(members(request), Some(Engine::Rabbitmq)).unwrap().apply(&mut spec);
            spec
        };
        assert_eq!(changed(json!({})), full());
        assert_eq!(changed(json!({ "Queues": ["other"] })), full());
        assert_eq!(changed(json!({ "BatchSize": null })), full());
        let check = |request: Value, expected: fn(&mut MappingSpec)| {
            let mut spec = full();
            expected(&mut spec);
            assert_eq!(changed(request.clone()), spec, "{request}");
            assert_ne!(spec, full(), "{request}");
        };
        check(json!({ "FunctionName": "g" }), |spec| spec.function_name = "g".parse().unwrap());
        check(json!({ "Enabled": false }), |spec| spec.enabled = false);
        check(json!({ "BatchSize": 3 }), |spec| spec.batch_size = Some(3.try_into().unwrap()));
        check(json!({ "MaximumBatchingWindowInSeconds": null }), |spec| spec.window = BatchingWindow::default());
        check(json!({ "FilterCriteria": {} }), |spec| spec.filter = None);
        check(json!({ "FilterCriteria": { "Filters": [] } }), |spec| spec.filter = None);
        check(json!({ "ScalingConfig": {} }), |spec| spec.maximum_concurrency = None);
        check(json!({ "FunctionResponseTypes": [] }), |spec| spec.report_batch_item_failures = false);
        check(json!({ "BisectBatchOnFunctionError": false }), |spec| spec.bisect_batch_on_function_error = false);
        check(json!({ "DestinationConfig": { "OnFailure": {} } }), |spec| spec.on_failure = None);
        check(json!({ "SourceAccessConfigurations": [{ "Type": "BASIC_AUTH", "URI": "b" }] }), |spec| {
            spec.secret = "b".into();
        });
    }

    #[test]
    fn an_update_of_the_access_configurations_needs_a_login_and_no_virtual_host() {
        let check = |configurations: Value, engine: Engine, words: &str| {
            let request = members(json!({ "SourceAccessConfigurations": configurations }));
            assert_eq!(update(request, Some(engine)).unwrap_err(), ApiError::InvalidParameterValue(words.into()));
        };
        let both = json!([{ "Type": "BASIC_AUTH", "URI": "a" }, { "Type": "VIRTUAL_HOST", "URI": "/" }]);
        check(both, Engine::Rabbitmq, "Invalid parameters: VIRTUAL_HOST");
        check(json!([]), Engine::Rabbitmq, "Invalid parameters: sourceAccessConfigurations");
        check(json!([]), Engine::Activemq, NO_BASIC_AUTH);
    }
}
