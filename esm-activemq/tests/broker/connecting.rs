//! How transports are found, secured and shared.

use std::time::Duration;

use esm_activemq::testing::{Messages, Relay, TestBroker};
use esm_core::{
    memory::Memory,
    source::{DeadLettered, SourceError, Terms},
    tls::TlsFiles,
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::bench::{Mapping, ack, is_kept_for, json, loss, receive, stop, texts};

#[tokio::test]
#[ignore = "needs a broker"]
async fn tls_with_an_authority_of_ones_own_and_a_client_certificate() {
    let broker = TestBroker::private("mutual-tls", &["tls=transport.needClientAuth=true"]).await;
    broker.produce("test.tls", Messages::text("secret")).await;
    let without = TlsFiles { ca_file: Some(broker.ca_file.clone()), ..TlsFiles::default() };
    let with = TlsFiles {
        cert_file: Some(broker.client_cert_file.clone()),
        key_file: Some(broker.client_key_file.clone()),
        ..without.clone()
    };

    let error = Mapping::over_tls(&broker.tls_url, "test.tls", Some(&without)).refusal().await;
    let mut session = Mapping::over_tls(&broker.tls_url, "test.tls", Some(&with)).open(10).await;

    let deliveries = receive(&mut session, 1).await;
    assert_eq!(texts(&session, &deliveries), ["secret"]);
    assert!(matches!(&error, SourceError::Tls { words, .. } if words.contains("certificate")), "{error:?}");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_broker_whose_authority_is_unknown_is_not_trusted() {
    let broker = TestBroker::shared();
    let system = TlsFiles::default();
    let error = Mapping::over_tls(&broker.tls_url, "test.tls", Some(&system)).refusal().await;
    assert!(matches!(&error, SourceError::Tls { words, .. } if words.contains("certificate")), "{error:?}");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_certificate_for_another_host_is_not_trusted() {
    let broker = TestBroker::shared();
    let tls = TlsFiles { ca_file: Some(broker.ca_file.clone()), ..TlsFiles::default() };
    // The same broker by a name that its certificate does not hold.
    let relay = Relay::to(&broker.tls_url.replace("ssl://localhost", "tcp://127.0.0.1")).await;
    let address = relay.url.replace("tcp://127.0.0.1", "ssl://127.1");
    let error = Mapping::over_tls(&address, "test.tls", Some(&tls)).refusal().await;
    assert!(matches!(&error, SourceError::Tls { .. }), "{error:?}");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn tcp_to_a_port_of_tls_and_tls_to_one_of_tcp_are_told() {
    let broker = TestBroker::shared();
    let plain = broker.tls_url.replace("ssl://", "tcp://");
    let error = Mapping::at(&plain, "test.tls").refusal().await;
    assert!(matches!(&error, SourceError::Protocol { words, .. } if words.contains("tcp or ssl")), "{error:?}");

    let error = Mapping::at(&broker.url.replace("tcp://", "ssl://"), "test.tls").refusal().await;
    assert!(matches!(&error, SourceError::Tls { .. }), "{error:?}");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_dead_first_endpoint_is_passed_over() {
    let broker = TestBroker::shared();
    let queue = broker.queue("failover");
    broker.produce(&queue, Messages::text("there")).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");

    let address = format!("failover:(tcp://{closed},{})?randomize=false", broker.url);
    let mut session = Mapping::at(&address, &queue).open(10).await;
    let deliveries = receive(&mut session, 1).await;
    assert_eq!(texts(&session, &deliveries), ["there"]);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn an_endpoint_that_says_nothing_is_told_and_passed_over() {
    let broker = TestBroker::shared();
    let queue = broker.queue("mute");
    let mute = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("tcp://{}", mute.local_addr().expect("an address"));
    let both = format!("failover:({address},{})?randomize=false", broker.url);
    let over_tls = Mapping::at(&address.replace("tcp://", "ssl://"), &queue);
    let (alone, both) = (Mapping::at(&address, &queue), Mapping::at(&both, &queue));

    let (error, tls_error, session) = tokio::join!(alone.refusal(), over_tls.refusal(), both.open(10));

    for error in [error, tls_error] {
        assert!(matches!(&error, SourceError::Standby { words, .. } if words.contains("said nothing")), "{error:?}");
    }
    stop(session).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn when_no_endpoint_answers_each_is_named_with_its_reason() {
    let closed = async || TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let (one, other) = (closed().await, closed().await);
    let error = Mapping::at(&format!("failover:(tcp://{one},tcp://{other})"), "q").refusal().await;
    let SourceError::Unreachable { words, .. } = &error else { panic!("{error:?}") };
    assert!(words.contains(&one.to_string()) && words.contains(&other.to_string()), "{words}");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn mappings_share_a_transport_and_the_end_of_one_leaves_the_others() {
    let broker = TestBroker::shared();
    let relay = Relay::to(&broker.url).await;
    let queues: Vec<_> = ["a", "b", "c"].iter().map(|name| broker.queue(name)).collect();
    let first = Mapping::at(&relay.url, &queues[0]);
    let stopping = first.open(10).await;
    let mut going_on = first.beside(&queues[1]).open(10).await;
    let dropped = first.beside(&queues[2]).open(10).await;
    assert_eq!(relay.connections(), 1);

    stop(stopping).await;
    drop(dropped);
    for queue in [&queues[0], &queues[2]] {
        broker.wait_until(queue, |queue| queue.consumer_count == 0).await;
    }

    broker.produce(&queues[1], Messages::text("still there")).await;
    let deliveries = receive(&mut going_on, 1).await;
    assert_eq!(texts(&going_on, &deliveries), ["still there"]);
    assert_eq!(relay.connections(), 1);

    // With the last one the transport ends, too.
    stop(going_on).await;
    while relay.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn mappings_that_come_back_at_the_same_time_share_a_transport_again() {
    let broker = TestBroker::shared();
    let relay = Relay::to(&broker.url).await;
    let first = Mapping::at(&relay.url, &broker.queue("many"));
    let mappings: Vec<_> = (0..20).map(|number| first.beside(&broker.queue(&format!("many-{number}")))).collect();

    for _ in 0..2 {
        let opening: JoinSet<_> =
            mappings.iter().cloned().map(|mapping| async move { (mapping.open(10).await, mapping) }).collect();
        let mut sessions = opening.join_all().await;
        assert_eq!(relay.connections(), 1);
        for (session, mapping) in &mut sessions {
            let queue = &mapping.settings.queue.name;
            broker.produce(queue, Messages::text(queue)).await;
            let deliveries = receive(session, 1).await;
            assert_eq!(texts(session, &deliveries), [queue.as_str()], "each has its own");
            ack(session, &deliveries).await;
        }
        relay.cut();
        for (session, _) in &mut sessions {
            loss(session).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_session_that_wants_to_be_alone_is() {
    let broker = TestBroker::shared();
    let relay = Relay::to(&broker.url).await;
    let mapping = Mapping::at(&relay.url, &broker.queue("alone"));
    let _shared = mapping.open(10).await;

    let alone = mapping.open_on(Terms { prefetch: 10, alone: true, memory: Memory::DEFAULT }).await.expect("a session");
    let _shared_too = mapping.open(10).await;
    assert_eq!(relay.connections(), 2);

    stop(alone).await;
    while relay.connections() > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn the_transport_for_dead_letters_ends_with_the_last_session() {
    let broker = TestBroker::shared();
    let relay = Relay::to(&broker.url).await;
    let queue = broker.queue("publishes");
    broker.produce(&queue, Messages::text("one").not_persistent()).await;
    let mapping = Mapping::at(&relay.url, &queue);
    let (mut one, other) = (mapping.open(10).await, mapping.beside(&broker.queue("idles")).open(10).await);
    let deliveries = receive(&mut one, 1).await;
    assert_eq!(one.consumer.dead_letter(deliveries[0].receipt, "cause").await, Ok(DeadLettered::Taken));

    stop(one).await;
    assert_eq!(relay.connections(), 2, "another session may have dead letters too");

    stop(other).await;
    while relay.connections() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn other_logins_have_transports_of_their_own() {
    let broker = TestBroker::shared();
    let relay = Relay::to(&broker.url).await;
    let queue = broker.queue("logins");
    broker.produce(&queue, Messages::text("one")).await;
    let administrator = Mapping::at(&relay.url, &queue);
    let _one = administrator.open(10).await;
    let _other = administrator.clone().with_login(esm_activemq::testing::GUEST).open(10).await;
    assert_eq!(relay.connections(), 2);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_short_time_of_inactivity_ends_neither_an_idle_connection_nor_one_whose_messages_wait() {
    let broker = TestBroker::shared();
    let address = format!("{}?wireFormat.maxInactivityDuration=3000", broker.url);
    let (idle, full) = (broker.queue("idle"), broker.queue("full"));
    broker.produce(&full, Messages::text("{n}").count(50).size(10_000)).await;
    // Each on a transport of its own, so that neither is kept alive by the other.
    let mut idling = Mapping::at(&address, &idle).open(10).await;
    let mut waiting = Mapping::at(&address, &full).open(20).await;

    tokio::join!(is_kept_for(&mut idling, Duration::from_secs(10)), is_kept_for(&mut waiting, Duration::from_secs(10)),);

    broker.produce(&idle, Messages::text("late")).await;
    assert_eq!(receive(&mut idling, 1).await.len(), 1);
    assert_eq!(receive(&mut waiting, 20).await.len(), 20);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn an_older_version_and_other_choices_of_the_broker_change_nothing() {
    let choices = ["wireFormat.version=10", "wireFormat.maxInactivityDuration=0", "wireFormat.stackTraceEnabled=true"];
    let choices = choices.map(|choice| format!("connector={choice}"));
    let broker = TestBroker::private("version-10", &choices.each_ref().map(String::as_str)).await;
    broker.produce("test.version", Messages::text("{n}").count(3).property("p", "long", "7")).await;

    let mut session = Mapping::new(&broker, "test.version").open(10).await;
    let deliveries = receive(&mut session, 3).await;
    assert_eq!(json(&session, &deliveries[2])["properties"]["p"], "7");
    ack(&session, &deliveries[..2]).await;
    let dead_lettered = session.consumer.dead_letter(deliveries[2].receipt, "cause").await;
    assert_eq!(dead_lettered, Ok(DeadLettered::Taken));
    broker.wait_until("test.version", |queue| queue.size == 0).await;
    stop(session).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_version_that_is_too_old_is_told() {
    let broker = TestBroker::private("version-9", &["connector=wireFormat.version=9"]).await;
    let error = Mapping::new(&broker, "test.version").refusal().await;
    assert!(matches!(&error, SourceError::Protocol { words, .. } if words.contains("version 9")), "{error:?}");
}
