//! The JSON shapes of the control API, all of them: what requests may hold, by AWS's limits, and what
//! is answered. They become the control plane's types here, and nowhere else.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{
    constraints::{Member, Shape, Violations, decapitalised},
    errors::ApiError,
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

/// Every pattern of the model that is checked here; regions may have any name.
pub(super) const PATTERNS: &[&str] =
    &[ARN_PATTERN, FUNCTION_NAME_PATTERN, KMS_KEY_PATTERN, URI_PATTERN, DESTINATION_PATTERN, TAG_PATTERN];

/// AWS's limit for a resource.
const MOST_TAGS: usize = 50;

static BOOLEAN: Shape = Shape::Boolean;
pub(super) static ARN: Shape = Shape::Text { least: 0, most: 10_000, pattern: Some(ARN_PATTERN) };
pub(super) static FUNCTION_NAME: Shape = Shape::Text { least: 1, most: 256, pattern: Some(FUNCTION_NAME_PATTERN) };
static BATCH_SIZE: Shape = Shape::Integer { least: 1, most: 10_000 };
static WINDOW: Shape = Shape::Integer { least: 0, most: 300 };
static FILTER_CRITERIA: Shape = Shape::Structure(&[Member::new("Filters", &FILTERS)]);
/// More than the ten that are allowed, so that the words about that are AWS's.
static FILTERS: Shape = Shape::List { least: 0, most: 1_000, of: &FILTER };
static FILTER: Shape = Shape::Structure(&[Member::new("Pattern", &FILTER_PATTERN)]);
static FILTER_PATTERN: Shape = Shape::Text { least: 0, most: 4_096, pattern: None };
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
static RESPONSE_TYPE: Shape = Shape::OneOf(&["ReportBatchItemFailures"]);
static METRICS_CONFIG: Shape = Shape::Structure(&[Member::new("Metrics", &METRICS)]);
static METRICS: Shape = Shape::List { least: 0, most: 3, of: &METRIC };
static METRIC: Shape = Shape::OneOf(&["EventCount", "ErrorCount", "KafkaMetrics"]);
static DESTINATIONS: Shape =
    Shape::Structure(&[Member::new("OnSuccess", &DESTINATION), Member::new("OnFailure", &DESTINATION)]);
static DESTINATION: Shape = Shape::Structure(&[Member::new("Destination", &DESTINATION_ARN)]);
static DESTINATION_ARN: Shape = Shape::Text { least: 0, most: 350, pattern: Some(DESTINATION_PATTERN) };
static TAGS: Shape = Shape::Map { most: MOST_TAGS, key: &TAG_KEY, value: &TAG_VALUE };
pub(super) static TAG_KEY: Shape = Shape::Text { least: 1, most: 128, pattern: Some(TAG_PATTERN) };
static TAG_VALUE: Shape = Shape::Text { least: 0, most: 256, pattern: Some(TAG_PATTERN) };
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

/// Members that AWS has for other kinds of event source, that mean something here too, and whose
/// behaviour this build does not have. Taken off this list, they are accepted.
const NOT_YET: &[&str] = &[
    "MaximumRecordAgeInSeconds",
    "BisectBatchOnFunctionError",
    "FunctionResponseTypes",
    "DestinationConfig",
    "MetricsConfig",
];

pub(super) const BASIC_AUTH: &str = "BASIC_AUTH";
pub(super) const VIRTUAL_HOST: &str = "VIRTUAL_HOST";

// Requests that were checked

/// Members that both requests have.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    function_name: Option<String>,
    enabled: Option<bool>,
    batch_size: Option<i64>,
    filter_criteria: Option<FilterCriteria>,
    /// Null takes away what was set: no number of seconds means the default.
    #[serde(default, deserialize_with = "present")]
    maximum_batching_window_in_seconds: Option<Option<i64>>,
    source_access_configurations: Option<Vec<SourceAccessConfiguration>>,
    #[serde(rename = "KMSKeyArn")]
    kms_key_arn: Option<String>,
    scaling_config: Option<ScalingConfig>,
    maximum_retry_attempts: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Route {
    event_source_arn: Option<String>,
    queues: Option<Vec<String>>,
    tags: Option<BTreeMap<String, Option<String>>>,
}

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
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_concurrency: Option<i64>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Checks a body's members, and says all that is wrong with them.
fn check(members: &Map<String, Value>, known: &[Member]) -> Result<(), ApiError> {
    let mut violations = Violations::default();
    violations.members(members, known, "");
    violations.into_result()?;
    let is_set = |name: &&&str| members.get(**name).is_some_and(|value| !is_neutral(value));
    let foreign = OF_OTHER_SOURCES.iter().filter(|name| members.get(**name).is_some_and(|value| !value.is_null()));
    let foreign = foreign.map(|name| unsupported(name, ""));
    let later = NOT_YET.iter().filter(is_set).map(|name| unsupported(name, " This build does not have it yet."));
    let refusals: Vec<String> = foreign.chain(later).collect();
    if refusals.is_empty() { Ok(()) } else { Err(ApiError::InvalidParameterValue(refusals.join(" "))) }
}

fn unsupported(name: &str, more: &str) -> String {
    format!("Unsupported '{}' parameter for given event source mapping type.{more}", decapitalised(name))
}

/// Whether a value asks for nothing, as tools write it to take a setting away.
fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(-1),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.values().all(is_neutral),
        Value::Bool(true) => false,
    }
}
