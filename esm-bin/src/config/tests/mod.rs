//! Whole configurations in, problems out.

mod accepted;
mod refused;
mod secrets;

use std::path::Path;

use super::{Config, ConfiguredMapping, Environment, Problem, read};
use crate::control::spec::Planned;

/// A small configuration without problems, in parts that a case can replace.
const SERVER: &str = "[server]\nlisten = \"127.0.0.1:0\"\n";
const BROKER: &str = "[brokers.pizza]\nengine = \"rabbitmq\"\nendpoints = [\"amqp://localhost\"]\n";
const ACTIVEMQ: &str = "[brokers.pizza]\nengine = \"activemq\"\nendpoints = [\"tcp://localhost\"]\n";
const SECRET: &str = "[secrets.login]\nusername = \"guest\"\npassword = { env = \"PASSWORD\" }\n";
const FUNCTION: &str = "[functions.f]\nhttp = { url = \"http://localhost/f\" }\n";
const MAPPING: &str = "[[event_source_mappings]]\nfunction_name = \"f\"\nevent_source = \"pizza\"\nqueues = [\"q\"]\n\
                       secret = \"login\"\n";

fn whole() -> String {
    [SERVER, BROKER, SECRET, FUNCTION, MAPPING].concat()
}

fn environment(more: &[(&str, &str)]) -> Environment {
    let variables = [("PASSWORD", "hunter2"), ("PIZZA_PASSWORD", "hunter2"), ("EMPTY", "")];
    variables.iter().chain(more).map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn read_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let config = read(text, Path::new("/nonexistent"), &environment(variables));
    config.map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

fn problems(text: &str) -> Vec<String> {
    read_with(text, &[]).err().unwrap_or_default()
}

/// Each expected text is the start of a problem: its key, and as much of the words as matters.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found = problems(text);
    let matches = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
    assert!(matches, "expected {expected:#?}, found {found:#?} in\n{text}");
    assert!(!found.concat().contains("hunter2"), "a secret shows: {found:#?}");
}

/// Problems of a mapping with more lines.
#[track_caller]
fn check_mapping(lines: &str, expected: &[&str]) {
    check(&(whole() + lines), expected);
}

#[track_caller]
fn planned(configured: &ConfiguredMapping) -> &Planned {
    configured.planned.as_ref().expect("its broker is known")
}

#[track_caller]
fn valid(text: &str, variables: &[(&str, &str)]) -> Config {
    read_with(text, variables).unwrap_or_else(|problems| panic!("{problems:#?}"))
}
