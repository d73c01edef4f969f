//! `[secrets.NAME]`: logins. What is secret comes from the environment or a file, never from the
//! configuration itself, and never shows.

use std::{path::PathBuf, time::Duration};

use esm_core::credentials::Login;
use secrecy::{ExposeSecret as _, SecretString};

use super::{entry::Entry, problem::Reported, table::Table};
use crate::secrets::{self, Origin, Secret};

pub(super) fn read(name: &str, table: &mut Table<'_>, maximum_age: Duration) -> Result<Secret, Reported> {
    let secret = |origin| Secret::new(name.into(), origin, maximum_age);
    let found = match table.optional("file", |entry| Ok((entry.clone(), entry.path()?))).transpose() {
        Some(file) => {
            let (username, password) =
                (table.optional("username", superfluous), table.optional("password", superfluous));
            username?;
            password?;
            let (entry, path) = file?;
            (Some(entry), secret(Origin::Document(path)))
        }
        None => {
            let (username, password) = (table.required("username", Entry::text), table.required("password", place));
            let username = username?;
            match password? {
                Place::Here(password) => (None, secret(Origin::Fixed(Login { username, password }))),
                Place::File(entry, path) => (Some(entry), secret(Origin::PasswordFile { username, path })),
            }
        }
    };
    if let (Some(entry), secret) = &found
        && let Err(words) = secret.read_now()
    {
        entry.report_unreadable(words);
    }
    Ok(found.1)
}

/// Where a password is.
enum Place<'a> {
    Here(SecretString),
    File(Entry<'a>, PathBuf),
}

fn place<'a>(entry: &Entry<'a>) -> Result<Place<'a>, Reported> {
    one_of(entry, |entry| Ok(Place::Here(variable(entry)?)), |entry| Ok(Place::File(entry.clone(), entry.path()?)))
}

fn superfluous(entry: &Entry<'_>) -> Result<(), Reported> {
    Err(entry.report("has no effect beside file; keep one of the two"))
}

/// A text that may stand in the configuration or, if it is secret, elsewhere.
pub(super) fn open_or_secret(entry: &Entry<'_>) -> Result<String, Reported> {
    if entry.is_text() { entry.text() } else { Ok(secret(entry)?.expose_secret().to_owned()) }
}

pub(super) fn secret(entry: &Entry<'_>) -> Result<SecretString, Reported> {
    one_of(entry, variable, line)
}

/// `{ env = "VARIABLE" }` or `{ file = "PATH" }`.
fn one_of<'a, T>(
    entry: &Entry<'a>,
    env: impl FnOnce(&Entry<'a>) -> Result<T, Reported>,
    file: impl FnOnce(&Entry<'a>) -> Result<T, Reported>,
) -> Result<T, Reported> {
    if entry.is_text() {
        return Err(
            entry.report("must not stand here: write { env = \"VARIABLE\" } or { file = \"PATH\" }, and put it there")
        );
    }
    entry.table(|table| {
        let (env, file) = (table.optional("env", env), table.optional("file", file));
        match (env?, file?) {
            (Some(found), None) | (None, Some(found)) => Ok(found),
            (None, None) => Err(table.report("needs env = \"VARIABLE\" or file = \"PATH\"")),
            (Some(_), Some(_)) => Err(table.report("has both env and file; keep one of them")),
        }
    })
}

fn variable(entry: &Entry<'_>) -> Result<SecretString, Reported> {
    let name = entry.text()?;
    match entry.context.environment.get(&name) {
        Some(value) if !value.is_empty() => Ok(value.as_str().into()),
        Some(_) => Err(entry.report(format_args!("the environment variable {name} is empty"))),
        None => Err(entry.report(format_args!("the environment has no variable {name}"))),
    }
}

/// A file that holds the secret.
fn line(entry: &Entry<'_>) -> Result<SecretString, Reported> {
    secrets::password(&entry.file_content()?).map_err(|words| entry.report(words))
}
