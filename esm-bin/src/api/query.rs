//! What stands behind the `?`: parameters by name, and the markers of pages.

use std::borrow::Cow;

use base64_simd::URL_SAFE_NO_PAD;
use url::form_urlencoded;
use uuid::Uuid;

use super::{
    constraints::{Shape, Violations},
    errors::ApiError,
};

/// Parameters with which a request may be signed; whoever checks the signature looks at them.
const SIGNATURE: &str = "x-amz-";

/// The parameters of a request.
pub(super) struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    violations: Violations,
}

impl<'a> Query<'a> {
    pub(super) fn new(query: Option<&'a str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let is_ours = |(name, _): &(Cow<'_, str>, _)| !name.to_ascii_lowercase().starts_with(SIGNATURE);
        Self { pairs: pairs.filter(is_ours).collect(), violations: Violations::default() }
    }

    /// Takes all values of a parameter.
    pub(super) fn all(&mut self, name: &str, shape: &Shape) -> Vec<String> {
        let (taken, left) = std::mem::take(&mut self.pairs).into_iter().partition(|(key, _)| key == name);
        self.pairs = left;
        let taken: Vec<(Cow<'_, str>, Cow<'_, str>)> = taken;
        let values: Vec<String> = taken.into_iter().map(|(_, value)| value.into_owned()).collect();
        for value in &values {
            self.violations.value(&shape.parameter(value), shape, name);
        }
        values
    }

    /// Takes a parameter that may be there once.
    pub(super) fn one(&mut self, name: &str, shape: &Shape) -> Option<String> {
        let mut values = self.all(name, shape);
        if values.len() > 1 {
            self.violations.repeated(values.len(), name);
        }
        values.pop()
    }

    /// Says what is wrong with those that were taken, and with those that were not.
    pub(super) fn end(mut self) -> Result<(), ApiError> {
        for (name, value) in &self.pairs {
            self.violations.unknown(name, value);
        }
        self.violations.into_result()
    }
}

/// Where a page ended: after this mapping, in the order of UUIDs. What clients get has no meaning
/// to them, and stays right when mappings come and go.
pub(super) fn marker(last: Uuid) -> String {
    URL_SAFE_NO_PAD.encode_to_string(last.as_bytes())
}

/// The mapping after which a page begins.
pub(super) fn read_marker(marker: &str) -> Result<Uuid, ApiError> {
    let mut bytes = [0; 16];
    let is_marker = marker.len() == 22 && URL_SAFE_NO_PAD.decode(marker.as_bytes(), base64_simd::Out::from_slice(&mut bytes)).is_ok();
    let wrong = || ApiError::InvalidParameterValue("Invalid Marker: give the NextMarker of an earlier answer".into());
    if is_marker { Ok(Uuid::from_bytes(bytes)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_back_and_nothing_else_is() {
        let uuid = Uuid::from_u128(0x91ea_eb7e_c976_1234_9451_8709_db01_f137);
        let text = marker(uuid);
        assert_eq!(read_marker(&text).unwrap(), uuid);
        assert!(!text.contains("91ea"));
        for wrong in ["", "x", "é", &"A".repeat(21), &"A".repeat(23), &"=".repeat(22), &uuid.to_string()] {
            assert_eq!(read_marker(wrong).unwrap_err().code(), "InvalidParameterValueException", "{wrong}");
        }
    }

    #[test]
    fn a_parameter_that_is_unknown_repeated_or_out_of_range_is_refused() {
        let check = |query: &str, words: &str| {
            let mut query = Query::new(Some(query));
            query.one("MaxItems", &Shape::Integer { least: 1, most: 10 });
            match query.end() {
                Ok(()) => assert_eq!(words, ""),
                Err(error) => assert!(!words.is_empty() && error.message().contains(words), "{}", error.message()),
            }
        };
        check("", "");
        check("MaxItems=10", "");
        check("MaxItems=10&X-Amz-Date=20260101T000000Z", "");
        check("MaxItems=0", "Value '0' at 'MaxItems' failed to satisfy constraint");
        check("MaxItems=1&MaxItems=2", "at 'MaxItems'");
        check("MaxItems=ten", "can not be converted to an Integer");
        check("MaxItem=1", "at 'MaxItem'");
        check("%ff=%ff", "failed to satisfy constraint");
    }
}
