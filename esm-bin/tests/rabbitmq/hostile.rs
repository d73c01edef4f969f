//! Messages that no honest client publishes, which the broker accepts all the same: published over
//! a bare socket, since no client library would send them.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use esm_rabbitmq::testing::TestBroker;

use crate::common::{
    function::Function,
    service::{Config, Service},
};

/// As deep as fits into a frame of RabbitMQ's default size.
const DEEP: usize = 18_000;

#[tokio::test]
#[ignore = "needs a broker"]
async fn headers_nested_as_deep_as_a_frame_allows_arrive() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("nested headers").await;
    let publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    let function = Function::start().await;
    let service = Service::start(&Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "")).await;

    let mut table = Vec::new();
    for _ in 0..DEEP {
        table = [short(b"t"), b"F".to_vec(), long(&table)].concat();
    }
    publish(&broker, &virtual_host, "queue", HEADERS, &long(&table));

    service.metric_becomes("esm_deleted_events_total", &[], 1).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_id_that_is_not_utf_8_disturbs_only_its_own_mapping() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("not utf-8").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    publisher.declare("neighbour", "classic").await;
    let function = Function::start().await;
    let config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "").mapping_in(
        &virtual_host,
        "neighbour",
        "",
    );
    let service = Service::start(&config).await;
    service.connected("queue").await;
    service.connected("neighbour").await;

    publish(&broker, &virtual_host, "queue", MESSAGE_ID, &short(b"\xff\xfe"));

    service.shows("queue", "cannot be read").await;
    let neighbour = service.uuid("neighbour").await;
    // The connection that they shared ends once; after that, each has one of its own.
    service.metric_becomes("esm_source_connected", &[&neighbour], 1).await;
    let queue = service.uuid("queue").await;
    while service.metric("esm_reconnects_total", &[&queue]).await < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(service.metric("esm_reconnects_total", &[&neighbour]).await <= 1);
    publisher.publish("neighbour", ["a"]).await;
    service.metric_becomes("esm_deleted_events_total", &[&neighbour], 1).await;

    publisher.take_unread("queue").await;
    publisher.publish("queue", ["b"]).await;
    service.metric_becomes("esm_deleted_events_total", &[&queue], 1).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn an_unreadable_message_drags_no_neighbour_over_the_delivery_limit() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("delivery limit").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    // The broker drops a message of this queue when it comes back for the sixth time.
    publisher.declare_quorum_with_delivery_limit("queue", 5).await;
    let before: Vec<_> = (0..50).map(|number| format!("before {number}")).collect();
    let after: Vec<_> = (0..50).map(|number| format!("after {number}")).collect();
    publisher.publish("queue", before.clone()).await;
    publish(&broker, &virtual_host, "queue", MESSAGE_ID, &short(b"\xff\xfe"));
    publisher.publish("queue", after.clone()).await;
    let function = Function::start().await;
    let service = Service::start(&Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "")).await;

    service.metric_becomes("esm_deleted_events_total", &[], 100).await;

    let arrived: std::collections::HashSet<_> = function.bodies().into_iter().collect();
    assert_eq!(arrived, before.into_iter().chain(after).collect());
}

/// Property flags (AMQP 0-9-1, 4.2.6.1).
const HEADERS: u16 = 1 << 13;
const MESSAGE_ID: u16 = 1 << 7;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// Publishes a message of one byte with one property, and waits for the confirm.
fn publish(broker: &TestBroker, virtual_host: &str, queue: &str, flag: u16, property: &[u8]) {
    let mut socket = TcpStream::connect(broker.url.trim_start_matches("amqp://")).expect("connects");
    socket.write_all(b"AMQP\0\0\x09\x01").expect("writes");
    read(&mut socket); // start
    let start_ok = [long(b""), short(b"PLAIN"), long(b"\0guest\0guest"), short(b"en_US")].concat();
    call(&mut socket, 0, (10, 11), &start_ok); // tune
    let tune_ok = [&100_u16.to_be_bytes()[..], &131_072_u32.to_be_bytes(), &0_u16.to_be_bytes()].concat();
    send(&mut socket, METHOD, 0, &method((10, 31), &tune_ok));
    call(&mut socket, 0, (10, 40), &[short(virtual_host.as_bytes()), short(b""), vec![0]].concat()); // open-ok
    call(&mut socket, 1, (20, 10), &short(b"")); // channel.open-ok
    call(&mut socket, 1, (85, 10), &[0]); // confirm.select-ok
    let to_queue = [&[0, 0][..], &short(b""), &short(queue.as_bytes()), &[0]].concat();
    send(&mut socket, METHOD, 1, &method((60, 40), &to_queue));
    let header = [&[0, 60, 0, 0][..], &1_u64.to_be_bytes(), &flag.to_be_bytes(), property].concat();
    send(&mut socket, HEADER, 1, &header);
    send(&mut socket, BODY, 1, b"x");
    assert_eq!(read(&mut socket)[..4], [0, 60, 0, 80], "basic.ack");
}

fn call(socket: &mut TcpStream, channel: u16, id: (u16, u16), arguments: &[u8]) {
    send(socket, METHOD, channel, &method(id, arguments));
    read(socket);
}

fn method((class, method): (u16, u16), arguments: &[u8]) -> Vec<u8> {
    [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat()
}

fn send(socket: &mut TcpStream, kind: u8, channel: u16, payload: &[u8]) {
    let size = u32::try_from(payload.len()).expect("fits").to_be_bytes();
    let frame = [&[kind][..], &channel.to_be_bytes(), &size, payload, &[0xce]].concat();
    socket.write_all(&frame).expect("writes");
}

fn read(socket: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 7];
    socket.read_exact(&mut head).expect("a frame");
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut payload = vec![0; size as usize + 1];
    socket.read_exact(&mut payload).expect("a whole frame");
    payload
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("short")], text].concat()
}

fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).expect("fits").to_be_bytes()[..], text].concat()
}
