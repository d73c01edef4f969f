//! Answers that are errors: code, status and body as AWS's model of Lambda has them.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header::ALLOW},
    response::{IntoResponse, Response},
};
use serde_json::json;

const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// What went wrong, as clients tell it apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// The body is no JSON, or something in it has the wrong type.
    Serialization(String),
    /// Members break limits of the model.
    Validation(String),
    /// A value is not acceptable, for other reasons than the model's limits.
    InvalidParameterValue(String),
    /// There is no such mapping.
    ResourceNotFound(String),
    /// It would be there twice, or cannot be changed here.
    ResourceConflict(String),
    /// The mapping is on its way from one state to another.
    ResourceInUse(String),
    /// There is no such operation, or not by this method: then with those that there are.
    UnknownOperation(String, Option<&'static str>),
    /// We failed.
    Service(String),
}

/// Which spelling of the member that holds the words the model binds for an error.
enum Words {
    /// `message`, beside `Type`.
    Lower,
    /// `Message`, beside `Type`.
    Upper,
    /// `message` alone: refused before the service looks at it.
    Alone,
}

impl ApiError {
    /// The code, as `x-amzn-ErrorType` and the SDKs' exceptions have it.
    pub fn code(&self) -> &'static str {
        self.parts().0
    }

    /// What it says.
    pub fn message(&self) -> &str {
        match self {
            Self::Serialization(message)
            | Self::Validation(message)
            | Self::InvalidParameterValue(message)
            | Self::ResourceNotFound(message)
            | Self::ResourceConflict(message)
            | Self::ResourceInUse(message)
            | Self::UnknownOperation(message, _)
            | Self::Service(message) => message,
        }
    }

    /// The status that goes with the code.
    pub fn status(&self) -> StatusCode {
        self.parts().1
    }

    fn parts(&self) -> (&'static str, StatusCode, Words) {
        match self {
            Self::Serialization(_) => ("SerializationException", StatusCode::BAD_REQUEST, Words::Alone),
            Self::Validation(_) => ("ValidationException", StatusCode::BAD_REQUEST, Words::Alone),
            Self::InvalidParameterValue(_) => ("InvalidParameterValueException", StatusCode::BAD_REQUEST, Words::Lower),
            Self::ResourceNotFound(_) => ("ResourceNotFoundException", StatusCode::NOT_FOUND, Words::Upper),
            Self::ResourceConflict(_) => ("ResourceConflictException", StatusCode::CONFLICT, Words::Lower),
            Self::ResourceInUse(_) => ("ResourceInUseException", StatusCode::BAD_REQUEST, Words::Upper),
            Self::UnknownOperation(_, None) => ("UnknownOperationException", StatusCode::NOT_FOUND, Words::Alone),
            Self::UnknownOperation(_, Some(_)) => {
                ("UnknownOperationException", StatusCode::METHOD_NOT_ALLOWED, Words::Alone)
            }
            Self::Service(_) => ("ServiceException", StatusCode::INTERNAL_SERVER_ERROR, Words::Upper),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (code, status, words) = self.parts();
        let message = self.message();
        let at_fault = if status.is_server_error() { "Service" } else { "User" };
        let body = match words {
            Words::Lower => json!({ "Type": at_fault, "message": message }),
            Words::Upper => json!({ "Type": at_fault, "Message": message }),
            Words::Alone => json!({ "message": message }),
        };
        let mut response = (status, [(ERROR_TYPE, HeaderValue::from_static(code))], Json(body)).into_response();
        if let Self::UnknownOperation(_, Some(allowed)) = self {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn the_body_has_the_spelling_that_the_model_binds() {
        let check = async |error: ApiError, status: u16, body: &str| {
            let code = error.code();
            let response = error.into_response();
            assert_eq!(response.status(), status, "{code}");
            assert_eq!(response.headers()["x-amzn-errortype"], code);
            assert_eq!(to_bytes(response.into_body(), 1_000).await.unwrap(), body, "{code}");
        };
        let words = || "words".to_owned();
        check(ApiError::InvalidParameterValue(words()), 400, r#"{"Type":"User","message":"words"}"#).await;
        check(ApiError::ResourceConflict(words()), 409, r#"{"Type":"User","message":"words"}"#).await;
        check(ApiError::ResourceNotFound(words()), 404, r#"{"Message":"words","Type":"User"}"#).await;
        check(ApiError::ResourceInUse(words()), 400, r#"{"Message":"words","Type":"User"}"#).await;
        check(ApiError::Service(words()), 500, r#"{"Message":"words","Type":"Service"}"#).await;
        check(ApiError::Validation(words()), 400, r#"{"message":"words"}"#).await;
        check(ApiError::UnknownOperation(words(), Some("GET")), 405, r#"{"message":"words"}"#).await;
    }

    #[test]
    fn an_unchangeable_virtual_host_is_refused_with_the_bytes_that_were_recorded() {
        // 60 bytes on AWS.
        let body = json!({ "Type": "User", "message": "Invalid parameters: VIRTUAL_HOST" });
        assert_eq!(body.to_string().len(), 60);
    }
}
