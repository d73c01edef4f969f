//! `[brokers.NAME]`: an event source.

use std::{str::FromStr, time::Duration};

use esm_core::{source::HOLD_MARGIN, tls::TlsFiles};

use super::{
    entry::{self, Entry},
    names,
    problem::Reported,
    server::Identity,
    table::{Definition, Table},
};
use crate::adapters::{self, Adapter, Destinations, Sources};

/// RabbitMQ's own default.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(1_800);
const A_YEAR_IN_SECONDS: i64 = 365 * 24 * 3_600;

/// Where ActiveMQ puts dead letters unless its policies say otherwise.
const DEAD_LETTER_QUEUE: &str = "ActiveMQ.DLQ";

/// What kind of broker it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Read over OpenWire.
    Activemq,
    /// Read over AMQP 0-9-1.
    Rabbitmq,
}

impl FromStr for Engine {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "activemq" => Ok(Self::Activemq),
            "rabbitmq" => Ok(Self::Rabbitmq),
            _ => Err("must be \"rabbitmq\" or \"activemq\""),
        }
    }
}

/// A broker that its adapter knows. Nothing is connected yet.
pub struct Broker {
    /// Its name in the configuration.
    pub name: String,
    /// What kind it is.
    pub engine: Engine,
    /// Its ARN, as events and the API show it.
    pub arn: String,
    /// Where it listens; several are tried in turn.
    pub endpoints: Vec<String>,
    /// How long it lets a delivery be held; ActiveMQ knows no such limit.
    pub consumer_timeout: Option<Duration>,
    /// How often its quorum queues take a message back, if that was set; -1 is as often as it comes.
    pub delivery_limit: Option<i64>,
    /// Where dead letters are published that the broker would drop; RabbitMQ has exchanges for that.
    pub dead_letter_queue: Option<String>,
    /// Makes sources that read its queues.
    pub sources: Sources,
    pub(super) definition: Definition,
    /// Makes destinations for what is given up.
    pub destinations: Destinations,
}

pub(super) fn read(name: &str, table: &mut Table<'_>, identity: &Identity) -> Result<Broker, Reported> {
    if !names::is_broker_name(name) {
        table.report("a broker's name has at most 50 letters, digits, `-`, `_`, `.` and `~`");
    }
    let engine = table.required("engine", |entry| Ok((entry.clone(), entry.parsed::<Engine>()?)));
    let endpoints = table.required("endpoints", endpoints);
    let tls = table.optional("tls", |entry| Ok((entry.clone(), entry.table(tls_files)?)));
    let arn = table.optional("arn", arn);
    let delivery_limit = table.optional("delivery_limit", delivery_limit);
    let consumer_timeout = table.optional("consumer_timeout_in_seconds", |entry| entry.within(1..=A_YEAR_IN_SECONDS));
    let dead_letter_queue = table.optional("dead_letter_queue", queue_name);
    // What is wrong with these files is reported; the rest is looked at without them.
    let (tls_entry, tls_files) = tls.unwrap_or_default().unzip();
    let ((engine_entry, engine), endpoints) = (engine?, endpoints?);
    let adapter = adapters::broker(name, engine, &engine_entry, &endpoints, tls_entry.as_ref().zip(tls_files))?;
    let Adapter { sources, destinations } = adapter;
    let (consumer_timeout, dead_letter_queue) = (consumer_timeout?, dead_letter_queue?);
    let consumer_timeout = match engine {
        Engine::Rabbitmq => {
            let limit = consumer_timeout.map_or(CONSUMER_TIMEOUT, Duration::from_secs);
            if limit <= HOLD_MARGIN {
                let words = "must be more than 60: a batch is handed back 60 s before the broker's consumer timeout";
                table.report_at("consumer_timeout_in_seconds", words);
            }
            Some(limit)
        }
        Engine::Activemq => {
            concerns_only(table, "rabbitmq", "consumer_timeout_in_seconds", consumer_timeout.is_some());
            None
        }
    };
    let delivery_limit = delivery_limit?;
    if engine == Engine::Activemq {
        concerns_only(table, "rabbitmq", "delivery_limit", delivery_limit.is_some());
    }
    let dead_letter_queue = match engine {
        Engine::Activemq => Some(dead_letter_queue.unwrap_or_else(|| DEAD_LETTER_QUEUE.into())),
        Engine::Rabbitmq => {
            concerns_only(table, "activemq", "dead_letter_queue", dead_letter_queue.is_some());
            None
        }
    };
    let endpoints = entry::all(endpoints.iter().map(Entry::text))?;
    let (plain, secure) = match engine {
        Engine::Activemq => ("tcp://", "ssl://"),
        Engine::Rabbitmq => ("amqp://", "amqps://"),
    };
    if let Some(entry) = tls_entry
        && endpoints.iter().all(|endpoint| endpoint.starts_with(plain))
    {
        entry.report(format_args!("has no effect, since no endpoint begins with {secure}"));
    }
    Ok(Broker {
        name: name.into(),
        engine,
        arn: arn?.unwrap_or_else(|| identity.broker_arn(name)),
        endpoints,
        consumer_timeout,
        delivery_limit,
        dead_letter_queue,
        sources,
        definition: table.definition(),
        destinations,
    })
}

/// Reports a key that brokers of this kind do not heed.
fn concerns_only(table: &Table<'_>, engine: &str, key: &str, is_set: bool) {
    if is_set {
        table.report_at(key, format_args!("has no effect: it concerns brokers with engine = {engine:?}"));
    }
}

/// As RabbitMQ writes it.
fn delivery_limit(entry: &Entry<'_>) -> Result<i64, Reported> {
    match entry.within(-1..=i32::MAX.into())? {
        0 => Err(entry.report(
            "must be 1 or more, or -1 for none: with a limit of 0 the broker drops whatever comes back, and nothing \
             could be read from it without loss",
        )),
        limit => Ok(limit),
    }
}

fn queue_name(entry: &Entry<'_>) -> Result<String, Reported> {
    match entry.text()? {
        name if name.is_empty() || name.contains([',', '?', '*', '>']) => Err(entry.report("must name one queue")),
        name => Ok(name),
    }
}

fn endpoints<'a>(entry: &Entry<'a>) -> Result<Vec<Entry<'a>>, Reported> {
    match entry.list()? {
        endpoints if endpoints.is_empty() => Err(entry.report("must name at least one endpoint")),
        endpoints => Ok(endpoints),
    }
}

pub(super) fn tls_files(table: &mut Table<'_>) -> Result<TlsFiles, Reported> {
    let ca_file = table.optional("ca_file", Entry::readable_file);
    let cert_file = table.optional("cert_file", Entry::readable_file);
    let key_file = table.optional("key_file", Entry::readable_file);
    Ok(TlsFiles { ca_file: ca_file?, cert_file: cert_file?, key_file: key_file? })
}

fn arn(entry: &Entry<'_>) -> Result<String, Reported> {
    let arn = entry.text()?;
    if !arn.starts_with("arn:aws") || arn.split(':').count() < 6 {
        return Err(entry.report("must be an ARN, such as arn:aws:mq:us-east-1:111122223333:broker:pizza:b-…"));
    }
    Ok(arn)
}
