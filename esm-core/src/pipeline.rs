//! One mapping at work: deliveries become batches, batches are invoked until they are settled.
//!
//! [`Pipeline`] outlives connections, because an invocation may: it keeps its place among the
//! batches in flight until it ends, and its result settles nothing of a later session.

use std::{
    pin::pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{Id, JoinError, JoinSet},
    time::{Duration, Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, error, info, warn};

use crate::{
    batch::{Batch, Batcher, ClosedBy, Room},
    event::{EVENT_SIZE_LIMIT, Envelope},
    failures::Failures,
    filter::Sieve,
    function::{Function, Slot},
    groups::Groups,
    invoker::Outcome,
    mapping::{DeadLetter, Mapping, MaximumConcurrency},
    metrics::{DropReason, MappingMetrics},
    retry::{Attempts, Part, Step},
    source::{
        Arrival, Consumer, DeadLettered, Delivery, Disposition, Outdated, Receipt, Session, SourceError, Terms,
        Unusable,
    },
    status::StatusWriter,
};

/// What a pipeline works with, whatever the session.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) function: Arc<Function>,
    pub(crate) metrics: Arc<MappingMetrics>,
    pub(crate) status: StatusWriter,
}

/// Why a session ended.
pub(crate) enum End {
    /// As asked; everything is settled or handed back.
    Drained,
    /// In good order, so that one with another prefetch or another login takes its place.
    Outgrown,
    /// The broker or the way to it failed; what was not settled goes back by itself.
    Lost(SourceError),
}

pub(crate) struct Pipeline {
    parts: Parts,
    tasks: JoinSet<Finished>,
    batches_in_flight: usize,
    session_number: u64,
    record_size: RecordSize,
    caution: Caution,
    groups: Groups,
    failures: Arc<Failures>,
}

/// The size of records lately: follows a larger one at once, and smaller ones by and by, so that a
/// single large message does not count for ever.
#[derive(Default)]
struct RecordSize(usize);

impl RecordSize {
    fn observe(&mut self, average: usize) {
        self.0 = if average > self.0 { average } else { self.0 - (self.0 - average) / 4 };
    }
}

/// After a message that ended its connection unread: one message at a time is borrowed, on a
/// connection that nobody shares, until the queue is past what was lent together with it. We and
/// the message may meet again further back, and each time counts as a delivery of all that
/// was lent: so caution lasts twice as long each time.
#[derive(Default)]
struct Caution {
    batches_to_go: u32,
    length: u32,
}

impl Caution {
    fn begin(&mut self, lent: u32) {
        if !self.is_on() {
            self.length = lent.max(self.length.saturating_mul(2));
        }
        self.batches_to_go = self.length;
    }

    fn is_on(&self) -> bool {
        self.batches_to_go > 0
    }

    fn reassure(&mut self) {
        self.batches_to_go = self.batches_to_go.saturating_sub(1);
    }
}

/// What a task did with the deliveries that it was given.
#[derive(Clone, Copy, Debug, Default)]
struct Finished {
    session_number: u64,
    was_batch: bool,
    /// It acknowledged what no filter accepts, which counts nowhere else.
    was_rejection: bool,
    settled: usize,
    parked: usize,
}

/// How a task has ended.
type Ended = Result<(Id, Finished), JoinError>;

impl Pipeline {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            tasks: JoinSet::new(),
            batches_in_flight: 0,
            session_number: 0,
            record_size: RecordSize::default(),
            caution: Caution::default(),
            groups: Groups::default(),
            failures: Arc::default(),
        }
    }

    /// What the next session is to be opened with, by what was seen so far.
    pub(crate) fn terms(&self, limit: u32) -> Terms {
        let alone = self.caution.is_on();
        let prefetch = if alone { 1 } else { self.parts.mapping.prefetch(limit, self.record_size.0) };
        Terms { prefetch, alone }
    }

    /// Runs one session until it is lost, or until `drain` asks for its orderly end.
    pub(crate) async fn run(
        &mut self,
        session: Session,
        terms: Terms,
        prefetch_limit: u32,
        drain: &CancellationToken,
    ) -> End {
        self.session_number += 1;
        let Session { deliveries, consumer, lost, trouble, outdated, envelope, prefetch, hold_limit, unique_ids } =
            session;
        let lease = Arc::new(Lease {
            parts: self.parts.clone(),
            session_number: self.session_number,
            consumer,
            hold_limit,
            failures: unique_ids.then(|| self.failures.clone()),
            drain: drain.clone(),
            retire: CancellationToken::new(),
            over: CancellationToken::new(),
            untold: OnceLock::new(),
            parked_because: Mutex::default(),
            envelope,
        });
        let _over = lease.over.clone().drop_guard();
        let batcher = Batcher::new(&self.parts.mapping, &lease.envelope);
        let sieve = Sieve::new(self.parts.mapping.filter.clone());
        // What waits for its group is of a session that has ended, and comes again.
        drop(self.groups.take_waiting());
        let mut run = Run {
            pipeline: self,
            lease,
            deliveries,
            lost,
            trouble,
            outdated,
            sieve,
            rejected: Vec::new(),
            is_rejecting: false,
            batcher,
            prefetch: prefetch as usize,
            terms,
            prefetch_limit,
            begun_at: Instant::now(),
            changes_prefetch: false,
            unsettled: 0,
            parked: 0,
        };
        let end = run.run().await;
        if let End::Lost(error) = &end {
            if let SourceError::Unreadable { .. } = error {
                run.pipeline.caution.begin(terms.prefetch);
            }
            // Whatever is left of it: a channel that is still open would keep what it lent.
            run.lease.over.cancel();
            run.lease.consumer.close().await;
        }
        end
    }

    /// Takes note of invocations that end while there is no session. Never returns.
    pub(crate) async fn reap(&mut self) {
        loop {
            match self.tasks.join_next_with_id().await {
                Some(result) => drop(self.note(result)),
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for the invocations that still run.
    pub(crate) async fn finish(&mut self) {
        while let Some(result) = self.tasks.join_next_with_id().await {
            drop(self.note(result));
        }
    }

    fn note(&mut self, result: Ended) -> Result<Finished, SourceError> {
        self.groups.end(result.as_ref().map_or_else(JoinError::id, |(id, _)| *id));
        let result = result.map(|(_, finished)| finished);
        // A task that panicked was a batch's: nothing else can be in doubt.
        let was_batch = result.as_ref().map_or(true, |finished| finished.was_batch);
        if was_batch {
            self.batches_in_flight = self.batches_in_flight.saturating_sub(1);
            self.parts.metrics.in_flight_batches.dec();
        }
        result.map_err(|cause| {
            error!(%cause, "a batch was given up by an internal error; its messages go back to the broker");
            SourceError::Protocol {
                broker: self.parts.mapping.event_source.clone(),
                words: format!("the session was ended because of an internal error: {cause}"),
            }
        })
    }
}

/// How long a session lasts at least before it gives way to one with a larger prefetch.
const SETTLED_IN: Duration = Duration::from_secs(60);

/// How long to wait for a session's own cause when something else says that it is lost.
const CAUSE_PATIENCE: Duration = Duration::from_secs(1);

/// What wakes a session.
enum Event {
    Drain,
    Finish(Ended),
    Lose(SourceError),
    Trouble,
    Outdate,
    Arrive(Arrival),
    Window,
}

struct Run<'a> {
    pipeline: &'a mut Pipeline,
    lease: Arc<Lease>,
    deliveries: mpsc::Receiver<Arrival>,
    lost: oneshot::Receiver<SourceError>,
    trouble: watch::Receiver<Option<SourceError>>,
    outdated: Outdated,
    sieve: Sieve,
    /// Deliveries that no filter accepts, until they are acknowledged together.
    rejected: Vec<Receipt>,
    /// Some are being acknowledged now; so further ones gather meanwhile.
    is_rejecting: bool,
    batcher: Batcher,
    prefetch: usize,
    terms: Terms,
    prefetch_limit: u32,
    begun_at: Instant,
    /// Its prefetch was changed already: that needs no new session.
    changes_prefetch: bool,
    /// Deliveries taken out of the channel and not yet settled, parked ones included. Those that no filter accepts
    /// do not count: they are settled without delay, whatever waits.
    unsettled: usize,
    parked: usize,
}

impl Run<'_> {
    async fn run(&mut self) -> End {
        loop {
            match self.next_event().await {
                Event::Drain => {
                    self.retire().await;
                    return End::Drained;
                }
                Event::Finish(result) => {
                    if let Err(error) = self.finish(result) {
                        return End::Lost(self.cause_of_loss(error).await);
                    }
                }
                Event::Lose(error) => return End::Lost(error),
                Event::Trouble => self.show_trouble(),
                Event::Outdate => {
                    info!("the login has changed; opening a session with the new one");
                    self.retire().await;
                    return End::Outgrown;
                }
                Event::Arrive(arrival) => self.take(arrival),
                Event::Window => self.close(ClosedBy::Window),
            }
            if self.has_outgrown_its_terms() {
                match self.change_prefetch().await {
                    Ok(true) => {}
                    Ok(false) => {
                        info!(record_size = self.pipeline.record_size.0, "opening a session with another prefetch");
                        self.retire().await;
                        return End::Outgrown;
                    }
                    Err(error) => return End::Lost(error),
                }
            }
        }
    }

    /// Changes the prefetch of the session that runs, if that can be done.
    async fn change_prefetch(&mut self) -> Result<bool, SourceError> {
        let terms = self.pipeline.terms(self.prefetch_limit);
        if terms.alone != self.terms.alone || !self.lease.consumer.set_prefetch(terms.prefetch).await? {
            return Ok(false);
        }
        info!(record_size = self.pipeline.record_size.0, prefetch = terms.prefetch, "changed the prefetch");
        self.prefetch = terms.prefetch as usize;
        self.terms = terms;
        self.changes_prefetch = true;
        self.take_released(); // as much as is parked, more may be taken now
        Ok(true)
    }

    /// Whether half the prefetch would do, or twice as much be better. A new session hands back what
    /// was not tried, which quorum queues count: so a wider one waits its time.
    fn has_outgrown_its_terms(&self) -> bool {
        let (now, better) = (self.terms.prefetch, self.pipeline.terms(self.prefetch_limit).prefetch);
        let has_settled_in = || self.terms.alone || self.changes_prefetch || self.begun_at.elapsed() >= SETTLED_IN;
        better.saturating_mul(2) < now || (better / 2 >= now && has_settled_in())
    }

    async fn next_event(&mut self) -> Event {
        let may_take = self.may_take();
        let deadline = self.batcher.deadline();
        let window = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased; // shed work before taking more
            () = self.lease.drain.cancelled() => Event::Drain,
            Some(result) = self.pipeline.tasks.join_next_with_id() => Event::Finish(result),
            lost = &mut self.lost => Event::Lose(lost_because(lost, &self.lease.parts.mapping)),
            Ok(()) = self.trouble.changed() => Event::Trouble,
            () = &mut self.outdated => Event::Outdate,
            // `None`: the reader has ended, and `lost` is about to say why.
            Some(arrival) = self.deliveries.recv(), if may_take => Event::Arrive(arrival),
            () = window, if may_take => Event::Window,
        }
    }

    fn may_take(&self) -> bool {
        let most = usize::from(self.lease.parts.mapping.maximum_concurrency.get());
        self.pipeline.batches_in_flight < most && !self.is_clogged()
    }

    /// Parked messages may take half the prefetch; with more, too little would be left to work with.
    fn is_clogged(&self) -> bool {
        self.parked * 2 > self.prefetch
    }

    /// Takes what has arrived and what else is at hand.
    fn take(&mut self, arrival: Arrival) {
        let mut next = Some(arrival);
        let mut taken = 0;
        while let Some(arrival) = next {
            taken += 1;
            match arrival {
                Arrival::Delivery(delivery) if !self.sieve.passes(&delivery.record) => {
                    self.rejected.push(delivery.receipt);
                }
                Arrival::Delivery(delivery) => {
                    self.unsettled += 1;
                    self.offer(delivery);
                }
                Arrival::Unusable(unusable) => {
                    self.unsettled += 1;
                    self.give_up(unusable);
                }
            }
            next = if self.may_take() { self.deliveries.try_recv().ok() } else { None };
        }
        self.lease.parts.metrics.polled.inc_by(taken);
        if !self.is_rejecting {
            self.reject();
        }
        self.close_without_credit();
    }

    /// Acknowledges what no filter accepts: all that has gathered, with one call.
    fn reject(&mut self) {
        let rejected = std::mem::take(&mut self.rejected);
        if !rejected.is_empty() {
            self.is_rejecting = true;
            let task = self.lease.clone().reject(rejected).instrument(Span::current());
            self.pipeline.tasks.spawn(task);
        }
    }

    /// Puts a delivery into the open batch, unless its group has to wait.
    fn offer(&mut self, delivery: Delivery) {
        let Some(mut delivery) = self.pipeline.groups.admit(delivery) else { return };
        if let Some(failures) = &self.lease.failures {
            failures.recall(&mut delivery);
        }
        match self.batcher.make_room(delivery.record.size()) {
            Room::There => self.push(delivery),
            Room::Made(batch) => {
                self.start(batch);
                // The batch that made room may hold an earlier one of its group.
                if let Some(delivery) = self.pipeline.groups.admit(delivery) {
                    self.push(delivery);
                }
            }
            Room::Nowhere => {
                let size = delivery.record.size();
                let cause = format!(
                    "its record of {size} bytes is too large for an event, which has less than {EVENT_SIZE_LIMIT}"
                );
                self.give_up(unusable(&delivery, DropReason::TooLarge, cause));
            }
        }
    }

    fn push(&mut self, delivery: Delivery) {
        if let Some(batch) = self.batcher.push(delivery) {
            self.start(batch);
        }
    }

    /// Takes what need not wait for its group any more.
    fn take_released(&mut self) {
        while self.may_take()
            && let Some(delivery) = self.pipeline.groups.next_released()
        {
            self.offer(delivery);
        }
        self.close_without_credit();
    }

    /// A batch never waits for what the broker cannot send.
    fn close_without_credit(&mut self) {
        if self.may_take() && self.unsettled >= self.prefetch {
            self.close(ClosedBy::Credit);
        }
    }

    fn close(&mut self, by: ClosedBy) {
        if let Some(batch) = self.batcher.close(by) {
            self.start(batch);
        }
    }

    fn start(&mut self, batch: Batch) {
        self.pipeline.record_size.observe(batch.bytes() / batch.len());
        self.pipeline.batches_in_flight += 1;
        self.lease.parts.metrics.in_flight_batches.inc();
        // With one batch at a time there is nothing to keep apart.
        let is_alone = self.lease.parts.mapping.maximum_concurrency == MaximumConcurrency::ONE;
        let groups = if is_alone { Vec::new() } else { Groups::of(&batch) };
        let task = self.lease.clone().process(batch).instrument(Span::current());
        let id = self.pipeline.tasks.spawn(task).id();
        self.pipeline.groups.begin(id, groups);
    }

    fn give_up(&mut self, unusable: Unusable) {
        let task = self.lease.clone().give_up_alone(unusable).instrument(Span::current());
        self.pipeline.tasks.spawn(task);
    }

    fn finish(&mut self, result: Ended) -> Result<(), SourceError> {
        let finished = self.pipeline.note(result)?;
        if let Some(error) = self.lease.untold.get() {
            return Err(error.clone());
        }
        if finished.session_number != self.lease.session_number {
            self.take_released();
            return Ok(()); // its deliveries went back with its session
        }
        if finished.was_batch || finished.was_rejection {
            self.pipeline.caution.reassure();
        }
        if finished.was_rejection {
            self.is_rejecting = false;
            self.reject();
        }
        self.unsettled -= finished.settled;
        let was_clogged = self.is_clogged();
        self.parked += finished.parked;
        if self.is_clogged() && !was_clogged {
            error!(
                parked = self.parked,
                prefetch = self.prefetch,
                "the mapping is paused: messages that can never be processed take more than half the prefetch; mend what is said of each of them, or take them off the queue, and start esm again"
            );
        }
        let Parts { metrics, status, .. } = &self.lease.parts;
        metrics.parked.set(i64::try_from(self.parked).unwrap_or(i64::MAX));
        if self.parked > 0 {
            let paused = if self.is_clogged() {
                "; the mapping is paused, since they take more than half the prefetch"
            } else {
                ""
            };
            let why = self.lease.parked_because.lock().unwrap_or_else(PoisonError::into_inner).clone();
            status.problem(&format!(
                "{} messages can never be processed and are kept unacknowledged, the last one because {why}{paused}",
                self.parked
            ));
        }
        self.take_released();
        Ok(())
    }

    /// The session's own cause, if it has one: what failed because of the loss may be noticed first.
    async fn cause_of_loss(&mut self, error: SourceError) -> SourceError {
        match timeout(CAUSE_PATIENCE, &mut self.lost).await {
            Ok(Ok(cause)) => cause,
            Ok(Err(_)) | Err(_) => error,
        }
    }

    fn show_trouble(&mut self) {
        let status = &self.lease.parts.status;
        match &*self.trouble.borrow_and_update() {
            Some(trouble) => {
                warn!(error = %trouble, "the source is in trouble");
                status.source_problem(trouble, true);
            }
            None => {
                info!("the source is well again");
                status.connected();
            }
        }
    }

    /// Ends the session in good order: nothing more is taken or retried, what runs is waited for.
    async fn retire(&mut self) {
        let consumer = self.lease.consumer.clone();
        self.reject();
        let cancelled = consumer.cancel().await;
        self.lease.retire.cancel();
        match cancelled {
            Ok(()) => self.hand_back_untried().await,
            Err(error) => warn!(%error, "could not stop deliveries in good order; the broker takes them back itself"),
        }
        self.pipeline.finish().await;
        consumer.close().await;
    }

    async fn hand_back_untried(&mut self) {
        let mut waiting = self.batcher.abandon();
        waiting.extend(self.pipeline.groups.take_waiting());
        let mut untried: Vec<Receipt> = waiting.iter().map(|delivery| delivery.receipt).collect();
        while let Some(arrival) = self.deliveries.recv().await {
            untried.push(match arrival {
                Arrival::Delivery(delivery) => delivery.receipt,
                Arrival::Unusable(unusable) => unusable.receipt,
            });
        }
        untried.sort_unstable();
        info!(
            untried = untried.len(),
            running = self.pipeline.batches_in_flight,
            function = self.lease.parts.function.name,
            "draining: what was not tried goes back, what runs is waited for"
        );
        self.lease.hand_back(&untried, false).await;
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.lease.parts.metrics.parked.set(0); // they went back with the session
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

fn unusable(delivery: &Delivery, reason: DropReason, cause: String) -> Unusable {
    let message_id = delivery.record.message_id().map(str::to_owned);
    Unusable { receipt: delivery.receipt, message_id, size: delivery.record.size(), reason, cause }
}

fn lost_because(lost: Result<SourceError, oneshot::error::RecvError>, mapping: &Mapping) -> SourceError {
    lost.unwrap_or_else(|_| SourceError::Protocol {
        broker: mapping.event_source.clone(),
        words: "the session ended without a cause".into(),
    })
}

/// What the tasks of one session share.
struct Lease {
    parts: Parts,
    session_number: u64,
    consumer: Arc<dyn Consumer>,
    envelope: Envelope,
    hold_limit: Option<Duration>,
    /// Where it is kept what messages have been through, if they can be known again.
    failures: Option<Arc<Failures>>,
    /// Cancelled when nothing more may be invoked.
    drain: CancellationToken,
    /// Cancelled when nothing more may be invoked a second time, and the broker sends nothing more: what went back
    /// before would only come again.
    retire: CancellationToken,
    /// Cancelled when the session has ended.
    over: CancellationToken,
    /// Why the broker could not be told what became of a delivery, which it therefore lends for as long as
    /// the session lasts.
    untold: OnceLock<SourceError>,
    /// Why the last message was parked.
    parked_because: Mutex<String>,
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
    async fn process(self: Arc<Self>, batch: Batch) -> Finished {
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

    async fn give_up_alone(self: Arc<Self>, unusable: Unusable) -> Finished {
        let parked = self.give_up(&unusable).await.unwrap_or(0);
        Finished { session_number: self.session_number, settled: 1 - parked, parked, ..Finished::default() }
    }

    async fn reject(self: Arc<Self>, receipts: Vec<Receipt>) -> Finished {
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

    async fn hand_back(&self, receipts: &[Receipt], tried: bool) {
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
