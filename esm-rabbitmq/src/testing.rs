//! A real RabbitMQ for tests: the one that the test run shares, or one of a test's own that may be
//! killed, with a publisher on an AMQP implementation that is not the adapter's.

use std::{path::PathBuf, process::Stdio, time::Duration};

use amqprs::{
    Ack, BasicProperties, Cancel, CloseChannel, Nack, Return,
    callbacks::{ChannelCallback, DefaultConnectionCallback},
    channel::{
        BasicGetArguments, BasicPublishArguments, Channel, ConfirmSelectArguments, QueueDeclareArguments,
        QueueDeleteArguments, QueuePurgeArguments,
    },
    connection::{Connection, OpenConnectionArguments},
};
use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{process::Command, sync::watch, time::timeout};

use crate::ledger::Ledger;

/// Long enough for a broker on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The administrator of every test broker.
const ADMINISTRATOR: (&str, &str) = ("guest", "guest");

/// A running RabbitMQ with its management API.
pub struct TestBroker {
    /// `amqp://…`
    pub url: String,
    /// `amqps://…`
    pub tls_url: String,
    /// The other nodes of its cluster, likewise.
    pub others: Vec<String>,
    /// Trusts the server's certificate.
    pub ca_file: PathBuf,
    /// A client certificate that the broker accepts.
    pub client_cert_file: PathBuf,
    /// Its key.
    pub client_key_file: PathBuf,
    management: String,
    http: reqwest::Client,
    /// Set if the broker is the test's own.
    dir: Option<PathBuf>,
}

impl TestBroker {
    /// The broker that the test run started.
    pub fn shared() -> Self {
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests by `cargo xtask test`"))
        };
        Self::at(variable, None)
    }

    /// A broker for this test alone, with further lines of `rabbitmq.conf`. It ends with the test.
    pub async fn private(name: &str, conf: &[&str]) -> Self {
        Self::up(name, conf, &[]).await
    }

    /// A cluster of three for this test alone, as its first node. It ends with the test.
    pub async fn cluster(name: &str) -> Self {
        Self::up(name, &[], &["--cluster"]).await
    }

    async fn up(name: &str, conf: &[&str], further: &[&str]) -> Self {
        let root = std::env::var("ESM_TEST_DIR").map_or_else(|_| std::env::temp_dir(), PathBuf::from);
        let dir = root.join(format!("{name}-{}", std::process::id()));
        let parent = std::process::id().to_string();
        let release = std::env::var("ESM_TEST_RABBITMQ_RELEASE").ok();
        let mut arguments = vec!["up", "--parent-pid", &parent];
        if let Some(release) = &release {
            arguments.extend(["--rabbitmq", release]);
        }
        arguments.extend(further);
        for line in conf {
            arguments.extend(["--conf", line]);
        }
        let printed = xtask(&arguments, &dir).await;
        let variable = |name: &str| {
            let line = printed.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.unwrap_or_else(|| panic!("{name} is not printed:\n{printed}")).trim_matches(['\'', '"']).to_owned()
        };
        let others = printed.lines().find_map(|line| line.strip_prefix("export ESM_TEST_RABBITMQ_OTHER_URLS="));
        let others = others.unwrap_or_default().trim_matches('\'').split(',').filter(|url| !url.is_empty());
        let mut broker = Self::at(variable, Some(dir));
        broker.others = others.map(str::to_owned).collect();
        broker
    }

    fn at(variable: impl Fn(&str) -> String, dir: Option<PathBuf>) -> Self {
        Self {
            url: variable("ESM_TEST_RABBITMQ_URL"),
            tls_url: variable("ESM_TEST_RABBITMQ_TLS_URL"),
            others: Vec::new(),
            ca_file: variable("ESM_TEST_RABBITMQ_CA_FILE").into(),
            client_cert_file: variable("ESM_TEST_RABBITMQ_CLIENT_CERT_FILE").into(),
            client_key_file: variable("ESM_TEST_RABBITMQ_CLIENT_KEY_FILE").into(),
            management: variable("ESM_TEST_RABBITMQ_MANAGEMENT_URL"),
            http: reqwest::Client::new(),
            dir,
        }
    }

    /// Kills the broker as a power cut would. Only for a broker of one's own.
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

    /// Stops it in good order and starts it again with one more line of `rabbitmq.conf`.
    pub async fn restart_with(&self, line: &str) {
        self.configure(|configuration| format!("{configuration}\n{line}\n")).await;
    }

    /// Stops the broker, replaces a part of its `rabbitmq.conf`, and starts it again.
    pub async fn reconfigure(&self, part: &str, replacement: &str) {
        self.configure(|configuration| {
            assert!(configuration.contains(part), "the configuration has no {part}");
            configuration.replace(part, replacement)
        })
        .await;
    }

    async fn configure(&self, change: impl FnOnce(String) -> String) {
        self.stop().await;
        let file = self.own_dir().join("rabbitmq.conf");
        let configuration = std::fs::read_to_string(&file).expect("reads the configuration");
        std::fs::write(&file, change(configuration)).expect("writes the configuration");
        self.start().await;
    }

    /// Its version: the first two numbers.
    pub async fn version(&self) -> (u32, u32) {
        let overview = self.call(Method::GET, &["overview"], None).await;
        let text = overview["rabbitmq_version"].as_str().expect("a version").to_owned();
        let mut numbers = text.split('.').map(|number| number.parse().expect("a number"));
        (numbers.next().expect("a major one"), numbers.next().expect("a minor one"))
    }

    /// Waits until the broker says that it has too little memory, and takes no messages.
    pub async fn memory_alarm(&self) {
        self.alarm("mem_alarm").await;
    }

    /// Waits until the broker says that it has too little room on its disk, and takes no messages.
    pub async fn disk_alarm(&self) {
        self.alarm("disk_free_alarm").await;
    }

    async fn alarm(&self, name: &str) {
        let waiting = async {
            while self.call(Method::GET, &["nodes"], None).await[0][name] != true {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("the broker raises no {name}"));
    }

    fn own_dir(&self) -> &PathBuf {
        self.dir.as_ref().expect("a shared broker is not killed")
    }

    /// A virtual host of this name that is new and empty, which the administrator may use.
    pub async fn virtual_host(&self, name: &str) -> String {
        self.delete_virtual_host(name).await;
        self.create_virtual_host(name).await;
        name.to_owned()
    }

    /// Creates a virtual host and lets the administrator use it.
    pub async fn create_virtual_host(&self, name: &str) {
        self.put(&["vhosts", name], json!({})).await;
        self.permit(name, ADMINISTRATOR.0, ".*").await;
    }

    /// Deletes a virtual host.
    pub async fn delete_virtual_host(&self, name: &str) {
        self.call(Method::DELETE, &["vhosts", name], None).await;
    }

    /// Creates a user, or changes its password.
    pub async fn put_user(&self, name: &str, password: &str) {
        self.put(&["users", name], json!({ "password": password, "tags": "" })).await;
    }

    /// Lets a user into a virtual host, to read the queues that match.
    pub async fn permit(&self, virtual_host: &str, user: &str, read: &str) {
        let all = if user == ADMINISTRATOR.0 { ".*" } else { "" };
        let permissions = json!({ "configure": all, "write": all, "read": read });
        self.put(&["permissions", virtual_host, user], permissions).await;
    }

    /// The connections of a virtual host, as the management API shows them.
    pub async fn connections(&self, virtual_host: &str) -> Vec<Value> {
        let connections = self.call(Method::GET, &["vhosts", virtual_host, "connections"], None).await;
        serde_json::from_value(connections).expect("a list")
    }

    /// The consumers of a virtual host.
    pub async fn consumers(&self, virtual_host: &str) -> Vec<Value> {
        serde_json::from_value(self.call(Method::GET, &["consumers", virtual_host], None).await).expect("a list")
    }

    /// Closes every connection of a virtual host by force, and returns how many there were. The
    /// management API shows a connection some seconds after it was opened: waits for one.
    pub async fn close_connections(&self, virtual_host: &str) -> usize {
        let closing = async {
            loop {
                let connections = self.connections(virtual_host).await;
                for name in connections.iter().filter_map(|connection| connection["name"].as_str()) {
                    self.call(Method::DELETE, &["connections", name], None).await;
                }
                if !connections.is_empty() {
                    return connections.len();
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        timeout(PATIENCE, closing).await.expect("the broker shows a connection")
    }

    async fn put(&self, path: &[&str], body: Value) {
        self.call(Method::PUT, path, Some(body)).await;
    }

    async fn call(&self, method: Method, path: &[&str], body: Option<Value>) -> Value {
        let mut url = reqwest::Url::parse(&self.management).expect("a URL");
        url.path_segments_mut().expect("has a path").pop_if_empty().push("api").extend(path);
        let mut request = self.http.request(method, url).basic_auth(ADMINISTRATOR.0, Some(ADMINISTRATOR.1));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("the management API answers");
        let status = response.status();
        // A connection that has gone by itself is as good as closed.
        assert!(status.is_success() || status.as_u16() == 404, "{path:?}: {status}");
        response.json().await.unwrap_or(Value::Null)
    }

    /// An independent client in a virtual host.
    pub async fn publisher(&self, virtual_host: &str) -> Publisher {
        self.publisher_at(&self.url, virtual_host).await
    }

    /// Likewise, at another node of its cluster.
    pub async fn publisher_at(&self, url: &str, virtual_host: &str) -> Publisher {
        Publisher::connect(url, virtual_host).await
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            let down = std::process::Command::new(xtask_program()).args(["brokers", "down", "--dir"]).arg(dir).output();
            drop(down); // the node also ends with this process
        }
    }
}

fn xtask_program() -> PathBuf {
    std::env::var_os("ESM_XTASK").expect("ESM_XTASK is not set: run these tests by `cargo xtask test`").into()
}

async fn xtask(arguments: &[&str], dir: &PathBuf) -> String {
    let mut command = Command::new(xtask_program());
    command.arg("brokers").args(arguments).arg("--dir").arg(dir).stdin(Stdio::null());
    let output = command.output().await.expect("xtask runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "brokers {arguments:?} failed: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Declares queues and publishes with confirms, over amqprs.
pub struct Publisher {
    connection: Connection,
    channel: Channel,
    confirmed: watch::Receiver<u64>,
    published: u64,
}

impl Publisher {
    async fn connect(url: &str, virtual_host: &str) -> Self {
        let address = url.trim_start_matches("amqp://");
        let (host, port) = address.rsplit_once(':').expect("has a port");
        let mut arguments =
            OpenConnectionArguments::new(host, port.parse().expect("a port"), ADMINISTRATOR.0, ADMINISTRATOR.1);
        arguments.virtual_host(virtual_host);
        let connection = Connection::open(&arguments).await.expect("connects");
        connection.register_callback(DefaultConnectionCallback).await.expect("registers");
        let channel = connection.open_channel(None).await.expect("opens a channel");
        let (sender, confirmed) = watch::channel(0);
        channel.register_callback(Confirms { ledger: Ledger::new(), confirmed: sender }).await.expect("registers");
        channel.confirm_select(ConfirmSelectArguments::default()).await.expect("selects confirms");
        Self { connection, channel, confirmed, published: 0 }
    }

    /// Declares a durable queue of a type: `classic`, `quorum` or `stream`.
    pub async fn declare(&self, queue: &str, queue_type: &str) {
        self.declare_with(queue, &[("x-queue-type", queue_type)]).await;
    }

    /// Declares a durable queue with these arguments.
    pub async fn declare_with(&self, queue: &str, arguments: &[(&str, &str)]) {
        let mut table = amqprs::FieldTable::new();
        for (name, value) in arguments {
            table.insert((*name).try_into().expect("short"), (*value).to_owned().into());
        }
        let arguments = QueueDeclareArguments::durable_client_named(queue).arguments(table).finish();
        self.channel.queue_declare(arguments).await.expect("declares the queue");
    }

    /// Declares a quorum queue that drops a message when it comes back too often.
    pub async fn declare_quorum_with_delivery_limit(&self, queue: &str, limit: i32) {
        let mut table = amqprs::FieldTable::new();
        table.insert("x-queue-type".try_into().expect("short"), "quorum".to_owned().into());
        table.insert("x-delivery-limit".try_into().expect("short"), amqprs::FieldValue::I(limit));
        let arguments = QueueDeclareArguments::durable_client_named(queue).arguments(table).finish();
        self.channel.queue_declare(arguments).await.expect("declares the queue");
    }

    /// Declares a queue that sends to one of its consumers at a time.
    pub async fn declare_with_single_active_consumer(&self, queue: &str, queue_type: &str) {
        let mut table = amqprs::FieldTable::new();
        table.insert("x-queue-type".try_into().expect("short"), queue_type.to_owned().into());
        table.insert("x-single-active-consumer".try_into().expect("short"), amqprs::FieldValue::t(true));
        let arguments = QueueDeclareArguments::durable_client_named(queue).arguments(table).finish();
        self.channel.queue_declare(arguments).await.expect("declares the queue");
    }

    /// Deletes a queue.
    pub async fn delete(&self, queue: &str) {
        self.channel.queue_delete(QueueDeleteArguments::new(queue)).await.expect("deletes the queue");
    }

    /// Publishes bodies; returns when the broker has confirmed them all.
    pub async fn publish<B: Into<Vec<u8>>>(&mut self, queue: &str, bodies: impl IntoIterator<Item = B>) {
        let persistent = BasicProperties::default().with_delivery_mode(2).finish();
        let messages = bodies.into_iter().map(|body| (persistent.clone(), body.into()));
        self.publish_messages(queue, messages).await;
    }

    /// Publishes messages; returns when the broker has confirmed them all.
    pub async fn publish_messages(
        &mut self,
        queue: &str,
        messages: impl IntoIterator<Item = (BasicProperties, Vec<u8>)>,
    ) {
        for (properties, body) in messages {
            let to_queue = BasicPublishArguments::new("", queue);
            self.channel.basic_publish(properties, body, to_queue).await.expect("publishes");
            self.published += 1;
        }
        let published = self.published;
        let confirmed = self.confirmed.wait_for(|confirmed| *confirmed >= published);
        timeout(PATIENCE, confirmed).await.expect("confirmed in time").expect("the channel is open");
    }

    /// Takes every waiting message off a queue, unread; waits until there was one.
    pub async fn take_unread(&self, queue: &str) {
        let purging = async {
            while self.channel.queue_purge(QueuePurgeArguments::new(queue)).await.expect("purges") == Some(0) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, purging).await.expect("a message waits in the queue");
    }

    /// Takes a message off a queue, if there is one.
    pub async fn take(&self, queue: &str) -> Option<(BasicProperties, Vec<u8>)> {
        let arguments = BasicGetArguments::new(queue).no_ack(true).finish();
        let (_, properties, body) = self.channel.basic_get(arguments).await.expect("gets")?;
        Some((properties, body))
    }

    /// Ends the connection in good order.
    pub async fn close(self) {
        drop(self.channel.close().await);
        drop(self.connection.close().await);
    }
}

/// Counts the messages that the broker confirmed, in whatever order and grouping.
struct Confirms {
    ledger: Ledger,
    confirmed: watch::Sender<u64>,
}

#[async_trait]
impl ChannelCallback for Confirms {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), amqprs::error::Error> {
        panic!("the broker closed the publisher's channel: {close}");
    }
    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), amqprs::error::Error> {
        Ok(())
    }
    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, amqprs::error::Error> {
        Ok(active)
    }
    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        let first = if ack.mutiple() { 1 } else { ack.delivery_tag() };
        let confirmed = self.ledger.fail(first..=ack.delivery_tag()).0.len() as u64;
        self.confirmed.send_modify(|total| *total += confirmed);
    }
    async fn publish_nack(&mut self, _: &Channel, nack: Nack) {
        panic!("the broker refused message {}", nack.delivery_tag());
    }
    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {}
}
