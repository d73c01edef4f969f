//! What mappings refer to: functions, brokers and secrets, by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    broker::Broker,
    entry::Entry,
    function::Function,
    names::{self, FunctionName},
    problem::Reported,
};
use crate::{
    adapters::{self, Aws},
    secrets::{Origin, Secret},
};

/// Things by the name of their table. Those with problems are there too, so that a reference to
/// them is no further problem.
pub(super) type Named<T> = BTreeMap<String, Result<Arc<T>, Reported>>;

pub(super) struct Targets {
    pub(super) brokers: Named<Broker>,
    pub(super) functions: Named<Function>,
    pub(super) secrets: Named<Secret>,
    pub(super) managed: Managed,
}

/// Secrets in AWS Secrets Manager, by ARN, once somebody has asked for them.
pub(super) struct Managed {
    aws: Aws,
    maximum_age: Duration,
    known: Mutex<BTreeMap<String, Arc<Secret>>>,
}

impl Managed {
    pub(super) fn new(aws: Aws, maximum_age: Duration) -> Self {
        Self { aws, maximum_age, known: Mutex::default() }
    }

    /// The same one for the same ARN, so that mappings which share it read it once.
    fn secret(&self, arn: &str, region: &str) -> Result<Arc<Secret>, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secret) = known.get(arn) {
            return Ok(secret.clone());
        }
        let origin = Origin::Managed(adapters::managed_secret(arn, region, &self.aws)?);
        let secret = Arc::new(Secret::new(arn.into(), origin, self.maximum_age));
        known.insert(arn.into(), secret.clone());
        Ok(secret)
    }
}

/// The region of the ARN of a secret in Secrets Manager.
fn region_of_secret(arn: &str) -> Option<&str> {
    match arn.split(':').collect::<Vec<_>>().as_slice() {
        ["arn", _, "secretsmanager", region, account, "secret", name]
            if !region.is_empty() && !name.is_empty() && names::is_account(account) =>
        {
            Some(region)
        }
        _ => None,
    }
}

impl Targets {
    pub(super) fn function(&self, entry: &Entry<'_>) -> Result<Arc<Function>, Reported> {
        let FunctionName { name } = entry.parsed()?;
        let unknown = || entry.report(format_args!("there is no [functions.{name}]; {}", there_are(&self.functions)));
        self.functions.get(&name).cloned().unwrap_or_else(|| Err(unknown()))
    }

    pub(super) fn broker(&self, entry: &Entry<'_>) -> Result<Arc<Broker>, Reported> {
        let name = entry.text()?;
        if let Some(broker) = self.brokers.get(&name) {
            return broker.clone();
        }
        let with_arn: Vec<_> = self.brokers.values().flatten().filter(|broker| broker.arn == name).collect();
        // An ARN may be that of a broker whose problems are reported already.
        let unusable = self.brokers.values().find_map(|broker| broker.as_ref().err());
        match (with_arn.as_slice(), unusable) {
            ([broker], _) => Ok(Arc::clone(broker)),
            ([one, other, ..], _) => {
                let (one, other) = (&one.name, &other.name);
                Err(entry.report(format_args!("the brokers {one} and {other} have the same ARN; use the name here")))
            }
            ([], Some(reported)) if name.starts_with("arn:") => Err(*reported),
            ([], _) => {
                Err(entry.report(format_args!("names no broker and no ARN of one; {}", there_are(&self.brokers))))
            }
        }
    }

    pub(super) fn secret(&self, entry: &Entry<'_>) -> Result<Arc<Secret>, Reported> {
        let name = entry.text()?;
        match region_of_secret(&name) {
            Some(region) if !self.secrets.contains_key(&name) => {
                self.managed.secret(&name, region).map_err(|words| entry.report(words))
            }
            _ => secret(&self.secrets, entry),
        }
    }
}

/// What stands at the key is not repeated: it may be a password at the wrong place.
pub(super) fn secret(secrets: &Named<Secret>, entry: &Entry<'_>) -> Result<Arc<Secret>, Reported> {
    let unknown = || entry.report(format_args!("names no table of [secrets]; {}", there_are(secrets)));
    secrets.get(&entry.text()?).cloned().unwrap_or_else(|| Err(unknown()))
}

fn there_are<T>(things: &Named<T>) -> String {
    let names: Vec<_> = things.keys().map(String::as_str).collect();
    if names.is_empty() { "there is none".into() } else { format!("there are: {}", names.join(", ")) }
}
