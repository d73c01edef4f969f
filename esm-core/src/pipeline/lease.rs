//! What one session lent, and what becomes of it: a batch from its first invocation until it is
//! settled.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Duration, Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{Finished, Parts, Task};
use crate::{
    batch::Batch,
    destination::{Destination, Letter},
    event::Envelope,
    failures::Failures,
    function::Slot,
    invoker::{Outcome, Reply},
    item_failures,
    mapping::{DeadLetter, Mapping, MaximumConcurrency},
    metrics::{DropReason, MappingMetrics},
    retry::{Attempts, Part, Step, backoff, is_spent, redelivery_delay},
    returns,
    source::{Consumer, DeadLettered, Delivery, Disposition, Receipt, SourceError, Unusable},
};

/// What the tasks of one session share, but for the settings, which may change in between.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) parts: Parts,
    pub(super) session_number: u64,
    pub(super) consumer: Arc<dyn Consumer>,
    /// Where messages go that are given up, if the mapping names a queue for them.
    pub(super) destination: Option<Arc<dyn Destination>>,
    pub(super) envelope: Envelope,
    pub(super) hold_limit: Option<Duration>,
    /// Where it is kept what messages have been through, if they can be known again.
    pub(super) failures: Option<Arc<Failures>>,
    /// How often the broker takes a message back before it drops it.
    pub(super) delivery_limit: Option<u32>,
    /// Cancelled when nothing more may be invoked.
    pub(super) closing: CancellationToken,
    /// Cancelled when nothing more may be invoked a second time, and the broker sends nothing more: what went back
    /// before would only come again.
    pub(super) retire: CancellationToken,
    /// Cancelled when the session has ended.
    pub(super) over: CancellationToken,
    /// Why the broker could not be told what became of a delivery, which it therefore lends for as long as
    /// the session lasts.
    pub(super) untold: Arc<OnceLock<SourceError>>,
    /// The function succeeded with something.
    pub(super) has_succeeded: Arc<AtomicBool>,
    /// Why the last message was parked.
    pub(super) parked_because: Arc<Mutex<String>>,
    /// Deliveries taken out of the channel and not yet settled, parked ones included. Those that no filter accepts
    /// do not count: they are settled without delay, whatever waits.
    pub(super) unsettled: Arc<AtomicUsize>,
    /// Of these, the ones that wait to be retried and hold no place among the batches in flight.
    pub(super) resting: watch::Sender<usize>,
}

/// A place among the batches in flight.
pub(super) struct Place {
    places: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// One that is taken if it is free, and waited for before the first invocation otherwise.
    pub(super) fn new(places: &Arc<Semaphore>) -> Self {
        Self { places: places.clone(), permit: places.clone().try_acquire_owned().ok() }
    }

    /// Waits for a place, before any batch that has not begun.
    async fn take(&mut self) {
        if self.permit.is_none() {
            self.permit = self.places.clone().acquire_owned().await.ok();
        }
    }

    fn leave(&mut self) {
        self.permit = None;
    }
}

/// Counts a batch for as long as it is worked on, however that ends.
struct InFlight<'a>(&'a MappingMetrics);

impl<'a> InFlight<'a> {
    fn begin(metrics: &'a MappingMetrics) -> Self {
        metrics.in_flight_batches.inc();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight_batches.dec();
    }
}

/// Messages that wait to be retried and hold no place meanwhile.
struct Resting<'a> {
    lease: &'a Lease,
    records: usize,
}

impl<'a> Resting<'a> {
    fn begin(lease: &'a Lease, records: usize) -> Self {
        lease.resting.send_modify(|resting| *resting += records);
        Self { lease, records }
    }
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.lease.resting.send_modify(|resting| *resting -= self.records);
    }
}

/// A part of a batch that is not decided yet.
struct Work {
    part: Batch,
    attempts: Attempts,
    /// Not before this is it invoked again.
    due: Option<Instant>,
    /// The function failed with the part itself: no other need wait for it.
    is_own_failure: bool,
    /// The function was invoked with it.
    tried: bool,
}

impl Work {
    fn new(part: Batch) -> Self {
        let tried = part.most_failed() > 0;
        Self { part, attempts: Attempts::default(), due: None, is_own_failure: false, tried }
    }

    fn retry_after(&mut self, delay: Duration, is_own_failure: bool) {
        self.due = Instant::now().checked_add(delay);
        self.is_own_failure = is_own_failure;
    }

    fn halve(self) -> [Self; 2] {
        let (first, second) = self.part.halve();
        [first, second].map(|part| Self { part, attempts: Attempts::default(), ..self })
    }
}

/// What is left of a batch.
struct Remaining {
    /// The next one is the last.
    parts: Vec<Work>,
    /// What the function failed with, told from its neighbours: these need not wait for it.
    failed: Vec<Work>,
}

impl Remaining {
    fn new(batch: Batch) -> Self {
        Self { parts: vec![Work::new(batch)], failed: Vec::new() }
    }

    /// The next part to work on: of those that failed, the one that is due first.
    fn next(&mut self) -> Option<Work> {
        self.parts.pop().or_else(|| {
            let first = (0..self.failed.len()).min_by_key(|index| self.failed[*index].due)?;
            Some(self.failed.remove(first))
        })
    }

    fn put_back(&mut self, work: Work, isolates: bool) {
        if work.part.is_empty() {
            return;
        }
        let failed_itself = work.is_own_failure && work.due.is_some();
        if isolates && failed_itself { self.failed.push(work) } else { self.parts.push(work) }
    }

    fn add_halves(&mut self, work: Work) {
        let [first, second] = work.halve();
        self.parts.extend([second, first]);
    }

    /// The number of messages.
    fn remaining(&self) -> usize {
        self.parts.iter().chain(&self.failed).map(|work| work.part.len()).sum()
    }

    fn drain(&mut self) -> impl Iterator<Item = Work> {
        self.failed.drain(..).chain(self.parts.drain(..).rev())
    }
}

/// What happens to the part that is being worked on.
enum Next {
    /// It is settled, all but what is left of it.
    GoOn,
    /// Its halves are each a part of their own.
    Halve,
    /// These must not be invoked again; what is left of the part goes on.
    GiveUp(Vec<(Delivery, Unusable)>),
    /// It went back to the broker.
    Returned,
    /// The session ended first, and its deliveries went back with it.
    Over,
}

/// What became of a message that was given up.
enum GivenUp {
    Settled,
    Parked,
    /// It went back to the broker.
    Returned,
    /// The broker could not be told: it comes again.
    Untold,
}

impl Lease {
    pub(super) async fn process(self: Arc<Self>, batch: Batch, mut place: Place) -> Finished {
        let records = batch.len();
        let _in_flight = InFlight::begin(&self.parts.metrics);
        self.parts.metrics.batch_closed(batch.closed_by, records, self.envelope.event_size(batch.bytes()));
        let (mut left, mut parked) = (records, 0);
        let mut parts = Remaining::new(batch);
        let mut is_first_invocation = true;
        while let Some(mut work) = parts.next() {
            let others = parts.remaining();
            match self.bring_on(&mut work, others, &mut place, &mut is_first_invocation).await {
                Next::GoOn => {}
                Next::Halve => {
                    parts.add_halves(work);
                    continue;
                }
                Next::GiveUp(messages) => match self.give_up_all(messages).await {
                    Some(further) => parked += further,
                    None => {
                        self.remember(work.part.deliveries());
                        parts.drain().for_each(|work| self.remember(work.part.deliveries()));
                        break;
                    }
                },
                Next::Returned => {
                    // What is behind it must not overtake it.
                    for work in parts.drain() {
                        self.give_back(&work.part, work.tried).await;
                    }
                    break;
                }
                Next::Over => {
                    parts.drain().for_each(|work| self.remember(work.part.deliveries()));
                    break;
                }
            }
            parts.put_back(work, self.parts.mapping.redelivery.isolates());
            let undecided = parts.remaining() + parked;
            self.settled(left - undecided);
            left = undecided;
        }
        self.settled(left - parked);
        Finished { session_number: self.session_number, task: Task::Batch, parked }
    }

    /// Gives these up; returns how many are parked by that, or `None` if they come again because the broker could not be
    /// told.
    async fn give_up_all(&self, messages: Vec<(Delivery, Unusable)>) -> Option<usize> {
        let mut parked = 0;
        let mut is_untold = false;
        for (delivery, unusable) in messages {
            let given_up = if is_untold { GivenUp::Untold } else { self.give_up(&unusable, delivery.failed).await };
            match given_up {
                GivenUp::Settled => self.forget(&[delivery]),
                GivenUp::Parked => {
                    parked += 1;
                    self.remember(&[delivery]); // parked for as long as the session lasts
                }
                GivenUp::Returned => self.remember(&[delivery]),
                GivenUp::Untold => {
                    self.remember(&[delivery]);
                    is_untold = true;
                }
            }
        }
        (!is_untold).then_some(parked)
    }

    /// Likewise, of one that is in no batch.
    pub(super) async fn give_up_alone(self: Arc<Self>, unusable: Unusable, attempts: u32) -> Finished {
        let parked = usize::from(matches!(self.give_up(&unusable, attempts).await, GivenUp::Parked));
        self.settled(1 - parked);
        Finished { session_number: self.session_number, task: Task::GivingUp, parked }
    }

    pub(super) async fn reject(self: Arc<Self>, receipts: Vec<Receipt>) -> Finished {
        match self.consumer.settle(&receipts, Disposition::Ack).await {
            Ok(()) => self.parts.metrics.filtered_out.inc_by(receipts.len() as u64),
            Err(error) => {
                warn!(%error, records = receipts.len(), "not wanted, but not acknowledged: these messages come again");
                self.could_not_tell(error);
            }
        }
        Finished { session_number: self.session_number, task: Task::Rejection, parked: 0 }
    }

    /// Brings a part on by one invocation, after the delay that it has to wait out.
    /// Of its batch so many `others` are left.
    async fn bring_on(
        &self,
        work: &mut Work,
        others: usize,
        place: &mut Place,
        is_first_invocation: &mut bool,
    ) -> Next {
        let Parts { mapping, function, metrics, .. } = &self.parts;
        if let Some(next) = self.wait(work, others, place).await {
            return next;
        }
        let admitted = async {
            place.take().await;
            function.admit(mapping.uuid, metrics).await
        };
        let slot = tokio::select! {
            biased;
            () = self.over.cancelled() => return self.leave(&work.part),
            () = self.closing.cancelled() => return self.give_back_at_the_end(&work.part, work.tried).await,
            () = self.held_too_long(&work.part) => return self.give_back_in_time(&work.part, work.tried).await,
            slot = admitted => slot,
        };
        self.expire(&mut work.part).await;
        if work.part.is_empty() {
            return Next::GoOn;
        }
        if let Some(age) = mapping.redelivery.maximum_age {
            let too_old = work.part.take_older(age, Instant::now());
            if !too_old.is_empty() {
                return give_up_each(too_old, DropReason::Age, |delivery| {
                    let failed = delivery.failed;
                    format!("it is older than {} s; the function has failed with it {failed} times", age.as_secs())
                });
            }
        }
        if std::mem::take(is_first_invocation) {
            self.observe_age(&work.part);
        }
        let reply = self.invoke(slot, &work.part).await;
        if reply.outcome.ran() {
            work.tried = true;
            metrics.invoked.inc_by(work.part.len() as u64);
        }
        match self.judge(reply, &work.part) {
            (outcome, None) => self.decide(work, outcome).await,
            (_, Some(failed)) => self.settle_each(work, &failed).await,
        }
    }

    /// The outcome, and which of several records the function failed with if it said so.
    fn judge(&self, reply: Reply, part: &Batch) -> (Outcome, Option<Vec<bool>>) {
        if reply.outcome != Outcome::Success || !self.parts.mapping.redelivery.reports_item_failures {
            return (reply.outcome, None);
        }
        match item_failures::failed(&reply.body, part.deliveries()) {
            Ok(failed) if failed.contains(&true) => (Outcome::Success, Some(failed)),
            Ok(_) => (Outcome::Success, None),
            Err(words) => {
                let error_type = "BatchItemFailuresNotValid".into();
                (Outcome::FunctionError { error_type, message: words }, None)
            }
        }
    }

    /// Does what an outcome means for all of a part.
    async fn decide(&self, work: &mut Work, outcome: Outcome) -> Next {
        let Parts { mapping, metrics, .. } = &self.parts;
        let part = &mut work.part;
        if outcome != Outcome::Success {
            metrics.failed_invoke.inc_by(part.len() as u64);
        }
        let before = Part { records: part.len(), failed: part.most_failed() };
        let step = work.attempts.decide(&outcome, before, &mapping.redelivery, fastrand::f64());
        let has_failed = matches!(outcome, Outcome::FunctionError { .. });
        match step {
            Step::Retry(_) if has_failed => part.note_failure(),
            Step::Halve if has_failed => part.mark_redelivered(),
            _ => {}
        }
        if self.over.is_cancelled() {
            debug!(records = part.len(), "an invocation outlived its session and settles nothing");
            return self.leave(part);
        }
        match step {
            Step::Ack => match self.ack(part).await {
                Ok(()) => {
                    part.take_deliveries();
                    Next::GoOn
                }
                Err(error) => self.not_acknowledged(error, part),
            },
            Step::Halve => {
                self.report(&outcome, part.len(), Duration::ZERO);
                Next::Halve
            }
            Step::GiveUp(reason) => {
                if has_failed {
                    part.note_failure();
                }
                give_up_each(part.take_deliveries(), reason, |delivery| cause(delivery, &outcome))
            }
            Step::Retry(delay) => {
                self.report(&outcome, part.len(), delay);
                work.retry_after(delay, has_failed);
                Next::GoOn
            }
        }
    }

    /// Settles the records that the function did not name, and keeps those that it failed with.
    async fn settle_each(&self, work: &mut Work, is_failed: &[bool]) -> Next {
        let Parts { mapping, metrics, function, status, .. } = &self.parts;
        let policy = &mapping.redelivery;
        let records = work.part.len();
        let mut failed = work.part.take_failed(is_failed);
        metrics.failed_invoke.inc_by(failed.len() as u64);
        failed.note_failure();
        let spent = failed.take_spent(|failures| is_spent(failures - 1, policy));
        let mut succeeded = std::mem::replace(&mut work.part, failed);
        if self.over.is_cancelled() {
            debug!(records, "an invocation outlived its session and settles nothing");
            self.remember(&spent);
            return self.leave(&work.part);
        }
        if !succeeded.is_empty()
            && let Err(error) = self.ack(&mut succeeded).await
        {
            self.remember(&spent);
            self.remember(work.part.deliveries());
            return self.not_acknowledged(error, &succeeded);
        }
        work.attempts = Attempts::default();
        let delay = redelivery_delay(policy.delay, work.part.most_failed(), fastrand::f64());
        work.retry_after(delay, true);
        let problem = format!("function `{}` failed with messages of a batch and named them", function.name);
        let failures = work.part.len() + spent.len();
        if status.problem(&problem) {
            warn!(records, failures, ?delay, problem, "the function will be invoked with these again");
        } else {
            debug!(records, failures, ?delay, problem, "the function will be invoked with these again");
        }
        if spent.is_empty() {
            return Next::GoOn;
        }
        give_up_each(spent, DropReason::Attempts, |delivery| {
            format!("the function failed with it {} times, at last by naming it", delivery.failed)
        })
    }

    async fn invoke(&self, slot: Slot<'_>, part: &Batch) -> Reply {
        let Parts { function, metrics, .. } = &self.parts;
        let mut invocation = pin!(function.invoke(slot, part.event(&self.envelope), metrics));
        tokio::select! {
            biased;
            reply = &mut invocation => return reply,
            // The messages may come again before this invocation ends.
            () = self.over.cancelled() => self.remember(part.deliveries()),
        }
        invocation.await
    }

    /// Waits out the delay of a part, unless it has to go back before its end.
    async fn wait(&self, work: &mut Work, others: usize, place: &mut Place) -> Option<Next> {
        let due = work.due.take().filter(|due| *due > Instant::now())?;
        let (part, tried) = (&work.part, work.tried);
        let Mapping { redelivery, maximum_concurrency, .. } = &*self.parts.mapping;
        // With one batch at a time, what is behind must not overtake it.
        let rests = work.is_own_failure && redelivery.isolates() && *maximum_concurrency != MaximumConcurrency::ONE;
        let _resting = rests.then(|| {
            place.leave();
            Resting::begin(self, part.len() + others)
        });
        tokio::select! {
            biased;
            () = self.over.cancelled() => Some(self.leave(part)),
            () = self.nothing_is_retried(part) => Some(self.give_back(part, tried).await),
            () = self.held_too_long(part) => Some(self.give_back_in_time(part, tried).await),
            () = sleep_until(due) => None,
        }
    }

    /// Waits until the part must not wait to be invoked again: its backoff is cut short by the end of the session, but
    /// not while the broker would soon drop what is given back.
    async fn nothing_is_retried(&self, part: &Batch) {
        self.retire.cancelled().await;
        if self.is_endangered(part) {
            self.closing.cancelled().await;
        }
    }

    /// Whether the broker would soon drop what is given back.
    fn is_endangered(&self, part: &Batch) -> bool {
        returns::is_endangered(part.most_returned(), self.delivery_limit)
    }

    /// Takes out what has expired in hand, for the broker to expire it.
    async fn expire(&self, part: &mut Batch) {
        let expired = part.take_expired(Instant::now());
        if expired.is_empty() {
            return;
        }
        self.parts.metrics.dropped(DropReason::Expired, expired.len());
        for delivery in &expired {
            let (message_id, size) = (delivery.record.message_id(), delivery.record.size());
            let reason = DropReason::Expired.as_str();
            warn!(message_id, size, reason, "the message has expired and goes back, for the broker to expire it");
        }
        let receipts: Vec<_> = expired.iter().map(|delivery| delivery.receipt).collect();
        match self.consumer.settle(&receipts, Disposition::Expire).await {
            Ok(()) => self.forget(&expired),
            Err(error) => {
                warn!(%error, "could not hand expired messages back; the broker takes them back itself");
                self.could_not_tell(error);
            }
        }
    }

    /// Waits until an invocation could not end before the broker takes offence at how long the
    /// batch is held. A batch is kept for a while at least, however long a function may run and a
    /// window may be, so that handing it back never becomes a loop in which nothing is invoked.
    async fn held_too_long(&self, part: &Batch) {
        let (Some(limit), Some(received_at), false) = (self.hold_limit, part.received_at(), self.is_endangered(part))
        else {
            return std::future::pending().await;
        };
        let last_start = limit.saturating_sub(self.parts.function.timeout);
        let least = self.parts.mapping.window.duration() + Duration::from_secs(1);
        sleep_until(received_at + last_start.max(limit / 2).max(least)).await;
    }

    async fn give_back_in_time(&self, part: &Batch, tried: bool) -> Next {
        warn!(records = part.len(), "the batch was held for long and goes back to the broker, to be delivered again");
        self.give_back(part, tried).await
    }

    /// Gives the part back as soon as the broker sends nothing more.
    async fn give_back_at_the_end(&self, part: &Batch, tried: bool) -> Next {
        tokio::select! {
            biased;
            () = self.over.cancelled() => self.leave(part),
            () = self.retire.cancelled() => self.give_back(part, tried).await,
        }
    }

    async fn give_back(&self, part: &Batch, tried: bool) -> Next {
        self.remember(part.deliveries());
        self.hand_back(&part.receipts(), tried).await;
        Next::Returned
    }

    fn leave(&self, part: &Batch) -> Next {
        self.remember(part.deliveries());
        Next::Over
    }

    /// They come again, and what they have been through counts then.
    fn remember(&self, deliveries: &[Delivery]) {
        if let Some(failures) = &self.failures {
            failures.remember(deliveries);
        }
    }

    /// They never come again.
    fn forget(&self, deliveries: &[Delivery]) {
        if let Some(failures) = &self.failures {
            failures.forget(deliveries);
        }
    }

    fn could_not_tell(&self, error: SourceError) {
        // The first cause says most.
        let _ = self.untold.set(error);
    }

    /// Acknowledges what the function has processed.
    async fn ack(&self, part: &mut Batch) -> Result<(), SourceError> {
        part.release_memory(); // before the broker lends more
        self.consumer.settle(&part.receipts(), Disposition::Ack).await?;
        if part.most_failed() > 0 {
            self.forget(part.deliveries());
        }
        self.parts.metrics.deleted.inc_by(part.len() as u64);
        self.parts.status.processed();
        self.has_succeeded.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn not_acknowledged(&self, error: SourceError, part: &Batch) -> Next {
        warn!(%error, records = part.len(), "processed, but not acknowledged: these messages come again");
        self.could_not_tell(error);
        Next::Over
    }

    /// So many deliveries are no longer in hand.
    fn settled(&self, deliveries: usize) {
        self.unsettled.fetch_sub(deliveries, Ordering::Relaxed);
    }

    pub(super) async fn hand_back(&self, receipts: &[Receipt], tried: bool) {
        if let Err(error) = self.consumer.settle(receipts, Disposition::Return { tried }).await {
            warn!(%error, "could not hand messages back; the broker takes them back itself");
            self.could_not_tell(error);
        }
    }

    /// Takes a message that cannot be processed out of the way, and never out of sight.
    async fn give_up(&self, unusable: &Unusable, attempts: u32) -> GivenUp {
        let Parts { mapping, metrics, .. } = &self.parts;
        let Unusable { receipt, message_id, size, reason, cause, original, held: _ } = unusable;
        if let (Some(destination), Some(original)) = (&self.destination, original) {
            let letter = Letter::new(original.clone(), *reason, cause, attempts, mapping);
            return self.publish(&**destination, &letter, unusable).await;
        }
        let (queue, label) = (&mapping.queue, reason.as_str());
        let dead_lettered = match mapping.dead_letter {
            DeadLetter::Park => Ok(DeadLettered::NoTarget {
                why: "no dead-letter target is known; the tag esm:dead-letter = broker says that the queue has one; \
                      a quorum queue with a delivery limit drops it in the end"
                    .into(),
            }),
            DeadLetter::Broker | DeadLetter::Destination => {
                let mut failures = 0;
                loop {
                    let dead_lettered = self.consumer.dead_letter(*receipt, cause).await;
                    let Ok(DeadLettered::NotYet { error }) = &dead_lettered else { break dead_lettered };
                    failures += 1;
                    if let Some(ended) = self.keep_for_now(unusable, failures, error).await {
                        return ended;
                    }
                }
            }
        };
        match dead_lettered {
            Ok(DeadLettered::Taken) => {
                metrics.dropped(*reason, 1);
                error!(
                    queue,
                    message_id,
                    size,
                    reason = label,
                    cause,
                    "this message cannot be processed and was given to the queue's dead-letter target"
                );
                GivenUp::Settled
            }
            Ok(DeadLettered::NoTarget { why }) => {
                error!(
                    queue,
                    message_id,
                    size,
                    reason = label,
                    cause,
                    why,
                    "this message cannot be processed; it stays unacknowledged, since it would be destroyed otherwise"
                );
                *self.parked_because.lock().unwrap_or_else(PoisonError::into_inner) = why;
                GivenUp::Parked
            }
            Ok(DeadLettered::NotYet { error }) | Err(error) => {
                warn!(queue, message_id, cause, %error, "could not dead-letter a message; it comes again");
                self.could_not_tell(error);
                GivenUp::Untold
            }
        }
    }

    /// Publishes a message that is given up, for as long as that takes, and only then acknowledges the original.
    async fn publish(&self, destination: &dyn Destination, letter: &Letter, unusable: &Unusable) -> GivenUp {
        let Parts { mapping, metrics, .. } = &self.parts;
        let Unusable { receipt, message_id, size, reason, cause, .. } = unusable;
        let (queue, label) = (&mapping.queue, reason.as_str());
        let mut failures = 0;
        while let Err(error) = destination.publish(letter).await {
            failures += 1;
            if let Some(ended) = self.keep_for_now(unusable, failures, &error).await {
                return ended;
            }
        }
        if let Err(error) = self.consumer.settle(&[*receipt], Disposition::Ack).await {
            warn!(queue, message_id, %error, "published to its destination, but not acknowledged: it comes again");
            self.could_not_tell(error);
            return GivenUp::Untold;
        }
        metrics.on_failure_delivered.inc();
        metrics.dropped(*reason, 1);
        error!(queue, message_id, size, reason = label, cause, "given up and published to its destination");
        GivenUp::Settled
    }

    /// Waits before a message that is given up is published again, unless it cannot be kept for so long.
    async fn keep_for_now(&self, unusable: &Unusable, failures: u32, error: &SourceError) -> Option<GivenUp> {
        let Parts { mapping, status, .. } = &self.parts;
        let Unusable { receipt, message_id, .. } = unusable;
        let (queue, delay) = (&mapping.queue, backoff(failures, fastrand::f64()));
        let problem = format!("a message that is given up cannot be published to its destination: {error}");
        if status.problem(&problem) {
            error!(queue, message_id, ?delay, problem, "the message is kept until it can be published");
        }
        tokio::select! {
            biased;
            () = self.over.cancelled() => Some(GivenUp::Untold),
            () = self.retire.cancelled() => {
                self.hand_back(&[*receipt], true).await;
                Some(GivenUp::Returned)
            }
            () = sleep(delay) => None,
        }
    }

    fn observe_age(&self, part: &Batch) {
        let now = std::time::SystemTime::now();
        for sent_at in part.deliveries().iter().filter_map(|delivery| delivery.sent_at) {
            let age = now.duration_since(sent_at).unwrap_or_default();
            self.parts.metrics.message_age.observe(age.as_secs_f64());
        }
    }

    /// Says what is wrong: once for people to see, and again only to who looks closely.
    fn report(&self, outcome: &Outcome, records: usize, delay: Duration) {
        let Parts { function, status, .. } = &self.parts;
        let name = &function.name;
        let problem = match outcome {
            Outcome::Success | Outcome::TooLarge { .. } => return,
            Outcome::NotUsable { reason } => {
                let problem = format!("function `{name}` cannot be used: {reason}");
                if status.function_not_usable(&problem) {
                    error!(records, problem, "the batch is held, and the function tried once a minute");
                }
                return;
            }
            Outcome::FunctionError { error_type, message } => {
                format!("Function call failed: function `{name}` returned {error_type}: {message}")
            }
            Outcome::Throttled { reason, .. } => format!("function `{name}` is throttled: {reason}"),
            Outcome::Unavailable { reason, .. } => format!("function `{name}` cannot be reached: {reason}"),
        };
        if status.problem(&problem) {
            warn!(records, ?delay, problem, "the batch will be invoked again");
        } else {
            debug!(records, ?delay, problem, "the batch will be invoked again");
        }
    }
}

fn give_up_each(deliveries: Vec<Delivery>, reason: DropReason, cause: impl Fn(&Delivery) -> String) -> Next {
    let given_up = |mut delivery: Delivery| {
        let unusable = Unusable { original: delivery.original.take(), ..unusable(&delivery, reason, cause(&delivery)) };
        (delivery, unusable)
    };
    Next::GiveUp(deliveries.into_iter().map(given_up).collect())
}

/// Why a record that stood alone is given up, by what the function said to it last.
fn cause(delivery: &Delivery, outcome: &Outcome) -> String {
    match outcome {
        Outcome::FunctionError { error_type, message } => {
            let failed = delivery.failed;
            format!("the function failed with it {failed} times, at last with {error_type}: {message}")
        }
        Outcome::TooLarge { reason } => format!("the function's side finds it too large: {reason}"),
        Outcome::Success | Outcome::Throttled { .. } | Outcome::Unavailable { .. } | Outcome::NotUsable { .. } => {
            String::new()
        } // never a reason to give a message up
    }
}

pub(super) fn unusable(delivery: &Delivery, reason: DropReason, cause: String) -> Unusable {
    let message_id = delivery.record.message_id().map(str::to_owned);
    Unusable {
        receipt: delivery.receipt,
        message_id,
        size: delivery.record.size(),
        reason,
        cause,
        original: None,
        held: None,
    }
}
