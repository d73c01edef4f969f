//! `[functions.NAME]`: what is invoked, and how.

use std::{sync::Arc, time::Duration};

use esm_core::invoker::Invoke;

use super::{entry::Entry, names, problem::Reported, table::Table};
use crate::adapters;

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
    /// How many invocations may run at once, over all mappings.
    pub reserved_concurrency: Option<u32>,
    /// Reaches it.
    pub invoker: Arc<dyn Invoke>,
}

pub(super) fn read(name: &str, table: &mut Table<'_>) -> Result<Function, Reported> {
    if !names::is_function_name(name) {
        table.report("a function's name has at most 64 letters, digits, `-`, `_` and `.`");
    }
    let timeout = table.optional("timeout_in_seconds", |entry| entry.within(1..=LONGEST_TIMEOUT_IN_SECONDS));
    let timeout = timeout.map(|seconds| seconds.map_or(TIMEOUT, Duration::from_secs));
    let reserved_concurrency = table.optional("reserved_concurrency", reserved_concurrency);
    let invoker = invoker(table, timeout.unwrap_or(TIMEOUT));
    Ok(Function {
        name: name.into(),
        timeout: timeout?,
        reserved_concurrency: reserved_concurrency?,
        invoker: invoker?,
    })
}

fn reserved_concurrency(entry: &Entry<'_>) -> Result<u32, Reported> {
    if entry.integer()? == 0 {
        return Err(entry.report("0 would never invoke the function; remove the key, or disable its mappings"));
    }
    entry.within(1..=u32::MAX.into())
}

fn invoker(table: &mut Table<'_>, timeout: Duration) -> Result<Arc<dyn Invoke>, Reported> {
    let other_backend = table.not_yet(&["process", "lambda"]);
    match table.optional("http", |entry| entry.table(|http| self::http(http, timeout)))? {
        Some(invoker) => Ok(invoker),
        None => Err(other_backend.unwrap_or_else(|| table.report("has no backend; add http = { url = \"…\" }"))),
    }
}

fn http(table: &mut Table<'_>, timeout: Duration) -> Result<Arc<dyn Invoke>, Reported> {
    let protocol = table.optional("protocol", protocol);
    table.not_yet(&["headers", "tls", "secret", "hmac_secret"]);
    let invoker = table.required("url", |entry| adapters::http(entry, timeout));
    protocol?;
    invoker
}

/// Only Lambda's own protocol so far, which is also the default.
fn protocol(entry: &Entry<'_>) -> Result<(), Reported> {
    match entry.text()?.as_str() {
        "lambda" => Ok(()),
        "webhook" => Err(entry.report("this build does not act on \"webhook\" yet; use \"lambda\"")),
        _ => Err(entry.report("must be \"lambda\"")),
    }
}
