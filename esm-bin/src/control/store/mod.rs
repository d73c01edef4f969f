//! The store that `esm` brings along: `SQLite` in a folder of its own.
//!
//! One writer, so that no change waits for another's lock in vain, and a few readers beside it. Each
//! change of a mapping is one statement, and each is on the disk before it is answered.

mod sql;

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use esm_core::{
    status::State,
    store::{Filter, Route, Store, StoreError, StoredMapping},
};
use prometheus::IntCounter;
use sqlx::{
    Row as _, SqlitePool,
    migrate::MigrateError,
    query,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use uuid::Uuid;

const DATABASE: &str = "esm.db";
const LOCK: &str = "esm.lock";
/// Marks a `SQLite` database as ours: `esm1`.
const APPLICATION_ID: i64 = 0x6573_6d31;
const READERS: u32 = 4;
/// Queues' names, filters and tags are nobody else's business.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Longer than any statement here takes on a disk that works.
const PATIENCE: Duration = Duration::from_secs(10);

/// Mappings in a `SQLite` database.
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    database: PathBuf,
    failures: IntCounter,
    /// Held for as long as the store is open, so that no other `esm` opens it.
    _lock: File,
}

/// Why the store cannot be opened. Nothing of what is there was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder cannot be used.
    #[error("cannot {act} `{}`", path.display())]
    Folder {
        /// What was tried.
        act: &'static str,
        /// The folder, or the file in it.
        path: PathBuf,
        /// The system's words.
        #[source]
        cause: std::io::Error,
    },
    /// Another process has it.
    #[error("`{}` is in use by another esm{owner}; give each one a folder of its own", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Its process id, if it is known.
        owner: String,
    },
    /// It is not what it should be.
    #[error("`{}` is damaged: {words}; put a copy of the folder in its place, or move it away to begin without the \
             mappings that were made through the API", database.display())]
    Damaged {
        /// The file.
        database: PathBuf,
        /// What was found.
        words: String,
    },
    /// It belongs to another program.
    #[error("`{}` is a database of another program", database.display())]
    Foreign {
        /// The file.
        database: PathBuf,
    },
    /// A later version has changed it.
    #[error("`{}` was written by a newer esm, of which this one cannot read it: {words}", database.display())]
    Newer {
        /// The file.
        database: PathBuf,
        /// Which change is not known.
        words: String,
    },
    /// `SQLite` does not open it.
    #[error("cannot open `{}`: {words}", database.display())]
    Database {
        /// The file.
        database: PathBuf,
        /// `SQLite`'s words.
        words: String,
    },
}

impl SqliteStore {
    /// Opens the store in a folder, which is made if it is not there.
    pub async fn open(folder: &Path) -> Result<Self, OpenError> {
        let failed = |act, path: &Path, cause| OpenError::Folder { act, path: path.into(), cause };
        let made = fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
        made.map_err(|cause| failed("make the folder", folder, cause))?;
        let lock = lock(folder)?;
        let database = folder.join(DATABASE);
        // SQLite tells a file that it may not write from one that is not there by nothing but a number.
        drop(for_us_only().open(&database).map_err(|cause| failed("open", &database, cause))?);
        let options = SqliteConnectOptions::new()
            .filename(&database)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE)
            .optimize_on_close(false, None);
        let pool = |connections| SqlitePoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE);
        let refused = |error| refused(&database, &error);
        let looking = pool(1).connect_with(options.clone().read_only(true)).await.map_err(refused)?;
        let is_new = examine(&looking, &database).await?;
        looking.close().await;
        let writing = options.clone().journal_mode(SqliteJournalMode::Wal);
        let writer = pool(1).connect_with(writing).await.map_err(refused)?;
        if is_new {
            let mark = sqlx::AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION_ID}"));
            query(mark).execute(&writer).await.map_err(refused)?;
        }
        sql::migrator().run(&writer).await.map_err(|error| not_migrated(&database, error))?;
        let readers = pool(READERS).connect_with(options.read_only(true)).await.map_err(refused)?;
        let failures = IntCounter::new("esm_store_failures_total", "Times that the store could not be used.");
        let failures =
            failures.map_err(|error| OpenError::Database { database: database.clone(), words: error.to_string() })?;
        Ok(Self { writer, readers, database, failures, _lock: lock })
    }

    /// `esm_store_failures_total`.
    pub fn failures(&self) -> IntCounter {
        self.failures.clone()
    }

    /// Closes it. What was answered is kept without that.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn for_us_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    options
}

/// One `esm` only: two would each run every mapping.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join(LOCK);
    let failed = |cause| OpenError::Folder { act: "lock", path: path.clone(), cause };
    let mut file = for_us_only().open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            let is_known = file.take(16).read_to_string(&mut process).is_ok() && !process.trim().is_empty();
            let owner = if is_known { format!(" (process {})", process.trim()) } else { String::new() };
            return Err(OpenError::InUse { folder: folder.into(), owner });
        }
        Err(TryLockError::Error(cause)) => return Err(failed(cause)),
    }
    // For whoever comes second.
    let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    noted.map_err(failed)?;
    Ok(file)
}

/// Looks before anything is written. Returns whether nobody has written to it yet.
async fn examine(looking: &SqlitePool, database: &Path) -> Result<bool, OpenError> {
    let refused = |error| refused(database, &error);
    let found = query("PRAGMA quick_check(1)").fetch_one(looking).await.map_err(refused)?;
    let words: String = found.try_get(0).map_err(refused)?;
    if words != "ok" {
        return Err(OpenError::Damaged { database: database.into(), words });
    }
    let tables = query("SELECT COUNT(*) FROM sqlite_schema").fetch_one(looking).await.map_err(refused)?;
    let owner = query("PRAGMA application_id").fetch_one(looking).await.map_err(refused)?;
    let (tables, owner): (i64, i64) = (tables.try_get(0).map_err(refused)?, owner.try_get(0).map_err(refused)?);
    match (tables, owner) {
        (_, APPLICATION_ID) => Ok(false),
        (0, _) => Ok(true),
        _ => Err(OpenError::Foreign { database: database.into() }),
    }
}

fn refused(database: &Path, error: &sqlx::Error) -> OpenError {
    const CORRUPT: &str = "11";
    const NOT_A_DATABASE: &str = "26";
    let database = database.into();
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match code.as_deref() {
        Some(CORRUPT | NOT_A_DATABASE) => OpenError::Damaged { database, words: plain(error) },
        _ => OpenError::Database { database, words: plain(error) },
    }
}

fn not_migrated(database: &Path, error: MigrateError) -> OpenError {
    match error {
        MigrateError::Execute(error) => refused(database, &error),
        error @ (MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_)) => {
            OpenError::Newer { database: database.into(), words: error.to_string() }
        }
        other => OpenError::Database { database: database.into(), words: other.to_string() },
    }
}

/// `SQLite`'s own words, without the library's.
fn plain(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

#[async_trait]
impl Store for SqliteStore {
    async fn add(&self, mapping: &StoredMapping) -> Result<(), StoreError> {
        loop {
            if self.write(sql::ADD, mapping).await.map_err(|error| self.unavailable(&error))? {
                return Ok(());
            }
            if let Some(uuid) = self.with_route(&mapping.route).await? {
                return Err(StoreError::Conflict { uuid });
            }
            // The other one is gone meanwhile.
        }
    }

    async fn get(&self, uuid: Uuid) -> Result<Option<StoredMapping>, StoreError> {
        let row = query(sql::GET).bind(uuid.to_string()).fetch_optional(&self.readers).await;
        row.map_err(|error| self.unavailable(&error))?.as_ref().map(mapping).transpose()
    }

    async fn page(&self, filter: &Filter, after: Option<Uuid>, most: u32) -> Result<Vec<StoredMapping>, StoreError> {
        let Filter { event_source_arn, function_name, function_arn } = filter;
        let rows = query(sql::PAGE)
            .bind(after.map(|uuid| uuid.to_string()).unwrap_or_default())
            .bind(event_source_arn)
            .bind(function_name)
            .bind(function_arn)
            .bind(i64::from(most))
            .fetch_all(&self.readers)
            .await;
        rows.map_err(|error| self.unavailable(&error))?.iter().map(mapping).collect()
    }

    async fn active(&self) -> Result<Vec<StoredMapping>, StoreError> {
        let rows = query(sql::ACTIVE).fetch_all(&self.readers).await;
        rows.map_err(|error| self.unavailable(&error))?.iter().map(mapping).collect()
    }

    async fn replace(&self, mapping: &StoredMapping) -> Result<bool, StoreError> {
        match self.write(sql::REPLACE, mapping).await {
            Ok(replaced) => Ok(replaced),
            Err(error) if error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation) => {
                match self.with_route(&mapping.route).await? {
                    Some(uuid) => Err(StoreError::Conflict { uuid }),
                    None => Ok(false), // the other one is gone meanwhile
                }
            }
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    async fn settle(&self, uuid: Uuid, revision: i64, from: State, to: State) -> Result<bool, StoreError> {
        let settled = query(sql::SETTLE)
            .bind(uuid.to_string())
            .bind(revision)
            .bind(from.as_str())
            .bind(to.as_str())
            .execute(&self.writer)
            .await;
        settled.map(|done| done.rows_affected() > 0).map_err(|error| self.unavailable(&error))
    }

    async fn remove(&self, uuid: Uuid) -> Result<bool, StoreError> {
        let removed = query(sql::REMOVE).bind(uuid.to_string()).execute(&self.writer).await;
        removed.map(|done| done.rows_affected() > 0).map_err(|error| self.unavailable(&error))
    }

    async fn results(&self) -> Result<BTreeMap<Uuid, String>, StoreError> {
        let rows = query(sql::RESULTS).fetch_all(&self.readers).await.map_err(|error| self.unavailable(&error))?;
        rows.iter().map(|row| Ok((parsed(row, "uuid")?, text(row, "last_processing_result")?))).collect()
    }

    async fn keep_results(&self, results: &BTreeMap<Uuid, String>) -> Result<(), StoreError> {
        let keep = async {
            let mut transaction = self.writer.begin().await?;
            query(sql::FORGET_RESULTS).execute(&mut *transaction).await?;
            for (uuid, result) in results {
                query(sql::KEEP_RESULT).bind(uuid.to_string()).bind(result).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        keep.await.map_err(|error| self.unavailable(&error))
    }
}

impl SqliteStore {
    fn unavailable(&self, error: &sqlx::Error) -> StoreError {
        self.failures.inc();
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        let code = code.map(|code| format!(" (SQLite's code {code})")).unwrap_or_default();
        StoreError::Unavailable { words: format!("`{}`: {}{code}", self.database.display(), plain(error)) }
    }

    /// Runs a statement that takes a whole mapping; whether it did something.
    async fn write(&self, statement: &'static str, mapping: &StoredMapping) -> Result<bool, sqlx::Error> {
        let StoredMapping { uuid, route, spec, tags, state, revision, last_modified_ms, unreadable: _ } = mapping;
        let tags = serde_json::to_string(tags).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let done = query(statement)
            .bind(uuid.to_string())
            .bind(&route.function_name)
            .bind(&route.function_arn)
            .bind(&route.event_source_arn)
            .bind(&route.virtual_host)
            .bind(&route.queue)
            .bind(spec)
            .bind(tags)
            .bind(state.as_str())
            .bind(revision)
            .bind(last_modified_ms)
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    async fn with_route(&self, route: &Route) -> Result<Option<Uuid>, StoreError> {
        let row = query(sql::WITH_ROUTE)
            .bind(&route.event_source_arn)
            .bind(&route.queue)
            .bind(&route.virtual_host)
            .bind(&route.function_arn)
            .fetch_optional(&self.writer)
            .await;
        row.map_err(|error| self.unavailable(&error))?.map(|row| parsed(&row, "uuid")).transpose()
    }
}

fn mapping(row: &SqliteRow) -> Result<StoredMapping, StoreError> {
    let mut unreadable = None;
    let tags = text(row, "tags")?;
    let tags = serde_json::from_str(&tags).map_err(|error| self::unreadable("tags", error));
    let tags = or_note(tags, BTreeMap::new(), &mut unreadable);
    let state = or_note(parsed(row, "state"), State::Disabled, &mut unreadable);
    Ok(StoredMapping {
        uuid: parsed(row, "uuid")?,
        route: Route {
            function_name: text(row, "function_name")?,
            function_arn: text(row, "function_arn")?,
            event_source_arn: text(row, "event_source_arn")?,
            virtual_host: text(row, "virtual_host")?,
            queue: text(row, "queue")?,
        },
        spec: text(row, "spec")?,
        tags,
        state,
        revision: row.try_get("revision").map_err(|error| self::unreadable("revision", error))?,
        last_modified_ms: row
            .try_get("last_modified_ms")
            .map_err(|error| self::unreadable("last_modified_ms", error))?,
        unreadable,
    })
}

/// What stands for a column that cannot be read, so that the others still tell whose it is.
fn or_note<T>(column: Result<T, StoreError>, stand_in: T, problem: &mut Option<String>) -> T {
    column.unwrap_or_else(|error| {
        problem.get_or_insert_with(|| error.to_string());
        stand_in
    })
}

fn text(row: &SqliteRow, column: &str) -> Result<String, StoreError> {
    row.try_get(column).map_err(|error| unreadable(column, error))
}

fn parsed<T: std::str::FromStr<Err: Display>>(row: &SqliteRow, column: &str) -> Result<T, StoreError> {
    text(row, column)?.parse().map_err(|error| unreadable(column, error))
}

fn unreadable(column: &str, error: impl Display) -> StoreError {
    StoreError::Unreadable { words: format!("column {column}: {error}") }
}
