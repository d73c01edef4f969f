//! Every statement. The texts are for `SQLite` and `PostgreSQL` alike.

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

pub(super) const ADD: &str = "
    INSERT INTO mappings
        (uuid, function_name, function_arn, event_source_arn, virtual_host, queue, spec, tags, state, revision,
         last_modified_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    ON CONFLICT DO NOTHING";

/// Only from the revision before.
pub(super) const REPLACE: &str = "
    UPDATE mappings SET
        function_name = $2, function_arn = $3, event_source_arn = $4, virtual_host = $5, queue = $6, spec = $7,
        tags = $8, state = $9, revision = $10, last_modified_ms = $11
    WHERE uuid = $1 AND revision = $10 - 1";

pub(super) const SETTLE: &str = "
    UPDATE mappings SET state = $4 WHERE uuid = $1 AND revision = $2 AND state = $3";

pub(super) const REMOVE: &str = "DELETE FROM mappings WHERE uuid = $1 AND state = 'Deleting'";

pub(super) const RESULTS: &str = "SELECT uuid, last_processing_result FROM results";

pub(super) const FORGET_RESULTS: &str = "DELETE FROM results";

pub(super) const KEEP_RESULT: &str = "INSERT INTO results (uuid, last_processing_result) VALUES ($1, $2)";

pub(super) const WITH_ROUTE: &str = "
    SELECT uuid FROM mappings
    WHERE event_source_arn = $1 AND queue = $2 AND virtual_host = $3 AND function_arn = $4";

pub(super) const GET: &str = "SELECT * FROM mappings WHERE uuid = $1";

pub(super) const PAGE: &str = "
    SELECT * FROM mappings
    WHERE uuid > $1
        AND (CAST($2 AS TEXT) IS NULL OR event_source_arn = $2)
        AND (CAST($3 AS TEXT) IS NULL OR function_name = $3)
        AND (CAST($4 AS TEXT) IS NULL OR function_arn = $4)
    ORDER BY uuid LIMIT $5";

pub(super) const ACTIVE: &str = "SELECT * FROM mappings WHERE state <> 'Disabled' ORDER BY uuid";

/// What brings an older or an empty database to what the statements expect.
pub(super) fn migrator() -> Migrator {
    let mappings = include_str!("migrations/1_mappings.sql").into_sql_str();
    let results = include_str!("migrations/2_results.sql").into_sql_str();
    Migrator::with_migrations(vec![
        Migration::new(1, "mappings".into(), MigrationType::Simple, mappings, false),
        Migration::new(2, "results".into(), MigrationType::Simple, results, false),
    ])
}
