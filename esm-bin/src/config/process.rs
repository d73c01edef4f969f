//! `process = {…}` of a function: what runs, where, and within which limits.

use std::{
    collections::BTreeMap,
    num::NonZeroU16,
    path::{self, PathBuf},
    sync::Arc,
    time::Duration,
};

use esm_invoke::backend::Backend;

use super::{Environment, entry::Entry, problem::Reported, secret, server::Identity, table::Table};
use crate::adapters::{self, FileAccess, ProcessFunction};

const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// What processes get of our own environment.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];
/// Where programs are looked for when we were not told.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A function's processes, and how many of them may work at once.
pub(super) fn read(
    entry: &Entry<'_>,
    function: &str,
    timeout: Duration,
    identity: &Identity,
) -> Result<(Arc<dyn Backend>, NonZeroU16), Reported> {
    let process = entry.table(|table| {
        let command = table.required("command", command);
        let folder = table.optional("dir", Entry::folder);
        let instances = table.optional("instances", |entry| entry.within(1..=1_000));
        let environment = table.optional("environment", environment);
        let idle_timeout = table.optional("idle_timeout_in_seconds", |entry| entry.within(1..=86_400));
        let memory = table.optional("memory_in_mebibytes", |entry| entry.within(16..=1_048_576));
        let open_files = table.optional("open_files", |entry| entry.within(16..=1_048_576));
        let file_access = table.optional("file_access", |entry| entry.table(file_access));
        let instances: u16 = instances?.unwrap_or(1);
        Ok(ProcessFunction {
            name: function.into(),
            arn: identity.function_arn(function),
            command: command?,
            folder: absolute(entry, folder?)?,
            environment: with_ours(environment?.unwrap_or_default(), entry.context.environment, identity),
            instances: NonZeroU16::new(instances).unwrap_or(NonZeroU16::MIN),
            timeout,
            idle_timeout: idle_timeout?.map_or(IDLE_TIMEOUT, Duration::from_secs),
            memory_in_mebibytes: memory?,
            open_files: open_files?,
            file_access: file_access?,
        })
    })?;
    let instances = process.instances;
    Ok((adapters::process(entry, process)?, instances))
}

fn command(entry: &Entry<'_>) -> Result<Vec<String>, Reported> {
    let words = super::all(entry.list()?.iter().map(Entry::text))?;
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err(entry.report("must name a program, such as [\"python3\", \"-m\", \"awslambdaric\", \"app.handler\"]")),
    }
}

fn file_access(table: &mut Table<'_>) -> Result<FileAccess, Reported> {
    let paths = |entry: &Entry<'_>| super::all(entry.list()?.iter().map(Entry::existing_path));
    let (read, write) = (table.optional("read", paths), table.optional("write", paths));
    Ok(FileAccess { read: read?.unwrap_or_default(), write: write?.unwrap_or_default() })
}

/// Functions see an absolute folder, as on Lambda.
fn absolute(entry: &Entry<'_>, folder: Option<PathBuf>) -> Result<PathBuf, Reported> {
    let folder = folder.unwrap_or_else(|| entry.context.folder.join("."));
    path::absolute(folder).map_err(|error| entry.report(format_args!("the working directory has no path: {error}")))
}

fn environment(entry: &Entry<'_>) -> Result<BTreeMap<String, String>, Reported> {
    let variable = |(name, entry): (String, Entry<'_>)| {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(entry.report("is no name of a variable"));
        }
        let value = secret::open_or_secret(&entry)?;
        if value.contains('\0') { Err(entry.report("must not contain a null character")) } else { Ok((name, value)) }
    };
    let variables = super::all(entry.named()?.into_iter().map(variable))?;
    Ok(variables.into_iter().collect())
}

/// What the function's own settings do not say.
fn with_ours(
    mut environment: BTreeMap<String, String>,
    ours: &Environment,
    identity: &Identity,
) -> BTreeMap<String, String> {
    let inherited = INHERITED.iter().filter_map(|name| Some((*name, ours.get(*name)?.as_str())));
    let region = identity.region();
    let by_default = [("PATH", PATH), ("AWS_REGION", region), ("AWS_DEFAULT_REGION", region)];
    for (name, value) in inherited.chain(by_default) {
        environment.entry(name.into()).or_insert_with(|| value.into());
    }
    environment
}
