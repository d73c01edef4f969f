//! What stands behind the `?`: parameters by name, and the markers of pages.

use std::borrow::Cow;

use base64_simd::URL_SAFE_NO_PAD;
use url::form_urlencoded;

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

    /// Notes that a parameter should have been there.
    pub(super) fn missing(&mut self, name: &str) {
        self.violations.missing(name);
    }

    /// Says what is wrong with those that were taken, and with those that were not.
    pub(super) fn end(mut self) -> Result<(), ApiError> {
        for (name, value) in &self.pairs {
            self.violations.unknown(name, value);
        }
        self.violations.into_result()
    }
}

/// A place in a list, as clients get it: with no meaning to them.
pub(super) fn marker(place: &str) -> String {
    URL_SAFE_NO_PAD.encode_to_string(place)
}

/// The place that a marker of ours stands for.
pub(super) fn read_marker(marker: &str) -> Result<String, ApiError> {
    let place = URL_SAFE_NO_PAD.decode_to_vec(marker).ok().and_then(|place| String::from_utf8(place).ok());
    place.ok_or_else(|| {
        ApiError::InvalidParameterValue("Invalid Marker: give the NextMarker of an earlier answer".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_back_and_nothing_else_is() {
        let place = "91eaeb7e-c976-1234-9451-8709db01f137";
        let text = marker(place);
        assert_eq!(read_marker(&text).unwrap(), place);
        assert!(!text.contains("91ea"));
        for wrong in ["x", "é", "=", "_w", place] {
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
