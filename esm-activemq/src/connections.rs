//! Transports of one broker, shared by mappings: one per login, with a logical connection for each
//! mapping.
//!
//! A login that is refused makes the broker close the whole transport, with every mapping on it. So a
//! mapping joins a transport only with a login that was accepted there, and until then has one of its
//! own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use esm_core::{
    credentials::{Credentials, Login},
    source::SourceError,
    tls::{TlsError, TlsFiles, TlsMaterial},
};
use secrecy::ExposeSecret;
use tokio::{sync::Mutex as AsyncMutex, time::Instant};
use tracing::{debug, info, warn};

use crate::{
    client::{Address, ClientError, Connection, Endpoint, Producer, Transport, transport::Directions},
    errors::Place,
    openwire::ConnectionControl,
};

/// The transports to one broker.
pub struct Connections {
    broker: String,
    tls: TlsMaterial,
    route: Arc<Mutex<Route>>,
    /// By user name and password.
    pools: Mutex<HashMap<(String, String), Arc<Pool>>>,
}

/// What mappings with one login share.
#[derive(Default)]
struct Pool {
    consuming: AsyncMutex<Consuming>,
    /// Publishes dead letters, and where.
    publishing: AsyncMutex<Option<(Producer, Place)>>,
}

impl Pool {
    fn consumes(&self) -> bool {
        let is_open =
            |consuming: &Consuming| consuming.transport.upgrade().is_some_and(|transport| transport.is_open());
        self.consuming.try_lock().map_or(true, |consuming| is_open(&consuming))
    }
}

#[derive(Default)]
struct Consuming {
    /// It has accepted this login, and nothing was refused since.
    transport: Weak<Transport>,
    place: Option<Place>,
    /// The last attempt to open one, if it failed: who waited for that one need not try again at once.
    failed: Option<(Instant, SourceError)>,
}

/// Where the broker is to be found, and where it is looked for next.
struct Route {
    endpoints: Vec<Endpoint>,
    next: usize,
    may_be_directed: bool,
}

impl Route {
    /// Next time another one is tried first, unless somebody else has seen to that.
    fn pass_over(&mut self, endpoint: &Endpoint) {
        if self.endpoints.get(self.next) == Some(endpoint) {
            self.next = (self.next + 1) % self.endpoints.len();
        }
    }

    /// Follows the broker's directions, if that is allowed; words if the transport to `here` is to end for them.
    fn follow(&mut self, here: &Endpoint, control: &ConnectionControl) -> Option<String> {
        let endpoints = |text: &Option<crate::openwire::Text>| {
            let text = text.as_ref().map(|text| text.to_str().into_owned()).unwrap_or_default();
            // A login that went through TLS so far must not leave it.
            let is_safe = |endpoint: &Endpoint| endpoint.tls || !self.endpoints.iter().all(|known| known.tls);
            let parsed = text.split(',').filter_map(|endpoint| endpoint.trim().parse().ok());
            parsed.filter(is_safe).collect::<Vec<Endpoint>>()
        };
        let (known, goal) = (endpoints(&control.connected_brokers), endpoints(&control.reconnect_to));
        if known.is_empty() && goal.is_empty() && !control.rebalance_connection {
            return None;
        }
        if !self.may_be_directed {
            debug!("the broker names other endpoints; ignored, since updateURIsSupported=true is not set");
            return None;
        }
        let count_before = self.endpoints.len();
        for endpoint in &known {
            if self.position(endpoint).is_none() && self.endpoints.len() < MOST_ENDPOINTS {
                self.endpoints.push(endpoint.clone());
            }
        }
        if let Some(goal) = goal.into_iter().next() {
            let words = format!("it asks to connect to {goal} instead");
            self.next = self.position(&goal).unwrap_or_else(|| {
                self.endpoints.truncate(MOST_ENDPOINTS - 1);
                self.endpoints.insert(0, goal.clone());
                0
            });
            return (!goal.is_at(here)).then_some(words);
        }
        // A broker asks for that on each new connection, so it is done only when the cluster has grown. The list begins
        // with another broker for each client that is told.
        if !control.rebalance_connection || self.endpoints.len() == count_before {
            return None;
        }
        let goal = known.first().filter(|goal| !goal.is_at(here))?;
        self.next = self.position(goal)?;
        Some(format!("it asks to spread connections over its cluster, so the next one goes to {goal}"))
    }

    fn position(&self, place: &Endpoint) -> Option<usize> {
        self.endpoints.iter().position(|endpoint| endpoint.is_at(place))
    }
}

/// A broker's word is trusted, but not without bounds.
const MOST_ENDPOINTS: usize = 32;

impl Connections {
    /// Knows where the broker is; connects to nothing yet.
    pub fn new(broker: String, addresses: Vec<Address>, tls: Option<&TlsFiles>) -> Result<Arc<Self>, TlsError> {
        let tls = tls.map(TlsMaterial::read).transpose()?.unwrap_or_default();
        let may_be_directed = addresses.iter().any(|address| address.update_uris);
        let randomize = addresses.iter().any(|address| address.randomize);
        let mut endpoints: Vec<Endpoint> = addresses.into_iter().flat_map(|address| address.endpoints).collect();
        if randomize {
            fastrand::shuffle(&mut endpoints);
        }
        let route = Arc::new(Mutex::new(Route { endpoints, next: 0, may_be_directed }));
        Ok(Arc::new(Self { broker, tls, route, pools: Mutex::default() }))
    }

    /// The login as it is now.
    pub(crate) async fn login(&self, credentials: &dyn Credentials) -> Result<Login, SourceError> {
        credentials.login().await.map_err(|words| SourceError::NoLogin { broker: self.broker.clone(), words })
    }

    /// A logical connection for one mapping. `alone`: on a transport that it shares with no other.
    pub(crate) async fn connection(
        &self,
        login: &Login,
        client_id: &str,
        alone: bool,
    ) -> Result<(Connection, Place), SourceError> {
        let asked_at = Instant::now();
        let pool = self.pool(login);
        let mut pool = pool.consuming.lock().await;
        if let Some((failed_at, error)) = &pool.failed
            && *failed_at >= asked_at
        {
            return Err(error.clone());
        }
        if !alone && let Some(joined) = pool.join(login, client_id).await {
            return joined;
        }
        let opened = self.open(login, client_id).await;
        pool.failed = opened.as_ref().err().map(|error| (Instant::now(), error.clone()));
        let (connection, place) = opened?;
        if !alone {
            pool.transport = Arc::downgrade(connection.transport());
            pool.place = Some(place.clone());
        }
        Ok((connection, place))
    }

    /// Sends dead letters, on a transport that nothing is consumed on.
    pub(crate) async fn publish(
        &self,
        login: &Login,
        client_id: &str,
        message: crate::openwire::Message,
    ) -> Result<(), SourceError> {
        let target = message.destination.as_ref().map(|queue| queue.physical_name().to_str().into_owned());
        let pool = self.pool(login);
        let mut publishing = pool.publishing.lock().await;
        let (producer, place) = match publishing.take().filter(|(producer, _)| producer.is_open()) {
            Some(open) => open,
            None => {
                let (connection, place) = self.open(login, client_id).await?;
                (connection.produce().await.map_err(|error| place.explain(&error))?, place)
            }
        };
        let (producer, place) = publishing.insert((producer, place));
        let place = Place { queue: target.unwrap_or_default(), ..place.clone() };
        let sent = producer.send(message).await;
        if sent.is_err() {
            *publishing = None;
        }
        sent.map_err(|error| place.explain(&error))
    }

    /// Closes the transport in good order if nobody else uses it.
    pub(crate) async fn release(&self, transport: &Transport, place: &Place, patience: Duration) {
        if transport.is_open() && !transport.is_used() {
            transport.close(patience).await;
            info!(broker = place.broker, "closed the connection");
        }
        // The next dead letter opens another, if one is still to come.
        let unused: Vec<_> = self.lock_pools().extract_if(|_, pool| !is_in_use(pool)).collect();
        for (_, pool) in unused {
            let publishing = pool.publishing.lock().await.take();
            if let Some((producer, place)) = publishing.filter(|(producer, _)| producer.is_open()) {
                match producer.close(patience).await {
                    Ok(()) => info!(broker = place.broker, "closed the connection for dead letters"),
                    Err(error) => debug!(%error, "the connection for dead letters was not closed in good order"),
                }
            }
        }
    }

    fn pool(&self, login: &Login) -> Arc<Pool> {
        let key = (login.username.clone(), login.password.expose_secret().to_owned());
        let mut pools = self.lock_pools();
        if let Some(pool) = pools.get(&key) {
            return pool.clone();
        }
        // Of a password that was changed nothing is kept once the last session with it has ended.
        pools.retain(|_, pool| is_in_use(pool));
        pools.entry(key).or_default().clone()
    }

    fn lock_pools(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<Pool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries each endpoint once. A refusal that every node of a broker would repeat ends the round.
    async fn open(&self, login: &Login, client_id: &str) -> Result<(Connection, Place), SourceError> {
        let mut failures = Vec::new();
        let count = self.route().endpoints.len();
        for _ in 0..count {
            let endpoint = {
                let mut route = self.route();
                let next = route.next % route.endpoints.len();
                route.next = next;
                route.endpoints[next].clone()
            };
            let place = Place { broker: format!("{} at {endpoint}", self.broker), queue: String::new() };
            match self.dial(&endpoint, login, client_id).await {
                Ok(connection) => {
                    info!(broker = place.broker, "connected");
                    return Ok((connection, place));
                }
                Err(error) => {
                    let error = place.explain(&error);
                    if !error.concerns_the_endpoint() {
                        return Err(error);
                    }
                    self.route().pass_over(&endpoint);
                    failures.push(error);
                }
            }
        }
        Err(SourceError::at_every_endpoint(&self.broker, failures))
    }

    async fn dial(&self, endpoint: &Endpoint, login: &Login, client_id: &str) -> Result<Connection, ClientError> {
        let route = self.route.clone();
        let here = endpoint.clone();
        let directions: Directions =
            Box::new(move |control| route.lock().unwrap_or_else(PoisonError::into_inner).follow(&here, control));
        let transport = Arc::new(Transport::open(endpoint, &self.tls.connector(), directions).await?);
        Connection::open(transport, login, client_id).await
    }

    fn route(&self) -> MutexGuard<'_, Route> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether anything is consumed with a login, or about to be, or to be published.
fn is_in_use(pool: &Arc<Pool>) -> bool {
    Arc::strong_count(pool) > 1 || pool.consumes()
}

impl Consuming {
    /// A further logical connection on the transport that is there. `None`: there is none that can be joined.
    async fn join(&mut self, login: &Login, client_id: &str) -> Option<Result<(Connection, Place), SourceError>> {
        let transport = self.transport.upgrade().filter(|transport| transport.is_open())?;
        let place = self.place.clone()?;
        match Connection::open(transport, login, client_id).await {
            Ok(connection) => Some(Ok((connection, place))),
            Err(ClientError::Refused(exception)) => {
                warn!(broker = place.broker, %exception, "a login that was accepted before is refused");
                self.transport = Weak::new();
                Some(Err(place.explain(&ClientError::Refused(exception))))
            }
            // The transport has ended: a new one may do.
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    fn route(endpoints: &[&str]) -> Route {
        let endpoints = endpoints.iter().copied().map(endpoint).collect();
        Route { endpoints, next: 0, may_be_directed: true }
    }

    fn control(known: &str, goal: &str, rebalance_connection: bool) -> ConnectionControl {
        ConnectionControl {
            connected_brokers: Some(known.into()),
            reconnect_to: Some(goal.into()),
            rebalance_connection,
            ..ConnectionControl::default()
        }
    }

    /// Where the transport goes that was at the first endpoint.
    fn goes_to(route: &mut Route, control: &ConnectionControl) -> Option<String> {
        let here = route.endpoints[0].clone();
        route.follow(&here, control).map(|_| route.endpoints[route.next].to_string())
    }

    #[test]
    fn a_transport_moves_only_when_the_cluster_has_grown_and_to_the_broker_that_is_named_first() {
        let mut route = route(&["tcp://a?wireFormat.maxInactivityDuration=5000"]);
        assert_eq!(goes_to(&mut route, &control("tcp://a:61616", "", true)), None, "there is nobody else");
        assert_eq!(goes_to(&mut route, &control("tcp://a,tcp://b", "", false)), None, "it is only told");
        assert_eq!(goes_to(&mut route, &control("tcp://b,tcp://a", "", true)), None, "it knew that one");
        let grown = control("tcp://c:61616,tcp://a:61616", "", true);
        assert_eq!(goes_to(&mut route, &grown).as_deref(), Some("tcp://c:61616"));
        assert_eq!(goes_to(&mut route, &grown), None, "not again");
        assert_eq!(goes_to(&mut route, &control("tcp://a,tcp://d", "", true)), None, "others are to go there");
        assert_eq!(route.endpoints.len(), 4);
    }

    #[test]
    fn a_broker_that_sends_its_clients_to_itself_keeps_them() {
        let mut route = route(&["tcp://a"]);
        assert_eq!(goes_to(&mut route, &control("", "tcp://a:61616", false)), None);
        assert_eq!(goes_to(&mut route, &control("", "tcp://b", false)).as_deref(), Some("tcp://b:61616"));
    }

    #[test]
    fn a_login_that_goes_through_tls_does_not_leave_it_and_nobody_is_followed_unasked() {
        let mut over_tls = route(&["ssl://a"]);
        assert_eq!(goes_to(&mut over_tls, &control("tcp://b", "tcp://c", true)), None);
        let mut unasked = Route { may_be_directed: false, ..route(&["tcp://a"]) };
        assert_eq!(goes_to(&mut unasked, &control("tcp://b", "tcp://c", true)), None);
        assert_eq!((over_tls.endpoints.len(), unasked.endpoints.len()), (1, 1));
    }
}
