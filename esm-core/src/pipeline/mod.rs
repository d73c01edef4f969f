//! One mapping at work: deliveries become batches, batches are invoked until they are settled.
//!
//! [`Pipeline`] outlives connections, because an invocation may: it keeps its place among the
//! batches in flight until it ends, and its result settles nothing of a later session.
//!
//! Reading order: this file (what outlives sessions), `run` (the loop of one session), `lease` (a
//! batch from its first invocation until it is settled), `ending` (how a session ends in good order),
//! `terms` (how much is borrowed).

mod ending;
mod lease;
mod run;
mod terms;

use std::{collections::VecDeque, sync::Arc};

use tokio::{
    sync::{Semaphore, watch},
    task::{Id, JoinError, JoinSet},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::{
    ending::Borrows,
    lease::Lease,
    run::Run,
    terms::{Caution, Lending, Sizes},
};
use crate::{
    batch::Batcher,
    failures::Failures,
    filter::Sieve,
    function::Function,
    groups::Groups,
    mapping::Mapping,
    memory::Share,
    metrics::MappingMetrics,
    source::{Session, SourceError, Terms},
    status::StatusWriter,
};

/// What a pipeline works with, whatever the session.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) mapping: Arc<Mapping>,
    /// The mapping as it is wanted now: what differs is a setting, and never its function or its queue.
    pub(crate) wanted: watch::Receiver<Arc<Mapping>>,
    pub(crate) function: Arc<Function>,
    /// What it may have in hand.
    pub(crate) share: Arc<Share>,
    pub(crate) metrics: Arc<MappingMetrics>,
    pub(crate) status: StatusWriter,
    /// How long a drain may take at least.
    pub(crate) drain_timeout: Duration,
}

/// Why a session ended.
pub(crate) enum End {
    /// As asked; everything is settled or handed back.
    Drained,
    /// In good order, so that one with another login, or with less in hand, takes its place.
    Outgrown,
    /// The broker or the way to it failed; what was not settled goes back by itself.
    Lost(SourceError),
}

pub(crate) struct Pipeline {
    parts: Parts,
    tasks: JoinSet<Finished>,
    /// As many as batches may be in flight.
    places: Arc<Semaphore>,
    session_number: u64,
    sizes: Sizes,
    caution: Caution,
    /// No batch has succeeded since something went wrong that the broker may count against what was lent.
    is_on_probation: bool,
    /// No batch has ended since what was not tried had to go back, because it was held for long.
    is_held: bool,
    groups: Groups,
    failures: Arc<Failures>,
}

/// What a task did with the deliveries that it was given.
#[derive(Clone, Copy, Debug)]
struct Finished {
    session_number: u64,
    task: Task,
    parked: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Batch,
    /// It acknowledged what no filter accepts.
    Rejection,
    /// It gave a message up that was in no batch.
    GivingUp,
}

/// How a task has ended.
type Ended = Result<(Id, Finished), JoinError>;

impl Pipeline {
    pub(crate) fn new(mut parts: Parts, is_on_probation: bool) -> Self {
        parts.mapping = parts.wanted.borrow_and_update().clone();
        let places = Semaphore::new(parts.mapping.maximum_concurrency.get().into());
        Self {
            places: Arc::new(places),
            parts,
            tasks: JoinSet::new(),
            session_number: 0,
            sizes: Sizes::default(),
            caution: Caution::default(),
            is_on_probation,
            is_held: false,
            groups: Groups::default(),
            failures: Arc::default(),
        }
    }

    /// The mapping with the settings that the next batch gets.
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.parts.mapping
    }

    /// Takes over what is wanted now.
    pub(crate) fn adopt_settings(&mut self) {
        let places = |mapping: &Mapping| usize::from(mapping.maximum_concurrency.get());
        let before = places(&self.parts.mapping);
        self.parts.mapping = self.parts.wanted.borrow_and_update().clone();
        let now = places(&self.parts.mapping);
        self.places.add_permits(now.saturating_sub(before));
        let too_many = before.saturating_sub(now);
        let taken = too_many - self.places.forget_permits(too_many);
        if let Some(taken) = u32::try_from(taken).ok().filter(|taken| *taken > 0) {
            // Batches in flight keep theirs until they end.
            let places = self.places.clone();
            tokio::spawn(async move {
                if let Ok(permits) = places.acquire_many_owned(taken).await {
                    permits.forget();
                }
            });
        }
    }

    /// What the next session is to be opened with, by what was seen so far.
    pub(crate) fn terms(&self, limit: u32) -> Terms {
        self.terms_beside(0, limit)
    }

    /// The same for a session in which so many messages wait to be retried.
    fn terms_beside(&self, resting: u32, limit: u32) -> Terms {
        let alone = self.caution.is_on();
        let lending = self.lending(resting, limit);
        let prefetch = if alone { 1 } else { lending.prefetch(&self.sizes) };
        Terms { prefetch, alone, memory: lending.share }
    }

    fn lending(&self, resting: u32, limit: u32) -> Lending<'_> {
        let Parts { mapping, share, .. } = &self.parts;
        let is_on_probation = self.is_on_probation || self.is_held;
        Lending { mapping, limit, share: share.bytes(), is_on_probation, resting }
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
        let Session {
            deliveries,
            consumer,
            hand,
            lost,
            trouble,
            outdated,
            envelope,
            prefetch,
            hold_limit,
            delivery_limit,
            unique_ids,
            destination,
        } = session;
        let lease = Arc::new(Lease {
            parts: self.parts.clone(),
            session_number: self.session_number,
            consumer,
            destination,
            hold_limit,
            delivery_limit,
            failures: unique_ids.then(|| self.failures.clone()),
            closing: CancellationToken::new(),
            retire: CancellationToken::new(),
            over: CancellationToken::new(),
            untold: Arc::default(),
            has_succeeded: Arc::default(),
            parked_because: Arc::default(),
            unsettled: Arc::default(),
            resting: watch::Sender::new(0),
            envelope,
        });
        let _over = lease.over.clone().drop_guard();
        let batcher = Batcher::new(&self.parts.mapping, &lease.envelope);
        let sieve = Sieve::new(self.parts.mapping.filter.clone());
        // What waits for its group is of a session that has ended, and comes again.
        drop(self.groups.take_waiting());
        let mut run = Run {
            places: self.places.clone(),
            resting: lease.resting.subscribe(),
            was_clogged: false,
            shares: self.parts.share.subscribe(),
            pipeline: self,
            lease,
            drain: drain.clone(),
            most_returned: 0,
            stalled_since: None,
            borrows: Borrows::Yes,
            deliveries,
            hand,
            lost,
            trouble,
            outdated,
            sieve,
            set_aside: VecDeque::new(),
            rejected: Vec::new(),
            surplus: Vec::new(),
            is_rejecting: false,
            batcher,
            prefetch: prefetch as usize,
            terms,
            prefetch_limit,
            parked: 0,
        };
        let end = run.run().await;
        if let End::Lost(error) = &end {
            if let SourceError::Unreadable { .. } = error {
                let lent = run.lent_at_most();
                run.pipeline.caution.begin(lent);
            }
            // Whatever is left of it: a channel that is still open would keep what it lent.
            run.lease.over.cancel();
            run.lease.consumer.close().await;
        }
        run.pipeline.sizes.end_session();
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
        result.map(|(_, finished)| finished).map_err(|cause| {
            error!(%cause, "a batch was given up by an internal error; its messages go back to the broker");
            SourceError::Protocol {
                broker: self.parts.mapping.event_source.clone(),
                words: format!("the session was ended because of an internal error: {cause}"),
            }
        })
    }
}
