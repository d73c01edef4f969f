//! The table of everything that travels, in the order of the type numbers. Consumers need a dozen of these; the
//! others are here so that no frame has to be guessed at.

use bytes::Bytes;

#[cfg(test)]
use super::sample::{Sample, Source};
use super::{
    destination::Destination,
    error::{DecodeError, EncodeError, Problem},
    format::WireFormatInfo,
    ids::RemovedId,
    kinds::{Array, Cached, Kind, Object, Structure},
    message::{Message, MessageKind},
    reader::Reader,
    table::{Fields, commands, structure, value, with_base},
    text::{Secret, Text},
    throwable::Throwable,
    transaction::TransactionId,
    writer::Writer,
};

/// A structure of any type.
pub type Any = Box<Command>;

commands! {
    /// Who the broker is. Informational: it comes at any moment, or not at all.
    2 BrokerInfo: Base {
        broker_id: Cached<BrokerId>,
        broker_url: Text,
        peer_broker_infos: Array<BrokerInfo>,
        broker_name: Text,
        slave_broker: bool,
        master_broker: bool,
        fault_tolerant_configuration: bool,
        duplex_connection: bool,
        network_connection: bool,
        connection_id: i64,
        broker_upload_url: Text,
        network_properties: Text,
    }

    /// Opens a connection and logs in.
    3 ConnectionInfo: Base {
        connection_id: Cached<ConnectionId>,
        /// Brokers refuse a connection without one, and a second one with the same.
        client_id: Text,
        password: Secret,
        user_name: Text,
        broker_path: Array<BrokerId>,
        broker_master_connector: bool,
        /// Whether the broker may send [`ConnectionControl`] and [`ConsumerControl`].
        manageable: bool,
        client_master: bool,
        fault_tolerant: bool,
        failover_reconnect: bool,
        client_ip: Text,
    }

    /// Opens a session of a connection.
    4 SessionInfo: Base {
        session_id: Cached<SessionId>,
    }

    /// Opens a consumer of a session. Its first dispatches may come before the response.
    5 ConsumerInfo: Base {
        consumer_id: Cached<ConsumerId>,
        browser: bool,
        destination: Cached<Destination>,
        /// How many unacknowledged messages the broker may have sent.
        prefetch_size: i32,
        maximum_pending_message_limit: i32,
        dispatch_async: bool,
        selector: Text,
        client_id: Text = 10,
        subscription_name: Text,
        no_local: bool,
        exclusive: bool,
        retroactive: bool,
        priority: i8,
        broker_path: Array<BrokerId>,
        additional_predicate: Object<Any>,
        network_subscription: bool,
        optimized_acknowledge: bool,
        no_range_acks: bool,
        network_consumer_path: Array<ConsumerId>,
    }

    /// Opens a producer of a session; without a destination it may send anywhere.
    6 ProducerInfo: Base {
        producer_id: Cached<ProducerId>,
        destination: Cached<Destination>,
        broker_path: Array<BrokerId>,
        dispatch_async: bool,
        window_size: i32,
    }

    /// Begins or ends a transaction.
    7 TransactionInfo: Base {
        connection_id: Cached<ConnectionId>,
        transaction_id: Cached<TransactionId>,
        /// 0 begin, 1 prepare, 2 commit in one phase, 3 commit in two, 4 roll back, 5 recover, 6 forget, 7 end.
        transaction_type: i8,
    }

    /// Adds or removes a destination.
    8 DestinationInfo: Base {
        connection_id: Cached<ConnectionId>,
        destination: Cached<Destination>,
        /// 0 add, 1 remove.
        operation_type: i8,
        timeout: i64,
        broker_path: Array<BrokerId>,
    }

    /// Removes a durable subscription to a topic.
    9 RemoveSubscriptionInfo: Base {
        connection_id: Cached<ConnectionId>,
        subscription_name: Text,
        client_id: Text,
    }

    /// Says that the sender is alive; with `response_required` it is answered by the same command.
    10 KeepAliveInfo: Base {}

    /// The last frame before the connection is closed.
    11 ShutdownInfo: Base {}

    /// Removes a consumer, producer, session or connection.
    12 RemoveInfo: Base {
        object_id: Cached<RemovedId>,
        /// The broker's number of the last message that was looked at: -1 for none, -2 for unknown.
        last_delivered_sequence_id: i64,
    }

    /// Words from one broker to another.
    14 ControlCommand: Base {
        command: Text,
    }

    /// Asks a broker to write out what it holds back.
    15 FlushCommand: Base {}

    /// Something asynchronous failed, or the connection did.
    16 ConnectionError: Base {
        exception: Throwable,
        connection_id: Object<ConnectionId>,
    }

    /// Changes a consumer that is open, or says that the broker closed it.
    17 ConsumerControl: Base {
        destination: Object<Destination>,
        close: bool,
        consumer_id: Object<ConsumerId>,
        prefetch: i32,
        flush: bool,
        start: bool,
        stop: bool,
    }

    /// How the broker wants its clients to behave.
    18 ConnectionControl: Base {
        close: bool,
        exit: bool,
        fault_tolerant: bool,
        resume: bool,
        suspend: bool,
        connected_brokers: Text,
        reconnect_to: Text,
        rebalance_connection: bool,
        token: Bytes,
    }

    /// Gives a producer room to send on.
    19 ProducerAck: Base {
        producer_id: Object<ProducerId>,
        size: i32,
    }

    /// Asks the broker for one message, for a consumer with a prefetch of zero.
    20 MessagePull: Base {
        consumer_id: Cached<ConsumerId>,
        destination: Cached<Destination>,
        /// In milliseconds: 0 waits for ever, -1 not at all.
        timeout: i64,
        correlation_id: Text,
        message_id: Object<MessageId>,
    }

    /// Lends a message to a consumer. Without a message a pull has timed out, or a browser has seen everything.
    21 MessageDispatch: Base {
        consumer_id: Cached<ConsumerId>,
        destination: Cached<Destination>,
        message: Object<Message>,
        /// How often the message was lent before and came back; the message's own number is not kept up to date.
        redelivery_counter: i32,
    }

    /// Acknowledges a range of messages, in the order in which they were dispatched.
    22 MessageAck: Base {
        destination: Cached<Destination>,
        transaction_id: Cached<TransactionId>,
        consumer_id: Cached<ConsumerId>,
        /// 0 delivered, 1 poison, 2 standard, 3 redelivered, 4 individual, 5 unmatched, 6 expired.
        ack_type: i8,
        first_message_id: Object<MessageId>,
        last_message_id: Object<MessageId>,
        message_count: i32,
        poison_cause: Throwable,
    }

    /// A command with `response_required` was done.
    30 Response: Reply {}

    /// A command with `response_required` failed.
    31 ExceptionResponse: Reply {
        exception: Throwable,
    }

    /// A response that carries something.
    32 DataResponse: Reply {
        data: Object<Any>,
    }

    /// A response that carries several things.
    33 DataArrayResponse: Reply {
        data: Array<Any>,
    }

    /// A response that carries a number.
    34 IntegerResponse: Reply {
        result: i32,
    }

    /// A broker found by discovery.
    40 DiscoveryEvent {
        service_name: Text,
        broker_name: Text,
    }

    /// A record of a broker's journal.
    50 JournalTopicAck {
        destination: Object<Destination>,
        message_id: Object<MessageId>,
        message_sequence_id: i64,
        subscription_name: Text,
        client_id: Text,
        transaction_id: Object<TransactionId>,
    }

    /// A record of a broker's journal.
    52 JournalQueueAck {
        destination: Object<Destination>,
        message_ack: Object<MessageAck>,
    }

    /// A record of a broker's journal.
    53 JournalTrace {
        message: Text,
    }

    /// A record of a broker's journal.
    54 JournalTransaction {
        transaction_id: Object<TransactionId>,
        transaction_type: i8,
        was_prepared: bool,
    }

    /// A durable subscription to a topic.
    55 SubscriptionInfo {
        client_id: Text,
        destination: Cached<Destination>,
        selector: Text,
        subscription_name: Text,
        subscribed_destination: Object<Destination>,
        no_local: bool = 11,
    }

    /// A part of a command, on transports that cannot carry a whole one.
    60 PartialCommand {
        command_id: i32,
        data: Bytes,
    }

    /// The last part of a command, on transports that cannot carry a whole one.
    61 LastPartialCommand {
        command_id: i32,
        data: Bytes,
    }

    /// Asks for commands again, on transports that lose some.
    65 ReplayCommand: Base {
        first_nak_number: i32,
        last_nak_number: i32,
    }

    /// Tells a standby broker what was dispatched.
    90 MessageDispatchNotification: Base {
        consumer_id: Cached<ConsumerId>,
        destination: Cached<Destination>,
        delivery_sequence_id: i64,
        message_id: Object<MessageId>,
    }

    /// Keeps messages from going in circles in a network of brokers.
    91 NetworkBridgeFilter {
        network_ttl: i32 = 1 to 9,
        network_broker_id: Cached<BrokerId>,
        message_ttl: i32 = 10,
        consumer_ttl: i32 = 10,
    }

    /// The subscriptions of a broker, for the other end of a network bridge.
    92 BrokerSubscriptionInfo: Base {
        broker_id: Object<BrokerId>,
        broker_name: Text,
        subscription_infos: Array<Any>,
    }

    /// Which message. Brokers compare the producer and its sequence number alone.
    110 MessageId {
        /// Set for messages of foreign clients, whose ids have another form.
        text_view: Text = 10,
        producer_id: Cached<ProducerId>,
        producer_sequence_id: i64,
        /// The broker's own count.
        broker_sequence_id: i64,
    }

    /// Which transaction of the broker's own.
    111 LocalTransactionId {
        value: i64,
        connection_id: Cached<ConnectionId>,
    }

    /// Which transaction of a transaction manager.
    112 XaTransactionId {
        format_id: i32,
        global_transaction_id: Bytes,
        branch_qualifier: Bytes,
    }

    /// Which connection.
    120 ConnectionId {
        value: Text,
    }

    /// Which session of a connection.
    121 SessionId {
        connection_id: Text,
        value: i64,
    }

    /// Which consumer of a session.
    122 ConsumerId {
        connection_id: Text,
        session_id: i64,
        value: i64,
    }

    /// Which producer of a session.
    123 ProducerId {
        connection_id: Text,
        value: i64,
        session_id: i64,
    }

    /// Which broker.
    124 BrokerId {
        value: Text,
    }
}

impl Structure for Any {
    fn type_id(&self) -> u8 {
        Command::type_id(self)
    }

    fn read(type_id: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Command::read(type_id, reader).map(Box::new)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        match **self {
            Command::Null | Command::Unknown { .. } => {
                writer.refuse(EncodeError::NotNestable(Command::type_id(self)));
            }
            _ => Command::write(self, writer),
        }
    }
}
