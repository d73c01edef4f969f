//! The control plane over a real store, with queues in memory.

mod crashes;
mod file;
mod operations;
mod stores;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use esm_core::{
    metrics::Metrics,
    source::{Connect, Consumer, DeadLettered, Disposition, Receipt, Session, SourceError, Terms},
    status::State,
    store::Store,
    supervisor::Conditions,
    testing::MemoryQueue,
};
use prometheus::Registry;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

use super::{
    plane::{ControlPlane, View},
    reconciler::Reconciler,
    spec::{MappingSpec, plan},
    store::SqliteStore,
};
use crate::{
    adapters::{QueueSettings, Sources},
    config::{self, Config, ConfiguredMapping},
};

/// Everything but mappings.
const TARGETS: &str = r#"
[brokers.rabbit]
engine = "rabbitmq"
endpoints = ["amqp://127.0.0.1:1"]
[brokers.active]
engine = "activemq"
endpoints = ["tcp://127.0.0.1:1"]
[secrets.login]
username = "guest"
password = { env = "PASSWORD" }
[secrets.other]
username = "other"
password = { env = "PASSWORD" }
[functions.f]
process = { command = ["absent"] }
[functions.g]
process = { command = ["absent"] }
"#;

fn environment() -> HashMap<String, String> {
    [("PASSWORD".into(), "hunter2".into())].into()
}

/// What reads queues now: each consumer's open sessions, and how many it has opened so far.
#[derive(Clone, Default)]
struct Readers(Arc<Mutex<BTreeMap<Uuid, Reader>>>);

#[derive(Clone, Default)]
struct Reader {
    open: usize,
    opened: usize,
    queue: MemoryQueue,
    /// What the next attempts to connect say.
    refusals: Vec<SourceError>,
}

impl Readers {
    fn sources(&self) -> Sources {
        let readers = self.clone();
        Box::new(move |settings: QueueSettings| {
            let uuid = settings.consumer.parse().expect("a UUID");
            Ok(Arc::new(TrackedSource { uuid, readers: readers.clone() }))
        })
    }

    fn at<T>(&self, uuid: Uuid, look: impl FnOnce(&mut Reader) -> T) -> T {
        look(self.0.lock().unwrap().entry(uuid).or_default())
    }

    /// Who reads now, and how often at once.
    fn open(&self) -> BTreeMap<Uuid, usize> {
        let readers = self.0.lock().unwrap();
        readers.iter().filter(|(_, reader)| reader.open > 0).map(|(uuid, reader)| (*uuid, reader.open)).collect()
    }
}

struct TrackedSource {
    uuid: Uuid,
    readers: Readers,
}

struct TrackedConsumer {
    consumer: Arc<dyn Consumer>,
    uuid: Uuid,
    readers: Readers,
}

#[async_trait]
impl Connect for TrackedSource {
    fn prefetch_limit(&self) -> u32 {
        65_535
    }

    async fn connect(&self, terms: Terms) -> Result<Session, SourceError> {
        let queue = self.readers.at(self.uuid, |reader| match reader.refusals.pop() {
            Some(refusal) => Err(refusal),
            None => Ok(reader.queue.clone()),
        })?;
        queue.be_modern();
        let mut session = queue.connect(terms).await?;
        self.readers.at(self.uuid, |reader| {
            reader.open += 1;
            reader.opened += 1;
        });
        let (uuid, readers) = (self.uuid, self.readers.clone());
        session.consumer = Arc::new(TrackedConsumer { consumer: session.consumer, uuid, readers });
        Ok(session)
    }
}

#[async_trait]
impl Consumer for TrackedConsumer {
    async fn settle(&self, receipts: &[Receipt], how: Disposition) -> Result<(), SourceError> {
        self.consumer.settle(receipts, how).await
    }

    async fn dead_letter(&self, receipt: Receipt, cause: &str) -> Result<DeadLettered, SourceError> {
        self.consumer.dead_letter(receipt, cause).await
    }

    async fn set_prefetch(&self, prefetch: u32) -> Result<(), SourceError> {
        self.consumer.set_prefetch(prefetch).await
    }

    async fn cancel(&self) -> Result<(), SourceError> {
        self.consumer.cancel().await
    }

    async fn close(&self) {
        self.consumer.close().await;
    }
}

impl Drop for TrackedConsumer {
    fn drop(&mut self) {
        self.readers.at(self.uuid, |reader| reader.open -= 1);
    }
}

/// A control plane at work.
struct Bench {
    plane: ControlPlane,
    readers: Readers,
    registry: Registry,
    reconciler: AbortOnDropHandle<()>,
    folder: TempDir,
}

impl Bench {
    /// With these mappings in the file.
    async fn start(mappings: &str) -> Self {
        Self::start_in(new_folder(), mappings).await
    }

    async fn start_in(folder: TempDir, mappings: &str) -> Self {
        let store = Arc::new(SqliteStore::open(folder.path()).await.unwrap());
        Self::start_over(store, folder, mappings).await
    }

    /// With this store, which keeps what it keeps in the folder.
    async fn start_over(store: Arc<dyn Store>, folder: TempDir, mappings: &str) -> Self {
        let readers = Readers::default();
        let text = [TARGETS, mappings].concat();
        let config = config::read(&text, Path::new(""), &environment()).unwrap_or_else(|all| panic!("{all:?}"));
        let Config { targets, mut mappings, .. } = config;
        let targets = Arc::into_inner(targets).expect("nobody else has it");
        let targets = Arc::new(targets.reading_from(|| readers.sources()));
        for ConfiguredMapping { spec, tags, planned, .. } in &mut mappings {
            *planned = Some(Arc::new(plan(None, spec, tags, &targets).expect("has no problems")));
        }
        let plane = ControlPlane::new(store, targets, mappings);
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let reconciler = Reconciler::begin(plane.clone(), metrics, Conditions::default()).await;
        let reconciler = AbortOnDropHandle::new(tokio::spawn(reconciler.run(CancellationToken::new())));
        Self { plane, readers, registry, reconciler, folder }
    }

    /// What a crash leaves: the files as they are now, and nothing of what was in memory.
    async fn crash(self, mappings: &str) -> Self {
        let Self { plane, reconciler, folder, .. } = self;
        reconciler.abort();
        let _ = reconciler.await;
        let copy = new_folder();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let name = entry.unwrap().file_name();
            if !name.to_string_lossy().ends_with("-shm") {
                fs::copy(folder.path().join(&name), copy.path().join(&name)).unwrap();
            }
        }
        drop(plane);
        Self::start_in(copy, mappings).await
    }

    /// Another reading of the file.
    fn reload(&self, mappings: &str) {
        let text = [TARGETS, mappings].concat();
        let config = config::read_after(Some(&self.plane.targets()), &text, Path::new(""), &environment());
        let Config { targets, mappings, .. } = config.unwrap_or_else(|all| panic!("{all:?}"));
        self.plane.replace_file(targets, mappings);
    }

    async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let looking = async {
            loop {
                if let Some(found) = look(self).await {
                    return found;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(60), looking).await.unwrap_or_else(|_| panic!("waited for {what} in vain"))
    }

    /// Waits for a state that lasts.
    async fn becomes(&self, uuid: Uuid, state: State) -> View {
        self.until(state.as_str(), async |bench| bench.plane.get(uuid).await.ok().filter(|view| view.state == state))
            .await
    }
}

/// In memory where there is such a place: what a crash leaves is told from the files, not from the disk.
fn new_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn spec(queue: &str) -> MappingSpec {
    MappingSpec::new("f".parse().unwrap(), "rabbit".into(), queue.into(), "login".into())
}

fn file_mapping(queue: &str, more: &str) -> String {
    format!(
        "[[event_source_mappings]]\nfunction_name = \"f\"\nevent_source = \"rabbit\"\nqueues = [{queue:?}]\n\
         secret = \"login\"\n{more}\n"
    )
}
