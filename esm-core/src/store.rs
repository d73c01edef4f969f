//! The seam to what keeps the mappings that people made, with their states.
//!
//! A store keeps rows and guards them; it decides nothing. What a row's document says is for others
//! to know.

use std::collections::BTreeMap;

use async_trait::async_trait;
use uuid::Uuid;

use crate::status::State;

/// Keeps mappings. What a method has answered survives a crash at any later moment, and every later
/// call sees it.
#[async_trait]
pub trait Store: Send + Sync {
    /// Adds a mapping, unless there is one with the same route: [`StoreError::Conflict`].
    async fn add(&self, mapping: &StoredMapping) -> Result<(), StoreError>;

    /// The mapping with this UUID.
    async fn get(&self, uuid: Uuid) -> Result<Option<StoredMapping>, StoreError>;

    /// At most so many mappings that the filter names, by UUID, from the one after `after` on.
    async fn page(&self, filter: &Filter, after: Option<Uuid>, most: u32) -> Result<Vec<StoredMapping>, StoreError>;

    /// Every mapping that runs, is to run, or is on its way to another state: all but the disabled ones.
    async fn active(&self) -> Result<Vec<StoredMapping>, StoreError>;

    /// Replaces the mapping with this UUID by this one, if the kept one's revision is the one before
    /// this one's. `false`: it is not, and somebody else was faster. A route that another mapping has
    /// is a [`StoreError::Conflict`].
    async fn replace(&self, mapping: &StoredMapping) -> Result<bool, StoreError>;

    /// Takes a mapping from one state to another, if it still has this revision and the first of them.
    async fn settle(&self, uuid: Uuid, revision: i64, from: State, to: State) -> Result<bool, StoreError>;

    /// Removes a mapping that is [`State::Deleting`].
    async fn remove(&self, uuid: Uuid) -> Result<bool, StoreError>;

    /// What [`Store::keep_results`] was given last.
    async fn results(&self) -> Result<BTreeMap<Uuid, String>, StoreError>;

    /// Puts these in the place of every `LastProcessingResult` that is kept, at once.
    async fn keep_results(&self, results: &BTreeMap<Uuid, String>) -> Result<(), StoreError>;
}

/// A mapping as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMapping {
    /// `UUID`.
    pub uuid: Uuid,
    /// From where to where; no two mappings have the same.
    pub route: Route,
    /// What was asked for, as JSON.
    pub spec: String,
    /// `Tags`.
    pub tags: BTreeMap<String, String>,
    /// `State`.
    pub state: State,
    /// Counts the changes that people made: 1 for a mapping that was never changed.
    pub revision: i64,
    /// `LastModified`, in milliseconds since 1970.
    pub last_modified_ms: i64,
    /// Why tags or state are not those that are kept: they could not be read. The mapping must not run.
    pub unreadable: Option<String>,
}

/// From where to where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The function's name, without qualifier.
    pub function_name: String,
    /// Its ARN, with the qualifier if it has one.
    pub function_arn: String,
    /// The broker's ARN.
    pub event_source_arn: String,
    /// Empty where brokers have no virtual hosts.
    pub virtual_host: String,
    /// The queue.
    pub queue: String,
}

/// Which mappings are listed; absent: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this broker, by its ARN.
    pub event_source_arn: Option<String>,
    /// Those for this function, by its name.
    pub function_name: Option<String>,
    /// Those for this version or alias of it, by its ARN.
    pub function_arn: Option<String>,
}

/// Why a store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another mapping has the same route.
    #[error("the event source mapping {uuid} has the same function, event source, virtual host and queue")]
    Conflict {
        /// The other one.
        uuid: Uuid,
    },
    /// What is kept cannot be read.
    #[error("the store holds what this build cannot read: {words}")]
    Unreadable {
        /// Where and why.
        words: String,
    },
    /// The store does not answer, or not in time.
    #[error("the store cannot be used: {words}")]
    Unavailable {
        /// Its own words.
        words: String,
    },
}
