//! The embedded store keeps what every store promises, and refuses what it cannot trust.

#![allow(clippy::unwrap_used, reason = "what cannot go on fails the test")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use esm::control::store::{OpenError, SqliteStore};
use esm_core::{
    store::Store,
    testing::{self, StoreUnderTest, stored_mapping},
};
use tempfile::TempDir;

struct Sqlite {
    folder: TempDir,
    open: Mutex<Option<Arc<SqliteStore>>>,
}

impl Sqlite {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), open: Mutex::default() }
    }
}

#[async_trait]
impl StoreUnderTest for Sqlite {
    async fn open(&self) -> Arc<dyn Store> {
        let before = self.open.lock().unwrap().take();
        if let Some(store) = before {
            store.close().await;
            // The suite may still hold it, and with it the lock of the folder.
            let file = fs::remove_file(self.folder.path().join("esm.lock"));
            file.unwrap();
        }
        let store = Arc::new(SqliteStore::open(self.folder.path()).await.unwrap());
        *self.open.lock().unwrap() = Some(store.clone());
        store
    }
}

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $name() {
            testing::$name(&Sqlite::new()).await;
        })*
    };
}

suite!(
    every_answered_change_is_there_after_reopening,
    no_two_mappings_have_the_same_route,
    a_change_that_came_too_late_does_nothing,
    pages_are_in_order_and_filtered,
    the_last_results_take_the_place_of_those_before,
    active_are_all_but_the_disabled_mappings,
);

async fn refusal(folder: &Path) -> String {
    match SqliteStore::open(folder).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => format!("{:#}", anyhow::Error::from(error)),
    }
}

/// A folder with a store that keeps some mappings, closed in good order.
async fn used_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    for number in 1..=200 {
        store.add(&stored_mapping(number)).await.unwrap();
    }
    store.close().await;
    folder
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_left_as_it_is() {
    for (what, at, bytes) in [("its head", 0, &[0x55; 100][..]), ("a page", 8_192, &[0x55; 4_096][..])] {
        let folder = used_folder().await;
        let file = folder.path().join("esm.db");
        fs::OpenOptions::new().write(true).open(&file).unwrap().write_all_at(bytes, at).unwrap();
        let before = fs::read(&file).unwrap();

        let words = refusal(folder.path()).await;

        assert!(words.contains("esm.db` is damaged: "), "{what}: {words}");
        assert_eq!(fs::read(&file).unwrap(), before, "{what}");
    }
}

async fn change(folder: &Path, statement: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.join("esm.db")).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query(statement).execute(&pool).await.unwrap();
    pool.close().await;
}

#[tokio::test]
async fn a_database_of_a_newer_version_or_of_another_program_is_refused() {
    let folder = used_folder().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (1000, 'later', TRUE, x'00', 1)";
    change(folder.path(), newer).await;
    let words = refusal(folder.path()).await;
    assert!(words.contains("esm.db` was written by a newer esm"), "{words}");

    let folder = tempfile::tempdir().unwrap();
    change(folder.path(), "CREATE TABLE recipes (name TEXT)").await;
    let before = fs::read(folder.path().join("esm.db")).unwrap();
    let words = refusal(folder.path()).await;
    assert!(words.contains("esm.db` is a database of another program"), "{words}");
    assert_eq!(fs::read(folder.path().join("esm.db")).unwrap(), before);
}

#[tokio::test]
async fn a_folder_serves_one_esm_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = SqliteStore::open(folder.path()).await.unwrap();
    let second = SqliteStore::open(folder.path()).await;
    assert!(matches!(&second, Err(OpenError::InUse { owner, .. }) if owner.contains(&std::process::id().to_string())));
    drop(first);
    assert!(SqliteStore::open(folder.path()).await.is_ok());
}

#[tokio::test]
async fn what_is_kept_is_for_nobody_else_to_read() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("data");
    let store = SqliteStore::open(&folder).await.unwrap();
    store.add(&stored_mapping(1)).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_failure_is_counted_and_told_with_the_file_and_the_code() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    change(folder.path(), "DROP TABLE mappings").await;

    let words = store.add(&stored_mapping(1)).await.unwrap_err().to_string();

    assert!(words.contains("esm.db`: ") && words.contains("no such table") && words.contains("code 1)"), "{words}");
    assert_eq!(store.failures().get(), 1);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_named_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let words = refusal(&folder.path().join("file/data")).await;
    assert!(words.contains("cannot make the folder `") && words.contains("Not a directory"), "{words}");

    let used = used_folder().await;
    let database = used.path().join("esm.db");
    fs::set_permissions(&database, Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&database).is_ok() {
        return; // nothing is forbidden to who may do everything
    }
    let words = refusal(used.path()).await;
    assert!(words.contains("cannot open `") && words.contains("Permission denied"), "{words}");
}
