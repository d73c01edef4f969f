//! A TCP proxy between the service and a broker: it can fall silent, and change where it leads.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Duration, sleep},
};

pub(crate) struct Proxy {
    pub(crate) port: u16,
    silent: Arc<AtomicBool>,
    target: Arc<Mutex<String>>,
}

impl Proxy {
    /// Listens on a port and leads to an endpoint such as `amqp://127.0.0.1:5672`.
    pub(crate) async fn start(port: u16, target: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("binds");
        let port = listener.local_addr().expect("has an address").port();
        let silent = Arc::new(AtomicBool::new(false));
        let target = Arc::new(Mutex::new(address(target)));
        let (is_silent, leads_to) = (silent.clone(), target.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = leads_to.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tokio::spawn(connect(client, target, is_silent.clone()));
            }
        });
        Self { port, silent, target }
    }

    /// While silent it moves not a byte and closes nothing.
    pub(crate) fn be_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// Connections from now on lead elsewhere.
    pub(crate) fn lead_to(&self, target: &str) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = address(target);
    }
}

fn address(endpoint: &str) -> String {
    endpoint.split_once("://").expect("has a scheme").1.to_owned()
}

async fn connect(client: TcpStream, target: String, silent: Arc<AtomicBool>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(copy(from_client, to_server, silent.clone()), copy(from_server, to_client, silent));
}

async fn copy(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, silent: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        while silent.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(20)).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
