//! What one session lent, and what becomes of it: a batch from its first invocation until it is
//! settled.

use std::{
    pin::pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{Finished, Parts};
use crate::{
    batch::Batch,
    event::Envelope,
    failures::Failures,
    function::Slot,
    invoker::Outcome,
    mapping::DeadLetter,
    metrics::DropReason,
    retry::{Attempts, Part, Step},
    source::{Consumer, DeadLettered, Delivery, Disposition, Receipt, SourceError, Unusable},
};

/// What the tasks of one session share, but for the settings, which may change in between.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) parts: Parts,
    pub(super) session_number: u64,
    pub(super) consumer: Arc<dyn Consumer>,
    pub(super) envelope: Envelope,
    pub(super) hold_limit: Option<Duration>,
    /// Where it is kept what messages have been through, if they can be known again.
    pub(super) failures: Option<Arc<Failures>>,
    /// Cancelled when nothing more may be invoked.
    pub(super) drain: CancellationToken,
    /// Cancelled when nothing more may be invoked a second time, and the broker sends nothing more: what went back
    /// before would only come again.
    pub(super) retire: CancellationToken,
    /// Cancelled when the session has ended.
    pub(super) over: CancellationToken,
    /// Why the broker could not be told what became of a delivery, which it therefore lends for as long as
    /// the session lasts.
    pub(super) untold: Arc<OnceLock<SourceError>>,
    /// Why the last message was parked.
    pub(super) parked_because: Arc<Mutex<String>>,
}

/// What became of a part of a batch.
enum Decided {
    Settled,
    Halve(Batch),
    GiveUp(Delivery, Unusable),
    /// It went back to the broker.
    Returned,
    /// The session ended first, and its deliveries went back with it.
    Over,
}

impl Lease {
    pub(super) async fn process(self: Arc<Self>, batch: Batch) -> Finished {
        let records = batch.len();
        self.parts.metrics.batch_closed(batch.closed_by, records, self.envelope.event_size(batch.bytes()));
        let mut finished = Finished { session_number: self.session_number, was_batch: true, ..Finished::default() };
        let mut parts = vec![batch];
        let mut is_first_invocation = true;
        let mut is_over = false;
        while let Some(part) = parts.pop() {
            match self.invoke_until_decided(part, &mut is_first_invocation).await {
                Decided::Settled => {}
                Decided::Halve(part) => {
                    let (first, second) = part.halve();
                    parts.extend([second, first]);
                }
                Decided::GiveUp(delivery, unusable) => match self.give_up(&unusable).await {
                    Some(0) => self.forget(&[delivery]),
                    Some(parked) => {
                        finished.parked += parked;
                        self.remember(&[delivery]); // parked for as long as the session lasts
                    }
                    None => {
                        self.remember(&[delivery]);
                        is_over = true;
                    }
                },
                Decided::Returned => {
                    // What is behind it must not overtake it.
                    for part in parts.drain(..).rev() {
                        self.give_back(&part, part.most_failed() > 0).await;
                    }
                }
                Decided::Over => is_over = true,
            }
            if is_over {
                for part in parts.drain(..) {
                    self.remember(part.deliveries());
                }
            }
        }
        finished.settled = records - finished.parked;
        finished
    }

    pub(super) async fn give_up_alone(self: Arc<Self>, unusable: Unusable) -> Finished {
        let parked = self.give_up(&unusable).await.unwrap_or(0);
        Finished { session_number: self.session_number, settled: 1 - parked, parked, ..Finished::default() }
    }

    pub(super) async fn reject(self: Arc<Self>, receipts: Vec<Receipt>) -> Finished {
        match self.consumer.settle(&receipts, Disposition::Ack).await {
            Ok(()) => self.parts.metrics.filtered_out.inc_by(receipts.len() as u64),
            Err(error) => {
                warn!(%error, records = receipts.len(), "not wanted, but not acknowledged: these messages come again");
                self.could_not_tell(error);
            }
        }
        Finished { session_number: self.session_number, was_rejection: true, ..Finished::default() }
    }

    async fn invoke_until_decided(&self, mut part: Batch, is_first_invocation: &mut bool) -> Decided {
        let Parts { mapping, function, metrics, .. } = &self.parts;
        let mut attempts = Attempts::default();
        let mut tried = part.most_failed() > 0;
        loop {
            let slot = tokio::select! {
                biased;
                () = self.over.cancelled() => return self.leave(&part),
                () = self.drain.cancelled() => return self.give_back_at_the_end(&part, tried).await,
                () = self.held_too_long(&part) => return self.give_back_in_time(&part, tried).await,
                slot = function.admit(mapping.uuid, metrics) => slot,
            };
            self.expire(&mut part).await;
            if part.is_empty() {
                return Decided::Settled;
            }
            if std::mem::take(is_first_invocation) {
                self.observe_age(&part);
            }
            let outcome = self.invoke(slot, &part).await;
            let records = part.len() as u64;
            if outcome.ran() {
                tried = true;
                metrics.invoked.inc_by(records);
            }
            if outcome != Outcome::Success {
                metrics.failed_invoke.inc_by(records);
            }
            let before = Part { records: part.len(), failed: part.most_failed() };
            let step = attempts.decide(&outcome, before, &mapping.redelivery, fastrand::f64());
            if matches!(outcome, Outcome::FunctionError { .. }) && matches!(step, Step::Retry(_)) {
                part.note_failure();
            }
            if self.over.is_cancelled() {
                debug!(records = part.len(), "an invocation outlived its session and settles nothing");
                return self.leave(&part);
            }
            match step {
                Step::Ack => return self.ack(&part).await,
                Step::Halve => return Decided::Halve(part),
                Step::GiveUp(reason) => {
                    return part.into_deliveries().pop().map_or(Decided::Settled, |delivery| {
                        let unusable = given_up(&delivery, reason, &outcome);
                        Decided::GiveUp(delivery, unusable)
                    });
                }
                Step::Retry(delay) => {
                    self.report(&outcome, part.len(), delay);
                    if let Some(decided) = self.wait(&part, delay, tried).await {
                        return decided;
                    }
                }
            }
        }
    }

    async fn invoke(&self, slot: Slot, part: &Batch) -> Outcome {
        let Parts { function, metrics, .. } = &self.parts;
        let mut invocation = pin!(function.invoke(slot, part.event(&self.envelope), metrics));
        tokio::select! {
            biased;
            outcome = &mut invocation => return outcome,
            // The messages may come again before this invocation ends.
            () = self.over.cancelled() => self.remember(part.deliveries()),
        }
        invocation.await
    }

    /// Waits out a delay, unless the batch has to go back before its end.
    async fn wait(&self, part: &Batch, delay: Duration, tried: bool) -> Option<Decided> {
        tokio::select! {
            biased;
            () = self.over.cancelled() => Some(self.leave(part)),
            () = self.retire.cancelled() => Some(self.give_back(part, tried).await),
            () = self.held_too_long(part) => Some(self.give_back_in_time(part, tried).await),
            () = sleep(delay) => None,
        }
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
        let (Some(limit), Some(received_at)) = (self.hold_limit, part.received_at()) else {
            return std::future::pending().await;
        };
        let last_start = limit.saturating_sub(self.parts.function.timeout);
        let least = self.parts.mapping.window.duration() + Duration::from_secs(1);
        sleep_until(received_at + last_start.max(limit / 2).max(least)).await;
    }

    async fn give_back_in_time(&self, part: &Batch, tried: bool) -> Decided {
        warn!(records = part.len(), "the batch was held for long and goes back to the broker, to be delivered again");
        self.give_back(part, tried).await
    }

    /// Gives the part back as soon as the broker sends nothing more.
    async fn give_back_at_the_end(&self, part: &Batch, tried: bool) -> Decided {
        tokio::select! {
            biased;
            () = self.over.cancelled() => self.leave(part),
            () = self.retire.cancelled() => self.give_back(part, tried).await,
        }
    }

    async fn give_back(&self, part: &Batch, tried: bool) -> Decided {
        self.remember(part.deliveries());
        self.hand_back(&part.receipts(), tried).await;
        Decided::Returned
    }

    fn leave(&self, part: &Batch) -> Decided {
        self.remember(part.deliveries());
        Decided::Over
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

    async fn ack(&self, part: &Batch) -> Decided {
        if let Err(error) = self.consumer.settle(&part.receipts(), Disposition::Ack).await {
            warn!(%error, records = part.len(), "processed, but not acknowledged: these messages come again");
            self.could_not_tell(error);
            return Decided::Over;
        }
        if part.most_failed() > 0 {
            self.forget(part.deliveries());
        }
        self.parts.metrics.deleted.inc_by(part.len() as u64);
        self.parts.status.processed();
        Decided::Settled
    }

    pub(super) async fn hand_back(&self, receipts: &[Receipt], tried: bool) {
        if let Err(error) = self.consumer.settle(receipts, Disposition::Return { tried }).await {
            warn!(%error, "could not hand messages back; the broker takes them back itself");
            self.could_not_tell(error);
        }
    }

    /// Takes a message that cannot be processed out of the way, and never out of sight. Returns how many are parked
    /// by that, or `None` if the broker could not be told and the message comes again.
    async fn give_up(&self, unusable: &Unusable) -> Option<usize> {
        let Parts { mapping, metrics, .. } = &self.parts;
        let Unusable { receipt, message_id, size, reason, cause } = unusable;
        let (queue, label) = (&mapping.queue, reason.as_str());
        let dead_lettered = match mapping.dead_letter {
            DeadLetter::Park => Ok(DeadLettered::NoTarget {
                why: "no dead-letter target is known; the tag esm:dead-letter = broker says that the queue has one"
                    .into(),
            }),
            DeadLetter::Broker => self.consumer.dead_letter(*receipt, cause).await,
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
                Some(0)
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
                Some(1)
            }
            Err(error) => {
                warn!(queue, message_id, cause, %error, "could not dead-letter a message; it comes again");
                self.could_not_tell(error);
                None
            }
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

/// A record that stood alone, and what the function said to it last.
fn given_up(delivery: &Delivery, reason: DropReason, outcome: &Outcome) -> Unusable {
    let cause = match outcome {
        Outcome::FunctionError { error_type, message } => {
            let deliveries = delivery.failed + 1;
            format!("the function failed with it {deliveries} times, at last with {error_type}: {message}")
        }
        Outcome::TooLarge { reason } => format!("the function's side finds it too large: {reason}"),
        Outcome::Success | Outcome::Throttled { .. } | Outcome::Unavailable { .. } | Outcome::NotUsable { .. } => {
            String::new()
        } // never a reason to give a message up
    };
    unusable(delivery, reason, cause)
}

pub(super) fn unusable(delivery: &Delivery, reason: DropReason, cause: String) -> Unusable {
    let message_id = delivery.record.message_id().map(str::to_owned);
    Unusable { receipt: delivery.receipt, message_id, size: delivery.record.size(), reason, cause }
}
