//! One process of a function: what it is given, what it answers, how it ends.

use std::{
    ffi::OsString,
    io,
    process::{Command, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use esm_core::event::Event;
use rustix::process::Signal;
use tokio::{
    net::unix::pipe,
    sync::{Notify, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use super::{
    child::Child,
    failure::PostedError,
    output::{self, LastLines},
};

/// How long a process that is asked to end may still wait for an event. Some clients, Python's among them, hear of
/// signals only when their call for one has ended.
const LAST_WAIT: Duration = Duration::from_millis(500);
/// How long the end of a process's output is waited for, in case that something else holds it open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A process that speaks to the Runtime API.
pub(super) struct Instance {
    /// The process's id, and that of its group.
    pub(super) group: i32,
    conversation: Mutex<Conversation>,
    /// Wakes those who ask for an event.
    offered: Notify,
    /// Asks the process to end.
    stop: CancellationToken,
    /// There will be no more events.
    no_more: CancellationToken,
    /// Ends it.
    kill: CancellationToken,
    /// It said that it cannot start, and is expected to end by itself.
    failed: CancellationToken,
    end: watch::Receiver<Option<End>>,
    pub(super) last_lines: LastLines,
}

/// How a process ended; `None` when the system did not say.
pub(super) type End = Option<ExitStatus>;

#[derive(Default)]
struct Conversation {
    /// Whether it ever asked for an event.
    is_ready: bool,
    offer: Option<Offer>,
    work: Option<Work>,
    /// What it said about why it cannot start.
    init_error: Option<PostedError>,
    /// What it works on, or worked on last.
    request_id: Option<Arc<str>>,
}

/// An event that waits to be asked for.
struct Offer {
    request_id: Arc<str>,
    event: Event,
    answer: oneshot::Sender<Answer>,
}

struct Work {
    request_id: Arc<str>,
    taken_at: Instant,
    answer: oneshot::Sender<Answer>,
}

/// An event that was asked for.
pub(super) struct Taken {
    pub(super) request_id: Arc<str>,
    pub(super) event: Event,
}

/// What a process said about an event.
#[derive(Debug)]
pub(super) enum Answer {
    Result(Bytes),
    Error(PostedError),
    TooLarge,
}

/// A call that does not suit what the process was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfTurn;

impl Instance {
    /// Starts a process. Asked to end, it is killed after `stop_timeout`. `retire` is asked now and then whether it has had nothing to do for too long:
    /// `Ok` when it is to end, or when to ask again. `left` is called when it has ended.
    pub(super) async fn start(
        function: Arc<str>,
        mut command: Command,
        launcher: Arc<[OsString]>,
        stop_timeout: Duration,
        retire: impl Fn(&Arc<Self>) -> Result<(), Instant> + Send + 'static,
        left: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        // One pipe for both streams keeps their order.
        let (reader, writer) = io::pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let child = Child::start(command, launcher).await?;
        let output = pipe::Receiver::from_owned_fd(reader.into())?;
        let (ended, end) = watch::channel(None);
        let instance = Arc::new(Self {
            group: child.group().as_raw_pid(),
            conversation: Mutex::default(),
            offered: Notify::new(),
            stop: CancellationToken::new(),
            no_more: CancellationToken::new(),
            kill: CancellationToken::new(),
            failed: CancellationToken::new(),
            end,
            last_lines: LastLines::default(),
        });
        let supervised = instance.clone();
        tokio::spawn(async move {
            let reading = tokio::spawn(log(function, output, supervised.clone()));
            let status = supervised.supervise(child, stop_timeout, retire).await;
            // Dropped, the handle ends the reading: something outside of the group may hold the pipe.
            let _ = timeout(LAST_WORDS, AbortOnDropHandle::new(reading)).await;
            left(&supervised);
            ended.send_replace(Some(status));
        });
        Ok(instance)
    }

    async fn supervise(
        self: &Arc<Self>,
        mut child: Child,
        stop_timeout: Duration,
        retire: impl Fn(&Arc<Self>) -> Result<(), Instant>,
    ) -> End {
        let mut idle_check = retire(self).err();
        let (mut no_more_at, mut kill_at) = (None, None);
        let mut is_killed = false;
        loop {
            tokio::select! {
                biased;
                status = child.ended() => return status.inspect_err(|error| warn!(%error, "a process is lost")).ok(),
                () = self.kill.cancelled(), if !is_killed => {
                    child.signal(Signal::KILL);
                    is_killed = true;
                }
                () = self.stop.cancelled(), if kill_at.is_none() => {
                    child.signal(Signal::TERM);
                    let now = Instant::now();
                    (no_more_at, kill_at) = (Some(now + LAST_WAIT), Some(now + stop_timeout));
                }
                () = self.failed.cancelled(), if kill_at.is_none() => kill_at = Some(Instant::now() + stop_timeout),
                () = at(no_more_at) => {
                    self.no_more.cancel();
                    no_more_at = None;
                }
                () = at(kill_at), if !is_killed => self.kill.cancel(),
                () = at(idle_check), if kill_at.is_none() => match retire(self) {
                    Ok(()) => self.stop.cancel(),
                    Err(later) => idle_check = Some(later),
                },
            }
        }
    }

    /// Has an event ready for when the process asks. What is returned waits for the answer.
    pub(super) fn offer(&self, request_id: Arc<str>, event: Event) -> oneshot::Receiver<Answer> {
        let (answer, when_answered) = oneshot::channel();
        self.lock().offer = Some(Offer { request_id, event, answer });
        self.offered.notify_waiters();
        when_answered
    }

    /// When the process took the event that it works on.
    pub(super) fn taken_at(&self) -> Option<Instant> {
        self.lock().work.as_ref().map(|work| work.taken_at)
    }

    /// Takes back an event that nobody asked for yet. False when it is too late.
    pub(super) fn withdraw(&self) -> bool {
        self.lock().offer.take().is_some()
    }

    /// The next event, for as long as it takes. Asking while an event is unanswered is out of turn, and so is asking
    /// for one that will never come.
    pub(super) async fn next(&self) -> Result<Taken, OutOfTurn> {
        if self.lock().work.is_some() {
            return Err(OutOfTurn);
        }
        loop {
            let offered = self.offered.notified();
            if let Some(taken) = self.take() {
                return Ok(taken);
            }
            tokio::select! {
                () = offered => {}
                () = self.no_more.cancelled() => return Err(OutOfTurn),
            }
        }
    }

    fn take(&self) -> Option<Taken> {
        let mut conversation = self.lock();
        conversation.is_ready = true;
        let Offer { request_id, event, answer } = conversation.offer.take()?;
        conversation.work = Some(Work { request_id: request_id.clone(), taken_at: Instant::now(), answer });
        conversation.request_id = Some(request_id.clone());
        Some(Taken { request_id, event })
    }

    /// Whether this is the event that the process was given.
    pub(super) fn works_on(&self, request_id: &str) -> bool {
        self.lock().work.as_ref().is_some_and(|work| *work.request_id == *request_id)
    }

    /// Hands an answer to whoever made the offer.
    pub(super) fn answer(&self, request_id: &str, answer: Answer) -> Result<(), OutOfTurn> {
        let work = self.lock().work.take_if(|work| *work.request_id == *request_id).ok_or(OutOfTurn)?;
        // Nobody waits for it any more: then the process is about to be ended.
        let _ = work.answer.send(answer);
        Ok(())
    }

    /// The process cannot start, and is expected to end by itself.
    pub(super) fn fail_init(&self, error: PostedError) -> Result<(), OutOfTurn> {
        let mut conversation = self.lock();
        if conversation.is_ready {
            return Err(OutOfTurn);
        }
        conversation.init_error = Some(error);
        self.failed.cancel();
        Ok(())
    }

    /// What the process said about why it cannot start.
    pub(super) fn init_error(&self) -> Option<PostedError> {
        self.lock().init_error.clone()
    }

    /// Whether it ever asked for an event.
    pub(super) fn is_ready(&self) -> bool {
        self.lock().is_ready
    }

    /// Asks the process to end; it is killed when it takes too long.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends the process and its group.
    pub(super) fn kill(&self) {
        self.kill.cancel();
    }

    /// Waits until the process has ended.
    pub(super) async fn ended(&self) -> End {
        let mut end = self.end.clone();
        // Who would tell us is gone only together with the process.
        end.wait_for(Option::is_some).await.map_or(None, |end| end.flatten())
    }

    fn lock(&self) -> MutexGuard<'_, Conversation> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn log(function: Arc<str>, output: pipe::Receiver, instance: Arc<Instance>) {
    let read = output::read(output, &instance.last_lines, |line| {
        let request_id = instance.lock().request_id.clone();
        info!(function = &*function, request_id = request_id.as_deref(), process = instance.group, "{line}");
    });
    if let Err(error) = read.await {
        warn!(function = &*function, %error, "cannot read a process's output");
    }
}
