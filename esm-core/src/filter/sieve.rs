//! Filters at work on records.

use std::sync::Arc;

use base64_simd::STANDARD;

use super::FilterCriteria;
use crate::event::Record;

/// A larger body's room is not kept for the next.
const KEPT: usize = 64 * 1024;

/// Tells the records that a function gets from those that it does not.
pub(crate) struct Sieve {
    criteria: Option<Arc<FilterCriteria>>,
    /// The body that is looked at.
    body: Vec<u8>,
}

impl Sieve {
    pub(crate) fn new(criteria: Option<Arc<FilterCriteria>>) -> Self {
        Self { criteria, body: Vec::new() }
    }

    pub(crate) fn passes(&mut self, record: &Record) -> bool {
        let Some(criteria) = &self.criteria else { return true };
        self.body.clear();
        self.body.shrink_to(KEPT);
        if criteria.needs_body() && STANDARD.decode_append(record.data(), &mut self.body).is_err() {
            return true; // nothing is thrown away that was not understood
        }
        criteria.accepts(record.json(), &self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(data: &str) -> Record {
        let head = r#",{"redelivered":false,"data":""#;
        let json = format!(r#"{head}{data}"}}"#);
        Record::new(json.into(), 16, 0..0, head.len()..head.len() + data.len())
    }

    fn sieve(patterns: &[&str]) -> Sieve {
        let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        Sieve::new(Some(Arc::new(FilterCriteria::parse(&patterns).unwrap())))
    }

    #[test]
    fn the_body_is_looked_at_decoded() {
        let mut sieve = sieve(&[r#"{"data":{"kind":["order"]},"redelivered":[false]}"#]);
        assert!(sieve.passes(&record(&STANDARD.encode_to_string(r#"{"kind":"order"}"#))));
        assert!(!sieve.passes(&record(&STANDARD.encode_to_string(r#"{"kind":"note"}"#))));
        assert!(sieve.passes(&record(&STANDARD.encode_to_string("a plain text"))));
        assert!(sieve.passes(&record(&STANDARD.encode_to_string([0xff]))));
    }

    #[test]
    fn a_large_body_leaves_no_room_behind() {
        let mut sieve = sieve(&[r#"{"data":["x"]}"#]);
        assert!(!sieve.passes(&record(&STANDARD.encode_to_string(vec![b'y'; 10 * KEPT]))));
        assert!(sieve.passes(&record(&STANDARD.encode_to_string("x"))));
        assert!(sieve.body.capacity() <= KEPT);
    }

    #[test]
    fn without_filters_everything_passes() {
        assert!(Sieve::new(None).passes(&record("")));
    }
}
