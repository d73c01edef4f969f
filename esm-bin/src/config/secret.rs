//! `[secrets.NAME]`: logins. What is secret comes from the environment or a file, never from the
//! configuration itself, and never shows.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{entry::Entry, problem::Reported, table::Table};

/// A user and its password.
#[derive(Clone, Debug, Deserialize)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password.
    pub password: SecretString,
}

pub(super) fn login(table: &mut Table<'_>) -> Result<Login, Reported> {
    let Some(login) = table.optional("file", document).transpose() else {
        let username = table.required("username", Entry::text);
        let password = table.required("password", secret);
        return Ok(Login { username: username?, password: password? });
    };
    let (username, password) = (table.optional("username", superfluous), table.optional("password", superfluous));
    username?;
    password?;
    login
}

fn superfluous(entry: &Entry<'_>) -> Result<(), Reported> {
    Err(entry.report("has no effect beside file; keep one of the two"))
}

/// A file in Secrets Manager's form. What the parser says is not repeated: it may quote a value.
fn document(entry: &Entry<'_>) -> Result<Login, Reported> {
    let content = entry.file_content()?;
    serde_json::from_str(&content).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        entry.report(format_args!(
            "the file must hold {{\"username\": \"…\", \"password\": \"…\"}}, and does not at line {line}, column {column}"
        ))
    })
}

/// A text that may stand in the configuration or, if it is secret, elsewhere.
pub(super) fn open_or_secret(entry: &Entry<'_>) -> Result<String, Reported> {
    if entry.is_text() { entry.text() } else { Ok(secret(entry)?.expose_secret().to_owned()) }
}

pub(super) fn secret(entry: &Entry<'_>) -> Result<SecretString, Reported> {
    if entry.is_text() {
        return Err(
            entry.report("must not stand here: write { env = \"VARIABLE\" } or { file = \"PATH\" }, and put it there")
        );
    }
    entry.table(|table| {
        let (env, file) = (table.optional("env", variable), table.optional("file", line));
        match (env?, file?) {
            (Some(secret), None) | (None, Some(secret)) => Ok(secret),
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

/// A file that holds the secret and perhaps a line's end after it, as editors and `echo` leave one.
fn line(entry: &Entry<'_>) -> Result<SecretString, Reported> {
    let content = entry.file_content()?;
    let line = content.strip_suffix('\n').unwrap_or(&content);
    let secret = line.strip_suffix('\r').unwrap_or(line);
    if secret.is_empty() { Err(entry.report("the file is empty")) } else { Ok(secret.into()) }
}
