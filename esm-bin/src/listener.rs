//! Accepts connections and serves them over HTTP/1.1, with limits that hold before a handler sees
//! anything: on connections, on the size of a request's head, and on the time that it may take.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, serve::Listener};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, error};

/// Connections at a time; more wait until one ends.
const MOST_CONNECTIONS: usize = 512;
/// For a request's head, and for the next one on a connection that is kept.
const HEAD_TIME: Duration = Duration::from_secs(20);
/// A head with more bytes is answered with 431.
const LARGEST_HEAD: usize = 32 * 1024;
const MOST_HEADERS: usize = 100;

/// Serves until asked for the end, and returns when the last request is answered. Dropping the
/// future ends every connection.
pub(crate) async fn serve<L: Listener<Addr = SocketAddr>>(mut listener: L, router: Router, end: CancellationToken) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = room.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let Some((place, (stream, address))) = end.run_until_cancelled(next).await else { break };
        let serving = connection(stream, address, router.clone(), end.clone());
        connections.spawn(async move {
            serving.await;
            drop(place);
        });
        while let Some(ended) = connections.try_join_next() {
            note(ended);
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

/// A handler that panicked took its own connection with it, and nothing else.
fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(cause) = ended {
        error!(%cause, "a request failed by an internal error");
    }
}

async fn connection<S>(stream: S, address: SocketAddr, router: Router, end: CancellationToken)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.map_request(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(address));
        request
    }));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_header_size(LARGEST_HEAD)
        .max_headers(MOST_HEADERS);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(%address, %error, "a connection ended in disorder");
    }
}

/// Who asks, for handlers that want to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);
