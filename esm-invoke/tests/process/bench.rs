//! Functions to invoke, and what is expected of them.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use esm_core::{
    event::Event,
    invoker::{Invoke as _, Outcome, Reply},
};
use esm_invoke::process::{ProcessInvoker, ProcessSettings};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::common::{LONG, example, settings};

/// A runtime client and a function on it that does what events ask for.
pub(crate) struct Client {
    pub(crate) settings: ProcessSettings,
    /// A command whose function does not exist.
    pub(crate) missing: Vec<OsString>,
    /// Whether the client tells us why it cannot start.
    pub(crate) posts_init_errors: bool,
    /// Where errors have a stack trace, if they have one.
    pub(crate) stack_trace: Option<&'static str>,
}

impl Client {
    /// The crate `lambda_runtime`.
    pub(crate) fn rust() -> Self {
        Self {
            settings: settings(vec![example("bootstrap")]),
            missing: vec!["./absent".into()],
            posts_init_errors: false,
            stack_trace: None,
        }
    }

    /// `awslambdaric` of the Python that `ESM_TEST_PYTHON` names.
    pub(crate) fn python() -> Self {
        let python = env::var_os("ESM_TEST_PYTHON").expect("ESM_TEST_PYTHON names a Python that has awslambdaric");
        let command = |handler: &str| vec![python.clone(), "-m".into(), "awslambdaric".into(), handler.into()];
        Self {
            settings: settings(command("function.handle")),
            missing: command("function.absent"),
            posts_init_errors: true,
            stack_trace: Some("stackTrace"),
        }
    }

    /// `aws-lambda-ric` in the folder of node modules that `ESM_TEST_NODE_MODULES` names.
    pub(crate) fn node() -> Self {
        let modules = env::var_os("ESM_TEST_NODE_MODULES").expect("ESM_TEST_NODE_MODULES has aws-lambda-ric");
        let client = PathBuf::from(modules).join("aws-lambda-ric/bin/index.mjs");
        let command = |handler: &str| vec!["node".into(), client.clone().into(), handler.into()];
        Self {
            settings: settings(command("function.handle")),
            missing: command("function.absent"),
            posts_init_errors: true,
            stack_trace: Some("trace"),
        }
    }

    pub(crate) fn start(self) -> Function {
        Function(ProcessInvoker::new(self.settings))
    }

    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.settings.environment.insert(name.into(), value.into());
        self
    }
}

/// A function that ends with its test.
pub(crate) struct Function(pub(crate) ProcessInvoker);

impl Function {
    pub(crate) async fn call(&self, event: Value) -> Reply {
        self.0.invoke(Event::from(bytes::Bytes::from(event.to_string()))).await
    }

    /// What the function returns.
    pub(crate) async fn result(&self, event: Value) -> Value {
        let reply = self.call(event).await;
        assert_eq!(reply.outcome, Outcome::Success);
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// Type and message of the error that the function makes of it, and its JSON.
    pub(crate) async fn error(&self, event: Value) -> (String, String, Value) {
        let reply = self.call(event).await;
        let Outcome::FunctionError { error_type, message } = reply.outcome else { panic!("{reply:?}") };
        (error_type, message, serde_json::from_slice(&reply.body).unwrap())
    }

    /// Why it cannot be used, and the JSON that says so.
    pub(crate) async fn refusal(&self) -> (String, Value) {
        let reply = self.call(json!({ "do": "echo" })).await;
        let Outcome::NotUsable { reason } = reply.outcome else { panic!("{reply:?}") };
        (reason, serde_json::from_slice(&reply.body).unwrap())
    }

    /// The process that would work on the next event.
    pub(crate) async fn process(&self) -> i64 {
        self.result(json!({ "do": "tell" })).await["process"].as_i64().unwrap()
    }
}

/// Whether a process lives; one that nobody waited for lives too.
pub(crate) fn lives(process: i64) -> bool {
    PathBuf::from(format!("/proc/{process}")).exists()
}

/// Waits for something to become true.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "waited for {what} in vain");
}

pub(crate) fn read(file: &PathBuf) -> Option<String> {
    fs::read_to_string(file).ok()
}

/// What this test program logs.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

/// One for all tests: subscribers that come and go with threads miss lines of one another's.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(log.clone()).init();
    log
});

impl Log {
    pub(crate) fn capture() -> Self {
        LOG.clone()
    }

    /// What was said so far about one process.
    pub(crate) fn of_process(&self, process: i64) -> Vec<Value> {
        self.with("process", &process.into())
    }

    /// What was said so far about one function.
    pub(crate) fn of_function(&self, name: &str) -> Vec<Value> {
        self.with("function", &name.into())
    }

    fn with(&self, member: &str, value: &Value) -> Vec<Value> {
        let log = self.0.lock().unwrap();
        let events = log.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        events.filter(|event| event[member] == *value).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
