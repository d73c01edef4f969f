//! Makes what runs what should run: compares the two, takes one step for each mapping that differs,
//! and looks again. Whatever wakes it carries no data, so after a restart the path is the same.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use esm_core::{
    function::Function,
    metrics::Metrics,
    status::{State, Status},
    store::{StoreError, StoredMapping},
    supervisor::{Conditions, Supervisor},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{
    plane::{ControlPlane, File, Run, USER_INITIATED, read},
    spec::{Change, MappingSpec, Member, Planned, Violation, plan},
};
use crate::config::{self, Cause, Lookup, Targets};

/// How long nothing need happen until it looks by itself.
const PERIOD: Duration = Duration::from_secs(60);
/// How long to leave a store alone that failed.
const STORE_DELAY: Duration = Duration::from_secs(1);

/// Starts, changes and ends mappings.
pub struct Reconciler {
    plane: ControlPlane,
    metrics: Metrics,
    supervisor: Supervisor,
    functions: HashMap<String, (Arc<config::Function>, Arc<Function>)>,
    at_work: BTreeMap<Uuid, Work>,
    /// Ends when something started is up: time to look again.
    rising: JoinSet<()>,
    /// Functions that nobody invokes any more, on their way out.
    closing: JoinSet<()>,
    /// Of the brokers that are wanted, so that what is known of them is kept.
    lookups: BTreeMap<String, Arc<Lookup>>,
    /// Questions to Amazon MQ.
    asking: JoinSet<()>,
    /// What the store has of results: they change too often to be kept each time.
    kept_results: BTreeMap<Uuid, String>,
    results_kept_at: Instant,
    store_is_failing: bool,
}

/// What was done about a mapping.
struct Work {
    version: Version,
    task: Task,
}

enum Task {
    Started { planned: Arc<Planned>, status: watch::Receiver<Status>, is_stopping: bool },
    Refused,
}

/// By which reading of store and file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    revision: i64,
    generation: u64,
    /// The number of the answer about its broker; 0 if nobody has to be asked.
    described: u64,
}

/// A mapping as it should be.
struct Wanted {
    state: State,
    version: Version,
    source: Source,
    /// How its broker is looked up.
    lookup: Option<Arc<Lookup>>,
}

enum Source {
    /// Of the file, planned already.
    Planned(Arc<Planned>),
    /// Of the file.
    File(Box<MappingSpec>, BTreeMap<String, String>),
    Store(Box<StoredMapping>),
}

/// How far a mapping at work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not yet connected, and no reason known.
    Starting,
    /// Connected, or trying again.
    Up,
    /// Asked to end.
    Stopping,
    /// It cannot be started as things are.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Start,
    Adjust,
    Stop,
    /// What was refused is wanted no more.
    Forget,
    /// The state has been reached.
    Settle(State),
    /// Nothing is left of it but its row.
    Remove,
}

/// The next step for one mapping. `wanted` is absent if it is disabled or gone.
fn next_step(wanted: Option<State>, phase: Option<Phase>, change: Change) -> Option<Step> {
    let Some(state) = wanted.filter(|state| state.wants_to_run()) else {
        return match (phase, wanted) {
            (Some(Phase::Starting | Phase::Up), _) => Some(Step::Stop),
            (Some(Phase::Refused), _) => Some(Step::Forget),
            (None, Some(State::Disabling)) => Some(Step::Settle(State::Disabled)),
            (None, Some(State::Deleting)) => Some(Step::Remove),
            (Some(Phase::Stopping) | None, _) => None,
        };
    };
    match (phase, change) {
        (None, _) | (Some(Phase::Refused), Change::Restart | Change::Settings) => Some(Step::Start),
        (Some(Phase::Starting | Phase::Up), Change::Restart) => Some(Step::Stop),
        (Some(Phase::Starting | Phase::Up), Change::Settings) => Some(Step::Adjust),
        (Some(Phase::Up | Phase::Refused), Change::None) if state != State::Enabled => {
            Some(Step::Settle(State::Enabled))
        }
        (Some(Phase::Stopping), _) | (Some(Phase::Starting | Phase::Up | Phase::Refused), Change::None) => None,
    }
}

impl Reconciler {
    /// A reconciler for a control plane; there may be one only. When it returns, everything that should
    /// run was started, unless the store fails.
    pub async fn begin(plane: ControlPlane, metrics: Metrics, conditions: Conditions) -> Self {
        let mut reconciler = Self {
            plane,
            supervisor: Supervisor::new(metrics.clone(), conditions),
            metrics,
            functions: HashMap::new(),
            at_work: BTreeMap::new(),
            rising: JoinSet::new(),
            closing: JoinSet::new(),
            lookups: BTreeMap::new(),
            asking: JoinSet::new(),
            kept_results: BTreeMap::new(),
            results_kept_at: Instant::now(),
            store_is_failing: false,
        };
        match reconciler.plane.0.store.results().await {
            Ok(results) => {
                reconciler.plane.0.recall(results.clone());
                reconciler.kept_results = results;
            }
            Err(error) => warn!(%error, "what mappings processed last is not known"),
        }
        reconciler.look().await;
        reconciler
    }

    /// Reconciles until it is asked to drain, and then ends every mapping in good order. What is kept
    /// stays as it is then. Dropping the future ends all at once.
    pub async fn run(mut self, drain: CancellationToken) {
        while !drain.is_cancelled() {
            let delay = self.look().await;
            tokio::select! {
                biased;
                () = drain.cancelled() => {}
                uuid = self.supervisor.ended() => self.note_end(uuid),
                () = self.plane.0.nudge.notified() => {}
                Some(_) = self.rising.join_next() => {}
                Some(_) = self.closing.join_next() => {}
                Some(_) = self.asking.join_next() => {}
                () = sleep(delay) => {}
            }
            while self.rising.try_join_next().is_some() {} // one look is enough for all of them
        }
        self.supervisor.drain().await;
        if let Err(error) = keep_results(&self.plane, &mut self.kept_results).await {
            warn!(%error, "what was processed last will not be known after a start");
        }
        self.closing.join_all().await;
    }

    /// Reconciles once; returns how long to wait for a reason to look again.
    async fn look(&mut self) -> Duration {
        match self.reconcile().await {
            Ok(()) => {
                if std::mem::take(&mut self.store_is_failing) {
                    info!("the store can be used again");
                }
                self.ask_when_due().min(PERIOD)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.store_is_failing, true) {
                    error!(%error, "what runs goes on; changes wait until the store can be used again");
                }
                STORE_DELAY
            }
        }
    }

    async fn reconcile(&mut self) -> Result<(), StoreError> {
        let mut result = Ok(());
        if self.results_kept_at.elapsed() >= PERIOD {
            self.results_kept_at = Instant::now();
            result = keep_results(&self.plane, &mut self.kept_results).await;
        }
        let file = self.plane.0.file();
        let wanted = self.wanted(&file).await?;
        self.lookups = lookups(&wanted);
        let uuids: BTreeSet<Uuid> = wanted.keys().chain(self.at_work.keys()).copied().collect();
        for uuid in uuids {
            // What cannot be written of one mapping is no reason to leave the others as they are.
            let advanced = loop {
                match self.advance(uuid, wanted.get(&uuid), &file).await {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            result = result.and(advanced);
        }
        self.close_unused();
        result
    }

    /// Everything that is not simply disabled.
    async fn wanted(&self, file: &File) -> Result<BTreeMap<Uuid, Wanted>, StoreError> {
        let stored = self.plane.0.store.active().await?.into_iter().map(|mapping| {
            let (uuid, state, revision) = (mapping.uuid, mapping.state, mapping.revision);
            let lookup = file.targets.lookup(&mapping.route.event_source_arn);
            (uuid, Wanted::new(state, revision, file.generation, lookup, Source::Store(Box::new(mapping))))
        });
        let of_file =
            file.mappings.iter().filter(|(_, configured)| configured.spec.enabled).map(|(uuid, configured)| {
                let (lookup, source) = match &configured.planned {
                    Some(planned) => (None, Source::Planned(planned.clone())),
                    None => (
                        file.targets.lookup(&configured.spec.event_source),
                        Source::File(Box::new(configured.spec.clone()), configured.tags.clone()),
                    ),
                };
                (*uuid, Wanted::new(State::Enabled, 0, file.generation, lookup, source))
            });
        Ok(stored.chain(of_file).collect())
    }

    /// Asks Amazon MQ about the brokers for which it is time, and tells when the next one's is.
    fn ask_when_due(&mut self) -> Duration {
        let mut next = Duration::MAX;
        for (arn, lookup) in &self.lookups {
            let is_connected = |work: &Work| match &work.task {
                Task::Started { planned, status, .. } => planned.broker.arn != *arn || status.borrow().connected,
                Task::Refused => true,
            };
            match lookup.due(self.at_work.values().all(is_connected)) {
                Some(Duration::ZERO) => {
                    let lookup = lookup.clone();
                    self.asking.spawn(async move { lookup.ask().await });
                }
                Some(due) => next = next.min(due),
                None => {} // its end wakes us
            }
        }
        next
    }

    /// Takes the next step for a mapping, if one can be taken now. Returns whether another may follow at once.
    async fn advance(&mut self, uuid: Uuid, wanted: Option<&Wanted>, file: &File) -> Result<bool, StoreError> {
        let version = wanted.map(|wanted| wanted.version);
        let is_current = self.at_work.get(&uuid).map(|work| work.version) == version;
        let planned = wanted
            .filter(|wanted| !is_current && wanted.state.wants_to_run())
            .map(|wanted| wanted.plan(uuid, &file.targets));
        let change = planned.as_ref().map_or(Change::None, |planned| self.change(uuid, planned));
        let step = next_step(wanted.map(|wanted| wanted.state), self.phase(uuid), change);
        match (step, wanted, planned) {
            (Some(Step::Start), _, Some(Err(violations))) if violations.iter().any(awaits_an_answer) => {
                return Ok(false);
            }
            (Some(Step::Start), Some(wanted), Some(planned)) => self.start(uuid, wanted.version, planned),
            (Some(Step::Adjust), Some(wanted), Some(Ok(planned))) => self.adjust(uuid, wanted.version, planned),
            (None, Some(wanted), Some(Ok(planned))) if change == Change::None => {
                self.note_version(uuid, wanted.version, planned);
            }
            (Some(Step::Stop), ..) => {
                self.stop(uuid);
                return Ok(false);
            }
            (Some(Step::Forget), ..) => self.note_end(uuid),
            (Some(Step::Settle(state)), Some(wanted), _) => {
                self.settle(uuid, wanted, state).await?;
                return Ok(false);
            }
            (Some(Step::Remove), ..) => {
                self.plane.0.store.remove(uuid).await?;
                self.plane.0.forget(uuid);
                info!(%uuid, "the mapping is deleted");
                return Ok(false);
            }
            (Some(Step::Start | Step::Adjust | Step::Settle(_)) | None, ..) => return Ok(false),
        }
        Ok(true)
    }

    fn phase(&self, uuid: Uuid) -> Option<Phase> {
        Some(match &self.at_work.get(&uuid)?.task {
            Task::Refused => Phase::Refused,
            Task::Started { is_stopping: true, .. } => Phase::Stopping,
            Task::Started { status, .. } if status.borrow().state == State::Enabled => Phase::Up,
            Task::Started { .. } => Phase::Starting,
        })
    }

    fn change(&self, uuid: Uuid, planned: &Result<Arc<Planned>, Vec<Violation>>) -> Change {
        match (self.at_work.get(&uuid).map(|work| &work.task), planned) {
            (Some(Task::Started { planned: old, .. }), Ok(new)) => old.change_to(new),
            _ => Change::Restart,
        }
    }

    fn start(&mut self, uuid: Uuid, version: Version, planned: Result<Arc<Planned>, Vec<Violation>>) {
        let task = match planned {
            Ok(planned) => {
                self.warn_of_other_readers(uuid, &planned);
                let function = self.function(&planned.function);
                let status = self.supervisor.start(planned.mapping.clone(), planned.source.clone(), function);
                let mut rises = status.clone();
                // An end is as good a reason to look again.
                self.rising.spawn(async move { drop(rises.wait_for(|status| status.state == State::Enabled).await) });
                self.plane.0.show(uuid, Some(Run::Started { planned: planned.clone(), status: status.clone() }));
                Task::Started { planned, status, is_stopping: false }
            }
            Err(violations) => {
                let run = refusal(&violations);
                if let Run::Refused { reason, .. } = &run {
                    error!(%uuid, reason, "the mapping cannot be started");
                }
                self.plane.0.show(uuid, Some(run));
                Task::Refused
            }
        };
        self.at_work.insert(uuid, Work { version, task });
    }

    fn adjust(&mut self, uuid: Uuid, version: Version, planned: Arc<Planned>) {
        self.supervisor.adjust(planned.mapping.clone());
        self.note_version(uuid, version, planned);
    }

    fn stop(&mut self, uuid: Uuid) {
        self.supervisor.stop(uuid);
        if let Some(Work { task: Task::Started { is_stopping, .. }, .. }) = self.at_work.get_mut(&uuid) {
            *is_stopping = true;
        }
    }

    async fn settle(&mut self, uuid: Uuid, wanted: &Wanted, state: State) -> Result<(), StoreError> {
        if self.plane.0.store.settle(uuid, wanted.version.revision, wanted.state, state).await? {
            info!(%uuid, state = state.as_str(), "the mapping's state is reached");
        }
        Ok(()) // or it was changed meanwhile, and whoever did that woke us
    }

    /// What runs is what another version wants too.
    fn note_version(&mut self, uuid: Uuid, version: Version, planned: Arc<Planned>) {
        let Some(work) = self.at_work.get_mut(&uuid) else { return };
        work.version = version;
        if let Task::Started { planned: old, status, .. } = &mut work.task {
            *old = planned.clone();
            self.plane.0.show(uuid, Some(Run::Started { planned, status: status.clone() }));
        }
    }

    fn note_end(&mut self, uuid: Uuid) {
        self.at_work.remove(&uuid);
        self.plane.0.show(uuid, None);
    }

    fn warn_of_other_readers(&self, uuid: Uuid, planned: &Planned) {
        let other = self.at_work.iter().find(|(_, work)| match &work.task {
            Task::Started { planned: other, .. } => other.reads_the_queue_of(planned),
            Task::Refused => false,
        });
        if let Some((other, _)) = other {
            let queue = planned.mapping.queue.as_str();
            warn!(%uuid, %other, queue, "two mappings read the same queue; each message goes to only one of them");
        }
    }

    /// The one that its mappings share.
    fn function(&mut self, configured: &Arc<config::Function>) -> Arc<Function> {
        if let Some((known, function)) = self.functions.get(&configured.name)
            && Arc::ptr_eq(known, configured)
        {
            return function.clone();
        }
        let config::Function { name, timeout, reserved_concurrency, backend, .. } = &**configured;
        let backend = backend.clone();
        let function = Arc::new(Function::new(name.clone(), *timeout, *reserved_concurrency, backend, &self.metrics));
        self.functions.insert(name.clone(), (configured.clone(), function.clone()));
        function
    }

    /// Ends functions that the configuration has no more, when no mapping invokes them.
    fn close_unused(&mut self) {
        let in_use: Vec<&Arc<config::Function>> = self
            .at_work
            .values()
            .filter_map(|work| match &work.task {
                Task::Started { planned, .. } => Some(&planned.function),
                Task::Refused => None,
            })
            .collect();
        let unused = self.plane.0.take_retired(|function| !in_use.iter().any(|used| Arc::ptr_eq(used, function)));
        for function in unused {
            self.functions.retain(|_, (known, _)| !Arc::ptr_eq(known, &function));
            self.closing.spawn(async move { function.backend.close().await });
        }
    }
}

impl Wanted {
    fn new(state: State, revision: i64, generation: u64, lookup: Option<Arc<Lookup>>, source: Source) -> Self {
        let described = lookup.as_ref().map_or(0, |lookup| lookup.number());
        Self { state, version: Version { revision, generation, described }, source, lookup }
    }

    fn plan(&self, uuid: Uuid, targets: &Targets) -> Result<Arc<Planned>, Vec<Violation>> {
        match &self.source {
            Source::Planned(planned) => Ok(planned.clone()),
            Source::File(spec, tags) => plan(Some(uuid), spec, tags, targets).map(Arc::new),
            Source::Store(mapping) => {
                let spec = read(mapping).map_err(|error| vec![Violation::new(Member::Whole, error.to_string())])?;
                plan(Some(uuid), &spec, &mapping.tags, targets).map(Arc::new)
            }
        }
    }
}

fn lookups(wanted: &BTreeMap<Uuid, Wanted>) -> BTreeMap<String, Arc<Lookup>> {
    let to_run = wanted.values().filter(|wanted| wanted.state.wants_to_run());
    to_run.filter_map(|wanted| wanted.lookup.as_ref()).map(|lookup| (lookup.arn().to_owned(), lookup.clone())).collect()
}

/// Has the store keep what became of what was processed, if that differs from what it has.
async fn keep_results(plane: &ControlPlane, kept: &mut BTreeMap<Uuid, String>) -> Result<(), StoreError> {
    let results = plane.0.results();
    if results != *kept {
        plane.0.store.keep_results(&results).await?;
        *kept = results;
    }
    Ok(())
}

/// Nothing can be said of it before Amazon MQ has been asked.
fn awaits_an_answer(violation: &Violation) -> bool {
    violation.unknown == Some(Cause::NotAsked)
}

/// What is shown of a mapping that cannot be started.
fn refusal(violations: &[Violation]) -> Run {
    let words = violations.iter().map(Violation::words_with_name).collect::<Vec<_>>().join("; ");
    let is_of_function = violations.iter().all(|violation| violation.member == Member::FunctionName);
    let (code, is_retried) = match violations {
        [Violation { unknown: Some(cause), .. }] => (cause.code(), true),
        _ if is_of_function => (Some("FUNCTION_CONFIG_NOT_VALID"), false),
        _ => (Some("ESM_CONFIG_NOT_VALID"), false),
    };
    let reason = code.map_or_else(|| USER_INITIATED.into(), |code| format!("{code}: {words}"));
    Run::Refused { reason, result: format!("PROBLEM: {words}"), is_retried }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Option<Phase>; 5] =
        [None, Some(Phase::Starting), Some(Phase::Up), Some(Phase::Stopping), Some(Phase::Refused)];

    fn check(wanted: Option<State>, change: Change, expected: [Option<Step>; 5]) {
        for (phase, expected) in PHASES.into_iter().zip(expected) {
            assert_eq!(next_step(wanted, phase, change), expected, "{wanted:?}, {phase:?}, {change:?}");
        }
    }

    #[test]
    fn what_should_run_is_started_adjusted_and_settled() {
        use Step::{Adjust, Settle, Start, Stop};
        let enabled = Some(Settle(State::Enabled));
        for state in [State::Creating, State::Enabling, State::Updating] {
            check(Some(state), Change::None, [Some(Start), None, enabled, None, enabled]);
            check(Some(state), Change::Settings, [Some(Start), Some(Adjust), Some(Adjust), None, Some(Start)]);
            check(Some(state), Change::Restart, [Some(Start), Some(Stop), Some(Stop), None, Some(Start)]);
        }
        check(Some(State::Enabled), Change::None, [Some(Start), None, None, None, None]);
        check(Some(State::Enabled), Change::Settings, [Some(Start), Some(Adjust), Some(Adjust), None, Some(Start)]);
        check(Some(State::Enabled), Change::Restart, [Some(Start), Some(Stop), Some(Stop), None, Some(Start)]);
    }

    #[test]
    fn what_should_not_run_is_ended_before_its_state_is_settled() {
        use Step::{Forget, Remove, Settle, Stop};
        for change in [Change::None, Change::Settings, Change::Restart] {
            let ended = |settled| [settled, Some(Stop), Some(Stop), None, Some(Forget)];
            check(None, change, ended(None));
            check(Some(State::Disabled), change, ended(None));
            check(Some(State::Disabling), change, ended(Some(Settle(State::Disabled))));
            check(Some(State::Deleting), change, ended(Some(Remove)));
        }
    }
}
