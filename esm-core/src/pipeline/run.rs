//! The loop of one session: takes what arrives, makes batches of it, and takes note of what became
//! of them.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Duration, Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, error, info, warn};

use super::{
    End, Ended, Parts, Pipeline,
    lease::{Lease, Place, unusable},
};
use crate::{
    batch::{Batch, Batcher, ClosedBy, Room},
    event::EVENT_SIZE_LIMIT,
    filter::Sieve,
    groups::Groups,
    mapping::Mapping,
    metrics::DropReason,
    returns::{is_endangered, last_start, longest_wait},
    source::{Arrival, Delivery, Outdated, Receipt, SourceError, Terms, Unusable},
};

/// How long a session lasts at least before it gives way to one with a larger prefetch.
pub(super) const SETTLED_IN: Duration = Duration::from_secs(60);

/// How long to wait for a session's own cause when something else says that it is lost.
const CAUSE_PATIENCE: Duration = Duration::from_secs(1);

/// What wakes a session.
enum Event {
    Drain,
    Finish(Ended),
    Lose(SourceError),
    Trouble,
    Outdate,
    Adjust,
    /// More or fewer messages wait to be retried.
    Rest,
    /// A place among the batches in flight.
    Place,
    Arrive(Arrival),
    Window,
    /// Nothing was taken for so long that what waits has to go back.
    Stall,
}

/// Whether the broker lends further deliveries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Borrows {
    Yes,
    /// Not in this session, which ends when what it has begun is settled.
    NoMore,
}

pub(super) struct Run<'a> {
    pub(super) pipeline: &'a mut Pipeline,
    pub(super) lease: Arc<Lease>,
    /// Asks for the end of the session.
    pub(super) drain: CancellationToken,
    /// How often the broker has taken back the message that it has taken back most.
    pub(super) most_returned: u32,
    /// Since when nothing may be taken.
    pub(super) stalled_since: Option<Instant>,
    pub(super) borrows: Borrows,
    pub(super) deliveries: mpsc::Receiver<Arrival>,
    pub(super) lost: oneshot::Receiver<SourceError>,
    pub(super) trouble: watch::Receiver<Option<SourceError>>,
    pub(super) outdated: Outdated,
    pub(super) sieve: Sieve,
    /// What was in no batch yet when the settings changed, in the broker's order; it comes before what arrives.
    pub(super) set_aside: VecDeque<Delivery>,
    /// Deliveries that no filter accepts, until they are acknowledged together.
    pub(super) rejected: Vec<Receipt>,
    /// Some are being acknowledged now; so further ones gather meanwhile.
    pub(super) is_rejecting: bool,
    pub(super) batcher: Batcher,
    pub(super) prefetch: usize,
    pub(super) terms: Terms,
    pub(super) prefetch_limit: u32,
    /// From when on it may give way to one with a larger prefetch.
    pub(super) widens_at: Instant,
    /// Its prefetch was changed already: that needs no new session.
    pub(super) changes_prefetch: bool,
    pub(super) parked: usize,
    pub(super) places: Arc<Semaphore>,
    /// Messages that wait to be retried without a place.
    pub(super) resting: watch::Receiver<usize>,
    /// Whether so many waited that nothing more was taken.
    pub(super) was_clogged: bool,
}

impl Run<'_> {
    pub(super) async fn run(&mut self) -> End {
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
                Event::Adjust => self.adjust(),
                Event::Rest => self.heed_resting(),
                Event::Place => self.take_released(),
                Event::Arrive(arrival) => self.take(arrival),
                Event::Window => self.close(ClosedBy::Window),
                // What comes from now on has not waited yet.
                Event::Stall if !self.has_waiting() => self.stalled_since = Some(Instant::now()),
                Event::Stall => {
                    if let Err(error) = self.borrow_no_more().await {
                        return End::Lost(error);
                    }
                }
            }
            if self.borrows == Borrows::NoMore {
                if self.set_aside.is_empty() && self.pipeline.batches_in_flight == 0 && self.parked == 0 {
                    self.retire().await;
                    return End::Outgrown;
                }
            } else if self.has_outgrown_its_terms() {
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
        let has_settled_in = || self.terms.alone || self.changes_prefetch || Instant::now() >= self.widens_at;
        better.saturating_mul(2) < now || (better / 2 >= now && has_settled_in())
    }

    async fn next_event(&mut self) -> Event {
        let (has_place, may_take) = (self.has_place(), self.may_take());
        self.stalled_since = if may_take { None } else { self.stalled_since.or_else(|| Some(Instant::now())) };
        let at = async |time: Option<Instant>| match time {
            Some(time) => sleep_until(time).await,
            None => std::future::pending().await,
        };
        let (window, stall) = (at(self.batcher.deadline()), at(self.stalls_at()));
        tokio::select! {
            biased; // shed work before taking more
            () = self.drain.cancelled() => Event::Drain,
            Some(result) = self.pipeline.tasks.join_next_with_id() => Event::Finish(result),
            lost = &mut self.lost => Event::Lose(lost_because(lost, &self.lease.parts.mapping)),
            Ok(()) = self.trouble.changed() => Event::Trouble,
            () = &mut self.outdated => Event::Outdate,
            Ok(()) = self.pipeline.parts.wanted.changed() => Event::Adjust,
            Ok(()) = self.resting.changed() => Event::Rest,
            Ok(_) = self.places.acquire(), if !has_place => Event::Place,
            // `None`: the reader has ended, and `lost` is about to say why.
            Some(arrival) = self.deliveries.recv(), if may_take => Event::Arrive(arrival),
            () = window, if may_take => Event::Window,
            () = stall => Event::Stall,
        }
    }

    /// Whether something was lent and is not being tried.
    fn has_waiting(&self) -> bool {
        !self.deliveries.is_empty() || !self.set_aside.is_empty() || self.batcher.deadline().is_some()
    }

    /// When what waits to be tried has to go back, unless something is taken before.
    fn stalls_at(&self) -> Option<Instant> {
        let may_stall = self.borrows == Borrows::Yes && !self.pipeline.is_held;
        let wait = longest_wait(self.lease.hold_limit.filter(|_| may_stall)?);
        self.stalled_since?.checked_add(wait)
    }

    /// Hands back what was not tried, before the broker takes offence at how long it is held, and borrows nothing more.
    /// What was begun goes on.
    async fn borrow_no_more(&mut self) -> Result<(), SourceError> {
        warn!("nothing could be tried for long; what waits goes back to the broker");
        self.borrows = Borrows::NoMore;
        self.pipeline.is_held = true;
        self.lease.consumer.cancel().await?;
        let limit = self.lease.delivery_limit;
        let mut untried = Vec::new();
        let mut waiting = self.take_waiting();
        while let Some(arrival) = self.deliveries.recv().await {
            match arrival {
                Arrival::Delivery(delivery) if is_endangered(delivery.returns, limit) => {
                    self.lease.unsettled.fetch_add(1, Ordering::Relaxed);
                    self.set_aside.push_back(delivery);
                }
                Arrival::Delivery(delivery) => untried.push(delivery.receipt),
                Arrival::Unusable(unusable) => untried.push(unusable.receipt),
            }
        }
        let endangered = waiting.extract_if(.., |delivery| is_endangered(delivery.returns, limit));
        self.set_aside.extend(endangered);
        self.lease.unsettled.fetch_sub(waiting.len(), Ordering::Relaxed);
        untried.extend(waiting.iter().map(|delivery| delivery.receipt));
        untried.sort_unstable();
        self.lease.hand_back(&untried, false).await;
        Ok(())
    }

    fn may_take(&self) -> bool {
        self.has_place() && !self.is_clogged()
    }

    fn has_place(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// Messages that are parked or wait to be retried may take half the prefetch; with more, too little would be left
    /// to work with.
    fn is_clogged(&self) -> bool {
        (self.parked + *self.resting.borrow()) * 2 > self.prefetch
    }

    /// Takes note of how many messages wait to be retried.
    fn heed_resting(&mut self) {
        let resting = *self.resting.borrow_and_update();
        let is_clogged = self.is_clogged();
        if is_clogged && !self.was_clogged {
            let problem = format!(
                "the mapping is paused: {resting} messages wait to be retried, which is more than half of what the \
                 broker lends"
            );
            self.lease.parts.status.problem(&problem);
            warn!(prefetch = self.prefetch, problem, "nothing more is taken until some of them are processed");
        }
        self.was_clogged = is_clogged;
        self.take_released();
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
                    self.lease.unsettled.fetch_add(1, Ordering::Relaxed);
                    self.offer(delivery);
                }
                Arrival::Unusable(unusable) => {
                    self.lease.unsettled.fetch_add(1, Ordering::Relaxed);
                    self.give_up(unusable, 0);
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
                let (attempts, original) = (delivery.failed, delivery.original.take());
                self.give_up(Unusable { original, ..unusable(&delivery, DropReason::TooLarge, cause) }, attempts);
            }
        }
    }

    fn push(&mut self, delivery: Delivery) {
        self.most_returned = self.most_returned.max(delivery.returns);
        if is_endangered(delivery.returns, self.lease.delivery_limit) {
            let (message_id, returns) = (delivery.record.message_id(), delivery.returns);
            warn!(message_id, returns, "the broker will soon drop this message; it is invoked next, and alone");
            self.start(Batch::alone(delivery));
        } else if let Some(batch) = self.batcher.push(delivery) {
            self.start(batch);
        }
    }

    /// Goes on with other settings. Batches in flight end by those that they began with.
    fn adjust(&mut self) {
        self.pipeline.adopt_settings();
        self.widens_at = Instant::now();
        info!("the settings of the mapping have changed");
        let mut waiting = self.take_waiting();
        waiting.sort_unstable_by_key(|delivery| delivery.receipt);
        self.lease = Arc::new(Lease { parts: self.pipeline.parts.clone(), ..Lease::clone(&self.lease) });
        self.batcher = Batcher::new(self.pipeline.mapping(), &self.lease.envelope);
        self.sieve = Sieve::new(self.pipeline.mapping().filter.clone());
        for delivery in waiting {
            if self.sieve.passes(&delivery.record) {
                self.set_aside.push_back(delivery);
            } else {
                self.lease.unsettled.fetch_sub(1, Ordering::Relaxed);
                self.rejected.push(delivery.receipt);
            }
        }
        if !self.is_rejecting {
            self.reject();
        }
        self.take_released();
    }

    /// Takes what need not wait any more: for its group, or since the settings changed.
    fn take_released(&mut self) {
        while self.may_take()
            && let Some(delivery) = self.pipeline.groups.next_released().or_else(|| self.set_aside.pop_front())
        {
            self.offer(delivery);
        }
        self.close_without_credit();
    }

    /// A batch never waits for what the broker cannot send.
    fn close_without_credit(&mut self) {
        if self.may_take() && self.lease.unsettled.load(Ordering::Relaxed) >= self.prefetch {
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
        let groups = Groups::of(&batch);
        let task = self.lease.clone().process(batch, Place::new(&self.places)).instrument(Span::current());
        let id = self.pipeline.tasks.spawn(task).id();
        self.pipeline.groups.begin(id, groups);
    }

    fn give_up(&mut self, unusable: Unusable, attempts: u32) {
        let task = self.lease.clone().give_up_alone(unusable, attempts).instrument(Span::current());
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
            self.pipeline.is_held = self.borrows == Borrows::NoMore;
        }
        if finished.was_rejection {
            self.is_rejecting = false;
            self.reject();
        }
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
        let works_off = self.most_returned > 0 && self.lease.delivery_limit.is_some();
        if self.drain.is_cancelled() && !works_off {
            self.lease.closing.cancel();
        }
        let cancelled = consumer.cancel().await;
        self.lease.retire.cancel();
        match cancelled {
            Ok(()) => {
                if works_off {
                    self.work_off().await;
                    self.lease.closing.cancel();
                }
                self.hand_back_untried().await;
            }
            Err(error) => warn!(%error, "could not stop deliveries in good order; the broker takes them back itself"),
        }
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = self.pipeline.finish() => {}
        }
        self.lease.closing.cancel();
        self.pipeline.finish().await;
        consumer.close().await;
    }

    /// Invokes what was lent and not tried, for as long as the end may wait: the broker would count its return. What it
    /// would soon drop comes first.
    async fn work_off(&mut self) {
        let mut waiting = self.take_waiting();
        while let Some(arrival) = self.deliveries.recv().await {
            self.lease.parts.metrics.polled.inc();
            match arrival {
                Arrival::Delivery(delivery) if !self.sieve.passes(&delivery.record) => {
                    self.rejected.push(delivery.receipt);
                }
                Arrival::Delivery(delivery) => {
                    self.lease.unsettled.fetch_add(1, Ordering::Relaxed);
                    waiting.push(delivery);
                }
                Arrival::Unusable(unusable) => {
                    self.lease.unsettled.fetch_add(1, Ordering::Relaxed);
                    self.give_up(unusable, 0);
                }
            }
        }
        if !self.is_rejecting {
            self.reject();
        }
        let limit = self.lease.delivery_limit;
        waiting.sort_by_key(|delivery| (!is_endangered(delivery.returns, limit), delivery.receipt));
        info!(
            untried = waiting.len(),
            running = self.pipeline.batches_in_flight,
            function = self.lease.parts.function.name,
            "draining: what was not tried is worked off, since the broker counts what comes back"
        );
        self.set_aside = waiting.into();
        let parts = &self.lease.parts;
        let last_start = last_start(parts.drain_timeout, parts.function.timeout);
        let deadline = sleep(last_start);
        tokio::pin!(deadline);
        let places = self.places.clone();
        loop {
            self.offer_set_aside();
            if self.set_aside.is_empty() && self.pipeline.tasks.is_empty() {
                return;
            }
            let has_place = self.has_place();
            tokio::select! {
                biased;
                () = &mut deadline => return,
                _ = &mut self.lost => return,
                Some(result) = self.pipeline.tasks.join_next_with_id() => {
                    if self.finish(result).is_err() {
                        return;
                    }
                }
                Ok(_) = places.acquire(), if !has_place => {}
            }
        }
    }

    fn offer_set_aside(&mut self) {
        while self.has_place()
            && let Some(delivery) = self.set_aside.pop_front()
        {
            self.offer(delivery);
        }
        if self.set_aside.is_empty() {
            self.close(ClosedBy::Credit);
        }
    }

    /// What was taken and is in no batch, or in the open one.
    fn take_waiting(&mut self) -> Vec<Delivery> {
        let mut waiting = self.batcher.abandon();
        waiting.extend(self.pipeline.groups.take_waiting());
        waiting.extend(self.set_aside.drain(..));
        waiting
    }

    async fn hand_back_untried(&mut self) {
        let waiting = self.take_waiting();
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

fn lost_because(lost: Result<SourceError, oneshot::error::RecvError>, mapping: &Mapping) -> SourceError {
    lost.unwrap_or_else(|_| SourceError::Protocol {
        broker: mapping.event_source.clone(),
        words: "the session ended without a cause".into(),
    })
}
