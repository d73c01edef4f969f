//! What people may do with mappings: make, read, list, change, delete and tag them.
//!
//! A change is kept before it is answered, and carried out afterwards by the reconciler. Mappings of
//! the configuration file are shown beside those that are kept, and change only with the file.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use esm_core::{
    filter::FilterCriteria,
    mapping::{BatchSize, BatchingWindow, MaximumConcurrency, MaximumRecordAge, MaximumRetryAttempts},
    status::{NO_RECORDS_PROCESSED, State, Status},
    store::{Filter, Route, Store, StoreError, StoredMapping},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use uuid::Uuid;

use super::spec::{MappingSpec, Planned, Violation, place_of_looked_up, plan};
use crate::config::{ConfiguredMapping, Function, FunctionName, Identity, Targets, Unresolved};

/// AWS's limit for a page of a list.
pub const LONGEST_PAGE: usize = 100;

/// How long a change waits for Amazon MQ to say what its broker is. Who asks for one has no patience for
/// more, and what cannot be known now is looked up later.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(3);
const NOT_FOUND: &str = "The resource you requested does not exist.";
pub(super) const USER_INITIATED: &str = "USER_INITIATED";

/// A handle on the control plane. Clones are handles on the same one.
#[derive(Clone)]
pub struct ControlPlane(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) store: Arc<dyn Store>,
    file: RwLock<Arc<File>>,
    runs: RwLock<BTreeMap<Uuid, Run>>,
    /// `LastProcessingResult` of what has run before, here or in an earlier life.
    results: RwLock<BTreeMap<Uuid, String>>,
    /// Functions that the file has no more, or no more as they were.
    retired: Mutex<Vec<Arc<Function>>>,
    /// Wakes the reconciler, which looks for itself what there is to do.
    pub(super) nudge: Notify,
}

/// What the configuration file says, as it was read last.
pub(super) struct File {
    pub(super) targets: Arc<Targets>,
    pub(super) mappings: BTreeMap<Uuid, ConfiguredMapping>,
    /// The order in the file.
    order: Vec<Uuid>,
    /// Counts the times that it was read.
    pub(super) generation: u64,
    read_at_ms: i64,
}

/// A mapping as the reconciler sees it.
#[derive(Clone)]
pub(super) enum Run {
    /// It was started.
    Started { planned: Arc<Planned>, status: watch::Receiver<Status> },
    /// It should run and cannot.
    Refused {
        reason: String,
        result: String,
        /// What is in its way is looked at again and again.
        is_retried: bool,
    },
}

impl Run {
    /// Whether it runs, or has tried and keeps trying. One broker that is down must not make a service
    /// unready that does its work for the others; a configuration that keeps a mapping from being tried at
    /// all does.
    fn is_up(&self) -> bool {
        match self {
            Self::Started { status, .. } => status.borrow().state == State::Enabled,
            Self::Refused { is_retried, .. } => *is_retried,
        }
    }

    fn lasting_result(&self) -> Option<String> {
        match self {
            Self::Started { status, .. } => status.borrow().lasting_result().map(str::to_owned),
            Self::Refused { .. } => None,
        }
    }
}

/// Whether the service does what it is for.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Every enabled mapping runs, or is retrying.
    pub is_ready: bool,
    /// Those of the file first, in its order.
    pub mappings: Vec<MappingStatus>,
}

/// What a mapping does now, in short.
#[derive(Clone, Debug)]
pub struct MappingStatus {
    /// `UUID`.
    pub uuid: Uuid,
    /// The function's name.
    pub function_name: String,
    /// The broker's name in the configuration, or its ARN if the configuration has it no more.
    pub event_source: String,
    /// The queue.
    pub queue: String,
    /// It is as it should be, or says why not.
    pub is_up: bool,
    /// `State`.
    pub state: State,
    /// `StateTransitionReason`.
    pub state_transition_reason: String,
    /// `LastProcessingResult`.
    pub last_processing_result: String,
}

/// What is shown of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// `UUID`.
    pub uuid: Uuid,
    /// `EventSourceMappingArn`.
    pub arn: String,
    /// What was asked for.
    pub spec: MappingSpec,
    /// `FunctionArn`.
    pub function_arn: String,
    /// `EventSourceArn`.
    pub event_source_arn: String,
    /// `State`.
    pub state: State,
    /// `StateTransitionReason`.
    pub state_transition_reason: String,
    /// `LastProcessingResult`.
    pub last_processing_result: String,
    /// `LastModified`, in milliseconds since 1970.
    pub last_modified_ms: i64,
}

/// Which mappings are listed; absent: all.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// `EventSourceArn`, or a broker's name.
    pub event_source: Option<String>,
    /// `FunctionName` in any of its forms. With a version or alias: only those for that one.
    pub function_name: Option<FunctionName>,
}

/// What is to change; absent: stays as it is. `Some(None)` takes away.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// `FunctionName`.
    pub function_name: Option<FunctionName>,
    /// The URI of `BASIC_AUTH`.
    pub secret: Option<String>,
    /// `Enabled`.
    pub enabled: Option<bool>,
    /// `BatchSize`.
    pub batch_size: Option<BatchSize>,
    /// `MaximumBatchingWindowInSeconds`.
    pub window: Option<BatchingWindow>,
    /// `FilterCriteria`.
    pub filter: Option<Option<Arc<FilterCriteria>>>,
    /// `ScalingConfig.MaximumConcurrency`.
    pub maximum_concurrency: Option<Option<MaximumConcurrency>>,
    /// `FunctionResponseTypes` with `ReportBatchItemFailures`.
    pub report_batch_item_failures: Option<bool>,
    /// `BisectBatchOnFunctionError`.
    pub bisect_batch_on_function_error: Option<bool>,
    /// `MaximumRetryAttempts`.
    pub maximum_retry_attempts: Option<MaximumRetryAttempts>,
    /// `MaximumRecordAgeInSeconds`.
    pub maximum_record_age_in_seconds: Option<MaximumRecordAge>,
    /// `DestinationConfig.OnFailure.Destination`.
    pub on_failure: Option<Option<String>>,
}

impl Changes {
    pub(crate) fn apply(self, spec: &mut MappingSpec) {
        fn set<T>(place: &mut T, change: Option<T>) {
            if let Some(value) = change {
                *place = value;
            }
        }
        set(&mut spec.function_name, self.function_name);
        set(&mut spec.secret, self.secret);
        set(&mut spec.enabled, self.enabled);
        set(&mut spec.batch_size, self.batch_size.map(Some));
        set(&mut spec.window, self.window);
        set(&mut spec.filter, self.filter);
        set(&mut spec.maximum_concurrency, self.maximum_concurrency);
        set(&mut spec.report_batch_item_failures, self.report_batch_item_failures);
        set(&mut spec.bisect_batch_on_function_error, self.bisect_batch_on_function_error);
        set(&mut spec.maximum_retry_attempts, self.maximum_retry_attempts.map(Some));
        set(&mut spec.maximum_record_age_in_seconds, self.maximum_record_age_in_seconds.map(Some));
        set(&mut spec.on_failure, self.on_failure);
    }
}

/// AWS's exceptions, each with its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// `InvalidParameterValueException`, 400.
    #[error("{0}")]
    InvalidParameterValue(String),
    /// `ResourceConflictException`, 409.
    #[error("{0}")]
    ResourceConflict(String),
    /// `ResourceNotFoundException`, 404.
    #[error("{0}")]
    ResourceNotFound(String),
    /// `ResourceInUseException`, 400.
    #[error("{0}")]
    ResourceInUse(String),
    /// `ServiceException`, 500.
    #[error("{0}")]
    Service(String),
}

impl ControlPlane {
    /// A control plane over a store and a configuration. The reconciler carries out what it is asked for.
    pub fn new(store: Arc<dyn Store>, targets: Arc<Targets>, mappings: Vec<ConfiguredMapping>) -> Self {
        Self(Arc::new(Inner {
            store,
            file: RwLock::new(Arc::new(File::new(targets, mappings, 0))),
            runs: RwLock::default(),
            results: RwLock::default(),
            retired: Mutex::default(),
            nudge: Notify::new(),
        }))
    }

    /// Puts another reading of the configuration file in the place of the last one.
    ///
    /// What is the same in both is what it was, so that nothing that uses it is disturbed: see
    /// [`load_again`](crate::config::load_again).
    pub fn replace_file(&self, targets: Arc<Targets>, mappings: Vec<ConfiguredMapping>) {
        let old = self.0.file();
        let is_kept = |function: &&Arc<Function>| targets.functions().any(|kept| Arc::ptr_eq(kept, function));
        let retired = old.targets.functions().filter(|function| !is_kept(function)).cloned();
        self.0.retired.lock().unwrap_or_else(PoisonError::into_inner).extend(retired);
        let generation = old.generation + 1;
        let file = Arc::new(File::new(targets, mappings, generation));
        *self.0.file.write().unwrap_or_else(PoisonError::into_inner) = file;
        self.0.nudge.notify_one();
    }

    /// Region and account, of which ARNs are made.
    pub fn identity(&self) -> Identity {
        self.0.file().targets.identity.clone()
    }

    /// What mappings may refer to now.
    pub fn targets(&self) -> Arc<Targets> {
        self.0.file().targets.clone()
    }

    /// `CreateEventSourceMapping`.
    pub async fn create(&self, spec: MappingSpec, tags: BTreeMap<String, String>) -> Result<View, ControlError> {
        let file = self.0.file();
        let uuid = Uuid::new_v4();
        let route = file.plan_route(uuid, &spec, &tags).await?;
        if let Some(other) = file.mappings.values().find(|other| file.route(other) == route) {
            return Err(conflict(&route, other.uuid));
        }
        let mapping = StoredMapping {
            uuid,
            route,
            spec: written(&spec)?,
            tags,
            state: if spec.enabled { State::Creating } else { State::Disabled },
            revision: 1,
            last_modified_ms: now_ms(),
            unreadable: None,
        };
        self.0.store.add(&mapping).await.map_err(|error| not_kept(error, &mapping.route))?;
        self.0.nudge.notify_one();
        Ok(self.0.view(mapping, spec))
    }

    /// `GetEventSourceMapping`.
    pub async fn get(&self, uuid: Uuid) -> Result<View, ControlError> {
        let file = self.0.file();
        if let Some(configured) = file.mappings.get(&uuid) {
            return Ok(self.0.view_of_file(&file, configured));
        }
        self.0.view_of_row(self.row(uuid).await?)
    }

    /// `ListEventSourceMappings`: at most so many of those after the marker, and the next marker if
    /// there may be more.
    pub async fn list(
        &self,
        filter: &ListFilter,
        marker: Option<&str>,
        most: usize,
    ) -> Result<(Vec<View>, Option<String>), ControlError> {
        let most = most.clamp(1, LONGEST_PAGE);
        let after = marker.map(str::parse::<Uuid>).transpose();
        let after = after.map_err(|_| ControlError::InvalidParameterValue("Invalid marker.".into()))?;
        let file = self.0.file();
        let filter = file.resolve(filter);
        // One more tells whether there are more.
        let wanted = u32::try_from(most).unwrap_or(u32::MAX).saturating_add(1);
        let stored = self.0.store.page(&filter, after, wanted).await.map_err(unavailable)?;
        let of_file = file.mappings.values().filter(|configured| {
            after.is_none_or(|after| configured.uuid > after) && names(&filter, &file.route(configured))
        });
        let mut views: Vec<View> = of_file.map(|configured| self.0.view_of_file(&file, configured)).collect();
        for mapping in stored {
            views.push(self.0.view_of_row(mapping)?);
        }
        views.sort_unstable_by_key(|view| view.uuid);
        let has_more = views.len() > most;
        views.truncate(most);
        let next = views.last().filter(|_| has_more).map(|last| last.uuid.to_string());
        Ok((views, next))
    }

    /// `UpdateEventSourceMapping`.
    pub async fn update(&self, uuid: Uuid, changes: Changes) -> Result<View, ControlError> {
        let file = self.0.file();
        file.refuse_change(uuid)?;
        loop {
            let (old, mut spec) = self.stored(uuid).await?;
            if !old.state.is_settled() {
                return Err(in_use("update"));
            }
            let was_enabled = spec.enabled;
            let before = spec.clone();
            changes.clone().apply(&mut spec);
            // Whatever has become of its broker, a mapping can be disabled.
            let is_disabled_only = !spec.enabled && MappingSpec { enabled: was_enabled, ..spec.clone() } == before;
            let route =
                if is_disabled_only { old.route.clone() } else { file.plan_route(uuid, &spec, &old.tags).await? };
            let is_taken = |other: &&ConfiguredMapping| route != old.route && file.route(other) == route;
            if let Some(other) = file.mappings.values().find(is_taken) {
                return Err(conflict(&route, other.uuid));
            }
            let state = match (was_enabled, spec.enabled) {
                (true, true) => State::Updating,
                (true, false) => State::Disabling,
                (false, true) => State::Enabling,
                (false, false) => State::Disabled,
            };
            let new = StoredMapping { route, spec: written(&spec)?, state, ..next(old) };
            if self.replace(&new).await? {
                return Ok(self.0.view(new, spec));
            }
        }
    }

    /// `DeleteEventSourceMapping`.
    pub async fn delete(&self, uuid: Uuid) -> Result<View, ControlError> {
        self.0.file().refuse_change(uuid)?;
        loop {
            let old = self.row(uuid).await?;
            if !old.state.is_settled() {
                return Err(in_use("delete"));
            }
            let new = StoredMapping { state: State::Deleting, ..next(old) };
            if self.replace(&new).await? {
                return self.0.view_of_row(new);
            }
        }
    }

    /// `ListTags`.
    pub async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, ControlError> {
        let file = self.0.file();
        let uuid = file.uuid_in(arn)?;
        match file.mappings.get(&uuid) {
            Some(configured) => Ok(configured.tags.clone()),
            None => Ok(self.tagged(uuid, arn).await?.tags),
        }
    }

    /// `TagResource`.
    pub async fn tag(&self, arn: &str, tags: BTreeMap<String, String>) -> Result<(), ControlError> {
        self.change_tags(arn, |kept| kept.extend(tags.clone())).await
    }

    /// `UntagResource`. A key that is not there is no error.
    pub async fn untag(&self, arn: &str, keys: &[String]) -> Result<(), ControlError> {
        self.change_tags(arn, |kept| kept.retain(|key, _| !keys.contains(key))).await
    }

    async fn change_tags(&self, arn: &str, change: impl Fn(&mut BTreeMap<String, String>)) -> Result<(), ControlError> {
        let file = self.0.file();
        let uuid = file.uuid_in(arn)?;
        file.refuse_change(uuid)?;
        loop {
            let old = self.tagged(uuid, arn).await?;
            let mut tags = old.tags.clone();
            change(&mut tags);
            if tags == old.tags {
                return Ok(());
            }
            if let Err(violations) = plan(Some(uuid), &read(&old)?, &tags, &file.targets) {
                // What else is wrong with the mapping is no reason to refuse tags.
                let of_tags: Vec<_> = violations.into_iter().filter(|one| one.member.heeds_tags()).collect();
                if !of_tags.is_empty() {
                    return Err(invalid(&of_tags));
                }
            }
            let new = StoredMapping { tags, last_modified_ms: old.last_modified_ms, ..next(old) };
            if self.replace(&new).await? {
                return Ok(());
            }
        }
    }
}

impl ControlPlane {
    /// What every mapping does, and whether all that should run do, or have said why not.
    pub async fn readiness(&self) -> Result<Readiness, ControlError> {
        const PAGE: u32 = 1_000;
        let file = self.0.file();
        let runs = self.0.runs.read().unwrap_or_else(PoisonError::into_inner).clone();
        let results = self.0.results.read().unwrap_or_else(PoisonError::into_inner).clone();
        let readers = readers(&runs);
        let shown = |uuid: Uuid| {
            shown(&runs, &results, uuid, |planned| {
                readers.get(&planned.place())?.iter().copied().find(|other| *other != uuid)
            })
        };
        let mut mappings = Vec::new();
        for (uuid, configured) in file.order.iter().filter_map(|uuid| file.mappings.get_key_value(uuid)) {
            let shown = shown(*uuid);
            mappings.push(MappingStatus {
                uuid: *uuid,
                function_name: configured.spec.function_name.name().to_owned(),
                event_source: file.name_of_broker(&configured.spec.event_source),
                queue: configured.spec.queue.clone(),
                is_up: !configured.spec.enabled || runs.get(uuid).is_some_and(Run::is_up),
                state: shown.state_of(configured),
                state_transition_reason: shown.reason,
                last_processing_result: shown.result,
            });
        }
        let mut after = None;
        loop {
            let page = self.0.store.page(&Filter::default(), after, PAGE).await.map_err(unavailable)?;
            let Some(last) = page.last() else { break };
            after = Some(last.uuid);
            for StoredMapping { uuid, route, state, .. } in page {
                let shown = shown(uuid);
                mappings.push(MappingStatus {
                    uuid,
                    function_name: route.function_name,
                    event_source: file.name_of_broker(&route.event_source_arn),
                    queue: route.queue,
                    is_up: !state.wants_to_run() || runs.get(&uuid).is_some_and(Run::is_up),
                    state,
                    state_transition_reason: shown.reason,
                    last_processing_result: shown.result,
                });
            }
        }
        Ok(Readiness { is_ready: mappings.iter().all(|mapping| mapping.is_up), mappings })
    }

    /// The longest time that a function of what runs now may take.
    pub fn longest_timeout(&self) -> Duration {
        let runs = self.0.runs.read().unwrap_or_else(PoisonError::into_inner);
        let timeouts = runs.values().filter_map(|run| match run {
            Run::Started { planned, .. } => Some(planned.function.timeout),
            Run::Refused { .. } => None,
        });
        timeouts.max().unwrap_or_default()
    }

    async fn stored(&self, uuid: Uuid) -> Result<(StoredMapping, MappingSpec), ControlError> {
        let mapping = self.row(uuid).await?;
        let spec = read(&mapping)?;
        Ok((mapping, spec))
    }

    async fn row(&self, uuid: Uuid) -> Result<StoredMapping, ControlError> {
        let mapping = self.0.store.get(uuid).await.map_err(unavailable)?;
        mapping.ok_or_else(|| ControlError::ResourceNotFound(NOT_FOUND.into()))
    }

    async fn tagged(&self, uuid: Uuid, arn: &str) -> Result<StoredMapping, ControlError> {
        let mapping = self.0.store.get(uuid).await.map_err(unavailable)?;
        let mapping = mapping.ok_or_else(|| no_such_arn(arn))?;
        mapping.unreadable.as_ref().map_or(Ok(()), |words| Err(unknown_form(uuid, words)))?;
        Ok(mapping)
    }

    /// `false`: somebody else was faster.
    async fn replace(&self, new: &StoredMapping) -> Result<bool, ControlError> {
        let replaced = self.0.store.replace(new).await.map_err(|error| not_kept(error, &new.route))?;
        if replaced {
            self.0.nudge.notify_one();
        }
        Ok(replaced)
    }
}

impl Inner {
    pub(super) fn file(&self) -> Arc<File> {
        self.file.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows what has become of a mapping; absent: nothing runs.
    pub(super) fn show(&self, uuid: Uuid, run: Option<Run>) {
        let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
        let ended = match run {
            Some(run) => runs.insert(uuid, run),
            None => runs.remove(&uuid),
        };
        if let Some(result) = ended.as_ref().and_then(Run::lasting_result) {
            self.results.write().unwrap_or_else(PoisonError::into_inner).insert(uuid, result);
        }
    }

    /// What became of everything that was processed, in this life or before.
    pub(super) fn results(&self) -> BTreeMap<Uuid, String> {
        let mut results = self.results.read().unwrap_or_else(PoisonError::into_inner).clone();
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        results.extend(runs.iter().filter_map(|(uuid, run)| Some((*uuid, run.lasting_result()?))));
        results
    }

    /// Takes over what an earlier life has kept.
    pub(super) fn recall(&self, results: BTreeMap<Uuid, String>) {
        *self.results.write().unwrap_or_else(PoisonError::into_inner) = results;
    }

    /// Nobody will ask for it any more.
    pub(super) fn forget(&self, uuid: Uuid) {
        self.results.write().unwrap_or_else(PoisonError::into_inner).remove(&uuid);
    }

    /// Takes out the functions that the file has no more, and that may be ended now.
    pub(super) fn take_retired(&self, may_end: impl Fn(&Arc<Function>) -> bool) -> Vec<Arc<Function>> {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.extract_if(.., |function| may_end(function)).collect()
    }

    /// Also of a mapping that cannot be read: with its route, and why.
    fn view_of_row(&self, mapping: StoredMapping) -> Result<View, ControlError> {
        let error = match read(&mapping) {
            Ok(spec) => return Ok(self.view(mapping, spec)),
            Err(error) => error,
        };
        let Route { function_name, event_source_arn, virtual_host, queue, .. } = &mapping.route;
        let Ok(function_name) = function_name.parse() else { return Err(error) };
        let mut spec = MappingSpec::new(function_name, event_source_arn.clone(), queue.clone(), String::new());
        spec.virtual_host = Some(virtual_host.clone()).filter(|name| !name.is_empty());
        Ok(View {
            state_transition_reason: format!("ESM_CONFIG_NOT_VALID: {error}"),
            last_processing_result: format!("PROBLEM: {error}"),
            ..self.view(mapping, spec)
        })
    }

    fn view(&self, mapping: StoredMapping, spec: MappingSpec) -> View {
        let shown = self.shown(mapping.uuid);
        View {
            uuid: mapping.uuid,
            arn: format!("{}{}", self.file().targets.identity.mapping_arn_prefix(), mapping.uuid),
            spec,
            function_arn: mapping.route.function_arn,
            event_source_arn: mapping.route.event_source_arn,
            state: mapping.state,
            state_transition_reason: shown.reason,
            last_processing_result: shown.result,
            last_modified_ms: mapping.last_modified_ms,
        }
    }

    fn view_of_file(&self, file: &File, configured: &ConfiguredMapping) -> View {
        let uuid = configured.uuid;
        let (shown, route) = (self.shown(uuid), file.route(configured));
        View {
            uuid,
            arn: format!("{}{uuid}", file.targets.identity.mapping_arn_prefix()),
            spec: configured.spec.clone(),
            function_arn: route.function_arn,
            event_source_arn: route.event_source_arn,
            state: shown.state_of(configured),
            state_transition_reason: shown.reason,
            last_processing_result: shown.result,
            last_modified_ms: file.read_at_ms,
        }
    }

    fn shown(&self, uuid: Uuid) -> Shown {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let results = self.results.read().unwrap_or_else(PoisonError::into_inner);
        shown(&runs, &results, uuid, |planned| other_reader(&runs, uuid, planned))
    }
}

fn shown(
    runs: &BTreeMap<Uuid, Run>,
    results: &BTreeMap<Uuid, String>,
    uuid: Uuid,
    other_reader: impl FnOnce(&Planned) -> Option<Uuid>,
) -> Shown {
    let mut shown = match runs.get(&uuid) {
        None => Shown { state: None, reason: USER_INITIATED.into(), result: NO_RECORDS_PROCESSED.into() },
        Some(Run::Refused { reason, result, .. }) => {
            Shown { state: Some(State::Enabled), reason: reason.clone(), result: result.clone() }
        }
        Some(Run::Started { status, .. }) => {
            let status = status.borrow();
            Shown {
                state: Some(status.state),
                reason: status.state_transition_reason.to_string(),
                result: status.last_processing_result.to_string(),
            }
        }
    };
    if shown.result == NO_RECORDS_PROCESSED
        && let Some(result) = results.get(&uuid)
    {
        shown.result.clone_from(result);
    }
    if let Some(Run::Started { planned, .. }) = runs.get(&uuid)
        && let Some(other) = other_reader(planned)
    {
        let ours = format!(
            "; the event source mapping {other} reads the same queue, so each message goes to only one of the two"
        );
        shown.result.push_str(&ours);
    }
    shown
}

/// Another mapping that reads the same queue now.
fn other_reader(runs: &BTreeMap<Uuid, Run>, uuid: Uuid, planned: &Planned) -> Option<Uuid> {
    let reads_the_same =
        |run: &Run| matches!(run, Run::Started { planned: other, .. } if other.reads_the_queue_of(planned));
    runs.iter().find(|(other, run)| **other != uuid && reads_the_same(run)).map(|(other, _)| *other)
}

/// Who reads each queue, to find other readers of all mappings at once.
fn readers(runs: &BTreeMap<Uuid, Run>) -> HashMap<(&str, Option<&str>, &str), Vec<Uuid>> {
    let mut readers: HashMap<_, Vec<Uuid>> = HashMap::new();
    for (uuid, run) in runs {
        if let Run::Started { planned, .. } = run {
            readers.entry(planned.place()).or_default().push(*uuid);
        }
    }
    readers
}

/// What a mapping that runs, or does not, says of itself.
struct Shown {
    /// Absent: nothing runs.
    state: Option<State>,
    reason: String,
    result: String,
}

impl Shown {
    /// The state of a mapping of the file, for which none is kept.
    fn state_of(&self, configured: &ConfiguredMapping) -> State {
        match (configured.spec.enabled, self.state) {
            (true, Some(State::Enabled)) => State::Enabled,
            (true, _) => State::Creating,
            (false, None | Some(State::Disabled)) => State::Disabled,
            (false, Some(_)) => State::Disabling,
        }
    }
}

impl File {
    fn new(targets: Arc<Targets>, mappings: Vec<ConfiguredMapping>, generation: u64) -> Self {
        let order = mappings.iter().map(|configured| configured.uuid).collect();
        let by_uuid = mappings.into_iter().map(|configured| (configured.uuid, configured)).collect();
        Self { targets, mappings: by_uuid, order, generation, read_at_ms: now_ms() }
    }

    fn route(&self, configured: &ConfiguredMapping) -> Route {
        self.route_of(&configured.spec, configured.planned.as_deref())
    }

    /// From where to where, unless something is certainly wrong. What can only be judged once the broker
    /// is known is judged then, and shown by the mapping.
    async fn plan_route(
        &self,
        uuid: Uuid,
        spec: &MappingSpec,
        tags: &BTreeMap<String, String>,
    ) -> Result<Route, ControlError> {
        if let Some(lookup) = self.targets.lookup(&spec.event_source)
            && lookup.broker().is_err()
        {
            let _ = timeout(LOOKUP_PATIENCE, lookup.ask()).await;
        }
        match plan(Some(uuid), spec, tags, &self.targets) {
            Ok(planned) => Ok(self.route_of(spec, Some(&planned))),
            Err(violations) if violations.iter().all(Violation::may_pass) => Ok(self.route_of(spec, None)),
            Err(mut violations) => {
                violations.retain(|violation| !violation.may_pass());
                Err(invalid(&violations))
            }
        }
    }

    /// The broker of a mapping that is not planned is looked up.
    fn route_of(&self, spec: &MappingSpec, planned: Option<&Planned>) -> Route {
        let looked_up = || (spec.event_source.clone(), place_of_looked_up(spec).to_owned());
        let (event_source_arn, virtual_host) = match planned {
            Some(_) if self.targets.lookup(&spec.event_source).is_some() => looked_up(),
            Some(planned) => (planned.broker.arn.clone(), planned.virtual_host.clone().unwrap_or_default()),
            None => looked_up(),
        };
        Route {
            function_name: spec.function_name.name().to_owned(),
            function_arn: spec.function_name.arn(&self.targets.identity),
            event_source_arn,
            virtual_host,
            queue: spec.queue.clone(),
        }
    }

    /// Its ARN, if it has no other name.
    fn name_of_broker(&self, name: &str) -> String {
        self.targets.broker(name).map_or_else(|_| name.to_owned(), |broker| broker.name.clone())
    }

    fn refuse_change(&self, uuid: Uuid) -> Result<(), ControlError> {
        match self.mappings.get(&uuid) {
            None => Ok(()),
            Some(configured) => Err(ControlError::ResourceConflict(format!(
                "The event source mapping {uuid} stands in the configuration file as {}, and can be changed only there.",
                configured.key
            ))),
        }
    }

    fn uuid_in(&self, arn: &str) -> Result<Uuid, ControlError> {
        let uuid = arn.strip_prefix(&self.targets.identity.mapping_arn_prefix());
        uuid.and_then(|uuid| uuid.parse().ok()).ok_or_else(|| no_such_arn(arn))
    }

    /// Names and short forms become the ARNs that are kept.
    fn resolve(&self, filter: &ListFilter) -> Filter {
        let ListFilter { event_source, function_name } = filter;
        let identity = &self.targets.identity;
        Filter {
            event_source_arn: event_source.as_ref().map(|source| match self.targets.broker(source) {
                Ok(broker) => broker.arn.clone(),
                Err(Unresolved::Because(_) | Unresolved::Reported(_) | Unresolved::Unknown(_)) => source.clone(),
            }),
            function_name: function_name.as_ref().map(|function| function.name().to_owned()),
            function_arn: function_name
                .as_ref()
                .filter(|function| function.qualifier().is_some())
                .map(|function| function.arn(identity)),
        }
    }
}

fn names(filter: &Filter, route: &Route) -> bool {
    let matches = |wanted: &Option<String>, found: &String| wanted.as_ref().is_none_or(|wanted| wanted == found);
    matches(&filter.event_source_arn, &route.event_source_arn)
        && matches(&filter.function_name, &route.function_name)
        && matches(&filter.function_arn, &route.function_arn)
}

fn written(spec: &MappingSpec) -> Result<String, ControlError> {
    serde_json::to_string(spec).map_err(|error| ControlError::Service(format!("The mapping cannot be kept: {error}.")))
}

pub(super) fn read(mapping: &StoredMapping) -> Result<MappingSpec, ControlError> {
    match &mapping.unreadable {
        Some(words) => Err(unknown_form(mapping.uuid, words)),
        None => serde_json::from_str(&mapping.spec).map_err(|error| unknown_form(mapping.uuid, error)),
    }
}

fn unknown_form(uuid: Uuid, words: impl Display) -> ControlError {
    let form = "is kept in a form that this build does not know";
    ControlError::Service(format!("The event source mapping {uuid} {form}: {words}."))
}

fn invalid(violations: &[Violation]) -> ControlError {
    let messages: Vec<_> = violations.iter().map(Violation::message).collect();
    ControlError::InvalidParameterValue(messages.join("; "))
}

fn in_use(what: &str) -> ControlError {
    ControlError::ResourceInUse(format!("Cannot {what} the event source mapping because it is in use."))
}

fn conflict(route: &Route, other: Uuid) -> ControlError {
    let Route { event_source_arn, function_arn, queue, .. } = route;
    ControlError::ResourceConflict(format!(
        "An event source mapping with event source (\"{event_source_arn}\"), function (\"{function_arn}\"), queues \
         (\"{queue}\") already exists. Please update or delete the existing mapping with UUID {other}"
    ))
}

fn no_such_arn(arn: &str) -> ControlError {
    ControlError::ResourceNotFound(format!("Event source mapping not found: {arn}"))
}

fn not_kept(error: StoreError, route: &Route) -> ControlError {
    match error {
        StoreError::Conflict { uuid } => conflict(route, uuid),
        other => unavailable(other),
    }
}

#[allow(clippy::needless_pass_by_value)] // as `map_err` has it
fn unavailable(error: StoreError) -> ControlError {
    ControlError::Service(format!("{error}"))
}

/// The same mapping after one more change.
fn next(mapping: StoredMapping) -> StoredMapping {
    StoredMapping { revision: mapping.revision + 1, last_modified_ms: now_ms(), ..mapping }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
