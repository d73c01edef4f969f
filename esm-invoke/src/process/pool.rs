//! The processes of a function: an invocation finds a free one or starts one, and waits for its
//! answer.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use esm_core::{
    event::Event,
    invoker::{Outcome, Reply},
};
use futures_util::future::join_all;
use tokio::{
    sync::{OnceCell, Semaphore, oneshot},
    time::{Instant, Sleep, sleep, timeout},
};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    ProcessSettings,
    failure::{self, PostedError},
    instance::{Answer, End, Instance},
    launch::Launch,
    runtime_api::RuntimeApi,
};
use crate::members::for_log;

/// An answer may still be on its way when its process is seen to have ended.
const LAST_ANSWER: Duration = Duration::from_millis(100);
/// How long a process that is killed is waited for, so that the next invocation does not run beside
/// the one that was given up.
const END: Duration = Duration::from_secs(1);
const MEBIBYTE: u64 = 1024 * 1024;
/// What a function may believe to have if it has no limit: Lambda's default.
const MEMORY_SIZE: u32 = 128;

/// The processes of one function.
pub(super) struct Pool {
    settings: ProcessSettings,
    name: Arc<str>,
    /// One for each invocation that may run.
    places: Semaphore,
    api: OnceCell<RuntimeApi>,
    processes: Arc<Processes>,
}

/// The processes that live, by the id of their group.
#[derive(Default)]
pub(super) struct Processes {
    living: Mutex<HashMap<i32, Arc<Instance>>>,
    /// Those that have nothing to do, and since when; the last one gets the next event, so that the
    /// others can be seen not to be needed.
    idle: Mutex<Vec<(Free, Instant)>>,
    /// Held while one is started, so that nobody meets a process that is not in the list yet.
    starting: tokio::sync::Mutex<()>,
}

/// A process that may be given an event.
struct Free {
    instance: Arc<Instance>,
    /// Kept from one invocation to the next: a timer that is still set costs nothing, and setting one wakes the
    /// thread that waits for timers. So it may ring early.
    alarm: Pin<Box<Sleep>>,
}

impl Pool {
    pub(super) fn new(settings: ProcessSettings) -> Self {
        Self {
            name: settings.name.as_str().into(),
            places: Semaphore::new(settings.instances.get().into()),
            api: OnceCell::new(),
            processes: Arc::default(),
            settings,
        }
    }

    /// Invokes the function once.
    pub(super) async fn invoke(&self, event: Event) -> Reply {
        // Nobody closes the semaphore.
        let _place = self.places.acquire().await;
        loop {
            let free = match self.processes.take_idle() {
                Some(free) => free,
                None => match self.start().await {
                    Ok(instance) => Free { instance, alarm: Box::pin(sleep(self.settings.start_timeout)) },
                    Err(error) => return self.cannot_start(&error),
                },
            };
            let exchange = Exchange { pool: self, free: Some(free) };
            if let Some(reply) = exchange.run(event.clone()).await {
                return reply;
            }
        }
    }

    /// Waits for what comes of an event that was offered just now.
    async fn hear(
        &self,
        instance: &Instance,
        mut alarm: Pin<&mut Sleep>,
        answer: &mut oneshot::Receiver<Answer>,
    ) -> Heard {
        let ProcessSettings { timeout, start_timeout, .. } = self.settings;
        let offered_at = Instant::now();
        let first_look = offered_at + timeout.min(start_timeout);
        if alarm.deadline() > first_look {
            alarm.as_mut().reset(first_look);
        }
        loop {
            tokio::select! {
                biased;
                answer = &mut *answer => return answer.map_or(Heard::End(None), Heard::Answer),
                end = instance.ended() => return Heard::End(end),
                () = alarm.as_mut() => {}
            }
            let now = Instant::now();
            let look_again_at = match instance.taken_at() {
                Some(taken_at) if now >= taken_at + timeout => return Heard::TimedOut,
                Some(taken_at) => taken_at + timeout,
                None if now < offered_at + start_timeout => offered_at + start_timeout,
                None if instance.withdraw() => return Heard::Late,
                // It was taken just now, after all.
                None => now + timeout,
            };
            alarm.as_mut().reset(look_again_at);
        }
    }

    /// What is run, and how often.
    pub(super) fn describe(&self) -> String {
        let ProcessSettings { folder, instances, idle_timeout, .. } = &self.settings;
        let (command, folder) = (self.command_line(), folder.display());
        format!("at most {instances} at once of `{command}` in {folder}, ended after {idle_timeout:?} without work")
    }

    fn command_line(&self) -> String {
        let words: Vec<_> = self.settings.command.iter().map(|word| word.to_string_lossy()).collect();
        for_log(&words.join(" "))
    }

    /// Asks all processes to end.
    pub(super) fn stop(&self) {
        self.processes.idle().clear();
        for instance in self.processes.all() {
            instance.stop();
        }
    }

    /// Asks all processes to end, and waits until they have.
    pub(super) async fn close(&self) {
        self.stop();
        join_all(self.processes.all().iter().map(|instance| instance.ended())).await;
    }

    async fn start(&self) -> io::Result<Arc<Instance>> {
        let processes = &self.processes;
        let api = self.api.get_or_try_init(|| RuntimeApi::serve(&self.settings, processes.clone())).await?;
        let command = self.command(api);
        let idle_timeout = self.settings.idle_timeout;
        let (retiring, leaving, name) = (processes.clone(), processes.clone(), self.name.clone());
        let retire = move |instance: &Arc<Instance>| retiring.retire(instance, idle_timeout);
        let leave = move |instance: &Arc<Instance>| {
            if leaving.remove(instance) {
                warn!(function = &*name, process = instance.group, "a process ended while it had nothing to do");
            }
        };
        let _starting = processes.starting.lock().await;
        let launcher = self.settings.launcher.as_slice().into();
        let stop_timeout = self.settings.stop_timeout;
        let instance = Instance::start(self.name.clone(), command, launcher, stop_timeout, retire, leave).await?;
        processes.living().insert(instance.group, instance.clone());
        info!(function = &*self.name, process = instance.group, "started a process");
        Ok(instance)
    }

    /// The launcher, which becomes the function.
    fn command(&self, api: &RuntimeApi) -> Command {
        let settings = &self.settings;
        let launch = Launch {
            parent: i32::try_from(std::process::id()).unwrap_or_default(),
            memory: settings.memory_in_mebibytes.map(|mebibytes| u64::from(mebibytes) * MEBIBYTE),
            open_files: settings.open_files,
            file_access: settings.file_access.clone(),
            command: settings.command.clone(),
        };
        let (launcher, arguments) = match settings.launcher.split_first() {
            Some((launcher, arguments)) => (launcher.clone(), arguments),
            None => ("".into(), &[][..]),
        };
        let mut command = Command::new(launcher);
        command.args(arguments).args(launch.to_arguments()).current_dir(&settings.folder).stdin(Stdio::null());
        command.env_clear().env("LAMBDA_TASK_ROOT", &settings.folder);
        command.env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", settings.name));
        command.env("AWS_LAMBDA_LOG_STREAM_NAME", format!("[$LATEST]{}", Uuid::new_v4().simple()));
        command.envs(&settings.environment);
        let memory = settings.memory_in_mebibytes.unwrap_or(MEMORY_SIZE);
        command
            .env("AWS_LAMBDA_RUNTIME_API", api.address().to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", &settings.name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory.to_string());
        command
    }

    /// Not even a process could be had.
    fn cannot_start(&self, error: &io::Error) -> Reply {
        let folder = self.settings.folder.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied => {
                Outcome::NotUsable { reason: format!("cannot start a process in `{folder}`: {error}") }.into()
            }
            // Too many processes or files, too little memory: that passes.
            _ => Outcome::Unavailable { reason: format!("cannot start a process: {error}"), retry_after: None }.into(),
        }
    }

    /// A process ended, or was ended, before it asked for its first event.
    fn did_not_start(&self, instance: &Instance, how: Unready, request_id: &str) -> Reply {
        let init_error = instance.init_error();
        let words = match (&init_error, &how) {
            (Some(error), _) => {
                let (error_type, message) = error.words();
                format!("{error_type}: {message}")
            }
            (None, Unready::Ended(Some(status))) => format!("it ended ({status}) before it asked for an event"),
            (None, Unready::Ended(None)) => "it ended before it asked for an event".into(),
            (None, Unready::Late) => {
                let limit = self.settings.start_timeout;
                format!("it asked for no event within {limit:?}: is it a client of Lambda's Runtime API?")
            }
        };
        let command = self.command_line();
        let printed = match instance.last_lines.joined() {
            lines if lines.is_empty() => "; it printed nothing".into(),
            lines => format!("; it printed last: {lines}"),
        };
        let body = match (init_error, how) {
            (Some(PostedError { body, .. }), _) => body,
            (None, Unready::Ended(status)) => failure::exited(request_id, status).body,
            (None, Unready::Late) => failure::timed_out(request_id, self.settings.start_timeout).body,
        };
        Reply { outcome: Outcome::NotUsable { reason: format!("`{command}` does not start: {words}{printed}") }, body }
    }
}

/// How a process failed to ask for an event.
enum Unready {
    Ended(End),
    Late,
}

/// What comes of an event that a process was offered.
enum Heard {
    Answer(Answer),
    End(End),
    /// It was not asked for in time, and was taken back.
    Late,
    /// It was not answered in time.
    TimedOut,
}

/// An invocation between a process and whoever waits for its answer. Dropped before the end, it gives
/// the invocation up.
struct Exchange<'a> {
    pool: &'a Pool,
    /// Taken out when the process has been dealt with.
    free: Option<Free>,
}

impl Exchange<'_> {
    /// `None`: the process ended before it took the event, as one may that was idle.
    async fn run(mut self, event: Event) -> Option<Reply> {
        let Free { instance, alarm } = self.free.as_mut()?;
        let instance = instance.clone();
        let request_id: Arc<str> = Uuid::new_v4().to_string().into();
        let was_ready = instance.is_ready();
        let mut answer = instance.offer(request_id.clone(), event);
        let unready = match self.pool.hear(&instance, alarm.as_mut(), &mut answer).await {
            Heard::Answer(answer) => {
                self.pool.processes.release(self.free.take()?);
                return Some(reply(answer));
            }
            Heard::TimedOut => {
                self.end(&instance).await;
                return Some(failure::timed_out(&request_id, self.pool.settings.timeout));
            }
            Heard::End(end) if !instance.withdraw() => {
                self.free = None;
                return Some(match timeout(LAST_ANSWER, answer).await {
                    Ok(Ok(answer)) => reply(answer),
                    _ => failure::exited(&request_id, end),
                });
            }
            Heard::End(end) => Unready::Ended(end),
            Heard::Late => Unready::Late,
        };
        self.end(&instance).await;
        if !was_ready {
            return Some(self.pool.did_not_start(&instance, unready, &request_id));
        }
        let function = &*self.pool.name;
        warn!(function, process = instance.group, "a process asks for no more events; another one takes over");
        None
    }

    async fn end(&mut self, instance: &Instance) {
        instance.kill();
        // What takes longer to end does so by itself.
        let _ = timeout(END, instance.ended()).await;
        self.free = None;
    }
}

fn reply(answer: Answer) -> Reply {
    match answer {
        Answer::Result(body) => Reply { outcome: Outcome::Success, body },
        Answer::Error(error) => failure::raised(error),
        Answer::TooLarge => failure::too_large(),
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let Some(free) = self.free.take() else { return };
        if free.instance.withdraw() {
            self.pool.processes.release(free);
        } else {
            // Nobody wants its answer, and nobody knows when it would have one.
            free.instance.kill();
        }
    }
}

impl Processes {
    fn take_idle(&self) -> Option<Free> {
        self.idle().pop().map(|(free, _)| free)
    }

    fn release(&self, free: Free) {
        // Looked at with the list in hand, as the one who takes it out at its end does.
        let mut idle = self.idle();
        if self.living().contains_key(&free.instance.group) {
            idle.push((free, Instant::now()));
        }
    }

    /// `Ok` when a process has had nothing to do for so long and was taken out; else when to look
    /// again.
    fn retire(&self, instance: &Arc<Instance>, idle_timeout: Duration) -> Result<(), Instant> {
        let now = Instant::now();
        let mut idle = self.idle();
        let place =
            idle.iter().position(|(idle, _)| Arc::ptr_eq(&idle.instance, instance)).ok_or(now + idle_timeout)?;
        let since = idle[place].1;
        if now < since + idle_timeout {
            return Err(since + idle_timeout);
        }
        idle.remove(place);
        Ok(())
    }

    /// Takes out a process that has ended. Whether it had nothing to do.
    fn remove(&self, instance: &Arc<Instance>) -> bool {
        let mut idle = self.idle();
        self.living().remove(&instance.group);
        let before = idle.len();
        idle.retain(|(idle, _)| !Arc::ptr_eq(&idle.instance, instance));
        idle.len() < before
    }

    fn all(&self) -> Vec<Arc<Instance>> {
        self.living().values().cloned().collect()
    }

    /// The process that leads a group, if it lives.
    pub(super) fn find(&self, group: i32) -> Option<Arc<Instance>> {
        self.living().get(&group).cloned()
    }

    /// The groups of all processes that were started before this call and live.
    pub(super) async fn groups(&self) -> Vec<i32> {
        let _starting = self.starting.lock().await;
        self.living().keys().copied().collect()
    }

    fn living(&self) -> MutexGuard<'_, HashMap<i32, Arc<Instance>>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Free, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
