//! Trying a function by hand: one event in, its answer out. Sample events to try it with.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use esm_core::{
    event::{EVENT_SIZE_LIMIT, Event},
    invoker::Reply,
};
use serde::de::IgnoredAny;

use crate::config::{Config, Function};

/// Stands for standard input.
const STANDARD_INPUT: &str = "-";

/// The function of a configuration with this name.
pub fn function<'c>(config: &'c Config, name: &str) -> anyhow::Result<&'c Arc<Function>> {
    if let Some(function) = config.targets.functions().find(|function| function.name == name) {
        return Ok(function);
    }
    let names: Vec<&str> = config.targets.functions().map(|function| function.name.as_str()).collect();
    if names.is_empty() {
        bail!("there is no function {name:?}; the configuration has none");
    }
    bail!("there is no function {name:?}; there are: {}", names.join(", "))
}

/// The event in a file, or on standard input.
pub fn event(file: &Path) -> anyhow::Result<Event> {
    let mut text = Vec::new();
    if file == Path::new(STANDARD_INPUT) {
        io::stdin().lock().read_to_end(&mut text).context("cannot read standard input")?;
    } else {
        text = fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    }
    ensure!(text.len() < EVENT_SIZE_LIMIT, "an event must be smaller than {EVENT_SIZE_LIMIT} bytes");
    serde_json::from_slice::<IgnoredAny>(&text).context("an event must be JSON")?;
    Ok(Event::from(Bytes::from(text)))
}

/// Invokes the function once, without counting or retrying, and ends what it started for that.
pub async fn invoke(function: &Function, event: Event) -> Reply {
    let reply = function.backend.invoke(event).await;
    function.backend.close().await;
    reply
}

/// A broker's kind, by the name of its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// The event of a RabbitMQ queue.
    #[value(name = "rabbitmq")]
    RabbitMq,
    /// The event of an ActiveMQ queue.
    #[value(name = "activemq")]
    ActiveMq,
}

impl Engine {
    /// An event as a function gets it, with one message, or two of different types.
    pub fn sample_event(self) -> &'static str {
        match self {
            Self::RabbitMq => include_str!("samples/rabbitmq.json"),
            Self::ActiveMq => include_str!("samples/activemq.json"),
        }
    }
}
