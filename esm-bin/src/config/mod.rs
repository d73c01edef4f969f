//! The configuration: a TOML file and the environment become settings that can only be valid, or
//! problems, all of them at once and each with its full key.
//!
//! Reading order: `sources` (file and environment become one tree), `table` and `entry` (walking
//! it), then a file for each part: `server`, `broker`, `secret`, `function` with `process`, `mapping`
//! with `tags` and `targets`, and `warnings` (what works and may surprise).

mod broker;
mod destination;
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
mod tags;
mod targets;
#[cfg(test)]
mod tests;
mod warnings;

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use uuid::Uuid;

pub use self::{
    broker::{Broker, Engine},
    function::Function,
    mapping::ConfiguredMapping,
    problem::Problem,
    secret::Login,
    server::Server,
    tags::EventProfile,
};
use self::{
    entry::Context,
    problem::Problems,
    table::Table,
    targets::{Named, Targets},
};
pub(crate) use self::{
    entry::{Entry, all},
    problem::Reported,
};

/// Of UUIDs that we derive from names.
const NAMESPACE: Uuid = Uuid::from_u128(0xca47_36cf_c405_48e5_96b9_284f_ad1b_acb3);

/// Environment variables. A map, so that tests need not touch those of the process.
pub type Environment = HashMap<String, String>;

/// A configuration without problems.
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[functions]`, by name.
    pub functions: Vec<Arc<Function>>,
    /// `[[event_source_mappings]]`, in the file's order.
    pub mappings: Vec<ConfiguredMapping>,
    /// What works and may surprise, each with its key.
    pub warnings: Vec<Problem>,
}

/// Reads the file and what the environment overrides.
pub fn load(file: &Path, environment: &Environment) -> Result<Config, Vec<Problem>> {
    let unreadable = |error| vec![Problem::new(file.display().to_string(), format!("cannot be read: {error}"))];
    let text = fs::read_to_string(file).map_err(unreadable)?;
    read(&text, file.parent().unwrap_or(Path::new("")), environment)
}

/// Reads the text of a file that stands in `folder`, from which relative paths start.
pub fn read(text: &str, folder: &Path, environment: &Environment) -> Result<Config, Vec<Problem>> {
    let context = Context { folder, environment, problems: Problems::default() };
    let merged = sources::merge(text, environment, &context.problems);
    let config = merged.and_then(|merged| Entry::new(String::new(), merged.into(), &context).table(root));
    match (config, context.problems.into_vec()) {
        (Ok(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(problems),
    }
}

fn root(table: &mut Table<'_>) -> Result<Config, Reported> {
    let server = table.section("server").table(server::read);
    let identity = server.as_ref().map(|server| server.identity.clone()).unwrap_or_default();
    let brokers = named(&table.section("brokers"), |name, table| broker::read(name, table, &identity));
    let logins = named(&table.section("secrets"), |_, table| secret::login(table));
    let function = |name: &str, table: &mut Table<'_>| function::read(name, table, &identity, &logins);
    let functions = named(&table.section("functions"), function);
    let targets = Targets { brokers, functions, logins };
    let mappings = table.optional("event_source_mappings", |entry| mappings(entry, &targets));
    table.not_yet(&["aws"]);
    let (server, mappings) = (server?, mappings?.unwrap_or_default());
    let functions = targets.functions.into_values().flatten().collect();
    Ok(Config { warnings: warnings::all(&server, &mappings), server, functions, mappings })
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
fn uuid_of(names: &[&str]) -> Uuid {
    // The lengths keep ("a", "bc") and ("ab", "c") apart.
    let parts: Vec<_> = names.iter().map(|name| format!("{}:{name}", name.len())).collect();
    Uuid::new_v5(&NAMESPACE, parts.concat().as_bytes())
}
