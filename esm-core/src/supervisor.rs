//! Keeps mappings running: connects, runs a session, and when it is lost says why, waits and
//! connects again, for as long as nobody asks for an end.

use std::{collections::HashMap, sync::Arc};

use tokio::{
    sync::watch,
    task::{Id, JoinSet},
    time::{Duration, Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, error_span, info, warn};
use uuid::Uuid;

use crate::{
    function::Function,
    mapping::Mapping,
    memory::Memory,
    metrics::Metrics,
    pipeline::{End, Parts, Pipeline},
    retry::exponential,
    source::{Connect, Session, SourceError},
    status::{State, Status, StatusWriter},
};

const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// A session that lasted so long was a good one: the next delay is the first again.
const GOOD_SESSION: Duration = Duration::from_secs(30);

/// What mappings are run under.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// The bytes that all mappings together may have in hand.
    pub memory_limit: usize,
    /// The process before this one did not end in good order: what was lent to it may have to do with that.
    pub after_unclean_end: bool,
    /// How long the end may take; if `None`, as long as the longest timeout of a function and a little more.
    pub drain_timeout: Option<Duration>,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { memory_limit: Memory::DEFAULT, after_unclean_end: false, drain_timeout: None }
    }
}

/// Runs mappings, each by itself: what happens to one does not touch another.
pub struct Supervisor {
    metrics: Metrics,
    memory: Memory,
    after_unclean_end: bool,
    drain_timeout: Option<Duration>,
    drain: CancellationToken,
    tasks: JoinSet<()>,
    running: HashMap<Id, Running>,
}

/// The ends that lead to a mapping at work.
struct Running {
    uuid: Uuid,
    drain: CancellationToken,
    wanted: watch::Sender<Arc<Mapping>>,
}

impl Supervisor {
    /// A supervisor of nothing yet.
    pub fn new(metrics: Metrics, conditions: Conditions) -> Self {
        let Conditions { memory_limit, after_unclean_end, drain_timeout } = conditions;
        Self {
            metrics,
            memory: Memory::new(memory_limit),
            after_unclean_end,
            drain_timeout,
            drain: CancellationToken::new(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
        }
    }

    /// Starts a mapping, of which none with its UUID may be running. What it does shows in its status.
    pub fn start(
        &mut self,
        mapping: Mapping,
        source: Arc<dyn Connect>,
        function: Arc<Function>,
    ) -> watch::Receiver<Status> {
        let mapping = Arc::new(mapping);
        let writer = StatusWriter::new(State::Creating);
        let status = writer.subscribe();
        let span =
            error_span!("mapping", uuid = %mapping.uuid, queue = mapping.queue, event_source = mapping.event_source);
        let (drain, uuid) = (self.drain.child_token(), mapping.uuid);
        let wanted = watch::Sender::new(mapping.clone());
        let metrics = self.metrics.mapping(&mapping);
        let share = Arc::new(self.memory.share());
        let drain_timeout = self.drain_timeout.unwrap_or(function.timeout);
        let parts =
            Parts { metrics, mapping, wanted: wanted.subscribe(), function, share, status: writer, drain_timeout };
        let is_on_probation = self.after_unclean_end && source.counts_losses();
        let task = self.tasks.spawn(keep_running(parts, source, is_on_probation, drain.clone()).instrument(span));
        self.running.insert(task.id(), Running { uuid, drain, wanted });
        status
    }

    /// Hands new settings to the running mapping of the same UUID, with the same queue and the same
    /// function. Batches in flight end by the old ones; what is in no batch yet goes by the new ones.
    pub fn adjust(&self, mapping: Mapping) {
        let running = self.running.values().find(|running| running.uuid == mapping.uuid);
        if let Some(running) = running {
            running.wanted.send_replace(Arc::new(mapping));
        }
    }

    /// Asks one mapping to end in good order, as [`Self::drain`] does for all; [`Self::ended`] tells when it has.
    pub fn stop(&self, uuid: Uuid) {
        for running in self.running.values().filter(|running| running.uuid == uuid) {
            running.drain.cancel();
        }
    }

    /// Waits until a mapping has ended, and its metrics are gone. May be dropped half-way.
    pub async fn ended(&mut self) -> Uuid {
        loop {
            let id = match self.tasks.join_next_with_id().await {
                Some(Ok((id, ()))) => id,
                Some(Err(cause)) => cause.id(),
                None => std::future::pending().await,
            };
            if let Some(running) = self.running.remove(&id) {
                return running.uuid;
            }
        }
    }

    /// Ends every mapping in good order: nothing more is invoked, running invocations end and are
    /// settled, the rest goes back to its broker. Dropping the future, or the supervisor, ends all
    /// at once; unsettled messages then go back by themselves.
    pub async fn drain(mut self) {
        self.drain.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Runs one mapping, and once more should it panic.
async fn keep_running(parts: Parts, source: Arc<dyn Connect>, is_on_probation: bool, drain: CancellationToken) {
    loop {
        let mut task = JoinSet::new(); // dropped with this future, and the task with it
        task.spawn(run(parts.clone(), source.clone(), is_on_probation, drain.clone()).in_current_span());
        match task.join_next().await {
            Some(Err(cause)) if cause.is_panic() => {
                error!(%cause, "the mapping failed by an internal error and is started again");
                parts.metrics.source_connected.set(0);
                parts.status.problem("an internal error; the mapping is started again");
                tokio::select! {
                    () = sleep(LONGEST_DELAY) => {}
                    () = drain.cancelled() => return parts.status.disabled(),
                }
            }
            _ => return parts.status.disabled(),
        }
    }
}

async fn run(parts: Parts, source: Arc<dyn Connect>, is_on_probation: bool, drain: CancellationToken) {
    let mut pipeline = Pipeline::new(parts.clone(), is_on_probation);
    let mut sessions = Sessions::new(parts);
    while !drain.is_cancelled() {
        pipeline.adopt_settings();
        let terms = pipeline.terms(source.prefetch_limit());
        let connected = tokio::select! {
            biased;
            () = drain.cancelled() => break,
            connected = source.connect(terms) => connected,
            () = pipeline.reap() => break,
        };
        let delay = match connected {
            Ok(session) => {
                sessions.begin(&session);
                match pipeline.run(session, terms, source.prefetch_limit(), &drain).await {
                    End::Drained => break,
                    End::Outgrown => continue,
                    End::Lost(error) => sessions.lost(&error),
                }
            }
            Err(error) => sessions.refused(&error),
        };
        tokio::select! {
            biased;
            () = drain.cancelled() => {}
            () = sleep(delay) => {}
            () = pipeline.reap() => {}
        }
    }
    pipeline.finish().await;
    sessions.end();
}

/// Takes note of sessions that begin and end, and decides how long to wait for the next.
struct Sessions {
    parts: Parts,
    failures: u32,
    /// Whether a session was lost and none opened since.
    was_lost: bool,
    since: Instant,
}

impl Sessions {
    fn new(parts: Parts) -> Self {
        Self { parts, failures: 0, was_lost: false, since: Instant::now() }
    }

    fn begin(&mut self, session: &Session) {
        let Parts { metrics, status, .. } = &self.parts;
        if std::mem::take(&mut self.was_lost) {
            metrics.reconnects.inc();
        }
        self.since = Instant::now();
        metrics.source_connected.set(1);
        status.connected();
        info!(prefetch = session.prefetch, "reading the queue");
    }

    fn lost(&mut self, error: &SourceError) -> Duration {
        if self.since.elapsed() >= GOOD_SESSION {
            self.failures = 0;
        }
        self.was_lost = true;
        self.failed(error, "the session was lost")
    }

    fn refused(&mut self, error: &SourceError) -> Duration {
        self.failed(error, "cannot read the queue")
    }

    fn failed(&mut self, error: &SourceError, what: &str) -> Duration {
        self.failures += 1;
        let delay = exponential(FIRST_DELAY, LONGEST_DELAY, self.failures, fastrand::f64());
        warn!(%error, ?delay, "{what}; trying again");
        self.parts.metrics.source_connected.set(0);
        self.parts.status.source_problem(error, false);
        delay
    }

    fn end(&self) {
        self.parts.metrics.source_connected.set(0);
        info!("stopped");
    }
}
