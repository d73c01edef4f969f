//! What other tests rely on: the brokers for tests, and what sends to them.

use std::time::Duration;

use esm_activemq::testing::{JavaMessage, Messages, TestBroker};

#[tokio::test]
#[ignore = "needs a broker"]
async fn java_reads_what_java_was_told_to_send() {
    let broker = TestBroker::shared();
    let queue = broker.queue("properties");
    let messages = Messages::text("{\"é\": {n} 100 % + more}")
        .count(3)
        .priority(9)
        .time_to_live(Duration::from_secs(3_600))
        .group("group-{n}")
        .groups(2)
        .correlation_id("order {n}")
        .jms_type("order.placed")
        .reply_to("replies")
        .property("byte", "byte", "-1")
        .property("float", "float", "1e10")
        .property("text", "string", "a=b c:d")
        .property("nothing", "null", "");

    let ids = broker.produce(&queue, messages).await;
    let read = broker.browse(&queue).await;

    assert_eq!(read.iter().map(|message| message.message_id.clone()).collect::<Vec<_>>(), ids);
    let [_, _, third] = &read[..] else { panic!("{read:?}") };
    assert_eq!(third.text(), "{\"é\": 2 100 % + more}");
    assert_eq!((third.priority, third.delivery_mode, &*third.message_type), (9, 2, "jms/text-message"));
    assert_eq!(third.expiration - third.timestamp, 3_600_000);
    assert_eq!(third.correlation_id.as_deref(), Some("order 2"));
    assert_eq!(third.jms_type.as_deref(), Some("order.placed"));
    assert_eq!(third.reply_to.as_deref(), Some("queue://replies"));
    let properties = ["byte", "float", "text", "nothing", "JMSXGroupID", "JMSXUserID"].map(|name| third.property(name));
    assert_eq!(properties, [Some("-1"), Some("1.0E10"), Some("a=b c:d"), None, Some("group-0"), Some("admin")]);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn messages_of_every_type_have_the_body_they_should() {
    let check = async |messages: Messages, expected_type: &str, expected_body: Option<&str>| {
        let broker = TestBroker::shared();
        let queue = broker.queue("types");
        broker.produce(&queue, messages.count(1)).await;
        let read = broker.consume(&queue, 1).await;
        assert_eq!(read[0].message_type, expected_type);
        assert_eq!(read[0].body.as_ref().map(|_| read[0].text()).as_deref(), expected_body);
    };
    check(Messages::text("one"), "jms/text-message", Some("one")).await;
    check(Messages::text(""), "jms/text-message", Some("")).await;
    check(Messages::text("one").compressed(), "jms/text-message", Some("one")).await;
    check(Messages::bytes("two").size(5), "jms/bytes-message", Some("two..")).await;
    check(Messages::of_type("null"), "jms/text-message", None).await;
    check(Messages::of_type("map"), "jms/map-message", None).await;
    check(Messages::of_type("stream"), "jms/stream-message", None).await;
    check(Messages::of_type("object"), "jms/object-message", None).await;
    check(Messages::of_type("plain"), "jms/message", None).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn the_catalogue_holds_every_type_plain_and_compressed() {
    let broker = TestBroker::shared();

    let messages = broker.produce_catalogue(&broker.queue("catalogue")).await;

    for kind in ["text", "bytes", "map", "stream", "object"] {
        for compressed in [false, true] {
            let message_type = format!("jms/{kind}-message");
            let is_wanted =
                |message: &&JavaMessage| message.message_type == message_type && message.compressed == compressed;
            assert!(messages.iter().any(|message| is_wanted(&message)), "{kind}, compressed: {compressed}");
        }
    }
    assert!(messages.iter().any(|message| message.property("value") == Some("1.0E-5")));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn what_is_given_back_comes_again_and_what_is_consumed_does_not() {
    let broker = TestBroker::shared();
    let queue = broker.queue("given-back");
    broker.produce(&queue, Messages::text("{n}").count(5)).await;

    broker.give_back(&queue, 2).await;
    let again = broker.consume(&queue, 3).await;
    let statistics = broker.wait_until(&queue, |statistics| statistics.consumer_count == 0).await;
    broker.purge(&queue).await;

    assert_eq!(again.iter().map(|message| message.redelivered).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!((statistics.size, statistics.dequeue_count), (2, 3));
    assert_eq!(broker.statistics(&queue).await.size, 0);
    assert_eq!(broker.statistics("nobody.knows.this").await.enqueue_count, 0);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn texts_come_in_over_stomp_without_a_login() {
    let broker = TestBroker::shared();
    let queue = broker.stomp_queue("texts");

    broker.send_by_stomp(&queue, &["one", "zwölf"]).await;

    let read = broker.consume(&queue, 2).await;
    assert_eq!(read.iter().map(JavaMessage::text).collect::<Vec<_>>(), ["one", "zwölf"]);
    assert_eq!((&*read[0].message_type, read[0].property("JMSXUserID")), ("jms/text-message", Some("anonymous")));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_killed_broker_has_its_messages_when_it_is_back() {
    let broker = TestBroker::private("killed", &[]).await;
    broker.produce("test.kept", Messages::text("{n}").count(10)).await;

    broker.kill().await;
    broker.start().await;

    assert_eq!(broker.consume("test.kept", 10).await[9].text(), "9");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn the_standby_takes_over_from_a_killed_broker() {
    let (active, standby) = TestBroker::pair("pair").await;
    active.produce("test.kept", Messages::text("{n}").count(10)).await;
    let port: u16 = standby.url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let connect = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
    connect().await.expect_err("a standby listens to nobody");

    active.kill().await;
    while connect().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    assert_eq!(standby.consume("test.kept", 10).await[9].text(), "9");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_broker_that_hangs_answers_when_it_goes_on() {
    let broker = TestBroker::private("hangs", &[]).await;
    broker.produce("test.kept", Messages::text("one")).await;

    broker.pause().await;
    let browsing = broker.browse("test.kept");
    tokio::pin!(browsing);
    tokio::time::timeout(Duration::from_secs(1), &mut browsing).await.expect_err("nobody answers");
    broker.resume().await;

    assert_eq!(browsing.await.len(), 1);
}
