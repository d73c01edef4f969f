//! What mappings refer to: functions, brokers and secrets, by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

#[cfg(test)]
use crate::adapters::Sources;

use super::{
    broker::Broker,
    described::{Described, Lookup, Unknown},
    entry::Entry,
    function::Function,
    names::{self, FunctionName},
    problem::Reported,
    server::Identity,
};
use crate::{
    adapters::{self, Aws},
    secrets::{Origin, Secret},
};

/// Things by the name of their table. Those with problems are there too, so that a reference to
/// them is no further problem.
pub(super) type Named<T> = BTreeMap<String, Result<Arc<T>, Reported>>;

/// What mappings may refer to.
pub struct Targets {
    pub(super) brokers: Named<Broker>,
    pub(super) functions: Named<Function>,
    pub(super) secrets: Named<Secret>,
    pub(super) described: Described,
    pub(super) managed: Managed,
    /// Who we are in AWS's terms.
    pub identity: Identity,
}

/// Why a reference leads nowhere.
pub(crate) enum Unresolved {
    /// What it leads to has problems of its own, which were reported.
    Reported(Reported),
    /// In words.
    Because(String),
    /// It is a broker that Amazon MQ has to be asked about.
    Unknown(Unknown),
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
        known.retain(|_, secret| Arc::strong_count(secret) > 1);
        let origin = Origin::Managed(adapters::managed_secret(arn, region, &self.aws)?);
        let secret = Arc::new(Secret::new(arn.into(), origin, self.maximum_age));
        known.insert(arn.into(), secret.clone());
        Ok(secret)
    }

    /// Takes over what an older reading knows, if that asked the same AWS.
    fn keep(&self, old: &Self) {
        if self.aws.endpoint_url == old.aws.endpoint_url {
            let known = old.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        }
    }
}

/// The region of the ARN of a secret in Secrets Manager.
fn region_of_secret(arn: &str) -> Option<&str> {
    match arn.split(':').collect::<Vec<_>>().as_slice() {
        ["arn", _, "secretsmanager", region, account, "secret", name]
            if names::is_region(region) && !name.is_empty() && names::is_account(account) =>
        {
            Some(region)
        }
        _ => None,
    }
}

impl Targets {
    /// `[functions.NAME]`.
    pub(crate) fn function(&self, function: &FunctionName) -> Result<Arc<Function>, Unresolved> {
        let name = function.name();
        find(&self.functions, name)
            .unwrap_or_else(|| because(format!("there is no [functions.{name}]; {}", there_are(&self.functions))))
    }

    /// The broker with this name or ARN.
    pub(crate) fn broker(&self, name: &str) -> Result<Arc<Broker>, Unresolved> {
        if let Some(broker) = find(&self.brokers, name) {
            return broker;
        }
        let with_arn: Vec<_> = self.brokers.values().flatten().filter(|broker| broker.arn == name).collect();
        // An ARN may be that of a broker whose problems are reported already.
        let unusable = self.brokers.values().find_map(|broker| broker.as_ref().err());
        match (with_arn.as_slice(), unusable) {
            ([broker], _) => Ok(Arc::clone(broker)),
            ([one, other, ..], _) => {
                let (one, other) = (&one.name, &other.name);
                because(format!("the brokers {one} and {other} have the same ARN; use the name here"))
            }
            ([], Some(reported)) if name.starts_with("arn:") => Err(Unresolved::Reported(*reported)),
            ([], _) => match self.described.lookup(name) {
                Some(Ok(lookup)) => lookup.broker().map_err(Unresolved::Unknown),
                Some(Err(words)) => because(format!("is the ARN of none of [brokers], and {words}")),
                None => because(format!("names no broker and no ARN of one; {}", there_are(&self.brokers))),
            },
        }
    }

    /// How the broker with this name or ARN is looked up, if it is no table of `[brokers]`.
    pub(crate) fn lookup(&self, name: &str) -> Option<Arc<Lookup>> {
        let is_configured = self.brokers.contains_key(name)
            || self.brokers.values().any(|broker| broker.as_ref().map_or(true, |broker| broker.arn == name));
        if is_configured { None } else { self.described.lookup(name)?.ok() }
    }

    /// `[secrets.NAME]`, or a secret in AWS Secrets Manager by its ARN.
    pub(crate) fn secret(&self, name: &str) -> Result<Arc<Secret>, Unresolved> {
        match region_of_secret(name) {
            Some(region) if !self.secrets.contains_key(name) => {
                self.managed.secret(name, region).map_err(Unresolved::Because)
            }
            _ => secret(&self.secrets, name),
        }
    }

    /// Puts what is the same in an older reading in the place of what was read now, so that whatever uses
    /// it need not notice.
    pub(super) fn keep(&mut self, old: &Self) {
        fn keep<T>(new: &mut Named<T>, old: &Named<T>, is_same: impl Fn(&T, &T) -> bool) {
            for (name, thing) in new {
                if let (Ok(thing), Some(Ok(before))) = (thing, old.get(name))
                    && is_same(thing, before)
                {
                    *thing = before.clone();
                }
            }
        }
        keep(&mut self.brokers, &old.brokers, |new, old| new.definition == old.definition && new.arn == old.arn);
        keep(&mut self.functions, &old.functions, |new, old| new.definition == old.definition);
        keep(&mut self.secrets, &old.secrets, Secret::is_like);
        self.described.keep(&old.described);
        self.managed.keep(&old.managed);
    }

    /// Every function without problems.
    pub fn functions(&self) -> impl Iterator<Item = &Arc<Function>> {
        self.functions.values().flatten()
    }
}

/// The name is not repeated: it may be a password at the wrong place.
pub(super) fn secret(secrets: &Named<Secret>, name: &str) -> Result<Arc<Secret>, Unresolved> {
    find(secrets, name).unwrap_or_else(|| because(format!("names no table of [secrets]; {}", there_are(secrets))))
}

impl Unresolved {
    /// Reports it, unless that was done.
    pub(super) fn report(self, entry: &Entry<'_>) -> Reported {
        match self {
            Self::Reported(reported) => reported,
            Self::Because(words) | Self::Unknown(Unknown { words, .. }) => entry.report(words),
        }
    }
}

fn find<T>(things: &Named<T>, name: &str) -> Option<Result<Arc<T>, Unresolved>> {
    things.get(name).map(|thing| thing.clone().map_err(Unresolved::Reported))
}

fn because<T>(words: String) -> Result<T, Unresolved> {
    Err(Unresolved::Because(words))
}

fn there_are<T>(things: &Named<T>) -> String {
    let names: Vec<_> = things.keys().map(String::as_str).collect();
    if names.is_empty() { "there is none".into() } else { format!("there are: {}", names.join(", ")) }
}

#[cfg(test)]
impl Targets {
    /// The same, but its brokers' queues are read from elsewhere.
    pub(crate) fn reading_from(self, sources: impl Fn() -> Sources) -> Self {
        let elsewhere = |broker: Result<Arc<Broker>, Reported>| {
            let broker = broker?;
            Ok(Arc::new(Broker {
                name: broker.name.clone(),
                engine: broker.engine,
                arn: broker.arn.clone(),
                endpoints: broker.endpoints.clone(),
                delivery_limit: None,
                consumer_timeout: broker.consumer_timeout,
                dead_letter_queue: broker.dead_letter_queue.clone(),
                sources: sources(),
                destinations: broker.destinations.clone(),
                definition: broker.definition.clone(),
            }))
        };
        let brokers = self.brokers.into_iter().map(|(name, broker)| (name, elsewhere(broker))).collect();
        Self { brokers, ..self }
    }
}
