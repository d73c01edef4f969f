//! Connections of one broker, shared by mappings: one per virtual host and login, a channel for
//! each mapping, and a further connection when the broker allows no more channels on the first.

use std::{
    collections::HashMap,
    io,
    net::Shutdown,
    os::fd::AsFd,
    pin::pin,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use async_compat::Compat;
use esm_core::{
    source::SourceError,
    tls::{TlsError, TlsFiles, TlsMaterial},
};
use futures_util::StreamExt;
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, ErrorKind, Event,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use crate::{
    errors::Place,
    greeting::{self, Listening, Version},
    settings::Endpoint,
};

/// How long a broker may take to answer a TCP connection.
const DIAL: Duration = Duration::from_secs(10);
/// How long a broker may take for TLS, and again for the AMQP handshake. RabbitMQ answers a wrong
/// login after a second or so.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// How long a channel may take to open.
const CHANNEL: Duration = Duration::from_secs(10);
/// The largest frame that we ask for, unless the endpoint says otherwise: RabbitMQ's default. A
/// header is never split into frames, so a limit below the broker's own would keep messages from
/// arriving that it accepts; but the client allocates 64 frames for a connection, and a broker may
/// know no limit at all.
const FRAME_MAX: u32 = 128 * 1024;
/// Seconds between heartbeats, unless the endpoint says otherwise or the broker wants them faster.
const HEARTBEAT: u16 = 60;

/// The connections of one broker.
pub struct Connections {
    broker: String,
    endpoints: Vec<Endpoint>,
    tls: TlsMaterial,
    connection_name: String,
    pools: Mutex<HashMap<Login, Arc<Pool>>>,
}

/// What connections are shared by.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Login {
    pub(crate) virtual_host: String,
    pub(crate) username: String,
    pub(crate) password: String,
}

type Pool = tokio::sync::Mutex<PoolState>;

#[derive(Default)]
struct PoolState {
    open: Vec<Weak<SharedConnection>>,
    /// The last attempt, if it failed: who waited for it fails with it.
    failed: Option<(Instant, SourceError)>,
    /// Where the next attempt begins.
    endpoint: usize,
}

/// A connection that several mappings have channels on.
pub(crate) struct SharedConnection {
    connection: Connection,
    /// The broker's, if it says so.
    pub(crate) version: Option<Version>,
    pub(crate) place: Place,
    pub(crate) trouble: watch::Receiver<Option<SourceError>>,
    /// What the broker said when it closed the connection.
    pub(crate) closed: watch::Receiver<Option<SourceError>>,
    _watcher: AbortOnDropHandle<()>,
}

impl PoolState {
    fn has_connections(&self) -> bool {
        self.open.iter().any(|shared| shared.strong_count() > 0)
    }

    async fn channel_of_an_open_connection(&mut self) -> Option<(Arc<SharedConnection>, Channel)> {
        self.open.retain(|connection| connection.strong_count() > 0);
        for connection in self.open.clone() {
            let Some(shared) = connection.upgrade() else { continue };
            match shared.channel().await {
                Ok(channel) => return Some((shared, channel)),
                // With no channel left on it, or with channel numbers that the client does not
                // use again after the broker closed them: whoever has one there may keep it.
                Err(error) => {
                    debug!(%error, "no further channel on this connection");
                    self.open.retain(|open| !open.ptr_eq(&connection));
                }
            }
        }
        None
    }
}

impl SharedConnection {
    /// The largest frame that both sides agreed on; 0 is no limit.
    pub(crate) fn frame_max(&self) -> u32 {
        self.connection.configuration().frame_max()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.connection.status().connected()
    }

    /// Waits until the broker accepts nothing on it, which may be so already.
    pub(crate) async fn blocked(&self) -> SourceError {
        let mut trouble = self.trouble.clone();
        let blocked = trouble.wait_for(Option::is_some).await.ok().and_then(|blocked| blocked.clone());
        match blocked {
            Some(blocked) => blocked,
            None => std::future::pending().await, // it ends
        }
    }

    pub(crate) async fn channel(&self) -> Result<Channel, SourceError> {
        match timeout(CHANNEL, self.connection.create_channel()).await {
            Ok(channel) => channel.map_err(|error| self.place.explain(&error)),
            Err(_) => Err(SourceError::Protocol {
                broker: self.place.broker.clone(),
                words: format!("it did not open a channel within {} s", CHANNEL.as_secs()),
            }),
        }
    }
}

impl Connections {
    /// Of the broker with this name in the configuration, at these endpoints, the first one first.
    pub fn new(broker: String, endpoints: Vec<Endpoint>, tls: Option<&TlsFiles>) -> Result<Arc<Self>, TlsError> {
        let tls = tls.map(TlsMaterial::read).transpose()?.unwrap_or_default();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let connection_name = format!("esm on {}", host.trim());
        Ok(Arc::new(Self { broker, endpoints, tls, connection_name, pools: Mutex::default() }))
    }

    /// The broker's name.
    pub(crate) fn broker(&self) -> &str {
        &self.broker
    }

    /// A channel of one's own on a connection that is shared unless it is to be alone. Dropping the
    /// future half-way leaves the connection to the others.
    pub(crate) async fn channel(
        &self,
        login: &Login,
        alone: bool,
    ) -> Result<(Arc<SharedConnection>, Channel), SourceError> {
        let asked_at = Instant::now();
        let pool = self.pool(login);
        let mut state = pool.lock().await;
        if let Some((failed_at, error)) = &state.failed
            && *failed_at >= asked_at
        {
            return Err(error.clone());
        }
        if !alone && let Some(shared) = state.channel_of_an_open_connection().await {
            return Ok(shared);
        }
        let opened = self.open(login, &mut state).await;
        state.failed = opened.as_ref().err().map(|error| (Instant::now(), error.clone()));
        let shared = opened?;
        let channel = shared.channel().await?;
        if !alone {
            state.open.push(Arc::downgrade(&shared));
        }
        Ok((shared, channel))
    }

    /// Closes the connection in good order if nobody else uses it.
    pub(crate) async fn release(&self, shared: &Arc<SharedConnection>, patience: Duration) {
        if Arc::strong_count(shared) > 1 || !shared.is_open() {
            return;
        }
        match timeout(patience, shared.connection.close(200, "OK".into())).await {
            Ok(Ok(())) => info!(broker = shared.place.broker, "closed the connection"),
            Ok(Err(error)) => debug!(%error, "the connection was not closed in good order"),
            Err(_) => debug!("the broker did not confirm the end of the connection in time"),
        }
    }

    fn pool(&self, login: &Login) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(login) {
            return pool.clone();
        }
        // Of a password that was changed nothing is kept once the last session with it has ended.
        let is_in_use = |pool: &Arc<Pool>| {
            Arc::strong_count(pool) > 1 || pool.try_lock().map_or(true, |state| state.has_connections())
        };
        pools.retain(|_, pool| is_in_use(pool));
        pools.entry(login.clone()).or_default().clone()
    }

    /// Tries each endpoint once. A refusal that every node of a broker would repeat ends the round.
    async fn open(&self, login: &Login, state: &mut PoolState) -> Result<Arc<SharedConnection>, SourceError> {
        let mut failures = Vec::new();
        for _ in &self.endpoints {
            let endpoint = &self.endpoints[state.endpoint % self.endpoints.len()];
            match self.dial(endpoint, login).await {
                Ok(shared) => return Ok(shared),
                Err(error) if error.concerns_the_endpoint() => {
                    state.endpoint += 1;
                    failures.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(SourceError::at_every_endpoint(&self.broker, failures))
    }

    async fn dial(&self, endpoint: &Endpoint, login: &Login) -> Result<Arc<SharedConnection>, SourceError> {
        let broker = format!("{} at {endpoint}", self.broker);
        let place = Place { broker: broker.clone(), virtual_host: login.virtual_host.clone(), queue: String::new() };
        let unreachable = |words: String| SourceError::Unreachable { broker: broker.clone(), words };

        let dialled = timeout(DIAL, TcpStream::connect((endpoint.host.as_str(), endpoint.port))).await;
        let stream = dialled
            .map_err(|_| unreachable(format!("no answer within {} s", DIAL.as_secs())))?
            .map_err(|cause| unreachable(cause.to_string()))?;
        let last_resort = shutdown_handle(&stream).map_err(|cause| unreachable(cause.to_string()))?;
        let stream = AsyncTcpStream::Plain(Compat::new(stream));
        let stream = if endpoint.tls { self.start_tls(stream, endpoint, &broker).await? } else { stream };

        let version = Arc::new(OnceLock::new());
        let stream = Listening::new(stream, version.clone());
        match timeout(HANDSHAKE, self.handshake(stream, endpoint, login)).await {
            Ok(Ok(connection)) => {
                let version = version.get().copied();
                info!(broker, virtual_host = login.virtual_host, version = version.map(display), "connected");
                let Watch { trouble, closed, watcher } = watch(&connection, &place);
                Ok(Arc::new(SharedConnection { connection, version, place, trouble, closed, _watcher: watcher }))
            }
            Ok(Err(error)) if matches!(error.kind(), ErrorKind::ParsingError(_)) => Err(SourceError::Protocol {
                broker,
                words: "it does not speak AMQP 0-9-1 there; check the port and whether it is amqp or amqps".into(),
            }),
            Ok(Err(error)) => Err(place.explain(&error)),
            Err(_) => {
                // The client's thread reads this socket until it ends.
                let _ = last_resort.shutdown(Shutdown::Both);
                Err(unreachable(format!("it did not finish the AMQP handshake within {} s", HANDSHAKE.as_secs())))
            }
        }
    }

    async fn start_tls(&self, stream: Stream, endpoint: &Endpoint, broker: &str) -> Result<Stream, SourceError> {
        let failed = |words: String| SourceError::Tls { broker: broker.to_owned(), words };
        match timeout(HANDSHAKE, stream.into_native_tls(self.tls.connector(), &endpoint.host)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(cause)) => Err(failed(cause.to_string())),
            Err(_) => Err(failed(format!("no answer within {} s", HANDSHAKE.as_secs()))),
        }
    }

    async fn handshake(&self, stream: Listening, endpoint: &Endpoint, login: &Login) -> lapin::Result<Connection> {
        let uri = AMQPUri {
            scheme: if endpoint.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: login.username.clone(), password: login.password.clone() },
                host: endpoint.host.clone(),
                port: endpoint.port,
            },
            vhost: login.virtual_host.clone(),
            query: AMQPQueryString {
                frame_max: endpoint.frame_max.or(Some(FRAME_MAX)),
                heartbeat: endpoint.heartbeat.or(Some(HEARTBEAT)),
                ..AMQPQueryString::default()
            },
        };
        let properties = ConnectionProperties::default()
            .with_connection_name(self.connection_name.as_str().into())
            .with_client_property("product".into(), "esm".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let ready = Mutex::new(Some(AsyncTcpStream::Plain(stream)));
        let connect = async move |_, _| {
            let stream = ready.lock().unwrap_or_else(PoisonError::into_inner).take();
            stream.ok_or_else(|| io::Error::other("the socket was used before").into())
        };
        Connection::connector(uri, greeting::runtime(), connect, properties).await
    }
}

type Stream = AsyncTcpStream<Compat<TcpStream>>;

/// A second handle of the socket, by which to end it.
fn shutdown_handle(stream: &TcpStream) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

/// What the broker says about a connection as a whole.
struct Watch {
    trouble: watch::Receiver<Option<SourceError>>,
    closed: watch::Receiver<Option<SourceError>>,
    watcher: AbortOnDropHandle<()>,
}

fn watch(connection: &Connection, place: &Place) -> Watch {
    let (trouble_sender, trouble) = watch::channel(None);
    let (closed_sender, closed) = watch::channel(None);
    let events = connection.events_listener();
    let place = place.clone();
    let watcher = tokio::spawn(async move {
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(words) => {
                    let broker = place.broker.clone();
                    trouble_sender.send_replace(Some(SourceError::ConnectionBlocked { broker, words }));
                }
                Event::ConnectionUnblocked => {
                    trouble_sender.send_replace(None);
                }
                Event::Error(error) if matches!(error.kind(), ErrorKind::ProtocolError(_)) => {
                    closed_sender.send_replace(Some(place.explain(&error)));
                }
                _ => {} // the sessions hear of losses themselves
            }
        }
    });
    Watch { trouble, closed, watcher: AbortOnDropHandle::new(watcher) }
}

#[cfg(test)]
mod tests {
    use lapin::options::BasicPublishOptions;

    use super::*;
    use crate::testing::TestBroker;

    #[tokio::test]
    #[ignore = "needs a broker"]
    async fn who_stops_half_way_leaves_the_connection_to_the_others() {
        let endpoints = vec![TestBroker::shared().url.parse().unwrap()];
        let connections = Connections::new("pizza".into(), endpoints, None).unwrap();
        let login = Login { virtual_host: "/".into(), username: "guest".into(), password: "guest".into() };
        let (first, _) = connections.channel(&login, false).await.unwrap();
        let half_way = timeout(Duration::ZERO, connections.channel(&login, false)).await;
        assert!(half_way.is_err());
        let (second, _) = connections.channel(&login, false).await.unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[tokio::test]
    #[ignore = "needs a broker"]
    async fn a_blocked_connection_is_trouble_with_the_brokers_words() {
        // RabbitMQ blocks a connection only once it publishes, which a consuming one of ours never
        // does; a broker that blocks it all the same must not stop acknowledgements unseen.
        let broker = TestBroker::private("blocked", &["vm_memory_high_watermark.absolute = 1MB"]).await;
        let endpoints = vec![broker.url.parse().unwrap()];
        let connections = Connections::new("pizza".into(), endpoints, None).unwrap();
        let login = Login { virtual_host: "/".into(), username: "guest".into(), password: "guest".into() };
        let (shared, channel) = connections.channel(&login, false).await.unwrap();
        let mut trouble = shared.trouble.clone();
        assert!(trouble.borrow().is_none());

        let properties = lapin::BasicProperties::default();
        let published =
            channel.basic_publish("".into(), "nowhere".into(), BasicPublishOptions::default(), b"x", properties);
        drop(published.await.unwrap());

        let said = timeout(HANDSHAKE, trouble.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
        assert!(
            matches!(&said, Some(SourceError::ConnectionBlocked { words, .. }) if words.contains("memory")),
            "{said:?}"
        );
    }
}
