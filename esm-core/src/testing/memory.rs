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
    destination::{Destination, Kept, Letter, Original, Portable},
    event::Envelope,
    memory::Hand,
    metrics::DropReason,
    source::{
        Arrival, Connect, Consumer, DeadLettered, Delivery, Disposition, Group, Receipt, Session, SourceError, Terms,
        Unusable,
    },
};

/// A queue with one consumer at a time. Clones are the same queue.
#[derive(Clone, Default)]
pub struct MemoryQueue(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    published: u64,
    ready: VecDeque<Message>,
    refusals: VecDeque<SourceError>,
    /// What settling fails with.
    unheard: VecDeque<SourceError>,
    /// Ids and causes.
    dead_letters: Vec<(String, String)>,
    acked: Vec<String>,
    expired: Vec<String>,
    /// Ids, and whether they were tried.
    returned: Vec<(String, bool)>,
    /// Message ids are unique: as with ActiveMQ.
    is_modern: bool,
    /// A lost session counts against what it had lent: as with RabbitMQ.
    counts_losses: bool,
    /// Dead-lettering would destroy messages.
    destroys_dead_letters: bool,
    /// The next attempts at dead-lettering cannot be made yet, for these reasons.
    late_dead_letters: VecDeque<SourceError>,
    hold_limit: Option<Duration>,
    delivery_limit: Option<u32>,
    /// The ids that came back once too often.
    dropped: Vec<String>,
    destination: Option<Arc<dyn Destination>>,
    session: Option<Open>,
    sessions: u64,
    /// The most bytes of padding that were lent at once.
    most_bytes: usize,
}

struct Open {
    number: u64,
    prefetch: usize,
    alone: bool,
    next_receipt: u64,
    hand: Hand,
    unsettled: BTreeMap<u64, Message>,
    bytes: usize,
    deliveries: Option<mpsc::Sender<Arrival>>,
    lost: oneshot::Sender<SourceError>,
    trouble: watch::Sender<Option<SourceError>>,
    outdate: Option<oneshot::Sender<()>>,
}

#[derive(Clone)]
struct Message {
    /// Its place in the queue.
    number: u64,
    id: String,
    padding: usize,
    redelivered: bool,
    /// How often it came back, where that counts.
    returns: u32,
    time_to_live: Option<Duration>,
    group: Option<Group>,
    /// Why no record can be made of it.
    flaw: Option<DropReason>,
    /// How old the broker says that it is.
    age: Duration,
}

impl Message {
    fn new(id: String) -> Self {
        Self {
            number: 0,
            id,
            padding: 0,
            redelivered: false,
            returns: 0,
            time_to_live: None,
            group: None,
            flaw: None,
            age: Duration::ZERO,
        }
    }

    fn arrival(&self, receipt: Receipt, keeps_original: bool) -> Arrival {
        if let Some(reason) = self.flaw {
            let cause = "no record can be made of it".into();
            let original = keeps_original.then(|| Original::new(KeptId(self.id.clone())));
            return Arrival::Unusable(Unusable {
                receipt,
                message_id: Some(self.id.clone()),
                size: 1,
                reason,
                cause,
                original,
                held: None,
            });
        }
        let received_at = Instant::now();
        Arrival::Delivery(Delivery {
            record: record(&self.id, self.redelivered, self.padding),
            receipt,
            received_at,
            expires_at: self.time_to_live.map(|time| received_at + time),
            sent_at: None,
            age: self.age,
            group: self.group.clone(),
            returns: self.returns,
            failed: 0,
            held: None,
            original: keeps_original.then(|| Original::new(KeptId(self.id.clone()))),
        })
    }
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
        self.publish_all(ids.into_iter().map(|id| Message { padding, time_to_live, ..Message::new(id.to_string()) }));
    }

    /// Publishes messages of a group, with padding.
    pub fn publish_group<I: ToString>(&self, group: &str, ids: impl IntoIterator<Item = I>, padding: usize) {
        let group = Some(Group(group.into()));
        let message = |id: I| Message { group: group.clone(), padding, ..Message::new(id.to_string()) };
        self.publish_all(ids.into_iter().map(message));
    }

    /// Publishes a message of which the broker says that it is so old.
    pub fn publish_aged(&self, id: &str, age: Duration) {
        self.publish_all([Message { age, ..Message::new(id.into()) }]);
    }

    /// Publishes a message of which no record can be made.
    pub fn publish_unusable(&self, id: &str, reason: DropReason) {
        self.publish_all([Message { flaw: Some(reason), ..Message::new(id.into()) }]);
    }

    fn publish_all(&self, messages: impl IntoIterator<Item = Message>) {
        let mut inner = self.lock();
        for message in messages {
            inner.published += 1;
            let number = inner.published;
            inner.ready.push_back(Message { number, ..message });
        }
        inner.lend();
    }

    /// Its sessions know messages again, as those of ActiveMQ do.
    pub fn be_modern(&self) {
        self.lock().is_modern = true;
    }

    /// It counts a lost session as a delivery of what it had lent, as RabbitMQ does.
    pub fn count_losses(&self) {
        self.lock().counts_losses = true;
    }

    /// It has no dead-letter target.
    pub fn destroy_dead_letters(&self) {
        self.lock().destroys_dead_letters = true;
    }

    /// The next attempts to dead-letter find the target out of reach.
    pub fn delay_dead_letters(&self, errors: impl IntoIterator<Item = SourceError>) {
        self.lock().late_dead_letters.extend(errors);
    }

    /// What is given up goes to this queue.
    pub fn send_failures_to(&self, destination: Arc<dyn Destination>) {
        self.lock().destination = Some(destination);
    }

    /// The next attempts to connect fail so.
    pub fn refuse(&self, errors: impl IntoIterator<Item = SourceError>) {
        self.lock().refusals.extend(errors);
    }

    /// The next attempts to settle fail so, and settle nothing.
    pub fn refuse_to_settle(&self, errors: impl IntoIterator<Item = SourceError>) {
        self.lock().unheard.extend(errors);
    }

    /// Sessions opened from now on have this limit.
    pub fn limit_hold(&self, limit: Duration) {
        self.lock().hold_limit = Some(limit);
    }

    /// From now on it counts how often a message comes back, and drops it when that is once more than this.
    pub fn limit_deliveries(&self, limit: u32) {
        self.lock().delivery_limit = Some(limit);
    }

    /// The ids that were dropped because they came back too often.
    pub fn dropped(&self) -> Vec<String> {
        self.lock().dropped.clone()
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

    /// The session that is open has a login that another one has taken the place of.
    pub fn outdate(&self) {
        if let Some(session) = &mut self.lock().session
            && let Some(outdate) = session.outdate.take()
        {
            // A session whose other end is gone needs no successor.
            let _ = outdate.send(());
        }
    }

    /// The ids acknowledged so far, in order.
    pub fn acked(&self) -> Vec<String> {
        self.lock().acked.clone()
    }

    /// The ids dead-lettered so far.
    pub fn dead_letters(&self) -> Vec<String> {
        self.lock().dead_letters.iter().map(|(id, _)| id.clone()).collect()
    }

    /// Why they were dead-lettered.
    pub fn causes(&self) -> Vec<String> {
        self.lock().dead_letters.iter().map(|(_, cause)| cause.clone()).collect()
    }

    /// The ids that were given back because they have expired.
    pub fn expired(&self) -> Vec<String> {
        self.lock().expired.clone()
    }

    /// The ids that were given back, and whether they were tried.
    pub fn returned(&self) -> Vec<(String, bool)> {
        self.lock().returned.clone()
    }

    /// The ids that wait in the queue.
    pub fn ready(&self) -> Vec<String> {
        self.lock().ready.iter().map(|message| message.id.clone()).collect()
    }

    /// Whether the message is still there, lent or not.
    pub fn holds(&self, id: &str) -> bool {
        let inner = self.lock();
        let lent = inner.session.iter().flat_map(|session| session.unsettled.values());
        lent.chain(&inner.ready).any(|message| message.id == id)
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

    /// The most bytes of padding that were lent at once.
    pub fn most_bytes(&self) -> usize {
        self.lock().most_bytes
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
            let receipt = Receipt(session.next_receipt);
            let arrival = match message.arrival(receipt, self.destination.is_some()) {
                Arrival::Delivery(mut delivery) => match session.hand.take(delivery.record.size()) {
                    Some(held) => {
                        delivery.held = Some(held);
                        Arrival::Delivery(delivery)
                    }
                    None => Arrival::Surplus(receipt),
                },
                arrival => arrival,
            };
            session.bytes += message.padding;
            self.most_bytes = self.most_bytes.max(session.bytes);
            session.unsettled.insert(session.next_receipt, message);
            deliveries.try_send(arrival).expect("the channel holds the prefetch");
        }
    }

    /// Ends the session; what it lent comes first again.
    fn take_back(&mut self) -> Option<Open> {
        let mut session = self.session.take()?;
        for (_, message) in std::mem::take(&mut session.unsettled).into_iter().rev() {
            self.take_again(message);
        }
        Some(session)
    }

    /// Puts a message where it was in the queue.
    fn take_again(&mut self, message: Message) {
        let returns = message.returns + u32::from(self.delivery_limit.is_some());
        if self.delivery_limit.is_some_and(|limit| returns > limit) {
            self.dropped.push(message.id);
            return;
        }
        let at = self.ready.partition_point(|other| other.number < message.number);
        self.ready.insert(at, Message { redelivered: true, returns, ..message });
    }

    fn session(&mut self, number: u64) -> Result<&mut Open, SourceError> {
        self.session.as_mut().filter(|session| session.number == number).ok_or_else(gone)
    }

    fn settle(&mut self, number: u64, receipts: &[Receipt], how: Disposition) -> Result<(), SourceError> {
        if let Some(error) = self.unheard.pop_front() {
            return Err(error);
        }
        for receipt in receipts {
            let session = self.session(number)?;
            let message = session.unsettled.remove(&receipt.0).expect("a receipt is settled once");
            session.bytes -= message.padding;
            match how {
                Disposition::Ack => self.acked.push(message.id),
                Disposition::Expire => self.expired.push(message.id),
                Disposition::Return { tried } => {
                    self.returned.push((message.id.clone(), tried));
                    self.take_again(message);
                }
            }
        }
        self.lend();
        Ok(())
    }

    fn dead_letter(&mut self, number: u64, receipt: Receipt, cause: &str) -> Result<DeadLettered, SourceError> {
        if let Some(error) = self.unheard.pop_front() {
            return Err(error);
        }
        if let Some(error) = self.late_dead_letters.pop_front() {
            return Ok(DeadLettered::NotYet { error });
        }
        if self.destroys_dead_letters {
            return Ok(DeadLettered::NoTarget { why: "it would be destroyed".into() });
        }
        let session = self.session(number)?;
        let message = session.unsettled.remove(&receipt.0).expect("a receipt is settled once");
        session.bytes -= message.padding;
        self.dead_letters.push((message.id, cause.into()));
        self.lend();
        Ok(DeadLettered::Taken)
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

    fn counts_losses(&self) -> bool {
        self.lock().counts_losses
    }

    async fn connect(&self, Terms { prefetch, alone, memory }: Terms) -> Result<Session, SourceError> {
        let mut inner = self.lock();
        if let Some(error) = inner.refusals.pop_front() {
            return Err(error);
        }
        inner.take_back();
        inner.sessions += 1;
        let number = inner.sessions;
        let (sender, deliveries) = mpsc::channel(65_535);
        let hand = Hand::new(memory);
        let (lost_sender, lost) = oneshot::channel();
        let (trouble_sender, trouble) = watch::channel(None);
        let (outdate, outdated) = oneshot::channel();
        inner.session = Some(Open {
            number,
            prefetch: prefetch as usize,
            alone,
            next_receipt: 0,
            hand: hand.clone(),
            unsettled: BTreeMap::new(),
            bytes: 0,
            deliveries: Some(sender),
            lost: lost_sender,
            trouble: trouble_sender,
            outdate: Some(outdate),
        });
        inner.lend();
        Ok(Session {
            deliveries,
            consumer: Arc::new(MemoryConsumer { queue: self.clone(), number }),
            hand,
            lost,
            trouble,
            outdated: Box::pin(async move {
                if outdated.await.is_err() {
                    std::future::pending::<()>().await; // the session ends otherwise
                }
            }),
            envelope: Envelope::new("[", "]"),
            prefetch,
            hold_limit: inner.hold_limit,
            delivery_limit: inner.delivery_limit,
            unique_ids: inner.is_modern,
            destination: inner.destination.clone(),
        })
    }
}

/// A destination for what is given up: publishes ids, unless it is told to fail.
#[derive(Default)]
pub struct MemoryDestination {
    letters: Mutex<Vec<(String, Letter)>>,
    refusals: Mutex<VecDeque<SourceError>>,
}

impl MemoryDestination {
    /// The next attempts to publish fail so.
    pub fn refuse(&self, errors: impl IntoIterator<Item = SourceError>) {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).extend(errors);
    }

    /// What was published: ids and the letters.
    pub fn letters(&self) -> Vec<(String, Letter)> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ids of what was published.
    pub fn ids(&self) -> Vec<String> {
        self.letters().into_iter().map(|(id, _)| id).collect()
    }
}

/// What is kept of a message.
struct KeptId(String);

impl Kept for KeptId {
    fn portable(&self) -> Portable {
        Portable { message_id: Some(self.0.clone()), ..Portable::default() }
    }
}

#[async_trait]
impl Destination for MemoryDestination {
    async fn publish(&self, letter: &Letter) -> Result<(), SourceError> {
        if let Some(error) = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
            return Err(error);
        }
        let id = letter.original.get::<KeptId>().expect("it is one of a memory queue").0.clone();
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).push((id, letter.clone()));
        Ok(())
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

    async fn dead_letter(&self, receipt: Receipt, cause: &str) -> Result<DeadLettered, SourceError> {
        self.queue.lock().dead_letter(self.number, receipt, cause)
    }

    async fn set_prefetch(&self, prefetch: u32) -> Result<(), SourceError> {
        let mut inner = self.queue.lock();
        inner.session(self.number)?.prefetch = prefetch as usize;
        inner.lend();
        Ok(())
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
