//! How connections to functions are opened, with TLS where the URL wants it.
//!
//! Nothing of TLS exists for a URL without it: to read the system's certificates alone takes a tenth of a second.

use std::{
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::Uri;
use hyper_tls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use native_tls::TlsConnector;
use tokio::{net::TcpStream, time::timeout};
use tower_service::Service;

/// A peer that is gone is noticed by its silence while a function runs. One that takes nothing is judged by our own
/// limits: the kernel's would count it as a broken connection.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;

/// Opens connections.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    tls: Option<TlsConnector>,
    patience: Duration,
}

impl Connector {
    /// With TLS if there is something to trust; `patience` covers name resolution and TLS.
    pub(crate) fn new(tls: Option<TlsConnector>, patience: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        Self { tcp, tls, patience }
    }

    async fn connect(self, uri: Uri) -> Result<MaybeHttpsStream<TokioIo<TcpStream>>, Failure> {
        let Self { mut tcp, tls, .. } = self;
        match tls {
            Some(tls) => HttpsConnector::from((tcp, tls.into())).call(uri).await,
            None => Ok(MaybeHttpsStream::Http(tcp.call(uri).await?)),
        }
    }
}

type Failure = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = timeout(self.patience, self.clone().connect(uri));
        Box::pin(async { connecting.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())) })
    }
}
