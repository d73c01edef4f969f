//! Where settings come from: a TOML file, and over it variables such as `ESM__SERVER__LISTEN`.

use config::{Config, ConfigError, File, FileFormat, Map, Source as _, Value, ValueKind};
use toml::de::DeTable;

use super::{
    Environment,
    problem::{Problems, Reported},
};

const PREFIX: &str = "ESM__";
const SEPARATOR: &str = "__";

/// The file's content with the environment's settings over it.
///
/// A value that the environment set has its variable's name as origin, and is always a text.
pub(super) fn merge(
    text: &str,
    environment: &Environment,
    problems: &Problems,
) -> Result<Map<String, Value>, Reported> {
    let file = File::from_str(text, FileFormat::Toml);
    let content = Value::from(file.collect().map_err(|error| report_syntax(text, &error, problems))?);
    let mut builder = Config::builder().add_source(file);
    for (variable, setting) in environment {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        let value = Value::new(Some(variable), setting.as_str());
        match builder.clone().set_override(path(name, &content), value) {
            Ok(extended) => builder = extended,
            Err(_) => drop(problems.report(variable, "names no key; an example is ESM__SERVER__LISTEN")),
        }
    }
    builder.build().and_then(|merged| merged.collect()).map_err(|error| report_syntax(text, &error, problems))
}

/// The path of a key, as `config` writes paths. Environment variables have no case and no hyphen,
/// so a part stands for the key that is spelled like it otherwise.
fn path(name: &str, content: &Value) -> String {
    let mut path = String::new();
    let mut here = Some(content);
    for part in name.split(SEPARATOR) {
        let (step, next) = match here.map(|value| &value.kind) {
            Some(ValueKind::Array(values)) if part.parse().is_ok_and(|index: usize| index <= values.len()) => {
                (format!("[{part}]"), part.parse().ok().and_then(|index: usize| values.get(index)))
            }
            Some(ValueKind::Table(entries)) => match entries.iter().find(|(key, _)| is_spelled_like(key, part)) {
                Some((key, value)) => (format!(".{key}"), Some(value)),
                None => (format!(".{}", part.to_lowercase()), None),
            },
            _ => (format!(".{}", part.to_lowercase()), None),
        };
        path += &step;
        here = next;
    }
    path.split_off(1)
}

fn is_spelled_like(key: &str, part: &str) -> bool {
    key.replace('-', "_").eq_ignore_ascii_case(part)
}

/// Every syntax error with its place. The line itself is not shown: it may hold a secret.
fn report_syntax(text: &str, error: &ConfigError, problems: &Problems) -> Reported {
    let (_, errors) = DeTable::parse_recoverable(text);
    let report = |error: &toml::de::Error| {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        problems.report(&format!("line {line}, column {column}"), format_args!("is no TOML: {}", error.message()))
    };
    errors.iter().map(report).last().unwrap_or_else(|| problems.report("the configuration", error))
}

fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_stands_for_the_key_that_it_spells() {
        let file = r#"
            [server]
            listen = "127.0.0.1:1"
            [functions.MQ-Example]
            timeout_in_seconds = 1
            [[event_source_mappings]]
            queues = ["a"]
        "#;
        let content = Value::from(merge(file, &Environment::new(), &Problems::default()).unwrap());
        let check = |name, expected| assert_eq!(path(name, &content), expected);
        check("SERVER__LISTEN", "server.listen");
        check("SERVER__REGION", "server.region");
        check("FUNCTIONS__MQ_EXAMPLE__TIMEOUT_IN_SECONDS", "functions.MQ-Example.timeout_in_seconds");
        check("EVENT_SOURCE_MAPPINGS__0__QUEUES__0", "event_source_mappings[0].queues[0]");
        check("EVENT_SOURCE_MAPPINGS__1__BATCH_SIZE", "event_source_mappings[1].batch_size");
        check("EVENT_SOURCE_MAPPINGS__9__BATCH_SIZE", "event_source_mappings.9.batch_size");
    }
}
