//! A real ActiveMQ for tests: the one that the test run shares, or one of a test's own that may be killed, or
//! hang, or have a standby. What sends to it is ActiveMQ's own client in Java, or one that speaks STOMP.

mod java;
mod relay;
mod stomp;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::de::DeserializeOwned;
use tokio::{process::Command, time::timeout};

pub use java::{JavaMessage, Messages, Statistics};
pub use relay::Relay;

use java::Java;

/// Long enough for a broker on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A command that needs no further words.
const NOTHING: [(&str, String); 0] = [];
/// Between two looks at something that the broker counts.
const PAUSE: Duration = Duration::from_millis(50);

/// May do everything on every test broker.
pub const ADMINISTRATOR: (&str, &str) = ("admin", "admin");
/// May read and write the queues whose names begin with `test.`, and create none.
pub const GUEST: (&str, &str) = ("guest", "guest");

/// A running ActiveMQ.
pub struct TestBroker {
    /// `tcp://…`
    pub url: String,
    /// `ssl://…`
    pub tls_url: String,
    /// `stomp://…`; whoever does not log in may send to queues whose names begin with `stomp.`.
    pub stomp_url: String,
    /// Trusts the server's certificate.
    pub ca_file: PathBuf,
    /// A client certificate that the broker accepts.
    pub client_cert_file: PathBuf,
    /// Its key.
    pub client_key_file: PathBuf,
    classpath: String,
    /// Set if the broker is the test's own.
    dir: Option<PathBuf>,
    /// Whether the node ends with this value.
    owned: bool,
}

impl TestBroker {
    /// The broker that the test run started. Dead letters of its queue `a` go to the queue `DLQ.a`.
    pub fn shared() -> Self {
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests by `cargo xtask test`"))
        };
        Self::at(variable, None)
    }

    /// A broker for this test alone, with further choices as `cargo xtask brokers up activemq --conf` takes them. It
    /// ends with the test.
    pub async fn private(name: &str, conf: &[&str]) -> Self {
        Self::up(name, conf, &[]).await
    }

    /// Two brokers for this test alone on one store: the active one, and its standby, which opens its ports when the
    /// first is gone. Both end with the first.
    pub async fn pair(name: &str) -> (Self, Self) {
        let active = Self::up(name, &[], &["--standby"]).await;
        let dir = active.own_dir().join("standby");
        let mut standby = Self::printed(&xtask(&["env"], &dir).await, dir);
        standby.owned = false;
        (active, standby)
    }

    async fn up(name: &str, conf: &[&str], further: &[&str]) -> Self {
        let root = std::env::var("ESM_TEST_DIR").map_or_else(|_| std::env::temp_dir(), PathBuf::from);
        let dir = root.join(format!("{name}-{}", std::process::id()));
        let parent = std::process::id().to_string();
        let mut arguments = vec!["up", "activemq", "--parent-pid", &parent];
        arguments.extend(further);
        for choice in conf {
            arguments.extend(["--conf", choice]);
        }
        Self::printed(&xtask(&arguments, &dir).await, dir)
    }

    fn printed(environment: &str, dir: PathBuf) -> Self {
        let variable = |name: &str| {
            let line = environment.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.unwrap_or_else(|| panic!("{name} is not printed:\n{environment}")).trim_matches('\'').to_owned()
        };
        Self::at(variable, Some(dir))
    }

    fn at(variable: impl Fn(&str) -> String, dir: Option<PathBuf>) -> Self {
        Self {
            url: variable("ESM_TEST_ACTIVEMQ_URL"),
            tls_url: variable("ESM_TEST_ACTIVEMQ_TLS_URL"),
            stomp_url: variable("ESM_TEST_ACTIVEMQ_STOMP_URL"),
            ca_file: variable("ESM_TEST_ACTIVEMQ_CA_FILE").into(),
            client_cert_file: variable("ESM_TEST_ACTIVEMQ_CLIENT_CERT_FILE").into(),
            client_key_file: variable("ESM_TEST_ACTIVEMQ_CLIENT_KEY_FILE").into(),
            classpath: variable("ESM_TEST_ACTIVEMQ_CLASSPATH"),
            owned: dir.is_some(),
            dir,
        }
    }

    /// Kills the broker as a power cut would. Only for a broker of one's own, like what follows.
    pub async fn kill(&self) {
        xtask(&["kill"], self.own_dir()).await;
    }

    /// Stops the broker in good order.
    pub async fn stop(&self) {
        xtask(&["stop"], self.own_dir()).await;
    }

    /// Starts it again, on its data and its ports.
    pub async fn start(&self) {
        xtask(&["start"], self.own_dir()).await;
    }

    /// Lets the broker hang: its connections stay open and it says nothing.
    pub async fn pause(&self) {
        xtask(&["pause"], self.own_dir()).await;
    }

    /// Lets a broker that hangs go on.
    pub async fn resume(&self) {
        xtask(&["resume"], self.own_dir()).await;
    }

    /// Stops the broker, replaces a part of its configuration, and starts it again.
    pub async fn reconfigure(&self, part: &str, replacement: &str) {
        self.stop().await;
        let file = self.own_dir().join("activemq.xml");
        let configuration = std::fs::read_to_string(&file).expect("reads the configuration");
        assert!(configuration.contains(part), "the configuration has no {part}");
        std::fs::write(&file, configuration.replace(part, replacement)).expect("writes the configuration");
        self.start().await;
    }

    fn own_dir(&self) -> &Path {
        self.dir.as_ref().expect("a shared broker is not killed")
    }

    /// A queue's name that nobody else uses, among those of the guest.
    pub fn queue(&self, name: &str) -> String {
        unique("test", name)
    }

    /// A queue's name that nobody else uses, among those that STOMP may send to.
    pub fn stomp_queue(&self, name: &str) -> String {
        unique("stomp", name)
    }

    /// Sends messages, in order, and returns their ids when the broker has them on its disk.
    pub async fn produce(&self, queue: &str, messages: Messages) -> Vec<String> {
        self.ask("produce", queue, messages.words).await
    }

    /// Sends one message of each kind that there is, and returns what Java reads in them, in order.
    pub async fn produce_catalogue(&self, queue: &str) -> Vec<JavaMessage> {
        self.ask("catalogue", queue, NOTHING).await
    }

    /// What waits in a queue, at most a few hundred messages of it; all of it stays there.
    pub async fn browse(&self, queue: &str) -> Vec<JavaMessage> {
        self.ask("browse", queue, NOTHING).await
    }

    /// What the broker has put aside of a queue's messages. Only with its own policy, as on a shared broker.
    pub async fn dead_letters(&self, queue: &str) -> Vec<JavaMessage> {
        self.browse(&format!("DLQ.{queue}")).await
    }

    /// Waits for so many messages, and takes them out of the queue.
    pub async fn consume(&self, queue: &str, count: usize) -> Vec<JavaMessage> {
        let messages = self.consume_with(queue, count, 1).await;
        assert_eq!(messages.len(), count, "{queue} has no more messages");
        messages
    }

    /// Waits for so many messages, and gives them all back, so that they come again as redelivered.
    pub async fn give_back(&self, queue: &str, count: usize) {
        assert_eq!(self.consume_with(queue, count, 0).await.len(), count, "{queue} has no more messages");
    }

    async fn consume_with(&self, queue: &str, count: usize, every: u32) -> Vec<JavaMessage> {
        let words = [("count", count.to_string()), ("every", every.to_string()), ("describe", "true".to_owned())];
        self.ask("consume", queue, words).await
    }

    /// Takes whatever waits in a queue, until the broker says that it is empty.
    pub async fn purge(&self, queue: &str) {
        let purging = async {
            loop {
                let size = self.statistics(queue).await.size;
                if size == 0 {
                    return;
                }
                let words = [("count", size.to_string()), ("patience", "1000".to_owned()), ("every", "100".to_owned())];
                let _: u64 = self.ask("consume", queue, words).await;
            }
        };
        timeout(PATIENCE, purging).await.expect("the queue becomes empty");
    }

    /// Deletes a queue with all that is in it; the broker's words if it does not.
    pub async fn delete(&self, queue: &str) -> Result<(), String> {
        self.try_to("delete", queue, NOTHING).await.map(drop)
    }

    /// What the broker counts for a queue; zeros for a queue that it does not know.
    pub async fn statistics(&self, queue: &str) -> Statistics {
        self.ask("statistics", queue, NOTHING).await
    }

    /// Waits until the broker counts for a queue what is expected.
    pub async fn wait_until(&self, queue: &str, expected: impl Fn(&Statistics) -> bool) -> Statistics {
        let mut statistics = Statistics::default();
        let waiting = async {
            loop {
                statistics = self.statistics(queue).await;
                if expected(&statistics) {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "waited in vain; now the broker counts {statistics:?} for {queue}");
        statistics
    }

    /// Sends texts over STOMP, without logging in; returns when the broker has them.
    pub async fn send_by_stomp(&self, queue: &str, texts: &[&str]) {
        stomp::send(&self.stomp_url, queue, texts).await;
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        command: &str,
        queue: &str,
        further: impl IntoIterator<Item = (impl Into<String>, String)>,
    ) -> A {
        let answer = self.try_to(command, queue, further).await;
        let answer = answer.unwrap_or_else(|problem| panic!("{command} on {queue}: {problem}"));
        serde_json::from_value(answer).expect("an answer of the kind that was asked for")
    }

    async fn try_to(
        &self,
        command: &str,
        queue: &str,
        further: impl IntoIterator<Item = (impl Into<String>, String)>,
    ) -> Result<serde_json::Value, String> {
        let (username, password) = ADMINISTRATOR;
        let own = [
            ("command", command),
            ("queue", queue),
            ("url", &self.url),
            ("username", username),
            ("password", password),
        ];
        let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let further = further.into_iter().map(|(key, value)| (key.into(), value));
        Java::shared(&self.classpath).ask(own.into_iter().chain(further)).await
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        if let (true, Some(dir)) = (self.owned, &self.dir) {
            let down = std::process::Command::new(xtask_program()).args(["brokers", "down", "--dir"]).arg(dir).output();
            drop(down); // the node also ends with this process
        }
    }
}

/// Told apart by process and number: a broker that was started by hand serves several test runs.
fn unique(parent: &str, name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{parent}.{name}.{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn xtask_program() -> PathBuf {
    std::env::var_os("ESM_XTASK").expect("ESM_XTASK is not set: run these tests by `cargo xtask test`").into()
}

async fn xtask(arguments: &[&str], dir: &Path) -> String {
    let mut command = Command::new(xtask_program());
    command.arg("brokers").args(arguments).arg("--dir").arg(dir).stdin(Stdio::null());
    let output = command.output().await.expect("xtask runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "brokers {arguments:?} failed: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
