//! One mapping at work: deliveries become batches, batches are invoked until they are settled.
//!
//! [`Pipeline`] outlives connections, because an invocation may: it keeps its place among the
//! batches in flight until it ends, and its result settles nothing of a later session.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{Duration, Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, error, info, warn};

use crate::{
    batch::{Batch, Batcher, ClosedBy, Pushed},
    event::Envelope,
    function::Function,
    invoker::Outcome,
    mapping::{DeadLetter, Mapping},
    metrics::{DropReason, MappingMetrics},
    retry::{Attempts, Step},
    source::{Consumer, Delivery, Disposition, Receipt, Session, SourceError, Terms},
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
    /// In good order, because another prefetch fits what comes.
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
    settled: usize,
    parked: usize,
}

impl Pipeline {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            tasks: JoinSet::new(),
            batches_in_flight: 0,
            session_number: 0,
            record_size: RecordSize::default(),
            caution: Caution::default(),
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
        let Session { deliveries, consumer, lost, trouble, envelope, prefetch, hold_limit } = session;
        let lease = Arc::new(Lease {
            parts: self.parts.clone(),
            session_number: self.session_number,
            consumer,
            hold_limit,
            drain: drain.clone(),
            retire: drain.child_token(),
            over: CancellationToken::new(),
            envelope,
        });
        let _over = lease.over.clone().drop_guard();
        let batcher = Batcher::new(&self.parts.mapping, &lease.envelope);
        let mut run = Run {
            pipeline: self,
            lease,
            deliveries,
            lost,
            trouble,
            batcher,
            prefetch: prefetch as usize,
            terms,
            prefetch_limit,
            begun_at: Instant::now(),
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
            match self.tasks.join_next().await {
                Some(result) => drop(self.note(result)),
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for the invocations that still run.
    pub(crate) async fn finish(&mut self) {
        while let Some(result) = self.tasks.join_next().await {
            drop(self.note(result));
        }
    }

    fn note(&mut self, result: Result<Finished, JoinError>) -> Result<Finished, SourceError> {
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

/// What wakes a session.
enum Event {
    Drain,
    Finish(Result<Finished, JoinError>),
    Lose(SourceError),
    Trouble,
    Deliver(Delivery),
    Window,
}

struct Run<'a> {
    pipeline: &'a mut Pipeline,
    lease: Arc<Lease>,
    deliveries: mpsc::Receiver<Delivery>,
    lost: oneshot::Receiver<SourceError>,
    trouble: watch::Receiver<Option<SourceError>>,
    batcher: Batcher,
    prefetch: usize,
    terms: Terms,
    prefetch_limit: u32,
    begun_at: Instant,
    /// Deliveries taken out of the channel and not yet settled, parked ones included.
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
                        return End::Lost(error);
                    }
                }
                Event::Lose(error) => return End::Lost(error),
                Event::Trouble => self.show_trouble(),
                Event::Deliver(delivery) => self.take(delivery),
                Event::Window => self.close(ClosedBy::Window),
            }
            if self.has_outgrown_its_terms() {
                info!(record_size = self.pipeline.record_size.0, "opening a session with another prefetch");
                self.retire().await;
                return End::Outgrown;
            }
        }
    }

    /// Whether half the prefetch would do, or twice as much be better. Each time hands back what
    /// was not tried, which quorum queues count: so a wider one waits its time.
    fn has_outgrown_its_terms(&self) -> bool {
        let (now, better) = (self.terms.prefetch, self.pipeline.terms(self.prefetch_limit).prefetch);
        let has_settled_in = || self.terms.alone || self.begun_at.elapsed() >= SETTLED_IN;
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
            Some(result) = self.pipeline.tasks.join_next() => Event::Finish(result),
            lost = &mut self.lost => Event::Lose(lost_because(lost, &self.lease.parts.mapping)),
            Ok(()) = self.trouble.changed() => Event::Trouble,
            // `None`: the reader has ended, and `lost` is about to say why.
            Some(delivery) = self.deliveries.recv(), if may_take => Event::Deliver(delivery),
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

    /// Takes a delivery and what else is at hand.
    fn take(&mut self, delivery: Delivery) {
        let mut next = Some(delivery);
        let mut taken = 0;
        while let Some(delivery) = next {
            taken += 1;
            self.unsettled += 1;
            match self.batcher.push(delivery) {
                Pushed::Waits => {}
                Pushed::Closes(batch) => self.start(batch),
                Pushed::TooLarge(delivery) => self.give_up(delivery),
            }
            next = if self.may_take() { self.deliveries.try_recv().ok() } else { None };
        }
        self.lease.parts.metrics.polled.inc_by(taken);
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
        let task = self.lease.clone().process(batch).instrument(Span::current());
        self.pipeline.tasks.spawn(task);
    }

    fn give_up(&mut self, delivery: Delivery) {
        let task = self.lease.clone().give_up_alone(delivery).instrument(Span::current());
        self.pipeline.tasks.spawn(task);
    }

    fn finish(&mut self, result: Result<Finished, JoinError>) -> Result<(), SourceError> {
        let finished = self.pipeline.note(result)?;
        if finished.session_number != self.lease.session_number {
            return Ok(()); // its deliveries went back with its session
        }
        if finished.was_batch {
            self.pipeline.caution.reassure();
        }
        self.unsettled -= finished.settled;
        let was_clogged = self.is_clogged();
        self.parked += finished.parked;
        if self.is_clogged() && !was_clogged {
            error!(
                parked = self.parked,
                prefetch = self.prefetch,
                "the mapping is paused: messages that can never be processed take more than half the prefetch; take them off the queue, or give it a dead-letter exchange and set the tag esm:dead-letter = broker"
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
            status.problem(&format!(
                "{} messages can never be processed, and there is no dead-letter target for them{paused}",
                self.parked
            ));
        }
        Ok(())
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
        self.lease.retire.cancel();
        let consumer = self.lease.consumer.clone();
        match consumer.cancel().await {
            Ok(()) => self.hand_back_untried().await,
            Err(error) => warn!(%error, "could not stop deliveries in good order; the broker takes them back itself"),
        }
        self.pipeline.finish().await;
        consumer.close().await;
    }

    async fn hand_back_untried(&mut self) {
        let mut untried: Vec<Receipt> = self.batcher.abandon().iter().map(|delivery| delivery.receipt).collect();
        while let Some(delivery) = self.deliveries.recv().await {
            untried.push(delivery.receipt);
        }
        info!(
            untried = untried.len(),
            running = self.pipeline.batches_in_flight,
            function = self.lease.parts.function.name,
            "draining: what was not tried goes back, what runs is waited for"
        );
        self.lease.hand_back(&untried).await;
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.lease.parts.metrics.parked.set(0); // they went back with the session
    }
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
    /// Cancelled when nothing more may be invoked.
    drain: CancellationToken,
    /// Cancelled when nothing more may be invoked a second time.
    retire: CancellationToken,
    /// Cancelled when the session has ended.
    over: CancellationToken,
}

/// What became of a part of a batch.
enum Decided {
    Settled,
    Halve(Batch),
    GiveUp(Delivery),
    /// The session ended first, and its deliveries went back with it.
    Over,
}

impl Lease {
    async fn process(self: Arc<Self>, batch: Batch) -> Finished {
        let records = batch.len();
        self.parts.metrics.batch_closed(batch.closed_by, records, self.envelope.event_size(batch.bytes()));
        self.observe_age(&batch);
        let mut finished = Finished { session_number: self.session_number, was_batch: true, ..Finished::default() };
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match self.invoke_until_decided(part).await {
                Decided::Settled => {}
                Decided::Halve(part) => {
                    let (first, second) = part.halve();
                    parts.extend([second, first]);
                }
                Decided::GiveUp(delivery) => finished.parked += self.give_up(&delivery, DropReason::TooLarge).await,
                Decided::Over => break,
            }
        }
        finished.settled = records - finished.parked;
        finished
    }

    async fn give_up_alone(self: Arc<Self>, delivery: Delivery) -> Finished {
        let parked = self.give_up(&delivery, DropReason::TooLarge).await;
        Finished { session_number: self.session_number, was_batch: false, settled: 1 - parked, parked }
    }

    async fn invoke_until_decided(&self, mut part: Batch) -> Decided {
        let Parts { mapping, function, metrics, .. } = &self.parts;
        let mut attempts = Attempts::default();
        loop {
            let slot = tokio::select! {
                biased;
                () = self.over.cancelled() => return Decided::Over,
                () = self.drain.cancelled() => return self.hand_back(&part.receipts()).await,
                () = self.held_too_long(&part) => return self.hand_back_in_time(&part).await,
                slot = function.admit(mapping.uuid, metrics) => slot,
            };
            let outcome = function.invoke(slot, part.event(&self.envelope), metrics).await;
            let records = part.len() as u64;
            if outcome.ran() {
                metrics.invoked.inc_by(records);
            }
            if outcome != Outcome::Success {
                metrics.failed_invoke.inc_by(records);
            }
            if self.over.is_cancelled() {
                debug!(records = part.len(), "an invocation outlived its session and settles nothing");
                return Decided::Over;
            }
            match attempts.decide(&outcome, part.len(), fastrand::f64()) {
                Step::Ack => return self.ack(&part).await,
                Step::Halve => return Decided::Halve(part),
                Step::GiveUp => {
                    return part.into_deliveries().pop().map_or(Decided::Settled, Decided::GiveUp);
                }
                Step::Retry(delay) => {
                    self.report(&outcome, part.len(), delay);
                    if matches!(outcome, Outcome::FunctionError { .. }) {
                        part.mark_redelivered();
                    }
                    if let Some(decided) = self.wait(&mut part, delay).await {
                        return decided;
                    }
                }
            }
        }
    }

    /// Waits out a delay, unless the batch has to go back before its end.
    async fn wait(&self, part: &mut Batch, delay: Duration) -> Option<Decided> {
        tokio::select! {
            biased;
            () = self.over.cancelled() => return Some(Decided::Over),
            () = self.retire.cancelled() => return Some(self.hand_back(&part.receipts()).await),
            () = self.held_too_long(part) => return Some(self.hand_back_in_time(part).await),
            () = sleep(delay) => {}
        }
        let expired = part.take_expired(Instant::now());
        if !expired.is_empty() {
            self.parts.metrics.expired.inc_by(expired.len() as u64);
            for delivery in &expired {
                let (message_id, size) = (delivery.record.message_id(), delivery.record.size());
                let reason = DropReason::Expired.as_str();
                warn!(
                    message_id,
                    size, reason, "the message expired while it was retried and goes back, for the broker to expire it"
                );
            }
            let receipts: Vec<_> = expired.iter().map(|delivery| delivery.receipt).collect();
            self.hand_back(&receipts).await;
        }
        part.is_empty().then_some(Decided::Settled)
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

    async fn hand_back_in_time(&self, part: &Batch) -> Decided {
        warn!(records = part.len(), "the batch was held for long and goes back to the broker, to be delivered again");
        self.hand_back(&part.receipts()).await
    }

    async fn ack(&self, part: &Batch) -> Decided {
        if let Err(error) = self.consumer.settle(&part.receipts(), Disposition::Ack).await {
            warn!(%error, records = part.len(), "processed, but not acknowledged: these messages come again");
            return Decided::Over;
        }
        self.parts.metrics.deleted.inc_by(part.len() as u64);
        self.parts.status.processed();
        Decided::Settled
    }

    async fn hand_back(&self, receipts: &[Receipt]) -> Decided {
        if let Err(error) = self.consumer.settle(receipts, Disposition::Return).await {
            warn!(%error, "could not hand messages back; the broker takes them back itself");
        }
        Decided::Settled
    }

    /// Takes a message that can never be processed out of the way, and never out of sight. Returns
    /// how many are parked by that.
    async fn give_up(&self, delivery: &Delivery, reason: DropReason) -> usize {
        let Parts { mapping, metrics, .. } = &self.parts;
        let message_id = delivery.record.message_id();
        let (queue, size, reason) = (&mapping.queue, delivery.record.size(), reason.as_str());
        match mapping.dead_letter {
            DeadLetter::Park => {
                error!(
                    queue,
                    message_id,
                    size,
                    reason,
                    "this message can never be processed; it stays unacknowledged, since no dead-letter target is known (the tag esm:dead-letter = broker says that the queue has one)"
                );
                1
            }
            DeadLetter::Broker => {
                match self.consumer.settle(&[delivery.receipt], Disposition::DeadLetter).await {
                    Ok(()) => {
                        error!(
                            queue,
                            message_id,
                            size,
                            reason,
                            "this message can never be processed and was given to the queue's dead-letter target"
                        );
                        metrics.too_large.inc();
                    }
                    Err(error) => warn!(queue, message_id, %error, "could not dead-letter a message; it comes again"),
                }
                0
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
