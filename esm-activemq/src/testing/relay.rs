//! A way to a broker that can be interrupted, while the broker itself goes on for everybody else.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

/// Passes on whatever is said, on a port of its own.
pub struct Relay {
    /// `tcp://…`
    pub url: String,
    /// Whoever sees it change ends.
    cuts: watch::Sender<()>,
    open: Arc<AtomicUsize>,
    _running: AbortOnDropHandle<()>,
}

impl Relay {
    /// A way to where this `tcp://…` leads.
    pub async fn to(url: &str) -> Self {
        let address = url.trim_start_matches("tcp://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("tcp://{}", listener.local_addr().expect("has an address"));
        let (cuts, cut) = watch::channel(());
        let open = Arc::new(AtomicUsize::new(0));
        let running = AbortOnDropHandle::new(tokio::spawn(relay(listener, address, cut, open.clone())));
        Self { url, cuts, open, _running: running }
    }

    /// Breaks every connection that leads through it; new ones are taken as before.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// How many connections lead through it now.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

async fn relay(listener: TcpListener, address: String, cut: watch::Receiver<()>, open: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Ok((mut ours, _)) = listener.accept().await {
        let address = address.clone();
        let mut cut = cut.clone();
        cut.mark_unchanged();
        let open = open.clone();
        open.fetch_add(1, Ordering::SeqCst);
        connections.spawn(async move {
            if let Ok(mut theirs) = TcpStream::connect(address).await {
                tokio::select! {
                    _ = copy_bidirectional(&mut ours, &mut theirs) => {}
                    _ = cut.changed() => {}
                }
            }
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}
