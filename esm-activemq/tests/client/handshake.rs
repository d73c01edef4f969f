//! From the first byte to the answer to a login.

use std::time::Duration;

use esm_activemq::{
    client::{ClientError, Connection, Transport},
    openwire::{
        BrokerInfo, Command, ConnectionControl, ExceptionResponse, KeepAliveInfo, ShutdownInfo, Throwable, WireFormat,
    },
};

use crate::peer::{Listener, PATIENCE, frame, login, no_tls, wire_format_info};

/// Why dialling fails with a peer that says these bytes and leaves.
async fn refused_by(bytes: &[u8]) -> ClientError {
    let listener = Listener::bind().await;
    let (dialling, mut peer) = listener.dialled().await;
    peer.expect("WireFormatInfo").await;
    peer.say_bytes(bytes).await;
    drop(peer);
    dialling.await.expect("runs").err().expect("is refused")
}

#[tokio::test]
async fn the_client_speaks_first_and_asks_for_loose_frames_without_a_cache() {
    let listener = Listener::bind().await;
    let (_dialling, mut peer) = listener.dialled().await;
    let Command::WireFormatInfo(info) = peer.expect("WireFormatInfo").await else { unreachable!() };
    let options = info.options().expect("can be read");
    assert_eq!(info.version, 12);
    assert!(!options.tight_encoding_enabled && !options.cache_enabled && !options.size_prefix_disabled);
    assert!(options.tcp_no_delay_enabled, "brokers wait with small frames otherwise");
    assert!(options.cache_size == 0 || options.cache_size >= 100, "brokers never stop evicting from a smaller one");
    assert_eq!(options.max_inactivity_duration, 30_000);
}

#[tokio::test]
async fn versions_10_to_12_are_spoken_and_9_is_refused_clearly() {
    for version in [10, 11, 12, 13, 255] {
        let listener = Listener::bind().await;
        let (dialling, mut peer) = listener.dialled().await;
        peer.expect("WireFormatInfo").await;
        peer.say(wire_format_info(version, 0)).await;
        dialling.await.expect("runs").unwrap_or_else(|error| panic!("{version}: {error}"));
    }
    for version in [0, 9] {
        let info = frame(WireFormat::INITIAL, &wire_format_info(version, 0).into());
        let error = refused_by(&info).await;
        assert_eq!(error, ClientError::VersionTooOld { theirs: version });
        assert!(error.to_string().contains("ActiveMQ 5.9 or newer"), "{error}");
    }
}

#[tokio::test]
async fn whatever_is_no_openwire_is_told_with_what_it_began_with() {
    let mut bad_magic = frame(WireFormat::INITIAL, &wire_format_info(12, 0).into()).to_vec();
    bad_magic[5] = b'X';
    let another = frame(WireFormat::INITIAL, &KeepAliveInfo::default().into());
    for (bytes, words) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "HTTP/1.1 400 Bad"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "\\x15\\x03\\x03"),
        (b"AMQP\0\0\x09\x01", "AMQP"),
        (b"\xff\xff\xff\xff\xff", "-1"),
        (b"\0\0\0\0", "0"),
        (b"\x7f\xff\xff\xff", "2147483647"),
        (&bad_magic, "magic"),
        (&another, "another command"),
        (&bad_magic[..20], "closed"),
    ] {
        let error = refused_by(bytes).await;
        assert!(matches!(error, ClientError::NotOpenWire { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error} has no {words}");
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_without_a_word_may_be_one_too_many() {
    let error = refused_by(b"").await;
    assert_eq!(error, ClientError::ClosedWithoutAWord);
    assert!(error.to_string().contains("connection limit"));
}

#[tokio::test]
async fn nobody_at_all_is_unreachable() {
    let listener = Listener::bind().await;
    let endpoint = listener.endpoint.clone();
    drop(listener);
    let error = Transport::dial(&endpoint, &no_tls()).await.err().expect("is refused");
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_given_up_in_time() {
    let listener = Listener::bind().await;
    let endpoint = listener.endpoint.clone();
    let error = Transport::dial(&endpoint, &no_tls()).await.err().expect("is given up");
    assert_eq!(error, ClientError::Mute(Duration::from_secs(10)));
}

#[tokio::test]
async fn the_wire_format_may_come_byte_by_byte() {
    let listener = Listener::bind().await;
    let (dialling, mut peer) = listener.dialled().await;
    for byte in frame(WireFormat::INITIAL, &wire_format_info(12, 0).into()) {
        peer.say_bytes(&[byte]).await;
    }
    dialling.await.expect("runs").expect("shakes hands");
}

#[tokio::test]
async fn what_comes_between_a_login_and_its_answer_is_no_answer() {
    let listener = Listener::bind().await;
    let (transport, mut peer) = listener.connected().await;
    let opening = tokio::spawn(async move { Connection::open(transport, &login(), "client").await });
    let connecting = peer.expect("ConnectionInfo").await;
    peer.say(BrokerInfo::default()).await;
    peer.say(ConnectionControl::default()).await;
    peer.say(KeepAliveInfo::default()).await;
    peer.say_bytes(b"\0\0\0\x03\xc8ab").await; // a type that nobody knows
    peer.say_bytes(b"\0\0\0\x01\0").await; // the null command
    peer.answer(&connecting).await;
    opening.await.expect("runs").expect("logs in");
}

#[tokio::test]
async fn a_keep_alive_that_wants_an_answer_gets_a_keep_alive() {
    let listener = Listener::bind().await;
    let (_transport, mut peer) = listener.connected().await;
    peer.say(KeepAliveInfo { command_id: 77, response_required: true }).await;
    let Command::KeepAliveInfo(answer) = peer.expect("KeepAliveInfo").await else { unreachable!() };
    assert_eq!((answer.command_id, answer.response_required), (77, false));
}

#[tokio::test]
async fn a_refused_login_is_told_in_the_brokers_words_without_control_characters() {
    let listener = Listener::bind().await;
    let (transport, mut peer) = listener.connected().await;
    let shared = transport.clone();
    let opening = tokio::spawn(async move { Connection::open(shared, &login(), "client").await });
    let Command::ConnectionInfo(info) = peer.expect("ConnectionInfo").await else { unreachable!() };
    assert!(!format!("{info:?}").contains("secret"), "a password is never printed");
    let exception = Throwable {
        class: Some("java.lang.SecurityException".into()),
        message: Some(format!("User name [user] or\n\u{1b}[31m password is invalid.{}", "!".repeat(10_000)).into()),
        ..Throwable::default()
    };
    let refusal = ExceptionResponse {
        correlation_id: info.command_id,
        exception: Some(Box::new(exception)),
        ..ExceptionResponse::default()
    };
    peer.say(refusal).await;
    let Err(ClientError::Refused(said)) = opening.await.expect("runs") else { panic!("is refused") };
    assert_eq!(said.simple_name(), "SecurityException");
    assert!(said.message.starts_with("User name [user] or  [31m password"), "{said}");
    assert!(said.message.len() <= 1_000, "it is cut to a size fit for a log");
    let Some(Command::RemoveInfo(_)) = peer.next().await else { panic!("the connection is cleared away") };
    drop(transport);
}

#[tokio::test]
async fn a_login_that_is_not_answered_fails_when_the_transport_ends() {
    for last_words in [frame(WireFormat::LOOSE, &ShutdownInfo::default().into()).to_vec(), Vec::new()] {
        let listener = Listener::bind().await;
        let (transport, mut peer) = listener.connected().await;
        let opening = tokio::spawn(async move { Connection::open(transport, &login(), "client").await });
        peer.expect("ConnectionInfo").await;
        peer.say_bytes(&last_words).await;
        drop(peer);
        let error = tokio::time::timeout(PATIENCE, opening).await.expect("in time").expect("runs").err();
        match error.expect("fails") {
            ClientError::Stopping { .. } if !last_words.is_empty() => {}
            ClientError::Lost { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn bad_bytes_after_the_handshake_end_the_transport_with_an_error() {
    for bytes in [
        &b"\xff\xff\xff\xff"[..],              // a negative length
        b"\0\0\0\0",                           // no type
        b"\x7f\xff\xff\xff\x1e",               // a response of 2 GiB
        b"\0\0\0\x02\x1e\0",                   // a response that is cut off
        b"\0\0\0\x0b\x1e\0\0\0\0\0\0\0\0\0\0", // a response that goes on
        b"\0\0\0\x06\x15\0\0\0\0\0",           // a dispatch without a head
    ] {
        let listener = Listener::bind().await;
        let (transport, mut peer) = listener.connected().await;
        let opening = tokio::spawn(async move { Connection::open(transport, &login(), "client").await });
        peer.expect("ConnectionInfo").await;
        let mut bytes = bytes.to_vec();
        bytes.resize(100_000, 0x7f);
        peer.say_bytes(&bytes).await;
        let error = opening.await.expect("runs").err().expect("fails");
        assert!(matches!(error, ClientError::Protocol { .. } | ClientError::FrameTooLarge { .. }), "{error:?}");
    }
}
