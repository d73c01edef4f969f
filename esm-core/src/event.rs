//! Records and events: finished JSON fragments that are encoded once, counted by length and sent
//! without being joined.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Lambda's limit for a synchronous request. An event stays *below* it ("Request must be smaller
/// than 6291456 bytes for the `InvokeFunction` operation").
pub const EVENT_SIZE_LIMIT: usize = 6 * 1024 * 1024;

/// The two spellings of the `redelivered` flag. Both have five bytes, so a retry changes no size.
pub const REDELIVERED: [&[u8; 5]; 2] = [b"false", b"true "];

/// One message as its finished JSON record, preceded by the comma that separates it from the
/// record before it.
#[derive(Clone, Debug)]
pub struct Record {
    json: Bytes,
    redelivered_at: usize,
    message_id: Range<usize>,
    data: Range<usize>,
    item_identifier: Range<usize>,
}

impl Record {
    /// Takes a record as an adapter encoded it: `json` begins with a comma, one of [`REDELIVERED`]
    /// stands at `redelivered_at`, the message id's text at `message_id` (empty: there is none), and the
    /// body in Base64 at `data` (`0..0`: there is none).
    pub fn new(json: Bytes, redelivered_at: usize, message_id: Range<usize>, data: Range<usize>) -> Self {
        debug_assert_eq!(json.first(), Some(&b','));
        debug_assert!(REDELIVERED.iter().any(|flag| json[redelivered_at..].starts_with(*flag)));
        debug_assert!(data.end == 0 || json[..data.start].ends_with(br#""data":""#) && json[data.end] == b'"');
        Self { json, redelivered_at, message_id, data, item_identifier: 0..0 }
    }

    /// The text by which the function names the record stands here, if it does not name it by its message id.
    #[must_use]
    pub fn with_item_identifier(self, item_identifier: Range<usize>) -> Self {
        Self { item_identifier, ..self }
    }

    /// The size in an event, the comma included.
    pub fn size(&self) -> usize {
        self.json.len()
    }

    /// The message's own id as it stands in the JSON, for logs.
    pub fn message_id(&self) -> Option<&str> {
        self.text(&self.message_id)
    }

    /// The record's own `itemIdentifier`, as it stands in the JSON.
    pub(crate) fn item_identifier(&self) -> Option<&str> {
        self.text(&self.item_identifier)
    }

    fn text(&self, place: &Range<usize>) -> Option<&str> {
        std::str::from_utf8(&self.json[place.clone()]).ok().filter(|text| !text.is_empty())
    }

    /// The record without its comma.
    pub(crate) fn json(&self) -> &[u8] {
        self.json.get(1..).unwrap_or_default()
    }

    /// The body in Base64.
    pub(crate) fn data(&self) -> &[u8] {
        &self.json[self.data.clone()]
    }

    /// Whether the message was delivered before.
    pub fn is_redelivered(&self) -> bool {
        self.json[self.redelivered_at..].starts_with(REDELIVERED[1])
    }

    /// Sets `redelivered` to true. Copies the record, which only a retry pays for.
    pub(crate) fn mark_redelivered(&mut self) {
        let mut json = BytesMut::from(std::mem::take(&mut self.json));
        let end = self.redelivered_at + REDELIVERED[1].len();
        json[self.redelivered_at..end].copy_from_slice(REDELIVERED[1]);
        self.json = json.freeze();
    }
}

/// What stands around the records of an event: everything that is the same for each batch of a
/// mapping.
#[derive(Clone, Debug)]
pub struct Envelope {
    head: Bytes,
    tail: Bytes,
}

impl Envelope {
    /// `head` ends where the first record begins, `tail` begins where the last one ends.
    pub fn new(head: impl Into<Bytes>, tail: impl Into<Bytes>) -> Self {
        Self { head: head.into(), tail: tail.into() }
    }

    /// The size of an event whose records, each with its comma, have `records` bytes together.
    pub(crate) fn event_size(&self, records: usize) -> usize {
        self.head.len() + records.saturating_sub(1) + self.tail.len()
    }

    pub(crate) fn event<'a>(&self, records: impl Iterator<Item = &'a Record>) -> Event {
        let mut chunks = Vec::with_capacity(records.size_hint().0 + 2);
        chunks.push(self.head.clone());
        chunks.extend(records.map(|record| record.json.clone()));
        if let Some(first) = chunks.get_mut(1) {
            *first = first.slice(1..); // the first record has none before it
        }
        chunks.push(self.tail.clone());
        let size = chunks.iter().map(Bytes::len).sum();
        Event { chunks, size }
    }
}

/// The JSON that a function is invoked with, in pieces.
#[derive(Clone, Debug)]
pub struct Event {
    chunks: Vec<Bytes>,
    size: usize,
}

impl Event {
    /// The number of bytes of the whole event.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The pieces in order.
    pub fn into_chunks(self) -> std::vec::IntoIter<Bytes> {
        self.chunks.into_iter()
    }

    /// The event in one piece.
    pub fn to_bytes(&self) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.size);
        for chunk in &self.chunks {
            whole.extend_from_slice(chunk);
        }
        whole.freeze()
    }
}

impl From<Bytes> for Event {
    fn from(whole: Bytes) -> Self {
        Self { size: whole.len(), chunks: vec![whole] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        let json = format!(r#",{{"id":"{text}","redelivered":false}}"#);
        let flag = json.find("false").unwrap();
        Record::new(json.into(), flag, 8..8 + text.len(), 0..0)
    }

    #[test]
    fn an_event_is_its_head_its_records_and_its_tail() {
        let envelope = Envelope::new("[", "]");
        let records = [record("a"), record("b")];

        let event = envelope.event(records.iter());

        assert_eq!(event.to_bytes(), r#"[{"id":"a","redelivered":false},{"id":"b","redelivered":false}]"#);
        assert_eq!(event.size(), event.to_bytes().len());
        assert_eq!(event.size(), envelope.event_size(records.iter().map(Record::size).sum()));
    }

    #[test]
    fn marking_redelivered_keeps_the_size_and_the_other_holders_bytes() {
        let mut record = record("a");
        let before = record.clone();

        record.mark_redelivered();

        assert_eq!(record.json, r#",{"id":"a","redelivered":true }"#);
        assert_eq!(before.json, r#",{"id":"a","redelivered":false}"#);
        assert_eq!(record.size(), before.size());
    }

    #[test]
    fn a_record_knows_its_message_id() {
        assert_eq!(record("m-1").message_id(), Some("m-1"));
        assert_eq!(record("").message_id(), None);
    }
}
