//! The service's life: start, run, drain.

use std::{
    collections::{HashMap, hash_map},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use axum::Router;
use esm_core::{
    function::Function,
    metrics::Metrics,
    status::{State, Status},
    supervisor::{Supervised, Supervisor},
};
use futures_util::future::join_all;
use prometheus::{Registry, process_collector::ProcessCollector};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, info, warn};

use crate::{
    access,
    config::{self, Config, ConfiguredMapping, Problem},
    http::{self, Listed, Shared},
    listener,
    signals::Signals,
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

/// Runs until a signal asks for the end.
pub async fn run(config: Config) -> anyhow::Result<End> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let service = Service::start(config).await?;
    let (signal, _) = signals.next().await;
    info!(signal, limit = ?service.drain_timeout, "draining; a second signal ends at once");
    tokio::select! {
        end = service.drain() => Ok(end),
        (name, signal) = signals.next() => {
            warn!(signal = name, "ended at once; what was unfinished goes back to its broker");
            Ok(End::Killed { signal })
        }
    }
}

/// The running service. Dropping it ends everything at once.
pub struct Service {
    address: SocketAddr,
    drain_timeout: Duration,
    draining: CancellationToken,
    supervisor: Supervisor,
    functions: Vec<Arc<config::Function>>,
    http_end: CancellationToken,
    http: AbortOnDropHandle<()>,
}

impl Service {
    /// Starts every enabled mapping and the listener. When it returns, requests are answered.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let drain_timeout = drain_timeout(&config);
        let Config { server, mappings, unreadable_secrets, warnings, functions } = config;
        let listener = TcpListener::bind(server.listen).await;
        let listener = listener.with_context(|| format!("server.listen: cannot listen on {}", server.listen))?;
        let address = listener.local_addr()?;
        info!(%address, mappings = mappings.len(), version = env!("CARGO_PKG_VERSION"), "serving");
        for Problem { key, words } in unreadable_secrets {
            error!(key, problem = words, "a mapping cannot log in until this can be read");
        }
        for Problem { key, words } in warnings {
            warn!(key, "{words}");
        }

        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let metrics = Metrics::register(&registry)?;
        let mut starter = Starter { supervisor: Supervisor::new(metrics.clone()), metrics, functions: HashMap::new() };
        let mappings: Vec<_> = mappings.into_iter().map(|mapping| starter.start(mapping)).collect();

        let (draining, http_end) = (CancellationToken::new(), CancellationToken::new());
        let control = access::guard(Router::new(), server.access);
        let router = http::router(Shared { registry, mappings, draining: draining.clone() }, control);
        let http = listener::serve(listener, server.tls, router, http_end.clone());
        let http = AbortOnDropHandle::new(tokio::spawn(http));
        let supervisor = starter.supervisor;
        Ok(Self { address, drain_timeout, draining, supervisor, functions, http_end, http })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says that it is no longer ready, ends the mappings in good order within the time there is for
    /// it, and then the listener. Dropping the future ends everything at once.
    pub async fn drain(self) -> End {
        self.draining.cancel();
        let in_time = timeout(self.drain_timeout, self.supervisor.drain()).await.is_ok();
        if !in_time {
            warn!(limit = ?self.drain_timeout, "the time to drain is over; what was unfinished goes back to its broker");
        }
        // What takes longer ends with us.
        let _ = timeout(FUNCTIONS_END, join_all(self.functions.iter().map(|function| function.backend.close()))).await;
        self.http_end.cancel();
        // Whoever keeps a request open for longer has no answer coming.
        let _ = timeout(HTTP_END, self.http).await;
        if in_time { End::Drained } else { End::Late }
    }
}

/// A function that runs at the start of a drain can then still end by itself.
fn drain_timeout(config: &Config) -> Duration {
    let enabled = config.mappings.iter().filter(|mapping| mapping.enabled);
    let longest = enabled.map(|mapping| mapping.function.timeout).max().unwrap_or_default();
    config.server.drain_timeout.unwrap_or(longest + DRAIN_MARGIN)
}

struct Starter {
    supervisor: Supervisor,
    metrics: Metrics,
    functions: HashMap<String, Arc<Function>>,
}

impl Starter {
    fn start(&mut self, configured: ConfiguredMapping) -> Listed {
        let ConfiguredMapping { mapping, enabled, function, source, .. } = configured;
        let supervised = if enabled {
            let function = self.function(&function);
            self.supervisor.start(mapping, source, function)
        } else {
            // Nobody writes this status, so it stays what it is.
            let (_, status) = watch::channel(Status::new(State::Disabled));
            Supervised { mapping: Arc::new(mapping), status }
        };
        Listed { enabled, supervised }
    }

    /// The one that its mappings share.
    fn function(&mut self, configured: &config::Function) -> Arc<Function> {
        let config::Function { name, timeout, reserved_concurrency, backend } = configured;
        match self.functions.entry(name.clone()) {
            hash_map::Entry::Occupied(function) => function.get().clone(),
            hash_map::Entry::Vacant(place) => {
                let invoker = backend.clone();
                let function = Function::new(name.clone(), *timeout, *reserved_concurrency, invoker, &self.metrics);
                place.insert(Arc::new(function)).clone()
            }
        }
    }
}
