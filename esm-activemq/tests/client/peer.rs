//! A peer that says what a test tells it to.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use esm_activemq::{
    client::{ClientError, Connection, ConsumerEvents, ConsumerOptions, Endpoint, Flaw, Transport},
    openwire::{
        Command, ConsumerId, Decoder, Destination, DispatchHead, Encoder, Message, MessageDispatch, MessageId,
        ProducerId, Response, WireFormat, WireFormatInfo, WireFormatOptions, split_frame,
    },
};
use esm_core::credentials::Login;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

/// Long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where a peer listens.
pub(crate) struct Listener {
    listener: TcpListener,
    pub(crate) endpoint: Endpoint,
}

impl Listener {
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let endpoint = format!("tcp://{}", listener.local_addr().expect("has an address"));
        Self { listener, endpoint: endpoint.parse().expect("an endpoint") }
    }

    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("in time").expect("accepts");
        Peer { stream, buffer: BytesMut::new(), format: WireFormat::INITIAL }
    }

    /// A client that dials, and the peer's end.
    pub(crate) async fn dialled(&self) -> (tokio::task::JoinHandle<Result<Transport, ClientError>>, Peer) {
        let endpoint = self.endpoint.clone();
        let dialling = tokio::spawn(async move { Transport::dial(&endpoint, &no_tls()).await });
        (dialling, self.accept().await)
    }

    /// A transport that is open, and the peer's end.
    pub(crate) async fn connected(&self) -> (Arc<Transport>, Peer) {
        let (dialling, mut peer) = self.dialled().await;
        peer.shake_hands(0).await;
        (Arc::new(dialling.await.expect("runs").expect("shakes hands")), peer)
    }

    /// A login that was accepted, and the peer's end.
    pub(crate) async fn logged_in(&self) -> (Connection, Peer) {
        let (transport, mut peer) = self.connected().await;
        let opening = tokio::spawn(async move { Connection::open(transport, &login(), "client").await });
        let connecting = peer.expect("ConnectionInfo").await;
        peer.answer(&connecting).await;
        peer.expect("SessionInfo").await;
        (opening.await.expect("runs").expect("logs in"), peer)
    }
}

pub(crate) fn no_tls() -> native_tls::TlsConnectorBuilder {
    native_tls::TlsConnector::builder()
}

pub(crate) fn login() -> Login {
    Login { username: "user".into(), password: "secret".into() }
}

pub(crate) fn options() -> ConsumerOptions {
    ConsumerOptions {
        destination: Destination::Queue("queue".into()),
        prefetch: 10,
        selector: None,
        exclusive: false,
        priority: 0,
    }
}

pub(crate) struct Peer {
    stream: TcpStream,
    buffer: BytesMut,
    format: WireFormat,
}

impl Peer {
    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("writes");
    }

    pub(crate) async fn say(&mut self, command: impl Into<Command>) {
        let bytes = frame(self.format, &command.into());
        self.say_bytes(&bytes).await;
    }

    /// Answers a command with success.
    pub(crate) async fn answer(&mut self, command: &Command) {
        let response = Response { correlation_id: command_id(command), ..Response::default() };
        self.say(response).await;
    }

    /// The next command of the client; none at the end of its stream.
    pub(crate) async fn next(&mut self) -> Option<Command> {
        loop {
            if let Some(frame) = split_frame(&mut self.buffer, 1_000_000).expect("the client's frames are whole") {
                return Some(Decoder::new(self.format).decode(frame).expect("the client speaks OpenWire"));
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.expect("something comes");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next command, which is of this type.
    pub(crate) async fn expect(&mut self, name: &str) -> Command {
        let command = self.next().await.expect("the client says something");
        let said = format!("{command:?}");
        assert!(said.starts_with(name), "expected {name}: {said}");
        command
    }

    /// Exchanges wire formats; either side may be silent for so many milliseconds.
    pub(crate) async fn shake_hands(&mut self, max_inactivity: i64) {
        self.expect("WireFormatInfo").await;
        self.say(wire_format_info(12, max_inactivity)).await;
        self.format = WireFormat::LOOSE;
    }

    /// Whether the client has closed the connection.
    pub(crate) async fn is_left(&mut self) -> bool {
        while let Some(command) = self.next().await {
            drop(command);
        }
        true
    }
}

pub(crate) fn wire_format_info(version: i32, max_inactivity: i64) -> WireFormatInfo {
    let options = WireFormatOptions {
        tight_encoding_enabled: true,
        cache_enabled: true,
        stack_trace_enabled: true,
        tcp_no_delay_enabled: true,
        cache_size: 1_024,
        max_inactivity_duration: max_inactivity,
        max_inactivity_duration_initial_delay: max_inactivity.min(100),
        max_frame_size: i64::MAX,
        ..WireFormatOptions::default()
    };
    WireFormatInfo::new(version, &options)
}

pub(crate) fn frame(format: WireFormat, command: &Command) -> Bytes {
    let mut bytes = BytesMut::new();
    Encoder::new(format).encode(command, &mut bytes).expect("can be written");
    bytes.freeze()
}

pub(crate) fn command_id(command: &Command) -> i32 {
    match command {
        Command::ConnectionInfo(info) => info.command_id,
        Command::ConsumerInfo(info) => info.command_id,
        Command::MessageAck(ack) => ack.command_id,
        Command::RemoveInfo(info) => info.command_id,
        Command::ConsumerControl(control) => control.command_id,
        other => panic!("nobody answers {other:?}"),
    }
}

pub(crate) fn dispatch(consumer_id: &ConsumerId, number: i64, text: &str) -> MessageDispatch {
    MessageDispatch {
        consumer_id: Some(consumer_id.clone()),
        destination: Some(Destination::Queue("queue".into())),
        message: Some(Message { message_id: Some(message_id(number)), persistent: true, ..Message::with_text(text) }),
        ..MessageDispatch::default()
    }
}

pub(crate) fn message_id(number: i64) -> MessageId {
    MessageId {
        text_view: None,
        producer_id: Some(ProducerId::new("ID:producer", 1, 1)),
        producer_sequence_id: number,
        broker_sequence_id: number,
    }
}

/// What a consumer has heard.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(String),
    Unreadable(DispatchHead, Flaw),
    Prefetch(i32),
    End(ClientError),
}

/// Passes on what a consumer hears.
pub(crate) struct Listening(pub(crate) mpsc::Sender<Heard>);

impl ConsumerEvents for Listening {
    fn message(&mut self, dispatch: Box<MessageDispatch>) {
        let message = dispatch.message.expect("a message");
        let text = message.text(1_000).expect("is text").expect("is not null").into_owned();
        self.0.try_send(Heard::Message(text)).expect("the test listens");
    }

    fn unreadable(&mut self, head: DispatchHead, flaw: Flaw) {
        self.0.try_send(Heard::Unreadable(head, flaw)).expect("the test listens");
    }

    fn prefetch_set(&mut self, prefetch: i32) {
        self.0.try_send(Heard::Prefetch(prefetch)).expect("the test listens");
    }

    fn end(&mut self, cause: ClientError) {
        // A test that has seen enough does not listen any more.
        drop(self.0.try_send(Heard::End(cause)));
    }
}

pub(crate) async fn heard(events: &mut mpsc::Receiver<Heard>) -> Heard {
    timeout(PATIENCE, events.recv()).await.expect("in time").expect("something is heard")
}
