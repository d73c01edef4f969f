//! Invokes functions in processes of this machine, which are clients of Lambda's Runtime API.
//!
//! A function has a pool of processes. Each works on one invocation at a time; one is started when an
//! invocation finds none that is free, and ended when it had nothing to do for a while. We serve the
//! API to them on a loopback port that nobody else may use.
//!
//! The line between "it cannot have run" and "it may have run" is the handing over of the event: a
//! process that ends before it asked for one costs nothing, and one that ends afterwards failed.
//!
//! Reading order: `pool` (an invocation from start to end), `instance` (one process and what it was
//! given), `runtime_api` (how it speaks to us) with `peer` (that it is really the one that speaks) and
//! `unyielding` (that a request takes a connection one turn),
//! `child` (starting, ending, noticing an end) with `keeper` (ending what they started, if we are killed), `launch` (the last steps before a process becomes the
//! function) with `confine` (files that it may use), `output` (what it prints), `failure` (how its failures are told).

mod child;
mod confine;
mod failure;
mod instance;
mod keeper;
mod launch;
mod output;
mod peer;
mod pool;
mod runtime_api;
mod unyielding;

use std::{collections::BTreeMap, ffi::OsString, num::NonZeroU16, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use esm_core::{
    event::Event,
    invoker::{Invoke, Reply},
};

pub use self::launch::launch;
use self::pool::Pool;
use crate::backend::Backend;

/// Variables that are ours to set or to leave out, and not for settings.
pub const RESERVED_VARIABLES: [&str; 5] = [
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_MAX_CONCURRENCY",
];

/// A function and how its processes are run.
#[derive(Clone)]
pub struct ProcessSettings {
    /// The function's name.
    pub name: String,
    /// Its ARN, as it gets to see it.
    pub arn: String,
    /// The program and its arguments. A program without a slash is looked for in the environment's
    /// `PATH`.
    pub command: Vec<OsString>,
    /// The working directory of the processes.
    pub folder: PathBuf,
    /// The environment of the processes, beside what the Runtime API's clients need. Nothing of our
    /// own environment is added.
    pub environment: BTreeMap<String, String>,
    /// How many processes may work at once.
    pub instances: NonZeroU16,
    /// How long one invocation may run, counted from when a process took the event.
    pub timeout: Duration,
    /// How long a process may take until it asks for its first event, and after an answer until it
    /// asks for the next one.
    pub start_timeout: Duration,
    /// How long a process that is asked to end may take before it is killed.
    pub stop_timeout: Duration,
    /// After how long without work a process is ended.
    pub idle_timeout: Duration,
    /// How much memory a process may use for its data; `None` sets no limit.
    pub memory_in_mebibytes: Option<u32>,
    /// How many files a process may have open; `None` leaves the limit as it is.
    pub open_files: Option<u64>,
    /// Which files a process may use; `None` sets no limit.
    pub file_access: Option<FileAccess>,
    /// The command that calls [`launch`] with the arguments that are appended to it.
    pub launcher: Vec<OsString>,
}

/// The files that a process may use: these, what is beneath them, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileAccess {
    /// To read and to execute.
    pub read: Vec<PathBuf>,
    /// To do anything with.
    pub write: Vec<PathBuf>,
}

/// Invokes a function in processes that it starts and ends. Dropping it ends them.
pub struct ProcessInvoker {
    pool: Arc<Pool>,
}

impl ProcessInvoker {
    /// Starts nothing yet.
    pub fn new(settings: ProcessSettings) -> Self {
        Self { pool: Arc::new(Pool::new(settings)) }
    }
}

impl Drop for ProcessInvoker {
    fn drop(&mut self) {
        self.pool.stop();
    }
}

#[async_trait]
impl Invoke for ProcessInvoker {
    async fn invoke(&self, event: Event) -> Reply {
        self.pool.invoke(event).await
    }
}

#[async_trait]
impl Backend for ProcessInvoker {
    fn describe(&self) -> String {
        self.pool.describe()
    }

    /// Asks every process to end, and waits until all have.
    async fn close(&self) {
        self.pool.close().await;
    }
}
