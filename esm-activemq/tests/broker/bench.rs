//! One mapping's end of a queue, and what tests do with it.

use std::{sync::Arc, time::Duration};

use esm_activemq::{
    ActiveMqSource, Connections, EventProfile, Settings,
    testing::{ADMINISTRATOR, TestBroker},
};
use esm_core::{
    credentials::Login,
    memory::Memory,
    source::{Arrival, Connect, Delivery, Disposition, Receipt, Session, SourceError, Terms, Unusable},
    testing::event,
    tls::TlsFiles,
};
use serde_json::Value;
use tokio::time::timeout;

/// Long enough for a broker on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct Mapping {
    pub(crate) connections: Arc<Connections>,
    pub(crate) settings: Settings,
}

impl Mapping {
    /// Reads a queue of this broker as the administrator, over connections of its own.
    pub(crate) fn new(broker: &TestBroker, queue: &str) -> Self {
        Self::at(&broker.url, queue)
    }

    pub(crate) fn at(address: &str, queue: &str) -> Self {
        Self::over_tls(address, queue, None)
    }

    pub(crate) fn over_tls(address: &str, queue: &str, tls: Option<&TlsFiles>) -> Self {
        let addresses = vec![address.parse().expect("an address")];
        let connections = Connections::new("test".into(), addresses, tls).expect("readable files");
        let settings = Settings {
            queue: queue.parse().expect("a queue"),
            credentials: Arc::new(login(ADMINISTRATOR)),
            client_id: "broker-test".into(),
            event_source_arn: "arn".into(),
            profile: EventProfile::Wire,
            item_identifiers: false,
            destination: None,
            dead_letter_queue: format!("DLQ.{queue}"),
        };
        Self { connections, settings }
    }

    /// Another mapping of the same broker.
    pub(crate) fn beside(&self, queue: &str) -> Self {
        let mut other = self.clone();
        other.settings.queue = queue.parse().expect("a queue");
        other
    }

    pub(crate) fn with_login(mut self, login_as: (&str, &str)) -> Self {
        self.settings.credentials = Arc::new(login(login_as));
        self
    }

    pub(crate) async fn connect(&self, prefetch: u32) -> Result<Session, SourceError> {
        self.open_on(Terms { prefetch, alone: false, memory: Memory::DEFAULT }).await
    }

    pub(crate) async fn open_on(&self, terms: Terms) -> Result<Session, SourceError> {
        let source = ActiveMqSource::new(self.connections.clone(), self.settings.clone());
        timeout(PATIENCE, source.connect(terms)).await.expect("an answer in time")
    }

    pub(crate) async fn open(&self, prefetch: u32) -> Session {
        self.connect(prefetch).await.expect("a session")
    }

    pub(crate) async fn refusal(&self) -> SourceError {
        match self.connect(10).await {
            Ok(_) => panic!("a session, against all expectations"),
            Err(error) => error,
        }
    }
}

pub(crate) fn login((username, password): (&str, &str)) -> Login {
    Login { username: username.into(), password: password.into() }
}

pub(crate) async fn arrival(session: &mut Session) -> Arrival {
    let arrival = timeout(PATIENCE, session.deliveries.recv()).await.expect("an arrival in time");
    arrival.unwrap_or_else(|| panic!("the session was lost: {:?}", session.lost.try_recv()))
}

pub(crate) async fn receive(session: &mut Session, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::with_capacity(count);
    while deliveries.len() < count {
        match arrival(session).await {
            Arrival::Delivery(delivery) => deliveries.push(delivery),
            Arrival::Unusable(unusable) => panic!("no record could be made: {}", unusable.cause),
            Arrival::Surplus(_) => panic!("there was no memory for it"),
        }
    }
    deliveries
}

/// The next arrival, of which no record can be made.
pub(crate) async fn receive_unusable(session: &mut Session) -> Unusable {
    match arrival(session).await {
        Arrival::Unusable(unusable) => unusable,
        Arrival::Delivery(delivery) => panic!("a record could be made: {delivery:?}"),
        Arrival::Surplus(_) => panic!("there was no memory for it"),
    }
}

pub(crate) fn receipts(deliveries: &[Delivery]) -> Vec<Receipt> {
    deliveries.iter().map(|delivery| delivery.receipt).collect()
}

pub(crate) async fn ack(session: &Session, deliveries: &[Delivery]) {
    session.consumer.settle(&receipts(deliveries), Disposition::Ack).await.expect("is settled");
}

/// Ends a session as a mapping that stops does.
pub(crate) async fn stop(session: Session) {
    session.consumer.cancel().await.expect("is cancelled");
    session.consumer.close().await;
}

/// Why a session was lost.
pub(crate) async fn loss(session: &mut Session) -> SourceError {
    timeout(PATIENCE, &mut session.lost).await.expect("is lost in time").expect("has a cause")
}

/// Nothing ends the session within this time.
pub(crate) async fn is_kept_for(session: &mut Session, time: Duration) {
    if let Ok(lost) = timeout(time, &mut session.lost).await {
        panic!("the session was lost: {lost:?}");
    }
}

/// A record as its function sees it.
pub(crate) fn json(session: &Session, delivery: &Delivery) -> Value {
    let event = event(&session.envelope, std::slice::from_ref(&delivery.record)).to_bytes();
    let mut event: Value = serde_json::from_slice(&event).expect("JSON");
    event["messages"][0].take()
}

/// The body as text.
pub(crate) fn text(session: &Session, delivery: &Delivery) -> String {
    let json = json(session, delivery);
    let data = json["data"].as_str().expect("has data");
    String::from_utf8(base64_simd::STANDARD.decode_to_vec(data).expect("base64")).expect("UTF-8")
}

pub(crate) fn texts(session: &Session, deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| text(session, delivery)).collect()
}

pub(crate) fn redelivered(deliveries: &[Delivery]) -> Vec<bool> {
    deliveries.iter().map(|delivery| delivery.record.is_redelivered()).collect()
}

/// The numbers from `0` on, as the bodies of messages `{n}` have them.
pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}
