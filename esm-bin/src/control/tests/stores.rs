//! Stores that fail, and stores that hold what cannot be read.

use esm_core::store::{Filter, StoreError, StoredMapping};

use super::*;
use crate::control::plane::{Changes, ListFilter};

/// A store that can be read, and of which no mapping can be settled or removed.
struct FullStore(SqliteStore);

fn full() -> StoreError {
    StoreError::Unavailable { words: "the disk is full".into() }
}

#[async_trait]
impl Store for FullStore {
    async fn add(&self, mapping: &StoredMapping) -> Result<(), StoreError> {
        self.0.add(mapping).await
    }

    async fn get(&self, uuid: Uuid) -> Result<Option<StoredMapping>, StoreError> {
        self.0.get(uuid).await
    }

    async fn page(&self, filter: &Filter, after: Option<Uuid>, most: u32) -> Result<Vec<StoredMapping>, StoreError> {
        self.0.page(filter, after, most).await
    }

    async fn active(&self) -> Result<Vec<StoredMapping>, StoreError> {
        self.0.active().await
    }

    async fn replace(&self, mapping: &StoredMapping) -> Result<bool, StoreError> {
        self.0.replace(mapping).await
    }

    async fn settle(&self, _: Uuid, _: i64, _: State, _: State) -> Result<bool, StoreError> {
        Err(full())
    }

    async fn remove(&self, _: Uuid) -> Result<bool, StoreError> {
        Err(full())
    }

    async fn results(&self) -> Result<BTreeMap<Uuid, String>, StoreError> {
        self.0.results().await
    }

    async fn keep_results(&self, _: &BTreeMap<Uuid, String>) -> Result<(), StoreError> {
        Err(full())
    }
}

#[tokio::test]
async fn a_mapping_of_which_nothing_can_be_written_keeps_no_other_from_running() {
    let folder = new_folder();
    let bench = Bench::start_in(folder, "").await;
    let mut uuids = Vec::new();
    for queue in ["one", "other"] {
        let created = bench.plane.create(MappingSpec { enabled: false, ..spec(queue) }, BTreeMap::new()).await.unwrap();
        uuids.push(created.uuid);
    }
    uuids.sort_unstable();
    let Bench { plane, reconciler, folder, .. } = bench;
    reconciler.abort();
    let _ = reconciler.await;
    plane.delete(uuids[0]).await.unwrap();
    let enable = Changes { enabled: Some(true), ..Changes::default() };
    plane.update(uuids[1], enable).await.unwrap();
    drop(plane);

    let store = FullStore(SqliteStore::open(folder.path()).await.unwrap());
    let bench = Bench::start_over(Arc::new(store), folder, "").await;

    bench.until("the other one", async |bench| bench.readers.open().contains_key(&uuids[1]).then_some(())).await;
}

#[tokio::test]
async fn a_mapping_that_cannot_be_read_is_listed_with_its_reason_and_can_be_deleted() {
    let column = |name: &str| match name {
        "spec" => "UPDATE mappings SET spec = '{\"later\":true}' WHERE uuid = $1",
        "tags" => "UPDATE mappings SET tags = '[' WHERE uuid = $1",
        _ => "UPDATE mappings SET state = 'Paused' WHERE uuid = $1",
    };
    for name in ["spec", "tags", "state"] {
        let bench = Bench::start("").await;
        let sound = bench.plane.create(spec("sound"), BTreeMap::new()).await.unwrap().uuid;
        let broken = bench.plane.create(spec("broken"), BTreeMap::new()).await.unwrap().uuid;
        for uuid in [sound, broken] {
            bench.becomes(uuid, State::Enabled).await;
        }
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(bench.folder.path().join("esm.db"));
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        sqlx::query(column(name)).bind(broken.to_string()).execute(&pool).await.unwrap();
        pool.close().await;

        let bench = bench.crash("").await;

        bench.until("the sound one", async |bench| bench.readers.open().contains_key(&sound).then_some(())).await;
        let (views, _) = bench.plane.list(&ListFilter::default(), None, 100).await.unwrap();
        let view = views.iter().find(|view| view.uuid == broken).unwrap();
        assert_eq!((views.len(), view.spec.queue.as_str()), (2, "broken"), "{name}");
        assert!(view.state_transition_reason.starts_with("ESM_CONFIG_NOT_VALID: "), "{name}: {view:?}");
        assert!(view.last_processing_result.contains("a form that this build does not know"), "{name}: {view:?}");
        assert_eq!(bench.plane.get(broken).await.as_ref(), Ok(view), "{name}");
        assert!(!bench.readers.open().contains_key(&broken), "{name}");
        bench.plane.delete(broken).await.unwrap();
        bench.until("its end", async |bench| bench.plane.get(broken).await.err()).await;
    }
}
