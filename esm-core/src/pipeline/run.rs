//! The loop of one session: takes what arrives, makes batches of it, and takes note of what became
//! of them.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Duration, Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, error, info, warn};

use super::{
    End, Ended, Parts, Pipeline, Task,
    ending::Borrows,
    lease::{Lease, Place, unusable},
};
use crate::{
    batch::{Batch, Batcher, ClosedBy, Room},
    event::EVENT_SIZE_LIMIT,
    filter::Sieve,
    groups::Groups,
    mapping::Mapping,
    memory::Hand,
    metrics::DropReason,
    returns::is_endangered,
    source::{Arrival, Delivery, Outdated, Receipt, SourceError, Terms, Unusable},
};

/// How long to wait for a session's own cause when something else says that it is lost.
const CAUSE_PATIENCE: Duration = Duration::from_secs(1);

/// What wakes a session.
enum Event {
    Drain,
    Finish(Ended),
    Lose(SourceError),
    Trouble,
    Outdate,
    /// More arrived than there is memory for.
    Overflow,
    /// The mapping may have more or less in hand.
    Share,
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
    /// What the deliveries take.
    pub(super) hand: Hand,
    /// Tells when mappings come or go that share the memory.
    pub(super) shares: watch::Receiver<usize>,
    pub(super) lost: oneshot::Receiver<SourceError>,
    pub(super) trouble: watch::Receiver<Option<SourceError>>,
    pub(super) outdated: Outdated,
    pub(super) sieve: Sieve,
    /// What was in no batch yet when the settings changed, in the broker's order; it comes before what arrives.
    pub(super) set_aside: VecDeque<Delivery>,
    /// Deliveries that no filter accepts, until they are acknowledged together.
    pub(super) rejected: Vec<Receipt>,
    /// Deliveries for which there was no memory.
    pub(super) surplus: Vec<Receipt>,
    /// Some are being acknowledged now; so further ones gather meanwhile.
    pub(super) is_rejecting: bool,
    pub(super) batcher: Batcher,
    pub(super) prefetch: usize,
    pub(super) terms: Terms,
    pub(super) prefetch_limit: u32,
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
                Event::Overflow => {
                    if let Err(error) = self.borrow_no_more(Borrows::NoMemory).await {
                        return End::Lost(self.cause_of_loss(error).await);
                    }
                }
                Event::Share => {}
                Event::Adjust => {
                    if self.adjust() {
                        info!("opening a session, in which what is parked comes again");
                        self.retire().await;
                        return End::Outgrown;
                    }
                }
                Event::Rest => self.heed_resting(),
                Event::Place => self.take_released(),
                Event::Arrive(arrival) => self.take(arrival),
                Event::Window => self.close(ClosedBy::Window),
                Event::Stall => {
                    if let Err(error) = self.hand_back_what_waits().await {
                        return End::Lost(self.cause_of_loss(error).await);
                    }
                }
            }
            if self.has_nothing_more_to_do() {
                if self.borrows == Borrows::NoMemory {
                    self.close(ClosedBy::Credit);
                    self.pipeline.sizes.count_unfit();
                }
                self.retire().await;
                return End::Outgrown;
            }
            let terms = self.better_terms();
            self.hand.limit(terms.memory);
            if terms.alone != self.terms.alone && self.borrows == Borrows::Yes {
                info!(alone = terms.alone, "opening a session on another connection");
                self.retire().await;
                return End::Outgrown;
            }
            if self.has_outgrown_its_terms(terms.prefetch)
                && let Err(error) = self.change_terms(terms).await
            {
                return End::Lost(self.cause_of_loss(error).await);
            }
            self.close_without_credit();
        }
    }

    /// What it would be opened with now. One that borrows one message at a time borrows one beside those that are parked.
    fn better_terms(&self) -> Terms {
        let terms = self.pipeline.terms_beside(self.resting(), self.prefetch_limit);
        let parked = if terms.alone { u32::try_from(self.parked).unwrap_or(u32::MAX) } else { 0 };
        Terms { prefetch: terms.prefetch.saturating_add(parked), ..terms }
    }

    async fn change_terms(&mut self, terms: Terms) -> Result<(), SourceError> {
        self.lease.consumer.set_prefetch(terms.prefetch).await?;
        info!(record_size = self.pipeline.sizes.record(), prefetch = terms.prefetch, "changed the prefetch");
        self.prefetch = terms.prefetch as usize;
        self.terms = terms;
        self.take_released(); // as much as is parked, more may be taken now
        Ok(())
    }

    /// Nothing is widened but when all that is borrowed is in hand: a queue that lends less needs no more, what was
    /// lent before a change may come on top of what is lent after it, and a consumer that may still lend would lend
    /// beside the one that takes its place, in an order that is not the queue's.
    fn has_outgrown_its_terms(&self, better: u32) -> bool {
        let now = self.terms.prefetch;
        self.wants(better) && (better < now || self.in_hand() == now)
    }

    /// Whether another prefetch is worth a change, and there is memory for it.
    fn wants(&self, better: u32) -> bool {
        let Terms { prefetch: now, alone, .. } = self.terms;
        let lending = self.pipeline.lending(self.resting(), self.prefetch_limit);
        let has_memory = || self.hand.held() <= lending.bytes();
        let is_worth_it = || if alone { better != now } else { lending.is_worth_changing(now, better) };
        self.borrows == Borrows::Yes && is_worth_it() && (better < now || has_memory())
    }

    fn resting(&self) -> u32 {
        u32::try_from(*self.resting.borrow()).unwrap_or(u32::MAX)
    }

    /// The deliveries that are not settled, but for those that wait for their acknowledgement without a batch.
    fn in_hand(&self) -> u32 {
        let in_hand = self.lease.unsettled.load(Ordering::Relaxed) + self.deliveries.len();
        u32::try_from(in_hand).unwrap_or(u32::MAX)
    }

    pub(super) fn lent_at_most(&self) -> u32 {
        self.in_hand().max(self.terms.prefetch)
    }

    async fn next_event(&mut self) -> Event {
        let (has_place, may_take) = (self.has_place(), self.may_take());
        if may_take && (self.pipeline.groups.has_released() || !self.set_aside.is_empty()) {
            return Event::Place; // it came before what arrives
        }
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
            // A reader that ended because it was asked to knows no cause.
            lost = &mut self.lost, if self.borrows == Borrows::Yes => Event::Lose(lost_because(lost, &self.lease.parts.mapping)),
            Ok(()) = self.trouble.changed() => Event::Trouble,
            () = &mut self.outdated => Event::Outdate,
            () = self.hand.went_over() => Event::Overflow,
            Ok(()) = self.shares.changed() => Event::Share,
            Ok(()) = self.pipeline.parts.wanted.changed() => Event::Adjust,
            Ok(()) = self.resting.changed() => Event::Rest,
            Ok(_) = self.places.acquire(), if !has_place => Event::Place,
            // `None`: the reader has ended, and `lost` is about to say why.
            Some(arrival) = self.deliveries.recv(), if may_take => Event::Arrive(arrival),
            () = window, if may_take => Event::Window,
            () = stall => Event::Stall,
        }
    }

    fn may_take(&self) -> bool {
        self.has_place() && !self.is_clogged()
    }

    pub(super) fn has_place(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// Messages that are parked or wait to be retried may take half the prefetch; with more, too little would be left
    /// to work with.
    fn is_clogged(&self) -> bool {
        let resting = *self.resting.borrow();
        if self.terms.alone { resting > 0 } else { (self.parked + resting) * 2 > self.prefetch }
    }

    /// Takes note of how many messages wait to be retried. As long as more can be borrowed, that is no problem.
    fn heed_resting(&mut self) {
        let resting = *self.resting.borrow_and_update();
        let better = self.better_terms().prefetch;
        let is_clogged = self.is_clogged() && !(better > self.terms.prefetch && self.wants(better));
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
                Arrival::Delivery(delivery) => {
                    match delivery.record.size() {
                        size @ EVENT_SIZE_LIMIT.. => self.pipeline.sizes.see_unfit(size),
                        size => self.pipeline.sizes.see(size),
                    }
                    if self.sieve.passes(&delivery.record) {
                        self.lease.unsettled.fetch_add(1, Ordering::Relaxed);
                        self.offer(delivery);
                    } else {
                        self.rejected.push(delivery.receipt);
                    }
                }
                Arrival::Surplus(receipt) => self.surplus.push(receipt),
                Arrival::Unusable(unusable) => {
                    self.pipeline.sizes.see_unfit(unusable.size);
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
        if self.pipeline.sizes.record() == 0 && self.is_all_lent() {
            self.pipeline.sizes.end_sample(); // no larger one can come
        }
    }

    /// Acknowledges what no filter accepts: all that has gathered, with one call.
    pub(super) fn reject(&mut self) {
        let rejected = std::mem::take(&mut self.rejected);
        if !rejected.is_empty() {
            self.is_rejecting = true;
            let task = self.lease.clone().reject(rejected).instrument(Span::current());
            self.pipeline.tasks.spawn(task);
        }
    }

    /// Puts a delivery into the open batch, unless its group has to wait.
    pub(super) fn offer(&mut self, delivery: Delivery) {
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
                let (attempts, original, held) = (delivery.failed, delivery.original.take(), delivery.held.take());
                self.give_up(Unusable { original, held, ..unusable(&delivery, DropReason::TooLarge, cause) }, attempts);
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

    /// Goes on with other settings. Batches in flight end by those that they began with. Returns whether a new
    /// session is better: messages are parked, and may have somewhere to go now.
    fn adjust(&mut self) -> bool {
        let before = self.pipeline.mapping().dead_letter;
        self.pipeline.adopt_settings();
        if self.parked > 0 && self.pipeline.mapping().dead_letter != before {
            return true;
        }
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
        false
    }

    /// Takes what need not wait any more: for its group, or since the settings changed.
    fn take_released(&mut self) {
        while self.may_take()
            && let Some(delivery) = self.pipeline.groups.next_released().or_else(|| self.set_aside.pop_front())
        {
            self.offer(delivery);
        }
    }

    /// A batch never waits for what the broker cannot send.
    fn close_without_credit(&mut self) {
        if self.may_take() && self.is_all_lent() {
            self.close(ClosedBy::Credit);
        }
    }

    /// Whether the broker can send no more until something is settled.
    fn is_all_lent(&self) -> bool {
        self.lease.unsettled.load(Ordering::Relaxed) >= self.prefetch
    }

    pub(super) fn close(&mut self, by: ClosedBy) {
        if let Some(batch) = self.batcher.close(by) {
            self.start(batch);
        }
    }

    fn start(&mut self, batch: Batch) {
        self.pipeline.sizes.end_sample();
        let groups = Groups::of(&batch);
        let task = self.lease.clone().process(batch, Place::new(&self.places)).instrument(Span::current());
        let id = self.pipeline.tasks.spawn(task).id();
        self.pipeline.groups.begin(id, groups);
    }

    pub(super) fn give_up(&mut self, unusable: Unusable, attempts: u32) {
        let task = self.lease.clone().give_up_alone(unusable, attempts).instrument(Span::current());
        self.pipeline.tasks.spawn(task);
    }

    pub(super) fn finish(&mut self, result: Ended) -> Result<(), SourceError> {
        let finished = self.pipeline.note(result)?;
        if let Some(error) = self.lease.untold.get() {
            return Err(error.clone());
        }
        if finished.session_number != self.lease.session_number {
            self.take_released();
            return Ok(()); // its deliveries went back with its session
        }
        if self.lease.has_succeeded.load(Ordering::Relaxed) {
            self.pipeline.is_on_probation = false;
        }
        if finished.task != Task::GivingUp {
            self.pipeline.caution.reassure();
            self.pipeline.is_held = self.borrows == Borrows::HeldForLong;
        }
        if finished.task == Task::Rejection {
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
