//! Which brokers and backends this build can speak to: the only file that asks for features.

use std::{sync::Arc, time::Duration};

use esm_core::{invoker::Invoke, source::Connect, tls::TlsFiles};

use crate::config::{Engine, Entry, EventProfile, Login, Reported};

/// The adapters and backends that are in this build.
pub const FEATURES: &[&str] = &[
    #[cfg(feature = "activemq")]
    "activemq",
    #[cfg(feature = "rabbitmq")]
    "rabbitmq",
    #[cfg(feature = "http")]
    "http",
];

/// Makes sources on one broker; words if it cannot have such a queue.
pub type Sources = Box<dyn Fn(QueueSettings) -> Result<Arc<dyn Connect>, String> + Send + Sync>;

/// A queue and how it is read.
pub struct QueueSettings {
    /// The virtual host that has the queue, where brokers have such.
    pub virtual_host: String,
    /// The queue.
    pub queue: String,
    /// Who reads it.
    pub login: Login,
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
    /// How long the broker lets a delivery be held.
    pub consumer_timeout: Option<Duration>,
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
) -> Result<Sources, Reported> {
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
) -> Result<Sources, Reported> {
    use esm_activemq::{ActiveMqSource, Connections, Login, Queue, Settings};

    let addresses = crate::config::all(addresses.iter().map(Entry::parsed))?;
    let (entry, files) = tls.map_or((engine, None), |(entry, files)| (entry, Some(files)));
    let connections = Connections::new(name.into(), addresses, files.as_ref()).map_err(|error| entry.report(error))?;
    Ok(Box::new(move |queue| {
        let settings = Settings {
            queue: queue.queue.parse::<Queue>().map_err(|error| error.to_string())?,
            login: Login { username: queue.login.username, password: queue.login.password },
            client_id: queue.consumer,
            event_source_arn: queue.event_source_arn,
            profile: match queue.event_profile {
                EventProfile::Documented => esm_activemq::EventProfile::Documented,
                EventProfile::Wire => esm_activemq::EventProfile::Wire,
            },
            dead_letter_queue: queue.dead_letter_queue.unwrap_or_default(),
        };
        Ok(Arc::new(ActiveMqSource::new(connections.clone(), settings)))
    }))
}

#[cfg(not(feature = "activemq"))]
fn activemq(
    _: &str,
    engine: &Entry<'_>,
    _: &[Entry<'_>],
    _: Option<(&Entry<'_>, TlsFiles)>,
) -> Result<Sources, Reported> {
    Err(engine.report(format_args!("this build has no adapter for activemq; {}", built_in())))
}

#[cfg(feature = "rabbitmq")]
fn rabbitmq(
    name: &str,
    engine: &Entry<'_>,
    endpoints: &[Entry<'_>],
    tls: Option<(&Entry<'_>, TlsFiles)>,
) -> Result<Sources, Reported> {
    use esm_rabbitmq::{Connections, RabbitSource, Settings};

    let endpoints = crate::config::all(endpoints.iter().map(Entry::parsed))?;
    let connections = match tls {
        None => Connections::new(name.into(), endpoints, None).map_err(|error| engine.report(error))?,
        Some((entry, files)) => {
            Connections::new(name.into(), endpoints, Some(&files)).map_err(|error| entry.report(error))?
        }
    };
    Ok(Box::new(move |queue| {
        let settings = Settings {
            virtual_host: queue.virtual_host,
            queue: queue.queue,
            username: queue.login.username,
            password: queue.login.password,
            consumer_tag: queue.consumer,
            event_source_arn: queue.event_source_arn,
            strict_consumers: queue.strict_consumers,
            unsigned_header_bytes: queue.unsigned_header_bytes,
            consumer_timeout: queue.consumer_timeout.unwrap_or(Duration::MAX),
        };
        Ok(Arc::new(RabbitSource::new(connections.clone(), settings)))
    }))
}

#[cfg(not(feature = "rabbitmq"))]
fn rabbitmq(
    _: &str,
    engine: &Entry<'_>,
    _: &[Entry<'_>],
    _: Option<(&Entry<'_>, TlsFiles)>,
) -> Result<Sources, Reported> {
    Err(engine.report(format_args!("this build has no adapter for rabbitmq; {}", built_in())))
}

/// The function behind a URL.
#[cfg(feature = "http")]
pub(crate) fn http(url: &Entry<'_>, timeout: Duration) -> Result<Arc<dyn Invoke>, Reported> {
    use esm_invoke::http::{HttpInvoker, HttpSettings};

    match HttpInvoker::new(HttpSettings::new(url.text()?, timeout)) {
        Ok(invoker) => Ok(Arc::new(invoker)),
        Err(error) => Err(url.report(format_args!("{:#}", anyhow::Error::from(error)))),
    }
}

/// The function behind a URL.
#[cfg(not(feature = "http"))]
pub(crate) fn http(url: &Entry<'_>, _: Duration) -> Result<Arc<dyn Invoke>, Reported> {
    Err(url.report(format_args!("this build has no backend http; {}", built_in())))
}

/// What this build has, for who asks for something else.
#[cfg(not(all(feature = "activemq", feature = "rabbitmq", feature = "http")))]
fn built_in() -> String {
    let features = if FEATURES.is_empty() { "none at all".into() } else { FEATURES.join(", ") };
    format!("its features are: {features}")
}
