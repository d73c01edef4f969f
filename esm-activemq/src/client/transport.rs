//! Dials an endpoint, and carries bytes between the socket and the session. One task reads, another
//! writes, so that a peer that is slow to read stops neither deliveries nor the watch over its
//! silence.

use std::{
    collections::{BTreeMap, HashMap},
    io, mem,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{Notify, oneshot},
    task::consume_budget,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{io::InspectReader, sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{Instrument, debug, info_span, warn};

use super::{
    address::Endpoint,
    error::{ClientError, Exception},
    session::{Action, Flaw, HEAD, Session, tick_interval},
    socket::{self, Incoming, Other, Outgoing},
};
use crate::openwire::{
    Command, ConnectionControl, DispatchHead, FrameError, MessageDispatch, WireFormatInfo, split_frame,
};

const DIAL: Duration = Duration::from_secs(10);
const TLS_HANDSHAKE: Duration = Duration::from_secs(10);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A broker that takes nothing for so long is as good as gone.
const STALL: Duration = Duration::from_secs(60);
/// A broker writes each message by itself. To be woken for each would cost more than all that is done with it; so
/// once everything that has come is read, the next look waits a moment, for more to come. What comes after a pause is
/// read at once.
const PAUSE: Duration = Duration::from_millis(1);
/// What Java's client asks for as well.
const MAX_INACTIVITY: Duration = Duration::from_secs(30);
/// A broker that finds a message too large for what we announce closes the connection, again and again; so what
/// is too large is told apart here.
const MAX_FRAME_SIZE: i64 = i64::MAX;

/// What a consumer hears. Called by the task that reads the socket, for all of its consumers: must not block.
pub trait ConsumerEvents: Send {
    /// A message was lent.
    fn message(&mut self, dispatch: Box<MessageDispatch>);

    /// A message was lent of which no more than the head can be read.
    fn unreadable(&mut self, head: DispatchHead, flaw: Flaw);

    /// The broker set another prefetch.
    fn prefetch_set(&mut self, prefetch: i32);

    /// The consumer is no more. Nothing follows.
    fn end(&mut self, cause: ClientError);
}

/// What the broker's directions to other endpoints come to: words if this transport is to end for them.
pub(crate) type Directions = Box<dyn Fn(&ConnectionControl) -> Option<String> + Send + Sync>;

/// An open connection to an endpoint. Dropping it closes the socket.
pub struct Transport {
    shared: Arc<Shared>,
    /// Logical connections on it.
    connections: AtomicUsize,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Transport {
    /// Dials and shakes hands. What the broker says about other endpoints is passed over.
    pub async fn dial(endpoint: &Endpoint, tls: &native_tls::TlsConnectorBuilder) -> Result<Self, ClientError> {
        Self::open(endpoint, tls, Box::new(|_| None)).await
    }

    /// Dials and shakes hands.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        tls: &native_tls::TlsConnectorBuilder,
        directions: Directions,
    ) -> Result<Self, ClientError> {
        let unreachable = |cause: io::Error| ClientError::Unreachable { words: cause.to_string() };
        let stream = timeout(DIAL, TcpStream::connect((endpoint.host.as_str(), endpoint.port)))
            .await
            .map_err(|_| ClientError::Unreachable { words: format!("no answer within {} s", DIAL.as_secs()) })?
            .map_err(unreachable)?;
        // Two small writes in a row would otherwise wait for the peer's delayed acknowledgement.
        stream.set_nodelay(true).map_err(unreachable)?;
        if endpoint.tls {
            let (read, write) = tokio::io::split(start_tls(stream, &endpoint.host, tls).await?);
            Self::over(endpoint, directions, Other(read), Other(write)).await
        } else {
            let (read, write) = socket::plain(stream).map_err(unreachable)?;
            Self::over(endpoint, directions, read, write).await
        }
    }

    async fn over(
        endpoint: &Endpoint,
        directions: Directions,
        read: impl Incoming + 'static,
        write: impl Outgoing + 'static,
    ) -> Result<Self, ClientError> {
        let max_inactivity = endpoint.max_inactivity.unwrap_or(MAX_INACTIVITY).as_millis();
        let ours = WireFormatInfo::request(MAX_FRAME_SIZE, i64::try_from(max_inactivity).unwrap_or(i64::MAX));
        let shared = Arc::new(Shared {
            talk: Mutex::new(Talk { session: Session::new(ours), waiting: HashMap::new(), says_goodbye: false }),
            consumers: Mutex::default(),
            last_consumer: AtomicI64::new(0),
            flush: Notify::new(),
            over: CancellationToken::new(),
            cause: OnceLock::new(),
            directions,
        });
        let (opened_sender, opened) = oneshot::channel();
        let reader = Reader::new(shared.clone(), opened_sender);
        // Several mappings share it: its words are not those of the one that happened to dial.
        let span = info_span!(parent: None, "transport", %endpoint);
        let reading = tokio::spawn(reader.run(read).instrument(span.clone()));
        let writing = tokio::spawn(write_all(shared.clone(), write).instrument(span));
        let tasks = [AbortOnDropHandle::new(reading), AbortOnDropHandle::new(writing)];
        shared.flush.notify_one();
        match timeout(HANDSHAKE, opened).await {
            Ok(Ok(())) => Ok(Self { shared, connections: AtomicUsize::new(0), _tasks: tasks }),
            Ok(Err(_)) => Err(shared.cause()),
            Err(_) => Err(ClientError::Mute(HANDSHAKE)),
        }
    }

    /// Whether it can still be used.
    pub(crate) fn is_open(&self) -> bool {
        !self.shared.over.is_cancelled()
    }

    /// Whether a logical connection is on it.
    pub(crate) fn is_used(&self) -> bool {
        self.connections.load(Ordering::Acquire) > 0
    }

    pub(crate) fn enter(&self) {
        self.connections.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
    }

    /// Sends a command that nobody answers unless it fails.
    pub(crate) fn tell(&self, command: impl FnOnce(i32) -> Command) {
        if let Err(error) = self.shared.talk().session.send(command) {
            warn!(%error, "a command cannot be written");
        }
        self.shared.flush.notify_one();
    }

    /// Sends a command that will be answered.
    pub(crate) fn ask(&self, name: &'static str, command: impl FnOnce(i32) -> Command) -> Answer {
        self.ask_last(name, [command])
    }

    /// Sends commands in one go, of which the last will be answered. There is at least one.
    pub(crate) fn ask_last(
        &self,
        name: &'static str,
        commands: impl IntoIterator<Item = impl FnOnce(i32) -> Command>,
    ) -> Answer {
        let (sender, receiver) = oneshot::channel();
        let mut talk = self.shared.talk();
        let sent = commands.into_iter().try_fold(0, |_, command| talk.session.send(command));
        let command_id = match sent {
            Ok(command_id) if self.is_open() => {
                talk.waiting.insert(command_id, sender);
                Ok(command_id)
            }
            Ok(_) => Err(self.shared.cause()),
            Err(error) => Err(ClientError::Unsendable { command: name, words: error.to_string() }),
        };
        drop(talk);
        self.shared.flush.notify_one();
        Answer { shared: self.shared.clone(), name, command_id, receiver }
    }

    /// A number that no consumer on this transport has had.
    pub(crate) fn new_consumer_value(&self) -> i64 {
        self.shared.last_consumer.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// From now on the consumer with this number hears of what concerns it.
    pub(crate) fn register(&self, value: i64, mut events: Box<dyn ConsumerEvents>) {
        let mut consumers = self.shared.consumers();
        match self.shared.cause.get() {
            None => drop(consumers.insert(value, events)),
            Some(cause) => events.end(cause.clone()),
        }
    }

    /// It hears nothing more.
    pub(crate) fn unregister(&self, value: i64) {
        let removed = self.shared.consumers().remove(&value);
        // Not while the lock is held: what it drops may be anything.
        drop(removed);
    }

    /// Ends the transport in good order, once everything is written.
    pub(crate) async fn close(&self, patience: Duration) {
        {
            let mut talk = self.shared.talk();
            talk.session.say_goodbye();
            talk.says_goodbye = true;
        }
        self.shared.flush.notify_one();
        if timeout(patience, self.shared.over.cancelled()).await.is_err() {
            debug!("the broker did not close the connection in time");
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.shared.end(ClientError::Closed);
    }
}

async fn start_tls(
    stream: TcpStream,
    host: &str,
    tls: &native_tls::TlsConnectorBuilder,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static, ClientError> {
    let failed = |words: String| ClientError::Tls { words };
    let connector = tokio_native_tls::TlsConnector::from(tls.build().map_err(|cause| failed(cause.to_string()))?);
    // A peer that has said nothing at all has another trouble than trust.
    let heard_anything = Arc::new(AtomicBool::new(false));
    let heard = heard_anything.clone();
    let stream = InspectReader::new(stream, move |bytes: &[u8]| {
        if !bytes.is_empty() {
            heard.store(true, Ordering::Relaxed);
        }
    });
    let shaken = timeout(TLS_HANDSHAKE, connector.connect(host, stream)).await;
    let heard_anything = heard_anything.load(Ordering::Relaxed);
    match shaken {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(_)) if !heard_anything => Err(ClientError::ClosedWithoutAWord),
        Ok(Err(cause)) => Err(failed(cause.to_string())),
        Err(_) if !heard_anything => Err(ClientError::Mute(TLS_HANDSHAKE)),
        Err(_) => Err(failed(format!("no answer within {} s", TLS_HANDSHAKE.as_secs()))),
    }
}

/// What the broker will say to a command.
pub struct Answer {
    shared: Arc<Shared>,
    name: &'static str,
    command_id: Result<i32, ClientError>,
    receiver: oneshot::Receiver<Result<(), Exception>>,
}

impl Answer {
    /// Waits for it for as long as the transport is there.
    pub async fn wait(mut self) -> Result<(), ClientError> {
        self.command_id.clone()?;
        match (&mut self.receiver).await {
            Ok(said) => said.map_err(ClientError::Refused),
            Err(_) => Err(self.shared.cause()),
        }
    }

    /// Waits for it, and no longer than this.
    pub async fn within(self, limit: Duration) -> Result<(), ClientError> {
        let command = self.name;
        timeout(limit, self.wait()).await.unwrap_or(Err(ClientError::NoAnswer { command, limit }))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Ok(command_id) = &self.command_id {
            self.shared.talk().waiting.remove(command_id);
        }
    }
}

/// Few, and one is looked up for each message.
type Consumers = BTreeMap<i64, Box<dyn ConsumerEvents>>;

struct Shared {
    talk: Mutex<Talk>,
    /// By the number in their id. Never locked by who holds `talk`.
    consumers: Mutex<Consumers>,
    last_consumer: AtomicI64,
    /// There is something to be written.
    flush: Notify,
    over: CancellationToken,
    /// Set before `over` is cancelled.
    cause: OnceLock<ClientError>,
    directions: Directions,
}

struct Talk {
    session: Session,
    waiting: HashMap<i32, oneshot::Sender<Result<(), Exception>>>,
    /// The last command is on its way out.
    says_goodbye: bool,
}

impl Shared {
    fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn consumers(&self) -> MutexGuard<'_, Consumers> {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cause(&self) -> ClientError {
        self.cause.get().cloned().unwrap_or(ClientError::Closed)
    }

    /// Ends everything for this cause, unless it has ended for another before.
    fn end(&self, cause: ClientError) {
        let mut consumers = self.consumers();
        let cause = self.cause.get_or_init(|| cause).clone();
        self.over.cancel();
        for (_, mut events) in mem::take(&mut *consumers) {
            events.end(cause.clone());
        }
        drop(consumers);
        self.talk().waiting.clear();
    }
}

/// A transport that nobody reads must not look open, whatever has ended the reading.
struct EndsInAnyCase(Arc<Shared>);

impl Drop for EndsInAnyCase {
    fn drop(&mut self) {
        self.0.end(ClientError::Closed);
    }
}

/// Reads until the transport ends.
struct Reader {
    shared: Arc<Shared>,
    buffer: BytesMut,
    /// What is left of a frame that is passed over.
    to_skip: u64,
    heard_anything: bool,
    opened: Option<oneshot::Sender<()>>,
    max_inactivity: Duration,
    initial_delay: Duration,
}

impl Reader {
    fn new(shared: Arc<Shared>, opened: oneshot::Sender<()>) -> Self {
        Self {
            shared,
            buffer: BytesMut::new(),
            to_skip: 0,
            heard_anything: false,
            opened: Some(opened),
            max_inactivity: Duration::ZERO,
            initial_delay: Duration::ZERO,
        }
    }

    async fn run(mut self, half: impl Incoming) {
        let _ends_in_any_case = EndsInAnyCase(self.shared.clone());
        let cause = self.read(half).await;
        self.shared.end(cause);
    }

    async fn read(&mut self, mut half: impl Incoming) -> ClientError {
        let mut watch = pin!(sleep_until(Instant::now() + HANDSHAKE));
        let mut is_watched = false;
        let mut pause = pin!(sleep_until(Instant::now()));
        let mut is_pausing = false;
        // Something has come since the last pause.
        let mut is_news = false;
        loop {
            let read = tokio::select! {
                biased;
                () = self.shared.over.cancelled() => return ClientError::Closed,
                () = &mut watch, if is_watched => {
                    if let Err(silent) = self.shared.talk().session.tick(self.max_inactivity) {
                        return silent;
                    }
                    self.shared.flush.notify_one();
                    watch.as_mut().reset(Instant::now() + tick_interval(self.max_inactivity));
                    continue;
                }
                () = &mut pause, if is_pausing => {
                    is_pausing = false;
                    continue;
                }
                read = next(&mut half, &mut self.buffer, !is_news), if !is_pausing => read,
            };
            match read {
                Ok(0) => return self.ended(None),
                Ok(_) => {}
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                    pause.as_mut().reset(Instant::now() + PAUSE);
                    is_pausing = true;
                    is_news = false;
                    continue;
                }
                Err(cause) => return self.ended(Some(&cause)),
            }
            self.heard_anything = true;
            if let Err(end) = self.take_frames() {
                return end;
            }
            is_news = self.opened.is_none();
            if !is_watched && self.opened.is_none() {
                watch.as_mut().reset(Instant::now() + self.initial_delay);
                is_watched = true;
            }
            consume_budget().await;
        }
    }

    /// What the end of the stream means.
    fn ended(&self, cause: Option<&io::Error>) -> ClientError {
        if let (Some(_), Some(cause)) = (&self.opened, cause)
            && cause.get_ref().is_some()
        {
            // Not the system's words, so the TLS library's: with TLS 1.3 a client is done with the handshake before
            // the peer has looked at its certificate.
            return ClientError::Tls { words: cause.to_string() };
        }
        if !self.heard_anything {
            // A close with our first words unread arrives as a reset.
            return ClientError::ClosedWithoutAWord;
        }
        let words = cause.map_or_else(|| "it closed the connection without a word".into(), io::Error::to_string);
        match self.opened {
            Some(_) => ClientError::NotOpenWire { words },
            None => ClientError::Lost { words },
        }
    }

    /// Handles every frame that is complete.
    fn take_frames(&mut self) -> Result<(), ClientError> {
        let shared = self.shared.clone();
        let mut consumers = shared.consumers();
        let mut talk = shared.talk();
        talk.session.heard();
        loop {
            if self.to_skip > 0 {
                let skipped = self.buffer.len().min(usize::try_from(self.to_skip).unwrap_or(usize::MAX));
                self.buffer.advance(skipped);
                self.to_skip -= skipped as u64;
            }
            let action = match split_frame(&mut self.buffer, talk.session.frame_limit()) {
                Ok(Some(frame)) => talk.session.handle(frame),
                Ok(None) => {
                    // Some frames are answered at once.
                    if talk.session.has_output() {
                        shared.flush.notify_one();
                    }
                    return Ok(());
                }
                Err(error) if self.opened.is_some() => return Err(self.not_openwire(&error)),
                Err(FrameError::TooLong { length, .. }) => {
                    let head = (self.buffer.len() - 4).min(HEAD);
                    let Some(action) = talk.session.handle_head(&self.buffer[4..4 + head], length as u64) else {
                        return Ok(());
                    };
                    self.to_skip = 4 + length as u64;
                    action
                }
                Err(error) => return Err(ClientError::Protocol { words: error.to_string() }),
            };
            drop(talk);
            self.act(&mut consumers, action)?;
            talk = shared.talk();
        }
    }

    fn act(&mut self, consumers: &mut Consumers, action: Action) -> Result<(), ClientError> {
        match action {
            Action::Nothing => {}
            Action::Deliver(dispatch) => {
                let value = dispatch.consumer_id.as_ref().map(|id| id.value);
                // One that nobody knows was on its way when its consumer was removed.
                if let Some(events) = value.and_then(|value| consumers.get_mut(&value)) {
                    events.message(dispatch);
                }
            }
            Action::DeliverHead { head, flaw } => {
                let value = head.consumer_id.as_ref().map(|id| id.value);
                if let Some(events) = value.and_then(|value| consumers.get_mut(&value)) {
                    events.unreadable(*head, flaw);
                }
            }
            Action::Answer { command_id, result } => {
                let asked = self.shared.talk().waiting.remove(&command_id);
                if let Some(asked) = asked {
                    // Who does not wait any more does not want to know.
                    let _ = asked.send(result);
                }
            }
            Action::Open(terms) => {
                self.max_inactivity = terms.max_inactivity;
                self.initial_delay = terms.initial_delay;
                if let Some(opened) = self.opened.take() {
                    let _ = opened.send(());
                }
            }
            Action::ControlConsumer(control) => {
                let Some(value) = control.consumer_id.as_ref().map(|id| id.value) else { return Ok(()) };
                if control.close {
                    if let Some(mut events) = consumers.remove(&value) {
                        events.end(ClientError::ConsumerClosed);
                    }
                } else if let Some(events) = consumers.get_mut(&value) {
                    events.prefetch_set(control.prefetch);
                }
            }
            Action::ControlConnection(control) => {
                if control.close || control.exit {
                    return Err(ClientError::Stopping { words: "it asks to close the connection".into() });
                }
                if let Some(words) = (self.shared.directions)(&control) {
                    return Err(ClientError::Stopping { words });
                }
            }
            Action::Complain(exception) => complain(consumers, exception)?,
            Action::Introduce(broker) => {
                debug!(name = ?broker.broker_name, url = ?broker.broker_url, "the broker introduces itself");
            }
            Action::End(cause) => return Err(cause),
        }
        Ok(())
    }

    fn not_openwire(&self, error: &FrameError) -> ClientError {
        let beginning: String = self.buffer.iter().take(16).map(|byte| byte.escape_ascii().to_string()).collect();
        ClientError::NotOpenWire { words: format!("{error}; it began with \"{beginning}\"") }
    }
}

/// Reads what has come, and only if that is nothing waits, if it may.
async fn next(half: &mut impl Incoming, buffer: &mut BytesMut, may_wait: bool) -> io::Result<usize> {
    match half.read_now(buffer) {
        Err(cause) if cause.kind() == io::ErrorKind::WouldBlock && may_wait => half.read(buffer).await,
        read => read,
    }
}

/// A command that nobody waited for has failed. The broker names the consumer in its words only.
fn complain(consumers: &mut Consumers, exception: Exception) -> Result<(), ClientError> {
    if exception.simple_name() == "BrokerStoppedException" {
        return Err(ClientError::Stopping { words: exception.to_string() });
    }
    // Whoever it concerns is told, and says it with more.
    debug!(%exception, "the broker complains");
    let named = exception.message.split_once("consumerId = ").and_then(|(_, rest)| rest.split(',').next());
    let value = named.and_then(|id| id.rsplit(':').next()).and_then(|value| value.parse().ok());
    match value.and_then(|value: i64| consumers.remove(&value)) {
        Some(mut events) => {
            events.end(ClientError::AckRefused(exception));
            Ok(())
        }
        // Removed in the meantime, as it should be.
        None if value.is_some() => Ok(()),
        // It may concern anything that was sent.
        None => Err(ClientError::Refused(exception)),
    }
}

/// Writes what there is to write until the transport ends.
async fn write_all(shared: Arc<Shared>, mut half: impl Outgoing) {
    let mut bytes = BytesMut::new();
    loop {
        tokio::select! {
            () = shared.over.cancelled() => return,
            () = shared.flush.notified() => {}
        }
        loop {
            let says_goodbye = {
                let mut talk = shared.talk();
                talk.session.take_output(&mut bytes);
                talk.says_goodbye
            };
            if bytes.is_empty() {
                break;
            }
            let written = timeout(STALL, async {
                half.write_all(&bytes).await?;
                if says_goodbye { half.finish().await } else { Ok(()) }
            });
            match written.await {
                Ok(Ok(())) if says_goodbye => return,
                Ok(Ok(())) => {}
                Ok(Err(cause)) => return shared.end(ClientError::Lost { words: cause.to_string() }),
                Err(_) => return shared.end(ClientError::Stalled(STALL)),
            }
        }
    }
}
