//! Which brokers and backends this build can speak to: the only file that asks for features.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    num::NonZeroU16,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use esm_core::{
    credentials::{Credentials, Login},
    destination::Destination,
    source::Connect,
    tls::TlsFiles,
};
use esm_invoke::backend::Backend;
use futures_util::future::BoxFuture;
use secrecy::SecretString;

use crate::{
    config::{Engine, Entry, Reported},
    control::tags::EventProfile,
};

/// The adapters and backends that are in this build.
pub const FEATURES: &[&str] = &[
    #[cfg(feature = "activemq")]
    "activemq",
    #[cfg(feature = "rabbitmq")]
    "rabbitmq",
    #[cfg(feature = "http")]
    "http",
    #[cfg(feature = "process")]
    "process",
    #[cfg(feature = "lambda")]
    "lambda",
    #[cfg(feature = "aws")]
    "aws",
];

/// Makes sources on one broker; words if it cannot have such a queue.
pub type Sources = Box<dyn Fn(QueueSettings) -> Result<Arc<dyn Connect>, String> + Send + Sync>;

/// Makes destinations for what is given up, on one broker.
pub type Destinations = Arc<dyn Fn(DestinationSettings) -> Arc<dyn Destination> + Send + Sync>;

/// What can be made on one broker.
pub(crate) struct Adapter {
    pub(crate) sources: Sources,
    pub(crate) destinations: Destinations,
}

/// A queue that dead letters go to.
pub struct DestinationSettings {
    /// The virtual host that has the queue, where brokers have such.
    pub virtual_host: String,
    /// The queue.
    pub queue: String,
    /// Who publishes.
    pub credentials: Arc<dyn Credentials>,
    /// By which name the broker knows the publisher, where it needs one.
    pub publisher: String,
}

/// A queue and how it is read.
pub struct QueueSettings {
    /// The virtual host that has the queue, where brokers have such.
    pub virtual_host: String,
    /// The queue.
    pub queue: String,
    /// Who reads it.
    pub credentials: Arc<dyn Credentials>,
    /// By which name the broker knows the consumer: consumer tag or client id.
    pub consumer: String,
    /// The broker's ARN, for events.
    pub event_source_arn: String,
    /// Whether events must suit consumers that accept documented members only.
    pub strict_consumers: bool,
    /// Whether the bytes of long header strings are written from 0 to 255 and not as Java has them.
    pub unsigned_header_bytes: bool,
    /// In which of AWS's spellings an ActiveMQ event is written.
    pub event_profile: EventProfile,
    /// Whether records carry `itemIdentifier`.
    pub item_identifiers: bool,
    /// Where messages go that are given up.
    pub destination: Option<Arc<dyn Destination>>,
    /// How long the broker lets a delivery be held.
    pub consumer_timeout: Option<Duration>,
    /// How often the broker takes a message back, if that was set; -1 is as often as it comes.
    pub delivery_limit: Option<i64>,
    /// Where dead letters are published that the broker would drop.
    pub dead_letter_queue: Option<String>,
}

/// The broker at these endpoints, by the adapter for its engine. Connects to nothing yet.
pub(crate) fn broker(
    name: &str,
    engine: Engine,
    entry: &Entry<'_>,
    endpoints: &[Entry<'_>],
    tls: Option<(&Entry<'_>, TlsFiles)>,
) -> Result<Adapter, Reported> {
    match engine {
        Engine::Activemq => activemq(name, entry, endpoints, tls),
        Engine::Rabbitmq => rabbitmq(name, entry, endpoints, tls),
    }
}

#[cfg(feature = "activemq")]
fn activemq(
    name: &str,
    engine: &Entry<'_>,
    addresses: &[Entry<'_>],
    tls: Option<(&Entry<'_>, TlsFiles)>,
) -> Result<Adapter, Reported> {
    use esm_activemq::{ActiveMqDestination, ActiveMqSource, Connections, Queue, Settings};

    let addresses = crate::config::all(addresses.iter().map(Entry::parsed))?;
    let (entry, files) = tls.map_or((engine, None), |(entry, files)| (entry, Some(files)));
    let connections = Connections::new(name.into(), addresses, files.as_ref()).map_err(|error| entry.report(error))?;
    let (publishing, broker) = (connections.clone(), name.to_owned());
    let destinations: Destinations = Arc::new(move |target| {
        let DestinationSettings { queue, credentials, publisher, .. } = target;
        let destination = ActiveMqDestination::new(publishing.clone(), broker.clone(), queue, credentials, publisher);
        Arc::new(destination)
    });
    let sources: Sources = Box::new(move |queue| {
        let settings = Settings {
            queue: queue.queue.parse::<Queue>().map_err(|error| error.to_string())?,
            credentials: queue.credentials,
            client_id: queue.consumer,
            event_source_arn: queue.event_source_arn,
            profile: match queue.event_profile {
                EventProfile::Documented => esm_activemq::EventProfile::Documented,
                EventProfile::Wire => esm_activemq::EventProfile::Wire,
            },
            item_identifiers: queue.item_identifiers,
            destination: queue.destination,
            dead_letter_queue: queue.dead_letter_queue.unwrap_or_default(),
        };
        Ok(Arc::new(ActiveMqSource::new(connections.clone(), settings)))
    });
    Ok(Adapter { sources, destinations })
}

#[cfg(not(feature = "activemq"))]
fn activemq(
    _: &str,
    engine: &Entry<'_>,
    _: &[Entry<'_>],
    _: Option<(&Entry<'_>, TlsFiles)>,
) -> Result<Adapter, Reported> {
    Err(engine.report(format_args!("this build has no adapter for activemq; {}", built_in())))
}

#[cfg(feature = "rabbitmq")]
fn rabbitmq(
    name: &str,
    engine: &Entry<'_>,
    endpoints: &[Entry<'_>],
    tls: Option<(&Entry<'_>, TlsFiles)>,
) -> Result<Adapter, Reported> {
    use esm_rabbitmq::{Connections, DeliveryLimit, RabbitDestination, RabbitSource, Settings};

    let endpoints = crate::config::all(endpoints.iter().map(Entry::parsed))?;
    let connections = match tls {
        None => Connections::new(name.into(), endpoints, None).map_err(|error| engine.report(error))?,
        Some((entry, files)) => {
            Connections::new(name.into(), endpoints, Some(&files)).map_err(|error| entry.report(error))?
        }
    };
    let publishing = connections.clone();
    let destinations: Destinations = Arc::new(move |target| {
        let DestinationSettings { virtual_host, queue, credentials, .. } = target;
        Arc::new(RabbitDestination::new(publishing.clone(), virtual_host, queue, credentials))
    });
    let sources: Sources = Box::new(move |queue| {
        let settings = Settings {
            virtual_host: queue.virtual_host,
            queue: queue.queue,
            credentials: queue.credentials,
            consumer_tag: queue.consumer,
            event_source_arn: queue.event_source_arn,
            strict_consumers: queue.strict_consumers,
            unsigned_header_bytes: queue.unsigned_header_bytes,
            item_identifiers: queue.item_identifiers,
            destination: queue.destination,
            consumer_timeout: queue.consumer_timeout,
            delivery_limit: queue.delivery_limit.map_or(DeliveryLimit::ByVersion, |limit| {
                u32::try_from(limit).map_or(DeliveryLimit::Never, DeliveryLimit::Times)
            }),
        };
        Ok(Arc::new(RabbitSource::new(connections.clone(), settings)))
    });
    Ok(Adapter { sources, destinations })
}

#[cfg(not(feature = "rabbitmq"))]
fn rabbitmq(
    _: &str,
    engine: &Entry<'_>,
    _: &[Entry<'_>],
    _: Option<(&Entry<'_>, TlsFiles)>,
) -> Result<Adapter, Reported> {
    Err(engine.report(format_args!("this build has no adapter for rabbitmq; {}", built_in())))
}

/// How the function behind a URL is called.
pub struct HttpFunction {
    /// Whether it is a webhook, and not one of Lambda's kind.
    pub is_webhook: bool,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// For Basic authentication.
    pub login: Option<Login>,
    /// For TLS with an authority or a certificate of one's own.
    pub tls: Option<TlsFiles>,
    /// What events are signed with.
    pub signing_key: Option<SecretString>,
}

/// The function behind a URL.
#[cfg(feature = "http")]
pub(crate) fn http(
    entry: &Entry<'_>,
    url: &Entry<'_>,
    function: HttpFunction,
    timeout: Duration,
) -> Result<Arc<dyn Backend>, Reported> {
    use esm_core::tls::TlsMaterial;
    use esm_invoke::http::{HttpInvoker, HttpSettings, HttpSettingsError, Protocol};
    use secrecy::ExposeSecret as _;

    let tls = function.tls.map(|files| TlsMaterial::read(&files)).transpose();
    let mut settings = HttpSettings::new(url.text()?, timeout);
    settings.protocol = if function.is_webhook { Protocol::Webhook } else { Protocol::Lambda };
    settings.headers = function.headers;
    settings.login = function.login.map(|login| (login.username, login.password.expose_secret().to_owned()));
    settings.tls = tls.map_err(|error| entry.report(error))?;
    settings.signing_key = function.signing_key.map(|key| key.expose_secret().to_owned());
    match HttpInvoker::new(settings) {
        Ok(invoker) => Ok(Arc::new(invoker)),
        Err(error @ (HttpSettingsError::Url(_) | HttpSettingsError::Scheme(_))) => Err(url.report(error)),
        Err(error) => Err(entry.report(format_args!("{:#}", anyhow::Error::from(error)))),
    }
}

/// The function behind a URL.
#[cfg(not(feature = "http"))]
pub(crate) fn http(
    entry: &Entry<'_>,
    _: &Entry<'_>,
    _: HttpFunction,
    _: Duration,
) -> Result<Arc<dyn Backend>, Reported> {
    Err(entry.report(format_args!("this build has no backend http; {}", built_in())))
}

/// A function that runs in processes of this machine.
pub struct ProcessFunction {
    /// The function's name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The working directory.
    pub folder: PathBuf,
    /// All variables but those that are the Runtime API's.
    pub environment: BTreeMap<String, String>,
    /// How many processes may work at once.
    pub instances: NonZeroU16,
    /// How long one invocation may run.
    pub timeout: Duration,
    /// After how long without work a process is ended.
    pub idle_timeout: Duration,
    /// How much memory a process may use.
    pub memory_in_mebibytes: Option<u32>,
    /// How many files it may have open.
    pub open_files: Option<u64>,
    /// Which files it may use.
    pub file_access: Option<FileAccess>,
}

/// Files and folders, with all that is beneath them.
pub struct FileAccess {
    /// To read and to execute.
    pub read: Vec<PathBuf>,
    /// To do anything with.
    pub write: Vec<PathBuf>,
}

/// Asks our own program to become a function.
#[cfg(feature = "process")]
const LAUNCH: &str = "__launch";

/// The function in processes of this machine. Starts nothing yet.
#[cfg(feature = "process")]
pub(crate) fn process(entry: &Entry<'_>, function: ProcessFunction) -> Result<Arc<dyn Backend>, Reported> {
    use esm_invoke::process::{self, ProcessInvoker, ProcessSettings, RESERVED_VARIABLES};

    /// How long a process may take to ask for an event. Batches are handed back to the broker a
    /// minute before they must be, so a start takes nothing from the time that an invocation has.
    const START_TIMEOUT: Duration = Duration::from_secs(60);
    const STOP_TIMEOUT: Duration = Duration::from_secs(2);

    if let Some(name) = RESERVED_VARIABLES.iter().find(|name| function.environment.contains_key(**name)) {
        return Err(
            entry.report(format_args!("environment must not have {name}, which is for esm to set or to leave out"))
        );
    }
    Ok(Arc::new(ProcessInvoker::new(ProcessSettings {
        name: function.name,
        arn: function.arn,
        command: function.command.into_iter().map(OsString::from).collect(),
        folder: function.folder,
        environment: function.environment,
        instances: function.instances,
        timeout: function.timeout,
        start_timeout: START_TIMEOUT,
        stop_timeout: STOP_TIMEOUT,
        idle_timeout: function.idle_timeout,
        memory_in_mebibytes: function.memory_in_mebibytes,
        open_files: function.open_files,
        file_access: function.file_access.map(|FileAccess { read, write }| process::FileAccess { read, write }),
        // By this name it is still the same program when its file was replaced by a newer one.
        launcher: vec!["/proc/self/exe".into(), LAUNCH.into()],
    })))
}

/// The function in processes of this machine.
#[cfg(not(feature = "process"))]
pub(crate) fn process(entry: &Entry<'_>, _: ProcessFunction) -> Result<Arc<dyn Backend>, Reported> {
    Err(entry.report(format_args!("this build has no backend process; {}", built_in())))
}

/// Becomes a function if that is what these arguments, without the program's own, ask for. Returns
/// only if they do not, or if it is not possible.
#[cfg(feature = "process")]
pub(crate) fn launch(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    (arguments.next()? == LAUNCH).then(|| esm_invoke::process::launch(arguments))
}

/// This build starts no functions.
#[cfg(not(feature = "process"))]
pub(crate) fn launch(_: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    None
}

/// Where AWS is, and who we are there.
#[derive(Clone, Debug, Default)]
pub struct Aws {
    /// Stands for AWS, as in tests.
    pub endpoint_url: Option<String>,
    /// The variables of the environment, in which credentials are looked for first.
    pub environment: HashMap<String, String>,
}

/// A function on AWS Lambda.
pub struct LambdaFunction {
    /// A name or an ARN, perhaps with a qualifier.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// Stands for Lambda's own endpoint.
    pub endpoint_url: Option<String>,
    /// A role to invoke it as.
    pub role_arn: Option<String>,
}

/// The function on AWS Lambda.
#[cfg(feature = "lambda")]
pub(crate) fn lambda(
    entry: &Entry<'_>,
    aws: &Aws,
    function: LambdaFunction,
    timeout: Duration,
) -> Result<Arc<dyn Backend>, Reported> {
    use esm_invoke::{
        aws::{CredentialChain, Identity},
        lambda::{LambdaInvoker, LambdaSettings},
    };

    let LambdaFunction { name, region, endpoint_url, role_arn } = function;
    let identity = Identity { role_arn, ..identity(&region, aws) };
    let credentials = CredentialChain::new(identity).map_err(|error| entry.report(error))?;
    let settings = LambdaSettings { name, region, endpoint_url, timeout, credentials };
    match LambdaInvoker::new(settings) {
        Ok(invoker) => Ok(Arc::new(invoker)),
        Err(error) => Err(entry.report(format_args!("{:#}", anyhow::Error::from(error)))),
    }
}

/// The function on AWS Lambda.
#[cfg(not(feature = "lambda"))]
pub(crate) fn lambda(entry: &Entry<'_>, _: &Aws, _: LambdaFunction, _: Duration) -> Result<Arc<dyn Backend>, Reported> {
    Err(entry.report(format_args!("this build has no backend lambda; {}", built_in())))
}

/// Who we are in a region of AWS, without a role.
#[cfg(any(feature = "lambda", feature = "aws"))]
fn identity(region: &str, aws: &Aws) -> esm_invoke::aws::Identity {
    esm_invoke::aws::Identity {
        region: region.into(),
        endpoint_url: aws.endpoint_url.clone(),
        environment: aws.environment.clone(),
        role_arn: None,
    }
}

/// Reads a text somewhere else, each time anew.
pub type Fetch = Arc<dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// The secret with this ARN in AWS Secrets Manager; words if it cannot be asked for.
#[cfg(feature = "aws")]
pub(crate) fn managed_secret(arn: &str, region: &str, aws: &Aws) -> Result<Fetch, String> {
    use esm_invoke::aws::{CredentialChain, secrets::SecretsManager};

    let manager = CredentialChain::new(identity(region, aws))
        .and_then(|credentials| SecretsManager::new(region, aws.endpoint_url.as_deref(), credentials))
        .map_err(|error| error.to_string())?;
    let (manager, arn) = (Arc::new(manager), arn.to_owned());
    Ok(Arc::new(move || {
        let (manager, arn) = (manager.clone(), arn.clone());
        Box::pin(async move { manager.read(&arn).await.map_err(|error| error.to_string()) })
    }))
}

/// The secret with this ARN in AWS Secrets Manager.
#[cfg(not(feature = "aws"))]
pub(crate) fn managed_secret(_: &str, _: &str, _: &Aws) -> Result<Fetch, String> {
    Err(format!("this build cannot ask AWS for secrets; {}", built_in()))
}

/// What Amazon MQ says of a broker.
#[derive(Clone, Debug)]
pub struct Description {
    /// What kind it is, in Amazon MQ's word.
    pub engine: String,
    /// What it does now, in Amazon MQ's word.
    pub state: String,
    /// Where it listens, for every protocol.
    pub endpoints: Vec<String>,
}

/// Why Amazon MQ says nothing of a broker, in words.
#[derive(Clone, Debug)]
pub enum Undescribed {
    /// There is none.
    Missing(String),
    /// Whoever we are may not ask.
    Denied(String),
    /// AWS does not know who we are.
    Caller(String),
    /// It may pass by itself.
    Unreachable(String),
}

/// Asks Amazon MQ about one broker.
pub type Describe = Arc<dyn Fn() -> BoxFuture<'static, Result<Description, Undescribed>> + Send + Sync>;

/// How Amazon MQ is asked about the broker with this id; words if it cannot be asked.
#[cfg(feature = "aws")]
pub(crate) fn describe_broker(id: &str, region: &str, aws: &Aws) -> Result<Describe, String> {
    use esm_invoke::aws::{AwsError, CredentialChain, mq::AmazonMq};

    let amazon_mq = CredentialChain::new(identity(region, aws))
        .and_then(|credentials| AmazonMq::new(region, aws.endpoint_url.as_deref(), credentials))
        .map_err(|error| error.to_string())?;
    let (amazon_mq, id) = (Arc::new(amazon_mq), id.to_owned());
    let undescribed = |error: AwsError| {
        let words = error.to_string();
        match error {
            error if error.concerns_credentials() => Undescribed::Caller(words),
            AwsError::Refused { status: 401 | 403, .. } => Undescribed::Denied(words),
            AwsError::Refused { .. } => Undescribed::Missing(words),
            _ => Undescribed::Unreachable(words),
        }
    };
    Ok(Arc::new(move || {
        let (amazon_mq, id) = (amazon_mq.clone(), id.clone());
        Box::pin(async move {
            let described = amazon_mq.describe(&id).await.map_err(undescribed)?;
            let esm_invoke::aws::mq::Description { engine, state, endpoints } = described;
            Ok(Description { engine, state, endpoints })
        })
    }))
}

/// How Amazon MQ is asked about the broker with this id.
#[cfg(not(feature = "aws"))]
pub(crate) fn describe_broker(_: &str, _: &str, _: &Aws) -> Result<Describe, String> {
    Err(format!("this build cannot ask AWS for brokers; {}", built_in()))
}

/// What this build has, for who asks for something else.
#[cfg(not(all(
    feature = "activemq",
    feature = "rabbitmq",
    feature = "http",
    feature = "process",
    feature = "lambda",
    feature = "aws"
)))]
fn built_in() -> String {
    let features = if FEATURES.is_empty() { "none at all".into() } else { FEATURES.join(", ") };
    format!("its features are: {features}")
}
