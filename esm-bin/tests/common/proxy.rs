//! A TCP proxy between the service and another: it can fall silent, be slow, and change where it leads.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Duration, sleep},
};

pub(crate) struct Proxy {
    pub(crate) port: u16,
    behaviour: Arc<Behaviour>,
    target: Arc<Mutex<String>>,
}

#[derive(Default)]
struct Behaviour {
    silent: AtomicBool,
    /// Milliseconds before each piece is passed on.
    pause: AtomicU64,
}

impl Proxy {
    /// Listens on a port and leads to an endpoint such as `amqp://127.0.0.1:5672`.
    pub(crate) async fn start(port: u16, target: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("binds");
        let port = listener.local_addr().expect("has an address").port();
        let behaviour = Arc::<Behaviour>::default();
        let target = Arc::new(Mutex::new(address(target)));
        let (shared, leads_to) = (behaviour.clone(), target.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = leads_to.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tokio::spawn(connect(client, target, shared.clone()));
            }
        });
        Self { port, behaviour, target }
    }

    /// While silent it moves not a byte and closes nothing.
    pub(crate) fn be_silent(&self, silent: bool) {
        self.behaviour.silent.store(silent, Ordering::Relaxed);
    }

    /// Waits so long before it passes on at most 64 KiB.
    pub(crate) fn be_slow(&self, pause: Duration) {
        let pause = u64::try_from(pause.as_millis()).expect("a short time");
        self.behaviour.pause.store(pause, Ordering::Relaxed);
    }

    /// Connections from now on lead elsewhere.
    pub(crate) fn lead_to(&self, target: &str) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = address(target);
    }
}

fn address(endpoint: &str) -> String {
    let (_, rest) = endpoint.split_once("://").expect("has a scheme");
    rest.split('/').next().unwrap_or(rest).to_owned()
}

async fn connect(client: TcpStream, target: String, behaviour: Arc<Behaviour>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(copy(from_client, to_server, &behaviour), copy(from_server, to_client, &behaviour));
}

async fn copy(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, behaviour: &Behaviour) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        sleep(Duration::from_millis(behaviour.pause.load(Ordering::Relaxed))).await;
        while behaviour.silent.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(20)).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
