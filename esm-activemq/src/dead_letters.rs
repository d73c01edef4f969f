//! Dead letters of our own, for messages that the broker would drop instead of dead-lettering them:
//! those that are not persistent, and those that it has dead-lettered once before.

use std::borrow::Cow;

use memchr::memmem;

use crate::{
    ledger::Fate,
    openwire::{DecodeError, Destination, DispatchHead, Message, Primitive, encode_properties, properties},
};

/// What of a cause reaches a dead letter: it becomes a property, which may hold 64 KiB.
pub(crate) const LONGEST_CAUSE: usize = 4_096;
/// The property that the broker gives to what it dead-letters for a cause.
const FAILURE_CAUSE: &str = "dlqDeliveryFailureCause";
/// The one that it gives to what has expired.
const ORIGINAL_EXPIRATION: &str = "originalExpiration";
/// Ours: the letter has an id of its own.
const ORIGINAL_MESSAGE_ID: &str = "originalMessageId";
/// Ours: why the letter lacks the message's own properties.
const PROPERTIES_LEFT_OUT: &str = "esm_properties_left_out";
/// How the names of dead-letter queues begin, unless a policy chooses others.
const DEAD_LETTER_QUEUES: [&[u8]; 2] = [b"ActiveMQ.DLQ", b"DLQ."];

/// What the broker would do with a message that cannot be processed, by its defaults: it drops messages that are not
/// persistent, those whose id it has dead-lettered once before, and those that lie on a dead-letter queue already.
/// A copy that a virtual topic or another router made shares its id with the others.
pub(crate) fn fate(queue: Option<&Destination>, message: &Message, dead_letter_queue: &str) -> Fate {
    if is_at_rest(queue, dead_letter_queue) {
        return AT_REST;
    }
    let has = |name: &str| {
        let properties = message.marshalled_properties.as_ref();
        properties.is_some_and(|bytes| memmem::find(bytes, name.as_bytes()).is_some())
    };
    let was_moved = message.original_destination.is_some();
    if !message.persistent || was_moved || has(FAILURE_CAUSE) || has(ORIGINAL_EXPIRATION) {
        return Fate::Dropped(Box::new(message.clone()));
    }
    Fate::Kept
}

/// Likewise, of a message of which only the head is known.
pub(crate) fn fate_of_head(head: &DispatchHead, dead_letter_queue: &str) -> Fate {
    if is_at_rest(head.destination.as_ref(), dead_letter_queue) {
        return AT_REST;
    }
    if head.persistent && !head.was_moved {
        return Fate::Kept;
    }
    Fate::Doomed("the broker might drop it, since it is a copy or not persistent, and it cannot be published again")
}

const AT_REST: Fate = Fate::Doomed("it lies on a dead-letter queue already, where the broker would drop it");

fn is_at_rest(queue: Option<&Destination>, dead_letter_queue: &str) -> bool {
    let Some(name) = queue.map(|queue| queue.physical_name().as_bytes()) else { return false };
    name == dead_letter_queue.as_bytes() || DEAD_LETTER_QUEUES.iter().any(|start| name.starts_with(start))
}

/// The message as it is to lie in the dead-letter queue: body and headers kept, persistent and without expiry, with
/// the properties that the broker gives to what it dead-letters itself, and further reasons. Properties of its own that
/// cannot be read are left out. It gets a new message id when it is sent.
pub(crate) fn letter<'a>(
    original: &'a Message,
    dead_letter_queue: &str,
    cause: &str,
    reasons: impl IntoIterator<Item = (&'a str, String)>,
) -> Result<Message, String> {
    let reasons: Vec<_> = reasons.into_iter().collect();
    let text = |text: String| Primitive::String(Cow::Owned(text));
    let own = original.marshalled_properties.as_deref().map_or(Ok(Vec::new()), |bytes| properties(bytes)?.collect());
    let mut kept: Vec<(Cow<'_, str>, Primitive<'_>)> = own.unwrap_or_else(|error: DecodeError| {
        vec![(PROPERTIES_LEFT_OUT.into(), text(format!("they cannot be read: {error}")))]
    });
    let is_told_anew = |name: &str| {
        name == FAILURE_CAUSE || name == ORIGINAL_MESSAGE_ID || reasons.iter().any(|(reason, _)| *reason == name)
    };
    kept.retain(|(name, _)| !is_told_anew(name));
    kept.push((FAILURE_CAUSE.into(), text(format!("java.lang.Throwable: {cause}"))));
    if let Some(message_id) = &original.message_id {
        kept.push((ORIGINAL_MESSAGE_ID.into(), text(message_id.to_string())));
    }
    if original.expiration > 0 {
        kept.push((ORIGINAL_EXPIRATION.into(), Primitive::Long(original.expiration)));
    }
    kept.extend(reasons.into_iter().map(|(name, reason)| (Cow::Borrowed(name), text(reason))));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openwire::MessageId;

    fn message(persistent: bool, properties: &[(&str, &str)]) -> Message {
        let properties = properties.iter().map(|(name, value)| (*name, Primitive::String((*value).into())));
        Message {
            persistent,
            destination: Some(Destination::Queue("orders".into())),
            marshalled_properties: Some(encode_properties(properties).unwrap()),
            ..Message::with_text("body")
        }
    }

    fn fate_on(queue: &str, message: &Message) -> &'static str {
        match fate(Some(&Destination::Queue(queue.into())), message, "letters") {
            Fate::Kept => "kept",
            Fate::Dropped(_) => "dropped",
            Fate::Doomed(_) => "doomed",
        }
    }

    #[test]
    fn what_the_broker_would_drop_is_known_beforehand() {
        let check = |queue, persistent, properties, expected| {
            assert_eq!(
                fate_on(queue, &message(persistent, properties)),
                expected,
                "{queue} {persistent} {properties:?}"
            );
        };
        check("orders", true, &[("colour", "red")], "kept");
        check("orders", false, &[], "dropped");
        check("orders", true, &[(FAILURE_CAUSE, "once before")], "dropped");
        check("orders", true, &[(ORIGINAL_EXPIRATION, "7")], "dropped");
        for queue in ["ActiveMQ.DLQ", "ActiveMQ.DLQ.Queue.orders", "DLQ.orders", "letters"] {
            check(queue, true, &[], "doomed");
        }
    }

    #[test]
    fn a_letter_keeps_the_message_and_says_why_and_where_from() {
        let original = Message {
            expiration: 5,
            message_id: Some(MessageId { text_view: Some("ID:1".into()), ..MessageId::default() }),
            ..message(false, &[("colour", "red"), (FAILURE_CAUSE, "once before")])
        };
        let letter = letter(&original, "letters", "the function failed", [("esm_reason", "attempts".into())]).unwrap();
        assert!(letter.persistent && letter.expiration == 0);
        assert_eq!(letter.content, original.content);
        assert_eq!(letter.destination, Some(Destination::Queue("letters".into())));
        assert_eq!(letter.original_destination, original.destination);
        let properties: Vec<_> = properties(letter.marshalled_properties.as_ref().unwrap())
            .unwrap()
            .map(|property| property.unwrap())
            .collect();
        let expected = [
            ("colour", Primitive::String("red".into())),
            (FAILURE_CAUSE, Primitive::String("java.lang.Throwable: the function failed".into())),
            (ORIGINAL_MESSAGE_ID, Primitive::String("ID:1".into())),
            (ORIGINAL_EXPIRATION, Primitive::Long(5)),
            ("esm_reason", Primitive::String("attempts".into())),
        ];
        assert_eq!(properties, expected.map(|(name, value)| (Cow::Borrowed(name), value)));
    }

    #[test]
    fn properties_that_cannot_be_read_are_left_out_and_that_is_said() {
        let whole = message(true, &[("colour", "red")]).marshalled_properties.unwrap();
        for length in [2, whole.len() - 1] {
            let original = Message { marshalled_properties: Some(whole.slice(..length)), ..message(true, &[]) };
            let letter = letter(&original, "letters", "it failed", [("esm_reason", "attempts".into())]).unwrap();
            assert_eq!(letter.content, original.content);
            let kept = properties(letter.marshalled_properties.as_ref().unwrap()).unwrap();
            let names: Vec<_> = kept.map(|property| property.unwrap().0.into_owned()).collect();
            assert_eq!(names, [PROPERTIES_LEFT_OUT, FAILURE_CAUSE, "esm_reason"]);
        }
    }
}
