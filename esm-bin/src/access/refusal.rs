//! Why a call is refused, in the shape of AWS's errors.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use uuid::Uuid;

/// Why a call is refused. A wrong key and a wrong signature are one reason, so that nobody learns
/// which keys there are.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("Missing Authentication Token")]
    Missing,
    #[error("The request must be signed in its headers: {0}")]
    Incomplete(&'static str),
    #[error("Signature expired: {signed} is now earlier than {earliest} ({now} - 5 min.)")]
    Expired { signed: String, earliest: String, now: String },
    #[error("Signature not yet current: {signed} is still later than {latest} ({now} + 5 min.)")]
    NotYetCurrent { signed: String, latest: String, now: String },
    #[error("Credential should be scoped to the region {region} and the service lambda")]
    Scope { region: String },
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
    #[error("The request's body is larger than this API takes")]
    TooLarge,
    #[error("The request's body did not arrive in time")]
    TooSlow,
    #[error("Without server.access_keys no call from a web page is taken")]
    WebPage,
    #[error(
        "Without server.access_keys this API is called by an IP address or as localhost: a web page could be behind any \
         other name"
    )]
    Host,
}

impl Refusal {
    /// The HTTP status, and the error's type as AWS's tools know it.
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Missing => (StatusCode::FORBIDDEN, "MissingAuthenticationTokenException"),
            Self::Incomplete(_) => (StatusCode::FORBIDDEN, "IncompleteSignatureException"),
            Self::Expired { .. } | Self::NotYetCurrent { .. } | Self::Scope { .. } | Self::Mismatch => {
                (StatusCode::FORBIDDEN, "InvalidSignatureException")
            }
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "RequestTimeoutException"),
            Self::WebPage | Self::Host => (StatusCode::FORBIDDEN, "AccessDeniedException"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error_type) = self.kind();
        let headers = [("x-amzn-errortype", error_type.to_owned()), ("x-amzn-requestid", Uuid::new_v4().to_string())];
        (status, headers, Json(json!({ "Type": "User", "message": self.to_string() }))).into_response()
    }
}
