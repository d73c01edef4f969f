//! Keeps mappings running: connects, runs a session, and when it is lost says why, waits and
//! connects again, for as long as nobody asks for an end.

use std::sync::Arc;

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Duration, Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, error_span, info, warn};

use crate::{
    function::Function,
    mapping::Mapping,
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

/// Runs mappings, each by itself: what happens to one does not touch another.
pub struct Supervisor {
    metrics: Metrics,
    drain: CancellationToken,
    tasks: JoinSet<()>,
}

/// A mapping and the reading end of its status.
#[derive(Clone)]
pub struct Supervised {
    /// As it was asked for.
    pub mapping: Arc<Mapping>,
    /// What it does now.
    pub status: watch::Receiver<Status>,
}

impl Supervisor {
    /// A supervisor of nothing yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, drain: CancellationToken::new(), tasks: JoinSet::new() }
    }

    /// Starts a mapping.
    pub fn start(&mut self, mapping: Mapping, source: Arc<dyn Connect>, function: Arc<Function>) -> Supervised {
        let mapping = Arc::new(mapping);
        let status = StatusWriter::new(State::Creating);
        let supervised = Supervised { mapping: mapping.clone(), status: status.subscribe() };
        let span =
            error_span!("mapping", uuid = %mapping.uuid, queue = mapping.queue, event_source = mapping.event_source);
        let parts = Parts { metrics: self.metrics.mapping(&mapping), mapping, function, status };
        let drain = self.drain.clone();
        self.tasks.spawn(keep_running(parts, source, drain).instrument(span));
        supervised
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
async fn keep_running(parts: Parts, source: Arc<dyn Connect>, drain: CancellationToken) {
    loop {
        let mut task = JoinSet::new(); // dropped with this future, and the task with it
        task.spawn(run(parts.clone(), source.clone(), drain.clone()).in_current_span());
        match task.join_next().await {
            Some(Err(cause)) if cause.is_panic() => {
                error!(%cause, "the mapping failed by an internal error and is started again");
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

async fn run(parts: Parts, source: Arc<dyn Connect>, drain: CancellationToken) {
    let mut pipeline = Pipeline::new(parts.clone());
    let mut sessions = Sessions::new(parts);
    while !drain.is_cancelled() {
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
        let Parts { metrics, status, mapping, .. } = &self.parts;
        if std::mem::take(&mut self.was_lost) {
            metrics.reconnects.inc();
        }
        self.since = Instant::now();
        metrics.source_connected.set(1);
        status.connected();
        let concurrency = mapping.effective_concurrency(session.prefetch);
        info!(prefetch = session.prefetch, concurrency, "reading the queue");
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
