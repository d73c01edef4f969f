//! What a function says of the records of a batch: `{"batchItemFailures":[{"itemIdentifier":"…"}]}`, read by the rules
//! that AWS has for SQS. Nothing at all, null and an empty list say that all succeeded; what cannot be understood, or
//! names what was not in the batch, says nothing, and the whole batch has failed.

use std::{borrow::Cow, collections::HashMap};

use serde::Deserialize;

use crate::source::Delivery;

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default, rename = "batchItemFailures")]
    failures: Option<Vec<Failure<'a>>>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow, rename = "itemIdentifier")]
    identifier: Cow<'a, str>,
}

/// Which of these the function failed with, by what it returned; words if that cannot be told.
pub(crate) fn failed(returned: &[u8], deliveries: &[Delivery]) -> Result<Vec<bool>, String> {
    let mut failed = vec![false; deliveries.len()];
    let failures = parse(returned)?;
    if failures.is_empty() {
        return Ok(failed);
    }
    let names = names(deliveries);
    for Failure { identifier } in failures {
        match names.get(&identifier) {
            Some(meant) if meant.by_identifier || meant.records.len() == 1 => {
                meant.records.iter().for_each(|index| failed[*index] = true);
            }
            Some(_) => return Err(format!("several messages have the messageId {}", shown(&identifier))),
            None => return Err(format!("no message of the batch has the itemIdentifier {}", shown(&identifier))),
        }
    }
    Ok(failed)
}

fn parse(returned: &[u8]) -> Result<Vec<Failure<'_>>, String> {
    let returned = returned.trim_ascii();
    if returned.is_empty() {
        return Ok(Vec::new());
    }
    if returned != b"null" && !returned.starts_with(b"{") {
        return Err("what it returned is no JSON object".into());
    }
    let answer: Option<Answer<'_>> = serde_json::from_slice(returned)
        .map_err(|error| format!("what it returned has no batchItemFailures as they must be: {error}"))?;
    Ok(answer.and_then(|answer| answer.failures).unwrap_or_default())
}

/// What a name stands for.
#[derive(Default)]
struct Named {
    records: Vec<usize>,
    by_identifier: bool,
}

/// An `itemIdentifier` names its records whatever message ids senders chose, and a message id where it is the only one
/// of its kind. Records share an identifier where a broker delivers copies of one message.
fn names(deliveries: &[Delivery]) -> HashMap<Cow<'_, str>, Named> {
    let mut names: HashMap<_, Named> = HashMap::with_capacity(deliveries.len());
    for (index, delivery) in deliveries.iter().enumerate() {
        if let Some(id) = delivery.record.message_id() {
            names.entry(unescaped(id)).or_default().records.push(index);
        }
    }
    for (index, delivery) in deliveries.iter().enumerate() {
        if let Some(identifier) = delivery.record.item_identifier() {
            let meant = names.entry(unescaped(identifier)).or_default();
            if !std::mem::replace(&mut meant.by_identifier, true) {
                meant.records.clear();
            }
            meant.records.push(index);
        }
    }
    names
}

/// A text as it was before it stood in JSON.
fn unescaped(json: &str) -> Cow<'_, str> {
    if !json.contains('\\') {
        return Cow::Borrowed(json);
    }
    serde_json::from_str(&format!("\"{json}\"")).map_or(Cow::Borrowed(json), Cow::Owned)
}

/// A text that a function chose, fit for a log.
fn shown(identifier: &str) -> String {
    format!("{:?}", &identifier[..identifier.floor_char_boundary(128)])
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{event::Record, testing};

    /// With this message id as it stands in JSON, and perhaps an `itemIdentifier`.
    fn delivery(message_id: &str, item_identifier: &str) -> Delivery {
        let json = format!(r#",{{"id":"{message_id}","redelivered":false,"itemIdentifier":"{item_identifier}"}}"#);
        let redelivered_at = json.find("false").unwrap();
        let identifier_at = json.len() - 2 - item_identifier.len();
        let record = Record::new(Bytes::from(json), redelivered_at, 8..8 + message_id.len(), 0..0)
            .with_item_identifier(identifier_at..identifier_at + item_identifier.len());
        Delivery { record, ..testing::delivery(1, 100) }
    }

    #[track_caller]
    fn check(returned: &str, expected: Result<&[usize], &str>) {
        let batch = [
            delivery("a", ""),
            delivery(r"b\n", ""),
            delivery("c", "7"),
            delivery("7", "8"),
            delivery("c", "9"),
            delivery("copy", "copy"),
            delivery("copy", "copy"),
        ];
        let failed = failed(returned.as_bytes(), &batch);
        let failed = failed.map(|failed| (0..).zip(failed).filter(|(_, failed)| *failed).map(|(index, _)| index));
        match (failed, expected) {
            (Ok(failed), Ok(expected)) => assert_eq!(failed.collect::<Vec<usize>>(), expected, "{returned}"),
            (Err(words), Err(expected)) => assert!(words.contains(expected), "{returned}: {words}"),
            (Ok(failed), Err(_)) => panic!("{returned} names {:?}", failed.collect::<Vec<_>>()),
            (Err(words), Ok(_)) => panic!("{returned}: {words}"),
        }
    }

    #[test]
    fn nothing_null_and_an_empty_list_are_success() {
        for returned in [
            "",
            " \n",
            "null",
            "{}",
            r#"{"batchItemFailures":null}"#,
            r#" {"batchItemFailures":[]} "#,
            r#"{"statusCode":200,"body":[{"itemIdentifier":"nobody"}]}"#,
        ] {
            check(returned, Ok(&[]));
        }
    }

    #[test]
    fn records_are_named_by_their_identifier_or_by_a_message_id_that_is_the_only_one() {
        let named = |identifiers: &[&str]| {
            let items: Vec<_> = identifiers.iter().map(|id| format!(r#"{{"itemIdentifier":"{id}"}}"#)).collect();
            format!(r#"{{"more":1,"batchItemFailures":[{}]}}"#, items.join(","))
        };
        check(&named(&["a"]), Ok(&[0]));
        check(&named(&["b\\u000a", "a", "a"]), Ok(&[0, 1]));
        check(&named(&["7"]), Ok(&[2]));
        check(&named(&["8", "9"]), Ok(&[3, 4]));
        check(&named(&["copy"]), Ok(&[5, 6]));
        check(&named(&["c"]), Err("several messages have the messageId \"c\""));
        check(&named(&["a", "x"]), Err("no message of the batch has the itemIdentifier \"x\""));
        check(&named(&[""]), Err("no message of the batch has the itemIdentifier \"\""));
    }

    #[test]
    fn what_cannot_be_understood_fails_the_whole_batch() {
        for returned in [
            r#""ok""#,
            "[]",
            "7",
            "true",
            "ok",
            r#"[[{"itemIdentifier":"a"}]]"#,
            "{",
            r#"{"batchItemFailures":{}}"#,
            r#"{"batchItemFailures":"a"}"#,
            r#"{"batchItemFailures":["a"]}"#,
            r#"{"batchItemFailures":[null]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":1}]}"#,
            r#"{"batchItemFailures":[{"messageId":"a"}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":"a"}]} x"#,
        ] {
            check(returned, Err("what it returned"));
        }
    }
}
