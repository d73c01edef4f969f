//! Stores that fail, and stores that hold what cannot be read.

use esm_core::store::{Filter, StoreError, StoredMapping};

use super::*;
use crate::control::plane::Changes;

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
