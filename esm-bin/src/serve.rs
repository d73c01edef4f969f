//! The service's life: start, run, drain.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use esm_core::{metrics::Metrics, supervisor::Conditions};
use futures_util::future::join_all;
use prometheus::{Registry, process_collector::ProcessCollector};
use tokio::{net::TcpListener, sync::watch, task::JoinError, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, info, warn};

use crate::{
    access,
    api::routes,
    config::{Config, Problem, Server, Targets},
    control::{plane::ControlPlane, reconciler::Reconciler, store::SqliteStore},
    http::{self, Shared},
    listener::{self, Tls},
    signals::{Asked, Signals},
    unclean_end::Marker,
};

/// What a drain takes beside the longest invocation.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);
/// How long functions' processes may take at the end, with the grace that each has.
const FUNCTIONS_END: Duration = Duration::from_secs(4);
/// How long requests that are being answered may take at the end.
const HTTP_END: Duration = Duration::from_secs(2);

/// How the service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In good order.
    Drained,
    /// The time for a drain was over first; what was unfinished goes back to its broker.
    Late,
    /// A second signal ended it at once.
    Killed {
        /// The signal's number.
        signal: u8,
    },
}

/// Reads the configuration again, after an older reading of it.
pub type Reload<'a> = &'a (dyn Fn(&Targets) -> Result<Config, Vec<Problem>> + Sync);

/// Runs until a signal asks for the end. SIGHUP has the configuration read again.
pub async fn run(config: Config, reload: Reload<'_>) -> anyhow::Result<End> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let mut service = Service::start(config).await?;
    let signal = loop {
        tokio::select! {
            ended = service.failed() => bail!("the control plane failed by an internal error: {ended:?}"),
            signal = signals.next() => match signal {
                Asked::End { signal, .. } => break signal,
                Asked::Reload => service.reload(reload),
            },
        }
    };
    info!(signal, limit = ?service.drain_timeout(), "draining; a second signal ends at once");
    tokio::select! {
        end = service.drain() => Ok(end),
        (signal, number) = signals.end() => {
            warn!(signal, "ended at once; what was unfinished goes back to its broker");
            Ok(End::Killed { signal: number })
        }
    }
}

/// The running service. Dropping it ends everything at once.
pub struct Service {
    address: SocketAddr,
    server: Server,
    marker: Marker,
    draining: CancellationToken,
    plane: ControlPlane,
    reconciler: AbortOnDropHandle<()>,
    /// As the listener speaks it from the next connection on.
    tls: watch::Sender<Option<Tls>>,
    http_end: CancellationToken,
    http: AbortOnDropHandle<()>,
}

impl Service {
    /// Opens the store, starts what is enabled, and the listener. When it returns, requests are answered.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let Config { server, mappings, unreadable_secrets, warnings, targets } = config;
        let store = SqliteStore::open(&server.data_dir).await.context("server.data_dir")?;
        let listener = TcpListener::bind(server.listen).await;
        let listener = listener.with_context(|| format!("server.listen: cannot listen on {}", server.listen))?;
        let address = listener.local_addr()?;
        info!(%address, mappings = mappings.len(), version = env!("CARGO_PKG_VERSION"), "serving");
        error_about(unreadable_secrets);
        warn_of(warnings);

        let marker = Marker::leave(&server.data_dir).context("server.data_dir: cannot leave a file there")?;
        if marker.was_there {
            warn!(
                "esm has not ended in good order; what it was lent by RabbitMQ then is taken one batch at a time first"
            );
        }
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        registry.register(Box::new(store.failures()))?;
        let metrics = Metrics::register(&registry)?;
        let plane = ControlPlane::new(Arc::new(store), targets, mappings);
        let conditions = Conditions {
            memory_limit: server.memory_limit,
            after_unclean_end: marker.was_there,
            drain_timeout: server.drain_timeout,
        };
        let (draining, http_end) = (CancellationToken::new(), CancellationToken::new());
        let reconciler = Reconciler::begin(plane.clone(), metrics, conditions).await;
        let reconciler = AbortOnDropHandle::new(tokio::spawn(reconciler.run(draining.clone())));
        let control = access::guard(routes::router(plane.clone()), server.access.clone());
        let is_open = !server.access.needs_signature();
        let shared = Shared { registry, plane: plane.clone(), draining: draining.clone(), is_open };
        let tls = watch::Sender::new(server.tls.clone());
        let router = http::router(shared, control);
        let http = listener::serve(listener, tls.subscribe(), router, http_end.clone());
        let http = AbortOnDropHandle::new(tokio::spawn(http));
        Ok(Self { address, server, marker, draining, plane, reconciler, tls, http_end, http })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which mappings there are.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// Goes on by another reading of the configuration, if that has no problem: what is the same in it is
    /// not disturbed.
    pub fn reload(&mut self, read: Reload<'_>) {
        let config = match read(&self.plane.targets()) {
            Ok(config) => config,
            Err(problems) => {
                for Problem { key, words } in problems {
                    error!(key, problem = words, "the configuration cannot be used; that of before stays");
                }
                return;
            }
        };
        let Config { server, mappings, unreadable_secrets, warnings, targets } = config;
        let changed = server.fixed_keys_that_differ(&self.server);
        if !changed.is_empty() {
            for key in changed {
                let key = format!("server.{key}");
                error!(key, "has changed, which takes a restart; the configuration of before stays");
            }
            return;
        }
        info!(mappings = mappings.len(), "the configuration was read again");
        error_about(unreadable_secrets);
        warn_of(warnings);
        self.tls.send_replace(server.tls);
        self.plane.replace_file(targets, mappings);
    }

    /// Waits until the control plane has ended without being asked to. May be dropped half-way.
    async fn failed(&mut self) -> Result<(), JoinError> {
        (&mut self.reconciler).await
    }

    /// A function that runs at the start of a drain can then still end by itself.
    fn drain_timeout(&self) -> Duration {
        self.server.drain_timeout.unwrap_or_else(|| self.plane.longest_timeout() + DRAIN_MARGIN)
    }

    /// Says that it is no longer ready, ends the mappings in good order within the time there is for
    /// it, and then the listener. Dropping the future ends everything at once.
    pub async fn drain(self) -> End {
        let limit = self.drain_timeout();
        self.draining.cancel();
        let in_time = timeout(limit, self.reconciler).await.is_ok();
        if !in_time {
            warn!(?limit, "the time to drain is over; what was unfinished goes back to its broker");
        }
        let targets = self.plane.targets();
        // What takes longer ends with us.
        let _ = timeout(FUNCTIONS_END, join_all(targets.functions().map(|function| function.backend.close()))).await;
        self.http_end.cancel();
        // Whoever keeps a request open for longer has no answer coming.
        let _ = timeout(HTTP_END, self.http).await;
        if !in_time {
            return End::Late;
        }
        if let Err(error) = self.marker.remove() {
            warn!(%error, "the end in good order cannot be noted; the next start takes care as after another one");
        }
        End::Drained
    }
}

fn error_about(unreadable_secrets: Vec<Problem>) {
    for Problem { key, words } in unreadable_secrets {
        error!(key, problem = words, "a mapping cannot log in until this can be read");
    }
}

fn warn_of(warnings: Vec<Problem>) {
    for Problem { key, words } in warnings {
        warn!(key, "{words}");
    }
}
