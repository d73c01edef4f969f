//! How a session ends in good order: nothing more is borrowed, what is in hand is worked on or handed back, and what
//! runs is waited for.

use std::sync::atomic::Ordering;

use tokio::{
    pin, select,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::run::Run;
use crate::{
    batch::ClosedBy,
    returns::{is_endangered, last_start, longest_wait},
    source::{Arrival, Delivery, Receipt, SourceError},
};

/// Whether the broker lends further deliveries in this session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Borrows {
    Yes,
    /// There is no memory for them. What arrived before is still worked on.
    NoMemory,
    /// What was not tried went back, since it was held for long. What was begun goes on.
    HeldForLong,
}

impl Run<'_> {
    /// Has nothing more sent.
    pub(super) async fn borrow_no_more(&mut self, why: Borrows) -> Result<(), SourceError> {
        self.borrows = why;
        self.lease.consumer.cancel().await
    }

    /// Whether a session in which nothing more arrives has come to its end.
    pub(super) fn has_nothing_more_to_do(&self) -> bool {
        match self.borrows {
            Borrows::Yes => false,
            Borrows::NoMemory => {
                let is_at_end = self.deliveries.is_closed() && self.deliveries.is_empty();
                is_at_end || !self.surplus.is_empty()
            }
            Borrows::HeldForLong => self.set_aside.is_empty() && self.pipeline.tasks.is_empty() && self.parked == 0,
        }
    }

    /// When what waits to be tried has to go back, unless something is taken before.
    pub(super) fn stalls_at(&self) -> Option<Instant> {
        let may_stall = self.borrows == Borrows::Yes && !self.pipeline.is_held;
        let wait = longest_wait(self.lease.hold_limit.filter(|_| may_stall)?);
        self.stalled_since?.checked_add(wait)
    }

    /// Hands back what was not tried, before the broker takes offence at how long it is held.
    pub(super) async fn hand_back_what_waits(&mut self) -> Result<(), SourceError> {
        let mut waiting = self.take_waiting();
        if waiting.is_empty() && self.deliveries.is_empty() {
            self.stalled_since = Some(Instant::now()); // what comes from now on has not waited yet
            return Ok(());
        }
        warn!("nothing could be tried for long; what waits goes back to the broker");
        self.pipeline.is_held = true;
        self.borrow_no_more(Borrows::HeldForLong).await?;
        let limit = self.lease.delivery_limit;
        let mut untried = std::mem::take(&mut self.surplus);
        self.set_aside.extend(waiting.extract_if(.., |delivery| is_endangered(delivery.returns, limit)));
        while let Some(arrival) = self.deliveries.recv().await {
            match arrival {
                Arrival::Delivery(delivery) if is_endangered(delivery.returns, limit) => {
                    self.lease.unsettled.fetch_add(1, Ordering::Relaxed);
                    self.set_aside.push_back(delivery);
                }
                Arrival::Delivery(Delivery { receipt, .. }) | Arrival::Surplus(receipt) => untried.push(receipt),
                Arrival::Unusable(unusable) => untried.push(unusable.receipt),
            }
        }
        self.lease.unsettled.fetch_sub(waiting.len(), Ordering::Relaxed);
        untried.extend(waiting.iter().map(|delivery| delivery.receipt));
        untried.sort_unstable();
        self.lease.hand_back(&untried, false).await;
        Ok(())
    }

    /// Ends the session: nothing more is taken or retried, what runs is waited for.
    pub(super) async fn retire(&mut self) {
        let consumer = self.lease.consumer.clone();
        self.reject();
        let works_off = self.most_returned > 0 && self.lease.delivery_limit.is_some();
        if !works_off {
            self.lease.closing.cancel();
        }
        let cancelled = consumer.cancel().await;
        self.lease.retire.cancel();
        match cancelled {
            Ok(()) => {
                if works_off {
                    self.work_off().await;
                }
                self.lease.closing.cancel();
                self.hand_back_untried().await;
            }
            Err(error) => {
                warn!(%error, "could not stop deliveries in good order; the broker takes them back itself");
                self.lease.closing.cancel();
            }
        }
        self.pipeline.finish().await;
        consumer.close().await;
    }

    /// Invokes what was lent and not tried, for as long as the end may wait: the broker would count its return. What it
    /// would soon drop comes first.
    async fn work_off(&mut self) {
        let mut waiting = self.take_waiting();
        while let Some(arrival) = self.deliveries.recv().await {
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
                Arrival::Surplus(receipt) => {
                    self.surplus.push(receipt);
                    continue;
                }
            }
            self.lease.parts.metrics.polled.inc();
        }
        if !self.is_rejecting {
            self.reject();
        }
        let limit = self.lease.delivery_limit;
        waiting.sort_by_key(|delivery| (!is_endangered(delivery.returns, limit), delivery.receipt));
        info!(
            untried = waiting.len(),
            running = self.lease.parts.metrics.in_flight_batches.get(),
            function = self.lease.parts.function.name,
            "ending: what was not tried is worked off, since the broker counts what comes back"
        );
        self.set_aside = waiting.into();
        let parts = &self.lease.parts;
        let last_start = last_start(parts.drain_timeout, parts.function.timeout);
        let (drain, places) = (self.drain.clone(), self.places.clone());
        let deadline = async {
            drain.cancelled().await;
            sleep(last_start).await;
        };
        pin!(deadline);
        loop {
            self.offer_set_aside();
            if self.set_aside.is_empty() && self.pipeline.tasks.is_empty() {
                return;
            }
            let has_place = self.has_place();
            select! {
                biased;
                () = &mut deadline => return,
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
    pub(super) fn take_waiting(&mut self) -> Vec<Delivery> {
        let mut waiting = self.batcher.abandon();
        waiting.extend(self.pipeline.groups.take_waiting());
        waiting.extend(self.set_aside.drain(..));
        waiting
    }

    async fn hand_back_untried(&mut self) {
        let waiting = self.take_waiting();
        let mut untried: Vec<Receipt> = waiting.iter().map(|delivery| delivery.receipt).collect();
        let mut surplus = std::mem::take(&mut self.surplus);
        while let Some(arrival) = self.deliveries.recv().await {
            untried.push(match arrival {
                Arrival::Delivery(delivery) => delivery.receipt,
                Arrival::Unusable(unusable) => unusable.receipt,
                Arrival::Surplus(receipt) => {
                    surplus.push(receipt);
                    continue;
                }
            });
        }
        if self.hand.is_over() {
            self.lease.parts.metrics.surplus.inc_by(surplus.len() as u64);
            warn!(
                surplus = surplus.len(),
                share = self.terms.memory,
                record_size = self.pipeline.sizes.record(),
                "larger messages arrived than there is memory for (server.memory_limit_in_mebibytes); the session ends, \
                 so that they go back, and another one borrows less"
            );
        }
        untried.append(&mut surplus);
        untried.sort_unstable();
        info!(
            untried = untried.len(),
            running = self.lease.parts.metrics.in_flight_batches.get(),
            function = self.lease.parts.function.name,
            "ending: what was not tried goes back, what runs is waited for"
        );
        self.lease.hand_back(&untried, false).await;
    }
}
