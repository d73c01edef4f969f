//! What mappings refer to: functions, brokers and secrets, by name.

use std::{collections::BTreeMap, sync::Arc};

use super::{broker::Broker, entry::Entry, function::Function, names::FunctionName, problem::Reported, secret::Login};

/// Things by the name of their table. Those with problems are there too, so that a reference to
/// them is no further problem.
pub(super) type Named<T> = BTreeMap<String, Result<Arc<T>, Reported>>;

pub(super) struct Targets {
    pub(super) brokers: Named<Broker>,
    pub(super) functions: Named<Function>,
    pub(super) logins: Named<Login>,
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

    pub(super) fn login(&self, entry: &Entry<'_>) -> Result<Arc<Login>, Reported> {
        login(&self.logins, entry)
    }
}

/// What stands at the key is not repeated: it may be a password at the wrong place.
pub(super) fn login(logins: &Named<Login>, entry: &Entry<'_>) -> Result<Arc<Login>, Reported> {
    let unknown = || entry.report(format_args!("names no table of [secrets]; {}", there_are(logins)));
    logins.get(&entry.text()?).cloned().unwrap_or_else(|| Err(unknown()))
}

fn there_are<T>(things: &Named<T>) -> String {
    let names: Vec<_> = things.keys().map(String::as_str).collect();
    if names.is_empty() { "there is none".into() } else { format!("there are: {}", names.join(", ")) }
}
