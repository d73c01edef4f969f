//! `[functions.NAME]`: what is invoked, and how.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use esm_invoke::backend::Backend;
use secrecy::ExposeSecret as _;

use super::{
    broker,
    entry::Entry,
    names,
    problem::Reported,
    process,
    secret::{self, Login},
    server::Identity,
    table::{Definition, Table},
    targets::{self, Named},
};
use crate::adapters::{self, HttpFunction};

const TIMEOUT: Duration = Duration::from_secs(60);
/// A Lambda function behind a mapping of Amazon MQ may run for 14 minutes.
const LONGEST_TIMEOUT_IN_SECONDS: i64 = 840;

/// A function and how it is reached.
#[derive(Clone)]
pub struct Function {
    /// Its name, without qualifier.
    pub name: String,
    /// How long one invocation may run.
    pub timeout: Duration,
    /// How many invocations may run at once, over all mappings. Never more than there are processes
    /// for, if the function runs in processes.
    pub reserved_concurrency: Option<u32>,
    /// Reaches it.
    pub backend: Arc<dyn Backend>,
    pub(super) definition: Definition,
}

pub(super) fn read(
    name: &str,
    table: &mut Table<'_>,
    identity: &Identity,
    logins: &Named<Login>,
) -> Result<Function, Reported> {
    if !names::is_function_name(name) {
        table.report("a function's name has at most 64 letters, digits, `-`, `_` and `.`");
    }
    let timeout = table.optional("timeout_in_seconds", |entry| entry.within(1..=LONGEST_TIMEOUT_IN_SECONDS));
    let timeout = timeout.map(|seconds| seconds.map_or(TIMEOUT, Duration::from_secs));
    let reserved_concurrency = table.optional("reserved_concurrency", reserved_concurrency);
    let backend = backend(table, name, timeout.unwrap_or(TIMEOUT), identity, logins);
    let (reserved, (backend, instances)) = (reserved_concurrency?, backend?);
    let instances = instances.map(|instances| instances.get().into());
    Ok(Function {
        name: name.into(),
        timeout: timeout?,
        reserved_concurrency: reserved.into_iter().chain(instances).min(),
        backend,
        definition: table.definition(),
    })
}

fn reserved_concurrency(entry: &Entry<'_>) -> Result<u32, Reported> {
    if entry.integer()? == 0 {
        return Err(entry.report("0 would never invoke the function; remove the key, or disable its mappings"));
    }
    entry.within(1..=u32::MAX.into())
}

/// The one way to the function, and how many invocations it has room for, if that is known.
type Reached = (Arc<dyn Backend>, Option<NonZeroU16>);

fn backend(
    table: &mut Table<'_>,
    name: &str,
    timeout: Duration,
    identity: &Identity,
    logins: &Named<Login>,
) -> Result<Reached, Reported> {
    let later = table.not_yet(&["lambda"]);
    let http = table.optional("http", |entry| {
        let backend = entry.table(|http| self::http(entry, http, timeout, logins))?;
        Ok((backend, None))
    });
    let process = table.optional("process", |entry| {
        let (backend, instances) = process::read(entry, name, timeout, identity)?;
        Ok((backend, Some(instances)))
    });
    match (http?, process?) {
        (Some(backend), None) | (None, Some(backend)) => Ok(backend),
        (Some(_), Some(_)) => Err(table.report("has both http and process; keep one of them")),
        (None, None) => Err(later.unwrap_or_else(|| {
            table.report("has no backend; add http = { url = \"…\" } or process = { command = […] }")
        })),
    }
}

fn http(
    entry: &Entry<'_>,
    table: &mut Table<'_>,
    timeout: Duration,
    logins: &Named<Login>,
) -> Result<Arc<dyn Backend>, Reported> {
    let is_webhook = table.optional("protocol", is_webhook);
    let headers = table.optional("headers", headers);
    let login =
        table.optional("secret", |entry| targets::login(logins, &entry.text()?).map_err(|why| why.report(entry)));
    let tls = table.optional("tls", |entry| entry.table(broker::tls_files));
    let signing_key = table.optional("hmac_secret", secret::secret);
    let url = table.required("url", |entry| Ok(entry.clone()));
    let (is_webhook, signing_key) = (is_webhook?.unwrap_or(false), signing_key?);
    if signing_key.is_some() && !is_webhook {
        return Err(table.report_at("hmac_secret", "has an effect with protocol = \"webhook\" only"));
    }
    if let Ok(Some(login)) = &login {
        // Its own table says more than its name here.
        entry.context.note(login.username.as_bytes());
        entry.context.note(login.password.expose_secret().as_bytes());
    }
    let function =
        HttpFunction { is_webhook, headers: headers?.unwrap_or_default(), login: login?, tls: tls?, signing_key };
    adapters::http(entry, &url?, function, timeout)
}

/// Whether it is one; Lambda's own protocol is the default.
fn is_webhook(entry: &Entry<'_>) -> Result<bool, Reported> {
    match entry.text()?.as_str() {
        "lambda" => Ok(false),
        "webhook" => Ok(true),
        _ => Err(entry.report("must be \"lambda\" or \"webhook\"")),
    }
}

fn headers(entry: &Entry<'_>) -> Result<Vec<(String, String)>, Reported> {
    let header = |(name, entry): (String, Entry<'_>)| Ok((name, secret::open_or_secret(&entry)?));
    super::all(entry.named()?.into_iter().map(header))
}
