//! Settles what one consumer was lent, and keeps the broker lending.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use esm_core::source::{Consumer, DeadLettered, Disposition, Receipt, SourceError};
use tokio::{sync::Notify, time::sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::{
    client::{self, AckKind, Acknowledgement, Answer, ClientError, NONE_DELIVERED, UNKNOWN_DELIVERED},
    connections::Connections,
    dead_letters,
    errors::Place,
    ledger::{Fate, Ledger, Run},
    openwire::{Message, MessageId},
    settings::Settings,
};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long the broker may take to write an acknowledgement down. One that takes longer is in trouble, and that
/// should be seen.
const SETTLE: Duration = Duration::from_secs(120);

pub(crate) struct ActiveMqConsumer {
    pub(crate) consumer: Arc<client::Consumer>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) settings: Settings,
    pub(crate) place: Place,
    pub(crate) lending: Arc<Mutex<Lending>>,
    /// Set when the session ends in good order, so that it is known what was tried.
    pub(crate) cancelled: AtomicBool,
    pub(crate) _waking: AbortOnDropHandle<()>,
}

impl ActiveMqConsumer {
    /// Sends what `decide` makes of the ledger. Acknowledgements must leave in the order in which they were decided,
    /// since each range counts on those before it.
    fn send(&self, decide: impl FnOnce(&mut Ledger) -> Vec<Acknowledgement>) -> Result<Option<Answer>, SourceError> {
        let mut lending = lock(&self.lending);
        if let Some(cause) = &lending.lost {
            return Err(cause.clone());
        }
        let mut acknowledgements = decide(&mut lending.ledger);
        let Some(last) = acknowledgements.pop() else { return Ok(None) };
        lending.acknowledged();
        Ok(Some(self.consumer.acknowledge_all(acknowledgements, last)))
    }

    async fn answered(&self, answer: Option<Answer>) -> Result<(), SourceError> {
        match answer {
            Some(answer) => answer.within(SETTLE).await.map_err(|error| self.place.explain(&error)),
            None => Ok(()),
        }
    }

    async fn ack(&self, receipts: &[Receipt]) -> Result<(), SourceError> {
        let runs = |ledger: &mut Ledger| ledger.succeed(receipts).into_iter().map(standard).collect();
        self.answered(self.send(runs)?).await
    }

    async fn expire(&self, receipts: &[Receipt]) -> Result<(), SourceError> {
        let singly = |ledger: &mut Ledger| {
            receipts
                .iter()
                .filter_map(|receipt| ledger.give_up(*receipt))
                .map(|id| single(AckKind::Expired, id))
                .collect()
        };
        self.answered(self.send(singly)?).await
    }

    async fn poison(&self, receipt: Receipt, cause: &str) -> Result<(), SourceError> {
        let poison = AckKind::Poison(cause.to_owned());
        let one = |ledger: &mut Ledger| ledger.give_up(receipt).map(|id| single(poison, id)).into_iter().collect();
        self.answered(self.send(one)?).await
    }

    /// Publishes a dead letter ourselves, and acknowledges the original only when the broker has it.
    async fn replace(&self, receipt: Receipt, original: &Message, cause: &str) -> Result<DeadLettered, SourceError> {
        let target = &self.settings.dead_letter_queue;
        let letter = match dead_letters::letter(original, target, cause, []) {
            Ok(letter) => letter,
            Err(error) => {
                return Ok(DeadLettered::NoTarget { why: format!("no dead letter can be made of it: {error}") });
            }
        };
        let client_id = format!("{}-{:08x}", self.settings.client_id, fastrand::u32(..));
        let credentials = &self.settings.credentials;
        let published = match self.connections.login(credentials.as_ref()).await {
            Ok(login) => {
                let published = self.connections.publish(&login, &client_id, letter).await;
                if let Err(SourceError::Authentication { .. }) = &published {
                    credentials.refused(&login);
                }
                published
            }
            Err(error) => Err(error),
        };
        match published {
            Ok(()) => self.ack(&[receipt]).await.map(|()| DeadLettered::Taken),
            // It passes; so does a login that was changed.
            Err(error @ (SourceError::Authentication { .. } | SourceError::NoLogin { .. })) => {
                Ok(DeadLettered::NotYet { error })
            }
            Err(error) if error.code().is_none() => Ok(DeadLettered::NotYet { error }),
            Err(error) => {
                let why = format!("the broker would drop it, and publishing it to `{target}` failed: {error}");
                Ok(DeadLettered::NoTarget { why })
            }
        }
    }
}

fn standard(run: Run) -> Acknowledgement {
    Acknowledgement { kind: AckKind::Standard, first: run.first, last: run.last, count: run.count }
}

fn single(kind: AckKind, id: MessageId) -> Acknowledgement {
    Acknowledgement { kind, first: id.clone(), last: id, count: 1 }
}

#[async_trait]
impl Consumer for ActiveMqConsumer {
    async fn settle(&self, receipts: &[Receipt], how: Disposition) -> Result<(), SourceError> {
        match how {
            Disposition::Ack => self.ack(receipts).await,
            Disposition::Expire => self.expire(receipts).await,
            // They go back when the consumer is removed; the broker has no word for a message before.
            Disposition::Return { tried } => {
                if tried {
                    lock(&self.lending).ledger.note_tried(receipts);
                }
                Ok(())
            }
        }
    }

    async fn dead_letter(&self, receipt: Receipt, cause: &str) -> Result<DeadLettered, SourceError> {
        let cause = &cause[..cause.floor_char_boundary(dead_letters::LONGEST_CAUSE)];
        let fate = lock(&self.lending).ledger.fate(receipt).cloned();
        let dead_lettered = match fate {
            Some(Fate::Dropped(original)) => self.replace(receipt, &original, cause).await?,
            Some(Fate::Doomed(why)) => DeadLettered::NoTarget { why: why.into() },
            Some(Fate::Kept) | None => self.poison(receipt, cause).await.map(|()| DeadLettered::Taken)?,
        };
        if let DeadLettered::NoTarget { .. } = dead_lettered {
            // It comes again when the session has ended, and not for the first time.
            lock(&self.lending).ledger.note_tried(&[receipt]);
        }
        Ok(dead_lettered)
    }

    async fn set_prefetch(&self, prefetch: u32) -> Result<(), SourceError> {
        let prefetch = on_the_wire(prefetch);
        lock(&self.lending).prefetch_set(prefetch);
        self.consumer.set_prefetch(prefetch).await.map_err(|error| self.place.explain(&error))
    }

    async fn cancel(&self) -> Result<(), SourceError> {
        let stopped = self.consumer.set_prefetch(0).await.map_err(|error| self.place.explain(&error));
        self.cancelled.store(true, Ordering::Relaxed);
        // What was still on its way is dropped, untried, and goes back with the rest.
        self.consumer.unregister();
        stopped
    }

    async fn close(&self) {
        if !self.consumer.transport().is_open() {
            return;
        }
        // Once the consumer is removed the broker says yes to acknowledgements and ignores them.
        lock(&self.lending).lose(self.place.explain(&ClientError::Closed));
        let last_delivered = if self.cancelled.load(Ordering::Relaxed) {
            lock(&self.lending).ledger.newest_tried().unwrap_or(NONE_DELIVERED)
        } else {
            UNKNOWN_DELIVERED
        };
        if let Err(error) = self.consumer.close(last_delivered, GOODBYE).await {
            debug!(%error, "the consumer was not closed in good order");
        }
        self.connections.release(self.consumer.transport(), &self.place, GOODBYE).await;
    }
}

/// The prefetch as the broker is to read it: 0 would mean to pull each message, and exactly 1000 is taken for a
/// client's default and replaced by the broker's own setting.
pub(crate) fn on_the_wire(prefetch: u32) -> i32 {
    match i32::try_from(prefetch).unwrap_or(i32::MAX) {
        1_000 => 1_001,
        prefetch => prefetch.max(1),
    }
}

/// What is lent, and whether the broker may have stopped lending without need.
pub(crate) struct Lending {
    pub(crate) ledger: Ledger,
    prefetch: usize,
    /// Messages since the broker's queue last had a reason to look for more.
    since_woken: u32,
    /// All messages so far.
    arrived: u64,
    waker: Arc<Notify>,
    /// Set when the consumer has ended by itself. The broker would take acknowledgements and ignore them.
    lost: Option<SourceError>,
}

/// A queue that has a backlog finds 200 messages at a time (`maxPageSize`), and looks for more when something
/// is said about one of them, or every 30 s. So it is told again when half of these have come.
const WAKE_AFTER: u32 = 100;
const FIRST_SILENCE: Duration = Duration::from_millis(100);
const LONGEST_SILENCE: Duration = Duration::from_secs(1);

impl Lending {
    pub(crate) fn new(prefetch: i32, waker: Arc<Notify>) -> Self {
        let mut lending =
            Self { ledger: Ledger::default(), prefetch: 0, since_woken: 0, arrived: 0, waker, lost: None };
        lending.prefetch_set(prefetch);
        lending
    }

    pub(crate) fn arrived(&mut self, message_id: &MessageId, fate: Fate) -> Receipt {
        let receipt = self.ledger.lend(message_id, fate);
        self.arrived += 1;
        self.since_woken += 1;
        if self.since_woken == WAKE_AFTER || self.ledger.unsettled() == 1 {
            self.waker.notify_one();
        }
        receipt
    }

    pub(crate) fn prefetch_set(&mut self, prefetch: i32) {
        self.prefetch = usize::try_from(prefetch).unwrap_or(0);
        self.waker.notify_one();
    }

    pub(crate) fn lose(&mut self, cause: SourceError) {
        self.lost.get_or_insert(cause);
    }

    fn acknowledged(&mut self) {
        self.since_woken = 0;
        self.waker.notify_one();
    }

    /// Whether the broker could lend more.
    fn has_room(&self) -> bool {
        self.lost.is_none() && (1..self.prefetch).contains(&self.ledger.unsettled())
    }

    /// What wakes the queue: changes nothing.
    fn wake(&mut self) -> Option<Acknowledgement> {
        self.since_woken = 0;
        let newest = self.ledger.newest()?.clone();
        Some(Acknowledgement { count: 0, ..single(AckKind::Delivered, newest) })
    }
}

/// Keeps the broker lending for as long as there is room.
pub(crate) async fn keep_waking(consumer: Arc<client::Consumer>, lending: Arc<Mutex<Lending>>, waker: Arc<Notify>) {
    let mut silence = FIRST_SILENCE;
    loop {
        let (has_room, arrived) = {
            let lending = lock(&lending);
            (lending.has_room(), lending.arrived)
        };
        if !has_room {
            waker.notified().await;
            silence = FIRST_SILENCE;
            continue;
        }
        tokio::select! {
            () = waker.notified() => silence = FIRST_SILENCE,
            () = sleep(silence) => {}
        }
        let mut lending = lock(&lending);
        let is_silent = lending.arrived == arrived;
        if !lending.has_room() || !(is_silent || lending.since_woken >= WAKE_AFTER) {
            silence = FIRST_SILENCE;
            continue;
        }
        if is_silent {
            silence = (silence * 2).min(LONGEST_SILENCE);
        }
        if let Some(wake) = lending.wake() {
            consumer.acknowledge(wake);
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefetch_is_never_one_that_the_broker_reads_otherwise() {
        let check = |prefetch, expected| assert_eq!(on_the_wire(prefetch), expected);
        check(0, 1);
        check(1, 1);
        check(999, 999);
        check(1_000, 1_001);
        check(32_767, 32_767);
    }
}
