//! Connections of the listener, with or without TLS: each by itself, none for longer than it is of
//! use, and no more than there is room for.

use std::{fs, io, net::SocketAddr, path::Path, pin::pin, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{access::Peer, patient::Patient};

/// Further ones wait until one of these has ended.
const MOST_CONNECTIONS: usize = 256;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the head of a request may take, also that of the next one on a connection that is kept.
const HEAD: Duration = Duration::from_secs(30);
/// What to wait for when the system gives no connection, as without a free file descriptor.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves the routes until `end`, and then until the requests that are being answered have ended.
/// A change of `tls` concerns the connections that come after it.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Option<Tls>>,
    router: Router,
    end: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = end.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let router = router.clone().layer(Extension(Peer(peer)));
                let tls = tls.borrow().as_ref().map(|tls| TlsAcceptor::from(tls.config.clone()));
                connections.spawn(connection(socket, peer, tls, router, end.clone()));
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    end: CancellationToken,
) {
    let stream = Patient::new(socket);
    let Some(tls) = tls else { return requests(stream, peer, router, end).await };
    match timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, peer, router, end).await,
        Ok(Err(error)) => debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => debug!(%peer, "a TLS handshake took too long"),
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    router: Router,
    end: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(%peer, %error, "a connection ended in the middle of a request");
    }
}

/// How the listener speaks TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
}

impl Tls {
    /// With a certificate, its chain and its key, all PEM.
    pub(crate) fn read(cert_file: &Path, key_file: &Path) -> Result<Self, String> {
        let (cert, key) = (cert_file.display(), key_file.display());
        let read = |path: &Path| {
            fs::read(path).map_err(|error: io::Error| format!("cannot read `{}`: {error}", path.display()))
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(cert_file)?)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("`{cert}` cannot be read as PEM: {error}"))?;
        if chain.is_empty() {
            return Err(format!("`{cert}` holds no PEM certificate"));
        }
        let secret = PrivateKeyDer::from_pem_slice(&read(key_file)?)
            .map_err(|_| format!("`{key}` holds no PEM private key without a passphrase"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
            .map_err(|error| format!("`{cert}` and `{key}` are no certificate and its key: {error}"))?;
        Ok(Self { config: Arc::new(config) })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A certificate for this machine, in a folder with its key.
    fn certificate() -> (tempfile::TempDir, rcgen::CertifiedKey<rcgen::KeyPair>) {
        let certified = rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cert.pem"), certified.cert.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
        (folder, certified)
    }

    async fn start(tls: Option<Tls>) -> (SocketAddr, CancellationToken, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = CancellationToken::new();
        let mut serving = JoinSet::new();
        let router = Router::new().route("/", get(async || "hello"));
        serving.spawn(serve(listener, watch::channel(tls).1, router, end.clone()));
        (address, end, serving)
    }

    #[tokio::test]
    async fn handshakes_that_fail_or_never_come_do_not_keep_others_out() {
        let (folder, certified) = certificate();
        let config = Tls::read(&folder.path().join("cert.pem"), &folder.path().join("key.pem")).unwrap();
        let (address, end, mut serving) = start(Some(config)).await;
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut broken = TcpStream::connect(address).await.unwrap();
        broken.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = broken.read_to_end(&mut answer).await; // perhaps reset, for what was not read
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

        let authority = reqwest::Certificate::from_pem(certified.cert.pem().as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
        let answer = client.get(format!("https://{address}/")).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "hello");
        assert!(reqwest::get(format!("https://{address}/")).await.is_err(), "nobody else's authority made it");

        drop((silent, client));
        end.cancel();
        serving.join_next().await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_not_waited_for_without_end() {
        let (folder, _) = certificate();
        let config = Tls::read(&folder.path().join("cert.pem"), &folder.path().join("key.pem")).unwrap();
        for (tls, said) in [(Some(config), "".as_bytes()), (None, b""), (None, b"GET / HTTP/1.1\r\nHost: h\r\n")] {
            let (address, _end, _serving) = start(tls).await;
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(said).await.unwrap();
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_and_reads_no_answer_is_not_waited_for_without_end() {
        let (address, _end, _serving) = start(None).await;
        let mut socket = TcpStream::connect(address).await.unwrap();
        let asking =
            async { while socket.write_all(&b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1_000)).await.is_ok() {} };
        timeout(100 * HEAD, asking).await.unwrap();
    }

    #[tokio::test]
    async fn more_connections_than_there_is_room_for_wait_their_turn() {
        let (address, _end, _serving) = start(None).await;
        let mut idle = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let mut waiting = TcpStream::connect(address).await.unwrap();
        waiting.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let mut reading = Box::pin(waiting.read_to_end(&mut answer));
        assert!(timeout(Duration::from_millis(200), &mut reading).await.is_err(), "there was room for it");
        idle.pop();
        timeout(HANDSHAKE, reading).await.unwrap().unwrap();
        assert!(answer.ends_with(b"hello"));
    }

    #[test]
    fn files_that_are_no_certificate_and_key_are_refused_with_their_names() {
        let (folder, _) = certificate();
        let (other, _) = certificate();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let check = |cert: &Path, key: &Path, expected: &str| {
            let words = Tls::read(cert, key).unwrap_err();
            assert!(words.contains(expected), "{words}");
        };
        check(&key, &key, "key.pem` holds no PEM certificate");
        check(&cert, &cert, "cert.pem` holds no PEM private key");
        check(&cert, &other.path().join("key.pem"), "are no certificate and its key");
        check(&cert, Path::new("/nonexistent"), "cannot read `/nonexistent`");
    }
}
