//! A TCP proxy between the service and another: it can fall silent in either direction, be slow, cut connections or
//! let them die unnoticed, and change where it leads.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Duration, sleep},
};

pub(crate) struct Proxy {
    pub(crate) port: u16,
    behaviour: Arc<Behaviour>,
    target: Arc<Mutex<String>>,
}

struct Behaviour {
    /// What the service says.
    requests: Direction,
    /// What it is told.
    answers: Direction,
    /// Milliseconds before each piece is passed on.
    pause: AtomicU64,
    /// When a request with these bytes was passed on, no answer is any more.
    last_request: Mutex<Option<Vec<u8>>>,
    /// Whoever sees it change ends, and what it held is gone.
    cuts: watch::Sender<()>,
    /// Whoever sees it change passes on nothing any more, and closes nothing.
    deaths: watch::Sender<()>,
}

#[derive(Default)]
struct Direction {
    is_held: AtomicBool,
    /// How many pieces are held now.
    held: AtomicUsize,
}

impl Proxy {
    /// Listens on a port and leads to an endpoint such as `amqp://127.0.0.1:5672`.
    pub(crate) async fn start(port: u16, target: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("binds");
        let port = listener.local_addr().expect("has an address").port();
        let behaviour = Arc::new(Behaviour {
            requests: Direction::default(),
            answers: Direction::default(),
            pause: AtomicU64::default(),
            last_request: Mutex::default(),
            cuts: watch::Sender::default(),
            deaths: watch::Sender::default(),
        });
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
        self.hold_requests(silent);
        self.behaviour.answers.is_held.store(silent, Ordering::SeqCst);
    }

    /// Whether what the service says is kept back.
    pub(crate) fn hold_requests(&self, hold: bool) {
        self.behaviour.requests.is_held.store(hold, Ordering::SeqCst);
    }

    /// Whether something that the service says is kept back now.
    pub(crate) fn holds_a_request(&self) -> bool {
        self.behaviour.requests.held.load(Ordering::SeqCst) > 0
    }

    /// As soon as a request with these bytes was passed on, answers are kept back.
    pub(crate) fn hold_answers_after(&self, bytes: &[u8]) {
        *self.behaviour.last_request.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes.to_vec());
    }

    /// Breaks every connection and forgets what it kept back; new ones are as at the beginning.
    pub(crate) fn cut(&self) {
        self.behaviour.cuts.send_replace(());
        self.be_silent(false);
        self.behaviour.last_request.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Lets connections die as they do when packets vanish: neither side hears of it. New ones work.
    pub(crate) fn swallow_everything(&self) {
        self.behaviour.deaths.send_replace(());
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
    let (mut cut, mut death) = (behaviour.cuts.subscribe(), behaviour.deaths.subscribe());
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let both = async {
        tokio::join!(
            copy(&mut from_client, &mut to_server, &behaviour, &behaviour.requests),
            copy(&mut from_server, &mut to_client, &behaviour, &behaviour.answers),
        )
    };
    tokio::select! {
        biased; // what is held back when a connection is cut never goes on its way
        _ = cut.changed() => {}
        _ = death.changed() => {
            let _ = cut.changed().await; // all four halves stay open until then
        }
        _ = both => {}
    }
}

async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    behaviour: &Behaviour,
    direction: &Direction,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let piece = &buffer[..count];
        sleep(Duration::from_millis(behaviour.pause.load(Ordering::Relaxed))).await;
        let held = Held::of(direction);
        while direction.is_held.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(20)).await;
        }
        drop(held);
        if std::ptr::eq(direction, &raw const behaviour.requests) && behaviour.is_last_request(piece) {
            behaviour.answers.is_held.store(true, Ordering::SeqCst);
        }
        if to.write_all(piece).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

impl Behaviour {
    fn is_last_request(&self, piece: &[u8]) -> bool {
        let last = self.last_request.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_deref().is_some_and(|bytes| memchr::memmem::find(piece, bytes).is_some())
    }
}

/// Counts a piece as held for as long as it lives.
struct Held<'a>(&'a Direction);

impl<'a> Held<'a> {
    fn of(direction: &'a Direction) -> Self {
        direction.held.fetch_add(1, Ordering::SeqCst);
        Self(direction)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}
