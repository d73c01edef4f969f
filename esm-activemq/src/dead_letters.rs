//! Dead letters of our own, for messages that the broker would drop instead of dead-lettering them:
//! those that are not persistent, and those that it has dead-lettered once before.

use std::borrow::Cow;

use crate::{
    openwire::{Destination, Message, Primitive, encode_properties, properties},
    reader::FAILURE_CAUSE,
};

/// Whether a message lies where dead letters lie: there is no further place for it.
pub(crate) fn is_at_rest(message: &Message, dead_letter_queue: &str) -> bool {
    let queue = message.destination.as_ref().map(|destination| destination.physical_name().to_str());
    queue.is_some_and(|queue| {
        queue == dead_letter_queue || queue.starts_with("ActiveMQ.DLQ") || queue.starts_with("DLQ.")
    })
}

/// The message as it is to lie in the dead-letter queue: body and headers kept, persistent and without expiry, with
/// the properties that the broker gives to what it dead-letters itself. It gets a new message id when it is sent.
pub(crate) fn letter(original: &Message, dead_letter_queue: &str, cause: &str) -> Result<Message, String> {
    let text = |text: String| Primitive::String(Cow::Owned(text));
    let mut kept: Vec<(Cow<'_, str>, Primitive<'_>)> = Vec::new();
    if let Some(bytes) = &original.marshalled_properties {
        for property in properties(bytes).map_err(|error| error.to_string())? {
            let (name, value) = property.map_err(|error| error.to_string())?;
            if name != FAILURE_CAUSE {
                kept.push((name, value));
            }
        }
    }
    kept.push((FAILURE_CAUSE.into(), text(format!("java.lang.Throwable: {cause}"))));
    if let Some(message_id) = &original.message_id {
        kept.push(("originalMessageId".into(), text(message_id.to_string())));
    }
    if original.expiration > 0 {
        kept.push(("originalExpiration".into(), Primitive::Long(original.expiration)));
    }
    let marshalled_properties = encode_properties(kept).map_err(|error| error.to_string())?;
    Ok(Message {
        destination: Some(Destination::Queue(dead_letter_queue.into())),
        original_destination: original.original_destination.clone().or_else(|| original.destination.clone()),
        marshalled_properties: Some(marshalled_properties),
        persistent: true,
        expiration: 0,
        redelivery_counter: 0,
        transaction_id: None,
        original_transaction_id: None,
        target_consumer_id: None,
        broker_path: None,
        cluster: None,
        ..original.clone()
    })
}
