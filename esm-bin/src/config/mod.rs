//! The configuration: a TOML file and the environment become settings that can only be valid, or
//! problems, all of them at once and each with its full key.
//!
//! Reading order: `sources` (file and environment become one tree), `table` and `entry` (walking
//! it), then a file for each part: `server`, `broker`, `secret`, `function` with `process`, `targets`
//! with `described`, and `mapping`, and `warnings` (what works and may surprise).

mod broker;
mod described;
mod entry;
mod function;
mod mapping;
mod names;
mod problem;
mod process;
mod secret;
mod server;
mod sources;
mod table;
mod targets;
#[cfg(test)]
mod tests;
mod warnings;

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use uuid::Uuid;

pub use self::{
    broker::{Broker, Engine},
    described::{Cause, Unknown},
    function::Function,
    mapping::ConfiguredMapping,
    names::{FunctionName, NoFunctionName},
    problem::Problem,
    server::{Identity, Server},
    targets::Targets,
};
use self::{
    described::Described,
    entry::Context,
    table::Table,
    targets::{Managed, Named},
};
pub(crate) use self::{
    described::Lookup,
    entry::{Entry, all},
    problem::Reported,
    targets::Unresolved,
};
use crate::adapters::Aws;

/// Of UUIDs that we derive from names.
const NAMESPACE: Uuid = Uuid::from_u128(0xca47_36cf_c405_48e5_96b9_284f_ad1b_acb3);

/// Environment variables. A map, so that tests need not touch those of the process.
pub type Environment = HashMap<String, String>;

/// A configuration without problems.
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// What mappings may refer to.
    pub targets: Arc<Targets>,
    /// `[[event_source_mappings]]`, in the file's order.
    pub mappings: Vec<ConfiguredMapping>,
    /// Logins that cannot be read now, which keeps their mappings from connecting until they can.
    pub unreadable_secrets: Vec<Problem>,
    /// What works and may surprise, each with its key.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// The bytes that each enabled mapping of the file may have in hand.
    pub fn share_of_memory(&self) -> usize {
        warnings::share(&self.server, &self.mappings)
    }
}

/// Reads the file and what the environment overrides.
pub fn load(file: &Path, environment: &Environment) -> Result<Config, Vec<Problem>> {
    load_after(None, file, environment)
}

/// Reads the file again. Brokers and functions that are the same are those of before, so that nothing
/// that uses them need notice.
pub fn load_again(before: &Targets, file: &Path, environment: &Environment) -> Result<Config, Vec<Problem>> {
    load_after(Some(before), file, environment)
}

fn load_after(before: Option<&Targets>, file: &Path, environment: &Environment) -> Result<Config, Vec<Problem>> {
    let unreadable = |error| vec![Problem::new(file.display().to_string(), format!("cannot be read: {error}"))];
    let text = fs::read_to_string(file).map_err(unreadable)?;
    read_after(before, &text, file.parent().unwrap_or(Path::new("")), environment)
}

/// Reads the text of a file that stands in `folder`, from which relative paths start.
pub fn read(text: &str, folder: &Path, environment: &Environment) -> Result<Config, Vec<Problem>> {
    read_after(None, text, folder, environment)
}

pub(crate) fn read_after(
    before: Option<&Targets>,
    text: &str,
    folder: &Path,
    environment: &Environment,
) -> Result<Config, Vec<Problem>> {
    let context = Context::new(folder, environment);
    let merged = sources::merge(text, environment, &context.problems);
    let config =
        merged.and_then(|merged| Entry::new(String::new(), merged.into(), &context).table(|table| root(table, before)));
    match (config, context.problems.into_vec()) {
        (Ok(config), problems) if problems.is_empty() => {
            Ok(Config { unreadable_secrets: context.unreadable.into_vec(), ..config })
        }
        (_, problems) => Err(problems),
    }
}

fn root(table: &mut Table<'_>, before: Option<&Targets>) -> Result<Config, Reported> {
    let server = table.section("server").table(server::read);
    let identity = server.as_ref().map(|server| server.identity.clone()).unwrap_or_default();
    let brokers = named(&table.section("brokers"), |name, table| broker::read(name, table, &identity));
    let maximum_age = server.as_ref().map_or(server::SECRETS_MAXIMUM_AGE, |server| server.secrets_maximum_age);
    let secrets = named(&table.section("secrets"), |name, table| secret::read(name, table, maximum_age));
    let environment = table.environment().clone();
    let aws = table.section("aws").table(|table| {
        let endpoint_url = table.optional("endpoint_url", function::endpoint_url)?;
        Ok(Aws { endpoint_url, environment })
    });
    let aws = aws.unwrap_or_default();
    let function = |name: &str, table: &mut Table<'_>| function::read(name, table, &identity, &aws, &secrets);
    let functions = named(&table.section("functions"), function);
    let (described, managed) = (Described::new(aws.clone()), Managed::new(aws, maximum_age));
    let mut targets = Targets { brokers, functions, secrets, described, managed, identity };
    if let Some(before) = before {
        targets.keep(before);
    }
    let mappings = table.optional("event_source_mappings", |entry| mappings(entry, &targets));
    let (server, mappings) = (server?, mappings?.unwrap_or_default());
    let warnings = warnings::all(&server, &mappings);
    // Those of the tree's context are put there once everything was read.
    Ok(Config { unreadable_secrets: Vec::new(), warnings, server, targets: Arc::new(targets), mappings })
}

fn named<'a, T>(section: &Entry<'a>, mut read: impl FnMut(&str, &mut Table<'a>) -> Result<T, Reported>) -> Named<T> {
    let thing = |(name, entry): (String, Entry<'a>)| {
        let thing = entry.table(|table| read(&name, table)).map(Arc::new);
        (name, thing)
    };
    section.named().unwrap_or_default().into_iter().map(thing).collect()
}

fn mappings(entry: &Entry<'_>, targets: &Targets) -> Result<Vec<ConfiguredMapping>, Reported> {
    let mut seen = mapping::Seen::new();
    let entries = entry.list()?;
    all(entries.into_iter().map(|entry| entry.table(|table| mapping::read(table, targets, &mut seen))))
}

/// A UUID that is always the same for the same names.
pub(crate) fn uuid_of(names: &[&str]) -> Uuid {
    // The lengths keep ("a", "bc") and ("ab", "c") apart.
    let parts: Vec<_> = names.iter().map(|name| format!("{}:{name}", name.len())).collect();
    Uuid::new_v5(&NAMESPACE, parts.concat().as_bytes())
}
