//! A queue in memory that lends, takes back and forgets messages as a broker does.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Duration, Instant},
};

use super::record;
use crate::{
    event::Envelope,
    source::{Connect, Consumer, Delivery, Disposition, Receipt, Session, SourceError, Terms},
};

/// A queue with one consumer at a time. Clones are the same queue.
#[derive(Clone, Default)]
pub struct MemoryQueue(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    ready: VecDeque<Message>,
    refusals: VecDeque<SourceError>,
    dead_letters: Vec<String>,
    acked: Vec<String>,
    hold_limit: Option<Duration>,
    session: Option<Open>,
    sessions: u64,
}

struct Open {
    number: u64,
    prefetch: usize,
    alone: bool,
    next_receipt: u64,
    unsettled: BTreeMap<u64, Message>,
    deliveries: Option<mpsc::Sender<Delivery>>,
    lost: oneshot::Sender<SourceError>,
    trouble: watch::Sender<Option<SourceError>>,
}

#[derive(Clone)]
struct Message {
    id: String,
    padding: usize,
    redelivered: bool,
    time_to_live: Option<Duration>,
}

impl MemoryQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes messages with these ids.
    pub fn publish<I: ToString>(&self, ids: impl IntoIterator<Item = I>) {
        self.publish_with(ids, 0, None);
    }

    /// Publishes messages with padding and, perhaps, a time to live.
    pub fn publish_with<I: ToString>(
        &self,
        ids: impl IntoIterator<Item = I>,
        padding: usize,
        time_to_live: Option<Duration>,
    ) {
        let mut inner = self.lock();
        let messages =
            ids.into_iter().map(|id| Message { id: id.to_string(), padding, redelivered: false, time_to_live });
        inner.ready.extend(messages);
        inner.lend();
    }

    /// The next attempts to connect fail so.
    pub fn refuse(&self, errors: impl IntoIterator<Item = SourceError>) {
        self.lock().refusals.extend(errors);
    }

    /// Sessions opened from now on have this limit.
    pub fn limit_hold(&self, limit: Duration) {
        self.lock().hold_limit = Some(limit);
    }

    /// Breaks the session that is open.
    pub fn lose(&self, error: SourceError) {
        let mut inner = self.lock();
        if let Some(session) = inner.take_back() {
            // A session whose other end is gone needs no cause.
            let _ = session.lost.send(error);
        }
    }

    /// The session that is open is in this trouble, or in none any more.
    pub fn trouble(&self, trouble: Option<SourceError>) {
        if let Some(session) = &self.lock().session {
            session.trouble.send_replace(trouble);
        }
    }

    /// The ids acknowledged so far, in order.
    pub fn acked(&self) -> Vec<String> {
        self.lock().acked.clone()
    }

    /// The ids dead-lettered so far.
    pub fn dead_letters(&self) -> Vec<String> {
        self.lock().dead_letters.clone()
    }

    /// The ids that wait in the queue.
    pub fn ready(&self) -> Vec<String> {
        self.lock().ready.iter().map(|message| message.id.clone()).collect()
    }

    /// How many messages are lent now.
    pub fn unsettled(&self) -> usize {
        self.lock().session.as_ref().map_or(0, |session| session.unsettled.len())
    }

    /// The prefetch of the session that is open.
    pub fn prefetch(&self) -> usize {
        self.lock().session.as_ref().map_or(0, |session| session.prefetch)
    }

    /// Whether the session that is open asked for a connection of its own.
    pub fn is_alone(&self) -> bool {
        self.lock().session.as_ref().is_some_and(|session| session.alone)
    }

    /// How many sessions were opened.
    pub fn sessions(&self) -> u64 {
        self.lock().sessions
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Lends what the prefetch allows.
    fn lend(&mut self) {
        let Some(session) = &mut self.session else { return };
        let Some(deliveries) = &session.deliveries else { return };
        while session.unsettled.len() < session.prefetch {
            let Some(message) = self.ready.pop_front() else { return };
            session.next_receipt += 1;
            let received_at = Instant::now();
            let delivery = Delivery {
                record: record(&message.id, message.redelivered, message.padding),
                receipt: Receipt(session.next_receipt),
                received_at,
                expires_at: message.time_to_live.map(|time| received_at + time),
                sent_at: None,
            };
            session.unsettled.insert(session.next_receipt, message);
            deliveries.try_send(delivery).expect("the channel holds the prefetch");
        }
    }

    /// Ends the session; what it lent comes first again.
    fn take_back(&mut self) -> Option<Open> {
        let mut session = self.session.take()?;
        for (_, message) in std::mem::take(&mut session.unsettled).into_iter().rev() {
            self.ready.push_front(Message { redelivered: true, ..message });
        }
        Some(session)
    }

    fn settle(&mut self, number: u64, receipts: &[Receipt], how: Disposition) -> Result<(), SourceError> {
        let session = self.session.as_mut().filter(|session| session.number == number).ok_or_else(gone)?;
        let mut returned = Vec::new();
        for receipt in receipts {
            let message = session.unsettled.remove(&receipt.0).expect("a receipt is settled once");
            match how {
                Disposition::Ack => self.acked.push(message.id),
                Disposition::DeadLetter => self.dead_letters.push(message.id),
                Disposition::Return => returned.push(Message { redelivered: true, ..message }),
            }
        }
        for message in returned.into_iter().rev() {
            self.ready.push_front(message);
        }
        self.lend();
        Ok(())
    }
}

fn gone() -> SourceError {
    SourceError::ConnectionLost { broker: "memory".into(), words: "the session is over".into() }
}

#[async_trait]
impl Connect for MemoryQueue {
    fn prefetch_limit(&self) -> u32 {
        65_535
    }

    async fn connect(&self, Terms { prefetch, alone }: Terms) -> Result<Session, SourceError> {
        let mut inner = self.lock();
        if let Some(error) = inner.refusals.pop_front() {
            return Err(error);
        }
        inner.take_back();
        inner.sessions += 1;
        let number = inner.sessions;
        let (sender, deliveries) = mpsc::channel(prefetch as usize);
        let (lost_sender, lost) = oneshot::channel();
        let (trouble_sender, trouble) = watch::channel(None);
        inner.session = Some(Open {
            number,
            prefetch: prefetch as usize,
            alone,
            next_receipt: 0,
            unsettled: BTreeMap::new(),
            deliveries: Some(sender),
            lost: lost_sender,
            trouble: trouble_sender,
        });
        inner.lend();
        Ok(Session {
            deliveries,
            consumer: Arc::new(MemoryConsumer { queue: self.clone(), number }),
            lost,
            trouble,
            envelope: Envelope::new("[", "]"),
            prefetch,
            hold_limit: inner.hold_limit,
        })
    }
}

struct MemoryConsumer {
    queue: MemoryQueue,
    number: u64,
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn settle(&self, receipts: &[Receipt], how: Disposition) -> Result<(), SourceError> {
        self.queue.lock().settle(self.number, receipts, how)
    }

    async fn cancel(&self) -> Result<(), SourceError> {
        let mut inner = self.queue.lock();
        let session = inner.session.as_mut().filter(|session| session.number == self.number);
        session.ok_or_else(gone)?.deliveries = None;
        Ok(())
    }

    async fn close(&self) {
        let mut inner = self.queue.lock();
        if inner.session.as_ref().is_some_and(|session| session.number == self.number) {
            inner.take_back();
        }
    }
}
