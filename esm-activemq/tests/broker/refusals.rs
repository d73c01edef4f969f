//! What brokers refuse, each told apart with the broker's own words.

use std::{fs, path::Path, sync::Arc, time::Duration};

use esm_activemq::{
    client::{ClientError, Connection, Transport},
    testing::{ADMINISTRATOR, GUEST, Messages, Relay, TestBroker},
};
use esm_core::{
    source::{Disposition, SourceError},
    tls::TlsFiles,
};

use crate::bench::{Mapping, ack, is_kept_for, login, loss, receipts, receive, texts};

/// A little longer than a broker takes to close a transport on which it has refused a login.
const REFUSED_TRANSPORT_CLOSES: Duration = Duration::from_secs(4);

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_wrong_password_is_told_and_interrupts_nobody_who_reads_the_same_broker() {
    let broker = TestBroker::shared();
    let queue = broker.queue("password");
    let healthy = Mapping::new(&broker, &queue);
    let mut session = healthy.open(10).await;

    let error = healthy.clone().with_login(("admin", "wrong")).refusal().await;

    assert!(matches!(&error, SourceError::Authentication { .. }), "{error:?}");
    assert!(error.to_string().contains("password is invalid") && !error.to_string().contains("wrong"), "{error}");
    assert_eq!(error.code(), Some("EVENT_SOURCE_AUTHN_ERROR"));
    is_kept_for(&mut session, REFUSED_TRANSPORT_CLOSES).await;
    broker.produce(&queue, Messages::text("after")).await;
    assert_eq!(receive(&mut session, 1).await.len(), 1);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn who_may_not_read_is_told_and_shares_the_transport_all_the_same() {
    let broker = TestBroker::shared();
    let relay = Relay::to(&broker.url).await;
    let (own, forbidden) = (broker.queue("own"), broker.stomp_queue("forbidden"));
    for queue in [&own, &forbidden] {
        broker.produce(queue, Messages::text("exists")).await;
    }
    let guest = Mapping::at(&relay.url, &own).with_login(GUEST);
    let mut session = guest.open(10).await;

    let error = guest.beside(&forbidden).refusal().await;

    let SourceError::Authorization { what, words, .. } = &error else { panic!("{error:?}") };
    assert!(what.contains(&forbidden) && words.contains("guest is not authorized to read from"), "{error}");
    assert_eq!(error.code(), Some("EVENT_SOURCE_AUTHZ_ERROR"));
    is_kept_for(&mut session, REFUSED_TRANSPORT_CLOSES).await;
    assert_eq!(relay.connections(), 1);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_queue_that_is_not_there_and_may_not_be_created_is_missing() {
    let broker = TestBroker::shared();
    let error = Mapping::new(&broker, &broker.queue("missing")).with_login(GUEST).refusal().await;
    assert!(matches!(&error, SourceError::QueueMissing { words, .. } if words.contains("create")), "{error:?}");
    assert_eq!(error.code(), Some("ESM_CONFIG_NOT_VALID"));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn mappings_of_one_client_id_do_not_collide_and_a_name_in_use_is_told() {
    let broker = TestBroker::shared();
    let mapping = Mapping::new(&broker, &broker.queue("client-id"));
    let _one = mapping.open(10).await;
    let _other = mapping.open(10).await;

    let endpoint = broker.url.parse().expect("an endpoint");
    let open = async || {
        let transport = Transport::dial(&endpoint, &native_tls::TlsConnector::builder()).await.expect("dials");
        Connection::open(Arc::new(transport), &login(ADMINISTRATOR), "a name of its own").await
    };
    let _first = open().await.expect("logs in");
    let error = open().await.err().expect("is refused");
    let ClientError::Refused(exception) = &error else { panic!("{error:?}") };
    assert_eq!(exception.simple_name(), "InvalidClientIDException");
    assert!(exception.message.contains("already connected"), "{exception}");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_broker_that_has_enough_connections_closes_without_a_word() {
    let broker = TestBroker::private("connections", &["connector=maximumConnections=1"]).await;
    let mut session = Mapping::new(&broker, "test.one").open(10).await;
    let tls = TlsFiles { ca_file: Some(broker.ca_file.clone()), ..TlsFiles::default() };
    let _over_tls = Mapping::over_tls(&broker.tls_url, "test.one", Some(&tls)).open(10).await;

    for error in [
        Mapping::new(&broker, "test.other").refusal().await,
        Mapping::over_tls(&broker.tls_url, "test.other", Some(&tls)).refusal().await,
    ] {
        assert!(matches!(&error, SourceError::ConnectionLimit { .. }), "{error:?}");
    }

    assert_eq!(session.consumer.set_prefetch(20).await, Ok(()));
    assert!(session.lost.try_recv().is_err(), "the first one is not disturbed");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn too_many_consumers_on_one_connection_are_told_as_a_limit() {
    let limit = "connector=maximumConsumersAllowedPerConnection=1";
    let broker = TestBroker::private("consumers", &[limit]).await;
    let mapping = Mapping::new(&broker, "test.one");
    // Each mapping has a logical connection of its own, so the limit stops nobody.
    let _one = mapping.open(10).await;
    let _other = mapping.beside("test.other").open(10).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_broker_that_stops_and_one_that_hangs_are_told_apart() {
    let inactivity = "connector=wireFormat.maxInactivityDuration=2000";
    let broker = TestBroker::private("stops", &[inactivity]).await;
    let mapping = Mapping::new(&broker, "test.stops");
    broker.produce("test.stops", Messages::text("held")).await;

    let mut session = mapping.open(10).await;
    let deliveries = receive(&mut session, 1).await;
    broker.pause().await;
    let settled = session.consumer.settle(&receipts(&deliveries), Disposition::Ack).await;
    assert!(matches!(&settled, Err(SourceError::HeartbeatLost { .. })), "{settled:?}");
    let silent = loss(&mut session).await;
    broker.resume().await;
    assert!(matches!(&silent, SourceError::HeartbeatLost { words, .. } if words.contains("2 s")), "{silent:?}");

    let mut session = mapping.open(10).await;
    broker.stop().await;
    let stopped = loss(&mut session).await;
    assert!(matches!(&stopped, SourceError::ConnectionLost { .. } | SourceError::BrokerStopping { .. }), "{stopped:?}");

    let down = mapping.refusal().await;
    assert!(matches!(&down, SourceError::Unreachable { .. }), "{down:?}");
}

/// Makes the broker look users up in files that it reads again when they change.
const CHANGING_USERS: &str = r#"plugin=<jaasAuthenticationPlugin configuration="changing"/>"#;

fn write_users(folder: &Path, users: &str) {
    let module = "changing { org.apache.activemq.jaas.PropertiesLoginModule required \
                  baseDir=\".\" reload=\"true\" \
                  org.apache.activemq.jaas.properties.user=\"users.properties\" \
                  org.apache.activemq.jaas.properties.group=\"groups.properties\"; };";
    fs::write(folder.join("groups.properties"), "admins=admin\neverybody=admin\n").expect("writes");
    fs::write(folder.join("users.properties"), users).expect("writes");
    fs::write(folder.join(".java.login.config"), module).expect("writes");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_login_that_was_accepted_and_is_refused_later_lets_the_others_come_back() {
    let broker = TestBroker::private("changing-users", &[CHANGING_USERS]).await;
    let folder = broker.ca_file.parent().and_then(Path::parent).expect("the node's folder").to_owned();
    write_users(&folder, "admin=admin\n");
    let first = Mapping::new(&broker, "test.first");
    let mut session = first.open(10).await;

    write_users(&folder, "admin=changed\n");
    let error = first.beside("test.second").refusal().await;
    assert!(matches!(&error, SourceError::Authentication { .. }), "{error:?}");
    // The broker closes the whole transport.
    let lost = loss(&mut session).await;
    assert!(matches!(&lost, SourceError::ConnectionLost { .. }), "{lost:?}");
    let error = first.refusal().await;
    assert!(matches!(&error, SourceError::Authentication { .. }), "{error:?}");

    write_users(&folder, "admin=admin\n");
    let mut session = first.open(10).await;
    let second = first.beside("test.second").open(10).await;
    broker.produce("test.first", Messages::text("back")).await;
    let deliveries = receive(&mut session, 1).await;
    assert_eq!(texts(&session, &deliveries), ["back"]);
    ack(&session, &deliveries).await;
    drop(second);
}
