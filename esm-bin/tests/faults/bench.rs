//! A broker of either kind, with a queue that a mapping reads and one for what is given up.

use std::{collections::BTreeMap, time::Duration};

use amqprs::BasicProperties;
use esm_activemq::testing::{GUEST, Messages, TestBroker as ActiveMqBroker};
use esm_rabbitmq::testing::TestBroker as RabbitMqBroker;
use tokio::time::sleep;

use crate::common::{
    function::Function,
    service::{Broker, Config, wait_for},
};

/// Makes a test of each scenario for each broker.
macro_rules! on_both_brokers {
    ($($scenario:ident),* $(,)?) => {
        mod activemq {
            $(
                #[tokio::test]
                #[ignore = "needs a broker"]
                async fn $scenario() {
                    super::$scenario::<$crate::bench::ActiveMq>().await;
                }
            )*
        }
        mod rabbitmq {
            $(
                #[tokio::test]
                #[ignore = "needs a broker"]
                async fn $scenario() {
                    super::$scenario::<$crate::bench::RabbitMq>().await;
                }
            )*
        }
    };
}

/// The reader's, at first.
pub(crate) const PASSWORD: &str = GUEST.1;

pub(crate) trait Bench: Broker + Sized {
    /// What makes either side give up a silent connection after about two seconds, at the end of an endpoint.
    const TWO_SECONDS: &'static str;
    /// Who may read the queue of a private broker, and can be forbidden to.
    const READER: &'static str;
    /// How many messages of a mapping with batches of ten may be in flight.
    const IN_FLIGHT: usize;

    /// On the broker that the tests share.
    async fn shared(test: &str) -> Self;

    /// On a broker that this test may stop.
    async fn private(test: &str) -> Self;

    /// Where it listens for connections without TLS.
    fn address(&self) -> String;

    /// The queue that is read.
    fn queue(&self) -> &str;

    /// A further mapping of the queue.
    fn with_mapping(&self, config: Config, more: &str) -> Config;

    /// Where letters go, on a broker that the configuration has under this name.
    fn letters_arn(&self, broker: &str) -> String;

    /// Puts a message into the queue, safely.
    async fn publish(&self, body: &str);

    /// Likewise, so many whose bodies are `0`, `1`, `2` and so on.
    async fn publish_numbered(&self, count: usize);

    /// How many letters there are by their bodies; they stay.
    async fn letters(&self) -> BTreeMap<String, usize>;

    /// How many messages the queue has when nobody reads it.
    async fn left(&self) -> usize;

    async fn stop(&self);

    async fn start(&self);

    /// Leaves no room for messages on the broker's disk, and starts it anew.
    async fn fill_the_disk(&self);

    /// Makes room again.
    async fn make_room(&self);

    /// Gives the reader another password than [`PASSWORD`], and has it log in again.
    async fn change_password(&self, to: &str);

    /// Forbids the reader to read the queue, and has it try again.
    async fn forbid(&self);

    /// Lets it read again.
    async fn permit(&self);

    /// A mapping of the queue for a function.
    fn config(&self, function: &Function, more: &str) -> Config {
        self.with_mapping(Config::new(self, &function.url), more)
    }

    /// Waits until a message lies among the letters so many times.
    async fn letter(&self, body: &str, times: usize) {
        let mut letters = self.letters().await;
        for _ in 0..600 {
            if letters.get(body).copied().unwrap_or(0) >= times {
                break;
            }
            sleep(Duration::from_millis(100)).await;
            letters = self.letters().await;
        }
        assert_eq!(letters.get(body), Some(&times), "{letters:?}");
    }
}

pub(crate) struct RabbitMq {
    broker: RabbitMqBroker,
    virtual_host: String,
}

impl RabbitMq {
    async fn on(broker: RabbitMqBroker, test: &str) -> Self {
        let virtual_host = broker.virtual_host(&test.replace(' ', "-")).await;
        let publisher = broker.publisher(&virtual_host).await;
        publisher.declare("queue", "quorum").await;
        publisher.declare("letters", "classic").await;
        publisher.close().await;
        Self { broker, virtual_host }
    }

    /// Puts messages with properties into the queue.
    pub(crate) async fn publish_messages(&self, messages: impl IntoIterator<Item = (BasicProperties, Vec<u8>)>) {
        let mut publisher = self.broker.publisher(&self.virtual_host).await;
        publisher.publish_messages("queue", messages).await;
        publisher.close().await;
    }

    /// Closes the reader's connection: a permission counts when a queue is subscribed to. The management API shows a
    /// connection some seconds after it was opened.
    async fn log_in_again(&self) {
        loop {
            let connections = self.broker.connections(&self.virtual_host).await;
            if connections.iter().any(|connection| connection["user"] == Self::READER) {
                self.broker.close_connections(&self.virtual_host).await;
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Takes all letters.
    pub(crate) async fn take_letters(&self) -> Vec<(BasicProperties, Vec<u8>)> {
        let publisher = self.broker.publisher(&self.virtual_host).await;
        let mut letters = Vec::new();
        while let Some(letter) = publisher.take("letters").await {
            letters.push(letter);
        }
        publisher.close().await;
        letters
    }
}

impl Broker for RabbitMq {
    const ENGINE: &'static str = "rabbitmq";
    const ADMINISTRATOR: &'static str = "guest";

    fn endpoint(&self) -> String {
        self.broker.url.clone()
    }
}

impl Bench for RabbitMq {
    const TWO_SECONDS: &'static str = "?heartbeat=2";
    const READER: &'static str = "reader";
    const IN_FLIGHT: usize = 20;

    async fn shared(test: &str) -> Self {
        Self::on(RabbitMqBroker::shared(), test).await
    }

    async fn private(test: &str) -> Self {
        let bench = Self::on(RabbitMqBroker::private(&format!("rabbitmq-{test}"), &[]).await, test).await;
        bench.broker.put_user(Self::READER, PASSWORD).await;
        bench.permit().await;
        bench
    }

    fn address(&self) -> String {
        self.broker.url.clone()
    }

    fn queue(&self) -> &'static str {
        "queue"
    }

    fn with_mapping(&self, config: Config, more: &str) -> Config {
        config.mapping("queue", &format!("virtual_host = {:?}\n{more}", self.virtual_host))
    }

    fn letters_arn(&self, broker: &str) -> String {
        format!("arn:aws:mq:us-east-1:000000000000:queue:{broker}:{}:letters", self.virtual_host)
    }

    async fn publish(&self, body: &str) {
        let mut publisher = self.broker.publisher(&self.virtual_host).await;
        publisher.publish("queue", [body]).await;
        publisher.close().await;
    }

    async fn publish_numbered(&self, count: usize) {
        let mut publisher = self.broker.publisher(&self.virtual_host).await;
        publisher.publish("queue", numbered(count)).await;
        publisher.close().await;
    }

    async fn letters(&self) -> BTreeMap<String, usize> {
        let taken = self.take_letters().await;
        let mut letters = BTreeMap::new();
        for (_, body) in &taken {
            *letters.entry(String::from_utf8_lossy(body).into_owned()).or_default() += 1;
        }
        let mut publisher = self.broker.publisher(&self.virtual_host).await;
        publisher.publish_messages("letters", taken).await;
        publisher.close().await;
        letters
    }

    async fn left(&self) -> usize {
        let publisher = self.broker.publisher(&self.virtual_host).await;
        let mut left = 0;
        while publisher.take("queue").await.is_some() {
            left += 1;
        }
        left
    }

    async fn stop(&self) {
        self.broker.stop().await;
    }

    async fn start(&self) {
        self.broker.start().await;
    }

    async fn fill_the_disk(&self) {
        self.broker.reconfigure("disk_free_limit.absolute = 50MB", "disk_free_limit.absolute = 900000GB").await;
        self.broker.disk_alarm().await;
    }

    async fn make_room(&self) {
        self.broker.reconfigure("disk_free_limit.absolute = 900000GB", "disk_free_limit.absolute = 50MB").await;
    }

    async fn change_password(&self, to: &str) {
        self.broker.put_user(Self::READER, to).await;
        self.log_in_again().await;
    }

    async fn forbid(&self) {
        self.broker.permit(&self.virtual_host, Self::READER, "").await;
        self.log_in_again().await;
    }

    async fn permit(&self) {
        self.broker.permit(&self.virtual_host, Self::READER, ".*").await;
    }
}

pub(crate) struct ActiveMq {
    broker: ActiveMqBroker,
    queue: String,
    letters: String,
}

impl ActiveMq {
    fn on(broker: ActiveMqBroker, test: &str) -> Self {
        let (queue, letters) = (broker.queue(test), broker.queue(&format!("{test}-letters")));
        Self { broker, queue, letters }
    }
}

impl Broker for ActiveMq {
    const ENGINE: &'static str = "activemq";
    const ADMINISTRATOR: &'static str = "admin";

    fn endpoint(&self) -> String {
        self.broker.url.clone()
    }
}

impl Bench for ActiveMq {
    const TWO_SECONDS: &'static str = "?wireFormat.maxInactivityDuration=2000";
    const READER: &'static str = GUEST.0;
    const IN_FLIGHT: usize = 60;

    async fn shared(test: &str) -> Self {
        Self::on(ActiveMqBroker::shared(), test)
    }

    async fn private(test: &str) -> Self {
        Self::on(ActiveMqBroker::private(&format!("activemq-{test}"), &[]).await, test)
    }

    fn address(&self) -> String {
        self.broker.url.clone()
    }

    fn queue(&self) -> &str {
        &self.queue
    }

    fn with_mapping(&self, config: Config, more: &str) -> Config {
        config.mapping(&self.queue, more)
    }

    fn letters_arn(&self, broker: &str) -> String {
        format!("arn:aws:mq:us-east-1:000000000000:queue:{broker}::{}", self.letters)
    }

    async fn publish(&self, body: &str) {
        self.broker.produce(&self.queue, Messages::text(body)).await;
    }

    async fn publish_numbered(&self, count: usize) {
        self.broker.produce(&self.queue, Messages::text("{n}").count(count)).await;
    }

    async fn letters(&self) -> BTreeMap<String, usize> {
        let mut letters = BTreeMap::new();
        for letter in self.broker.browse(&self.letters).await {
            *letters.entry(letter.text()).or_default() += 1;
        }
        letters
    }

    async fn left(&self) -> usize {
        let statistics = self.broker.wait_until(&self.queue, |statistics| statistics.consumer_count == 0).await;
        usize::try_from(statistics.size).expect("not so many")
    }

    async fn stop(&self) {
        self.broker.stop().await;
    }

    async fn start(&self) {
        self.broker.start().await;
    }

    async fn fill_the_disk(&self) {
        self.broker.reconfigure("<storeUsage limit=\"2gb\"/>", "<storeUsage limit=\"1kb\"/>").await;
    }

    async fn make_room(&self) {
        self.broker.reconfigure("<storeUsage limit=\"1kb\"/>", "<storeUsage limit=\"2gb\"/>").await;
    }

    async fn change_password(&self, to: &str) {
        let user = |password: &str| format!("username={:?} password={password:?}", Self::READER);
        self.broker.reconfigure(&user(PASSWORD), &user(to)).await;
    }

    async fn forbid(&self) {
        self.broker.reconfigure(READ, FORBIDDEN).await;
    }

    async fn permit(&self) {
        self.broker.reconfigure(FORBIDDEN, READ).await;
    }
}

const READ: &str = "queue=\"test.&gt;\" read=\"guests\"";
const FORBIDDEN: &str = "queue=\"test.&gt;\" read=\"admins\"";

/// The bodies `0`, `1`, `2` and so on.
pub(crate) fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// What a function has got, by message.
pub(crate) struct Ledger(pub(crate) BTreeMap<String, usize>);

impl Ledger {
    pub(crate) fn of(function: &Function) -> Self {
        let mut times = BTreeMap::new();
        for body in function.bodies() {
            *times.entry(body).or_default() += 1;
        }
        Self(times)
    }

    /// Waits until a function has got each of these.
    pub(crate) async fn complete(function: &Function, bodies: &[String]) -> Self {
        wait_for("every message", || {
            let ledger = Self::of(function);
            bodies.iter().all(|body| ledger.0.contains_key(body)).then_some(ledger)
        })
        .await
    }

    /// How many came more often than once, each as often as it did.
    pub(crate) fn repeated(&self) -> usize {
        self.0.values().map(|times| times - 1).sum()
    }
}
