//! Every kind of message as Java sends it: what a function sees is what Java's getters show.

use esm_activemq::{
    EventProfile,
    testing::{JavaMessage, TestBroker},
};
use esm_core::source::Arrival;
use serde_json::{Value, json};

use crate::bench::{Mapping, arrival, json as seen, stop};

#[tokio::test]
#[ignore = "needs a broker"]
async fn records_on_the_wire_say_what_javas_getters_show() {
    compare(EventProfile::Wire, on_the_wire).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn documented_records_say_what_javas_getters_show() {
    compare(EventProfile::Documented, documented).await;
}

async fn compare(profile: EventProfile, expected: fn(&JavaMessage, &Value) -> Value) {
    let broker = TestBroker::shared();
    let queue = broker.queue("catalogue");
    let catalogue = broker.produce_catalogue(&queue).await;
    assert!(catalogue.len() > 60 && catalogue.iter().any(|message| message.compressed));
    let mut mapping = Mapping::new(&broker, &queue);
    mapping.settings.profile = profile;
    let mut session = mapping.open(1_000).await;

    // Those that are not persistent may come before others.
    let mut remaining = catalogue.clone();
    for _ in &catalogue {
        let arrival = arrival(&mut session).await;
        let message_id = match &arrival {
            Arrival::Delivery(delivery) => delivery.record.message_id(),
            Arrival::Unusable(unusable) => unusable.message_id.as_deref(),
            Arrival::Surplus(_) => None,
        };
        let place = remaining.iter().position(|message| Some(&*message.message_id) == message_id);
        let message = remaining.swap_remove(place.expect("a message of the catalogue"));
        let is_usable = matches!(&*message.message_type, "jms/text-message" | "jms/bytes-message");
        match &arrival {
            Arrival::Delivery(delivery) => {
                assert!(is_usable, "{message:?}");
                let record = seen(&session, delivery);
                assert_eq!(record, expected(&message, &record), "{message:?}");
            }
            Arrival::Unusable(unusable) => {
                assert!(!is_usable, "{message:?}: {unusable:?}");
                assert!(unusable.cause.contains(&message.message_type), "{unusable:?}");
            }
            Arrival::Surplus(_) => panic!("there was no memory for {message:?}"),
        }
    }
    stop(session).await;
    broker.purge(&queue).await;
}

/// What the broker says about its dispatch is another for each consumer, so it is taken from the record.
fn on_the_wire(message: &JavaMessage, record: &Value) -> Value {
    json!({
        "messageID": message.message_id,
        "messageType": message.message_type,
        "timestamp": message.timestamp,
        "deliveryMode": message.delivery_mode,
        "correlationID": message.correlation_id.as_deref().unwrap_or_default(),
        "replyTo": message.reply_to.as_deref().unwrap_or("null"),
        "destination": { "physicalName": physical_name(message) },
        "redelivered": message.redelivered,
        "type": message.jms_type.as_deref().unwrap_or_default(),
        "expiration": message.expiration,
        "priority": message.priority,
        "data": message.body.as_deref().unwrap_or_default(),
        "brokerInTime": message.broker_in_time,
        "brokerOutTime": broker_out_time(message, record),
        "properties": properties(message),
    })
}

fn documented(message: &JavaMessage, record: &Value) -> Value {
    json!({
        "messageID": message.message_id,
        "messageType": message.message_type,
        "timestamp": message.timestamp,
        "deliveryMode": message.delivery_mode,
        "correlationId": message.correlation_id,
        "correlationID": message.correlation_id,
        "replyTo": message.reply_to,
        "type": message.jms_type,
        "expiration": message.expiration.to_string(),
        "priority": message.priority,
        "redelivered": message.redelivered,
        "destination": { "physicalname": physical_name(message), "physicalName": physical_name(message) },
        "data": message.body.as_deref().unwrap_or_default(),
        "brokerInTime": message.broker_in_time,
        "brokerOutTime": broker_out_time(message, record),
        "properties": properties(message),
    })
}

fn physical_name(message: &JavaMessage) -> &str {
    message.destination.trim_start_matches("queue://")
}

fn broker_out_time<'a>(message: &JavaMessage, record: &'a Value) -> &'a Value {
    let time = &record["brokerOutTime"];
    assert!(time.as_i64().is_some_and(|time| time >= message.broker_in_time), "{record}");
    time
}

/// Without those that are null, and without the count of deliveries.
fn properties(message: &JavaMessage) -> Value {
    let shown = message.properties.iter().filter(|(name, value)| value.is_some() && *name != "JMSXDeliveryCount");
    shown.map(|(name, value)| (name.clone(), json!(value.as_deref().map(as_it_was_sent)))).collect()
}

/// Java's client writes the values of properties in its modified UTF-8 and reads them as if they were in the common
/// one, so it garbles what the two have differently: NUL, and characters outside of the basic plane.
fn as_it_was_sent(value: &str) -> &str {
    if value == "A\u{fffd}\u{fffd}é€\u{fffd}\u{fffd}z" { "A\0é€😀z" } else { value }
}
