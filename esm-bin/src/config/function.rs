//! `[functions.NAME]`: what is invoked, and how.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use esm_invoke::backend::Backend;
use secrecy::ExposeSecret as _;

use super::{
    broker,
    entry::Entry,
    names::{self, FunctionName},
    problem::Reported,
    process, secret,
    server::{self, Identity},
    table::{Definition, Table},
    targets::{self, Named},
};
use crate::{
    adapters::{self, Aws, HttpFunction, LambdaFunction},
    secrets::Secret,
};

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
    aws: &Aws,
    secrets: &Named<Secret>,
) -> Result<Function, Reported> {
    if !names::is_function_name(name) {
        table.report("a function's name has at most 64 letters, digits, `-`, `_` and `.`");
    }
    let timeout = table.optional("timeout_in_seconds", |entry| entry.within(1..=LONGEST_TIMEOUT_IN_SECONDS));
    let timeout = timeout.map(|seconds| seconds.map_or(TIMEOUT, Duration::from_secs));
    let reserved_concurrency = table.optional("reserved_concurrency", reserved_concurrency);
    let backend = backend(table, name, timeout.unwrap_or(TIMEOUT), identity, aws, secrets);
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
    aws: &Aws,
    secrets: &Named<Secret>,
) -> Result<Reached, Reported> {
    let lambda = table.optional("lambda", |entry| {
        let function = entry.table(|lambda| self::lambda(lambda, identity))?;
        Ok((adapters::lambda(entry, aws, function, timeout)?, None))
    });
    let http = table.optional("http", |entry| {
        let backend = entry.table(|http| self::http(entry, http, timeout, secrets))?;
        Ok((backend, None))
    });
    let process = table.optional("process", |entry| {
        let (backend, instances) = process::read(entry, name, timeout, identity)?;
        Ok((backend, Some(instances)))
    });
    match (http?, process?, lambda?) {
        (Some(backend), None, None) | (None, Some(backend), None) | (None, None, Some(backend)) => Ok(backend),
        (None, None, None) => Err(table.report(
            "has no backend; add http = { url = \"…\" }, process = { command = […] } or lambda = { name = \"…\" }",
        )),
        _ => Err(table.report("has several of http, process and lambda; keep one of them")),
    }
}

fn http(
    entry: &Entry<'_>,
    table: &mut Table<'_>,
    timeout: Duration,
    secrets: &Named<Secret>,
) -> Result<Arc<dyn Backend>, Reported> {
    let is_webhook = table.optional("protocol", is_webhook);
    let headers = table.optional("headers", headers);
    let login = table.optional("secret", |entry| {
        let secret = targets::secret(secrets, &entry.text()?).map_err(|why| why.report(entry))?;
        secret.read_now().map_err(|words| entry.report(words))
    });
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

fn lambda(table: &mut Table<'_>, identity: &Identity) -> Result<LambdaFunction, Reported> {
    let name = table.required("name", |entry| {
        let name = entry.text()?;
        name.parse::<FunctionName>().map_err(|error| entry.report(error))?;
        Ok(name)
    });
    let region = table.optional("region", server::region);
    let endpoint_url = table.optional("endpoint_url", endpoint_url);
    let role_arn = table.optional("role_arn", role_arn);
    let name = name?;
    // `arn:aws:lambda:REGION:…`
    let of_arn = name.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(2)).filter(|region| !region.is_empty());
    let region = match (region?, of_arn) {
        (Some(region), Some(of_arn)) if region != of_arn => {
            return Err(table.report_at("region", format_args!("is not that of the ARN, {of_arn}; remove it")));
        }
        (Some(region), _) => region,
        (None, of_arn) => of_arn.unwrap_or(identity.region()).to_owned(),
    };
    Ok(LambdaFunction { name, region, endpoint_url: endpoint_url?, role_arn: role_arn? })
}

/// The URL of what stands for AWS.
pub(super) fn endpoint_url(entry: &Entry<'_>) -> Result<String, Reported> {
    let url = entry.text()?;
    let is_url = ["http://", "https://"].iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme));
    if is_url { Ok(url) } else { Err(entry.report("must be a URL that begins with http:// or https://")) }
}

fn role_arn(entry: &Entry<'_>) -> Result<String, Reported> {
    let arn = entry.text()?;
    match arn.split(':').collect::<Vec<_>>().as_slice() {
        ["arn", _, "iam", "", account, role] if names::is_account(account) && role.starts_with("role/") => Ok(arn),
        _ => Err(entry.report("must be a role's ARN, such as arn:aws:iam::123456789012:role/invoker")),
    }
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
