//! Messages, acknowledgements, and how consumers end.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use esm_activemq::{
    client::{AckKind, Acknowledgement, ClientError, Consumer, Flaw, NONE_DELIVERED},
    openwire::{
        Command, ConnectionError, ConsumerControl, ConsumerId, ExceptionResponse, KeepAliveInfo, Throwable, WireFormat,
    },
};
use tokio::sync::mpsc;

use crate::peer::{Heard, Listener, Listening, Peer, command_id, dispatch, frame, heard, login, message_id, options};

struct Bench {
    consumer: Consumer,
    id: ConsumerId,
    events: mpsc::Receiver<Heard>,
    peer: Peer,
}

impl Bench {
    /// A consumer that got a message before it was told that it exists.
    async fn new() -> Self {
        let (connection, mut peer) = Listener::bind().await.logged_in().await;
        let (sender, mut events) = mpsc::channel(100);
        let consuming = tokio::spawn(async move { connection.consume(options(), Box::new(Listening(sender))).await });
        let Command::ConsumerInfo(info) = peer.expect("ConsumerInfo").await else { unreachable!() };
        let id = info.consumer_id.clone().expect("has an id");
        peer.say(dispatch(&id, 1, "early")).await;
        assert!(matches!(heard(&mut events).await, Heard::Message(text) if text == "early"));
        peer.answer(&Command::ConsumerInfo(info)).await;
        let consumer = consuming.await.expect("runs").expect("consumes");
        Self { consumer, id, events, peer }
    }

    async fn next_text(&mut self) -> String {
        match heard(&mut self.events).await {
            Heard::Message(text) => text,
            other => panic!("{other:?}"),
        }
    }

    async fn end(&mut self) -> ClientError {
        match heard(&mut self.events).await {
            Heard::End(cause) => cause,
            other => panic!("{other:?}"),
        }
    }
}

fn standard(first: i64, last: i64) -> Acknowledgement {
    let count = i32::try_from(last - first + 1).expect("small");
    Acknowledgement { kind: AckKind::Standard, first: message_id(first), last: message_id(last), count }
}

fn unmatched(consumer_id: &ConsumerId) -> Throwable {
    let words =
        format!("Unmatched acknowledge: MessageAck {{commandId = 5, consumerId = {consumer_id}, firstMessageId = x}}");
    Throwable { class: Some("javax.jms.JMSException".into()), message: Some(words.into()), ..Throwable::default() }
}

#[tokio::test]
async fn dispatches_for_nobody_and_without_a_message_are_passed_over() {
    let mut bench = Bench::new().await;
    let stranger = ConsumerId { value: 999, ..bench.id.clone() };
    bench.peer.say(dispatch(&stranger, 2, "stray")).await;
    bench.peer.say(dispatch(&bench.id, 3, "mine")).await;
    assert_eq!(bench.next_text().await, "mine");
}

#[tokio::test]
async fn frames_may_come_in_any_pieces() {
    let mut bench = Bench::new().await;
    let bytes: Vec<u8> = (0..20)
        .flat_map(|number| frame(WireFormat::LOOSE, &dispatch(&bench.id, number, &number.to_string()).into()))
        .collect();
    for piece in bytes.chunks(7) {
        bench.peer.say_bytes(piece).await;
    }
    for number in 0..20 {
        assert_eq!(bench.next_text().await, number.to_string());
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_told_by_its_head_and_hurts_no_other() {
    let mut bench = Bench::new().await;
    let whole = frame(WireFormat::LOOSE, &dispatch(&bench.id, 2, "bad").into());
    // One byte more than the frame has fields for.
    let mut longer = BytesMut::new();
    longer.put_i32(i32::try_from(whole.len() - 4 + 1).expect("small"));
    longer.put_slice(&whole[4..]);
    longer.put_u8(0);
    bench.peer.say_bytes(&longer).await;
    bench.peer.say(dispatch(&bench.id, 3, "good")).await;
    let Heard::Unreadable(head, Flaw::Undecodable { words }) = heard(&mut bench.events).await else {
        panic!("is told by its head")
    };
    assert_eq!(head.message_id, Some(message_id(2)));
    assert!(!words.is_empty());
    assert_eq!(bench.next_text().await, "good");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_passed_over_and_told_by_its_head() {
    let mut bench = Bench::new().await;
    let whole = frame(WireFormat::LOOSE, &dispatch(&bench.id, 2, "").into());
    let claimed: usize = 20 * 1024 * 1024;
    let mut head = BytesMut::new();
    head.put_i32(i32::try_from(claimed).expect("fits"));
    head.put_slice(&whole[4..]);
    bench.peer.say_bytes(&head).await;
    let rest = vec![0; claimed - (head.len() - 4)];
    bench.peer.say_bytes(&rest).await;
    bench.peer.say(dispatch(&bench.id, 3, "next")).await;
    let Heard::Unreadable(head, Flaw::TooLarge { bytes }) = heard(&mut bench.events).await else {
        panic!("is told by its head")
    };
    assert_eq!((head.message_id, bytes), (Some(message_id(2)), claimed as u64));
    assert_eq!(bench.next_text().await, "next");
}

#[tokio::test]
async fn an_acknowledgement_names_consumer_queue_both_ends_and_the_count() {
    let mut bench = Bench::new().await;
    bench.consumer.acknowledge(standard(1, 3));
    let asked = bench.consumer.acknowledge_all([], standard(4, 4));
    let Command::MessageAck(range) = bench.peer.expect("MessageAck").await else { unreachable!() };
    assert_eq!((range.ack_type, range.message_count, range.response_required), (2, 3, false));
    assert_eq!((range.first_message_id, range.last_message_id), (Some(message_id(1)), Some(message_id(3))));
    assert_eq!(range.consumer_id, Some(bench.id.clone()));
    assert!(range.destination.is_some(), "the broker fails without one");
    let last = bench.peer.expect("MessageAck").await;
    bench.peer.answer(&last).await;
    asked.wait().await.expect("is acknowledged");
}

#[tokio::test]
async fn a_refused_acknowledgement_is_told_to_who_asked_and_the_connection_goes_on() {
    let mut bench = Bench::new().await;
    let asked = bench.consumer.acknowledge_all([], standard(1, 1));
    let ack = bench.peer.expect("MessageAck").await;
    let refusal = ExceptionResponse {
        correlation_id: command_id(&ack),
        exception: Some(Box::new(unmatched(&bench.id))),
        ..ExceptionResponse::default()
    };
    bench.peer.say(refusal).await;
    let Err(ClientError::Refused(exception)) = asked.wait().await else { panic!("is refused") };
    assert!(exception.message.starts_with("Unmatched acknowledge"));
    bench.peer.say(dispatch(&bench.id, 2, "goes on")).await;
    assert_eq!(bench.next_text().await, "goes on");
}

#[tokio::test]
async fn a_complaint_about_an_acknowledgement_ends_the_consumer_that_it_names_and_no_other() {
    let mut bench = Bench::new().await;
    let complaint =
        |id: &ConsumerId| ConnectionError { exception: Some(Box::new(unmatched(id))), ..ConnectionError::default() };
    bench.peer.say(complaint(&ConsumerId { value: 999, ..bench.id.clone() })).await;
    bench.peer.say(dispatch(&bench.id, 2, "untouched")).await;
    assert_eq!(bench.next_text().await, "untouched");
    bench.peer.say(complaint(&bench.id.clone())).await;
    assert!(matches!(bench.end().await, ClientError::AckRefused(_)));
}

#[tokio::test]
async fn the_broker_may_close_a_consumer_or_change_its_prefetch() {
    let mut bench = Bench::new().await;
    let control = ConsumerControl { consumer_id: Some(bench.id.clone()), ..ConsumerControl::default() };
    bench.peer.say(ConsumerControl { prefetch: 5, ..control.clone() }).await;
    assert!(matches!(heard(&mut bench.events).await, Heard::Prefetch(5)));
    bench.peer.say(ConsumerControl { close: true, ..control.clone() }).await;
    assert_eq!(bench.end().await, ClientError::ConsumerClosed);
    // It says so twice.
    bench.peer.say(ConsumerControl { close: true, ..control }).await;
    bench.peer.say(KeepAliveInfo { command_id: 1, response_required: true }).await;
    bench.peer.expect("KeepAliveInfo").await;
}

#[tokio::test]
async fn a_goodbye_names_what_was_delivered_and_what_comes_late_is_dropped() {
    let mut bench = Bench::new().await;
    let id = bench.id.clone();
    let consumer = bench.consumer;
    let closing = tokio::spawn(async move { consumer.close(NONE_DELIVERED, Duration::from_secs(60)).await });
    let removal = bench.peer.expect("RemoveInfo").await;
    let Command::RemoveInfo(info) = &removal else { unreachable!() };
    assert_eq!(info.last_delivered_sequence_id, NONE_DELIVERED);
    bench.peer.answer(&removal).await;
    bench.peer.say(dispatch(&id, 2, "late")).await;
    let removal = bench.peer.expect("RemoveInfo").await;
    bench.peer.answer(&removal).await;
    closing.await.expect("runs").expect("says goodbye");
}

#[tokio::test]
async fn a_consumer_that_is_dropped_gives_its_connection_back() {
    let mut bench = Bench::new().await;
    let transport = bench.consumer.transport().clone();
    drop(bench.consumer);
    let Command::RemoveInfo(info) = bench.peer.expect("RemoveInfo").await else { unreachable!() };
    assert!(!info.response_required);
    drop(transport);
    assert!(bench.peer.is_left().await, "the last one closes the socket");
}

#[tokio::test]
async fn a_silent_peer_is_noticed_and_a_quiet_one_that_keeps_alive_is_not() {
    let listener = Listener::bind().await;
    let (dialling, mut peer) = listener.dialled().await;
    peer.shake_hands(1_000).await;
    let transport = std::sync::Arc::new(dialling.await.expect("runs").expect("shakes hands"));
    let opening =
        tokio::spawn(async move { esm_activemq::client::Connection::open(transport, &login(), "client").await });
    // It keeps alive for longer than it may be silent, and then stops.
    for _ in 0..10 {
        peer.say(KeepAliveInfo::default()).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let error = opening.await.expect("runs").err().expect("fails");
    assert_eq!(error, ClientError::SilentPeer(Duration::from_secs(1)));
    assert!(peer.is_left().await);
}
