//! `[brokers.NAME]`: an event source.

use std::time::Duration;

use esm_core::tls::TlsFiles;

use super::{
    entry::{self, Entry},
    names,
    problem::Reported,
    server::Identity,
    table::Table,
};
use crate::adapters::{self, Sources};

/// RabbitMQ's own default.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(1_800);
const A_YEAR_IN_SECONDS: i64 = 365 * 24 * 3_600;

/// A broker that its adapter knows. Nothing is connected yet.
pub struct Broker {
    /// Its name in the configuration.
    pub name: String,
    /// Its ARN, as events and the API show it.
    pub arn: String,
    /// Where it listens; several are tried in turn.
    pub endpoints: Vec<String>,
    /// How long it lets a delivery be held.
    pub consumer_timeout: Duration,
    /// Makes sources that read its queues.
    pub sources: Sources,
}

pub(super) fn read(name: &str, table: &mut Table<'_>, identity: &Identity) -> Result<Broker, Reported> {
    if !names::is_broker_name(name) {
        table.report("a broker's name has at most 50 letters, digits, `-`, `_`, `.` and `~`");
    }
    let engine = table.required("engine", |entry| Ok(entry.clone()));
    let endpoints = table.required("endpoints", endpoints);
    let tls = table.optional("tls", |entry| Ok((entry.clone(), entry.table(tls_files)?)));
    let arn = table.optional("arn", arn);
    let consumer_timeout = table.optional("consumer_timeout_in_seconds", |entry| entry.within(1..=A_YEAR_IN_SECONDS));
    table.not_yet(&["delivery_limit"]);
    // What is wrong with these files is reported; the rest is looked at without them.
    let (tls_entry, tls_files) = tls.unwrap_or_default().unzip();
    let (engine, endpoints) = (engine?, endpoints?);
    let sources = adapters::broker(name, &engine, &endpoints, tls_entry.as_ref().zip(tls_files))?;
    let endpoints = entry::all(endpoints.iter().map(Entry::text))?;
    if let Some(entry) = tls_entry
        && endpoints.iter().all(|endpoint| endpoint.starts_with("amqp://"))
    {
        entry.report("has no effect, since no endpoint begins with amqps://");
    }
    Ok(Broker {
        name: name.into(),
        arn: arn?.unwrap_or_else(|| identity.broker_arn(name)),
        endpoints,
        consumer_timeout: consumer_timeout?.map_or(CONSUMER_TIMEOUT, Duration::from_secs),
        sources,
    })
}

fn endpoints<'a>(entry: &Entry<'a>) -> Result<Vec<Entry<'a>>, Reported> {
    match entry.list()? {
        endpoints if endpoints.is_empty() => Err(entry.report("must name at least one endpoint")),
        endpoints => Ok(endpoints),
    }
}

fn tls_files(table: &mut Table<'_>) -> Result<TlsFiles, Reported> {
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
