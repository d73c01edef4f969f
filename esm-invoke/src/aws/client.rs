//! Small calls of AWS's services: a signed request, and an answer in one piece.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqsign_aws_core::Credential;
use reqwest::{
    Client, Method, Request, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect,
};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::signing::{Scope, sign};
use crate::{
    http::{CONNECT_TIMEOUT, IDLE, system_tls},
    members::{Members, for_log},
    signature::hexadecimal,
};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// A secret has 64 KiB at the most.
const LARGEST_ANSWER: usize = 256 * 1024;

/// Why a call to AWS came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AwsError {
    /// There is nobody to call as.
    #[error("{0}")]
    NoCredentials(String),
    /// It may pass by itself.
    #[error("{0}")]
    Unreachable(String),
    /// The service refused.
    #[error("{service} answered {status} ({error_type}: {message})")]
    Refused {
        /// Which one.
        service: String,
        /// The HTTP status.
        status: u16,
        /// The error's type.
        error_type: String,
        /// Said by the service.
        message: String,
    },
    /// The answer is not what the service is known to say.
    #[error("the answer to {0} cannot be read")]
    Answer(String),
    /// The request cannot be made.
    #[error("the request cannot be made: {0}")]
    Client(String),
}

impl AwsError {
    /// Whether AWS does not know the caller: there are no credentials, they have expired, or were changed.
    pub fn concerns_credentials(&self) -> bool {
        match self {
            Self::NoCredentials(_) => true,
            Self::Refused { error_type, .. } => are_credentials_refused(error_type),
            Self::Unreachable(_) | Self::Answer(_) | Self::Client(_) => false,
        }
    }
}

/// As the services call it, each in its own way, and some with `Exception` behind it.
const CREDENTIALS_REFUSED: [&str; 6] = [
    "ExpiredToken",
    "UnrecognizedClient",
    "InvalidClientTokenId",
    "InvalidSignature",
    "SignatureDoesNotMatch",
    "MissingAuthenticationToken",
];

/// Whether an error of this type says that AWS does not know the caller.
pub(crate) fn are_credentials_refused(error_type: &str) -> bool {
    CREDENTIALS_REFUSED.contains(&error_type.strip_suffix("Exception").unwrap_or(error_type))
}

/// Calls one service in one region.
pub struct AwsClient {
    http: Client,
    service: &'static str,
    region: String,
    url: Url,
}

impl AwsClient {
    /// Connects to nothing yet. `endpoint_url` stands for AWS's own.
    pub fn new(service: &'static str, region: &str, endpoint_url: Option<&str>) -> Result<Self, AwsError> {
        let client = |error: &dyn std::fmt::Display| AwsError::Client(error.to_string());
        let http = http_client()?;
        let url = Url::parse(&endpoint(service, region, endpoint_url)).map_err(|error| client(&error))?;
        Ok(Self { http, service, region: region.to_owned(), url })
    }

    /// A call with a JSON body, which `X-Amz-Target` names.
    #[cfg(feature = "aws")]
    pub(super) async fn json(
        &self,
        caller: &Credential,
        target: &'static str,
        body: String,
    ) -> Result<Bytes, AwsError> {
        let target = (reqwest::header::HeaderName::from_static("x-amz-target"), HeaderValue::from_static(target));
        let content_type = (CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        self.post(caller, [target, content_type].into_iter().collect(), body).await
    }

    /// A call without a body, of which the path says everything.
    #[cfg(feature = "aws")]
    pub(super) async fn get(&self, caller: &Credential, path: &[&str]) -> Result<Bytes, AwsError> {
        let mut url = self.url.clone();
        let no_path = |()| AwsError::Client(format!("{} cannot have a path", self.public_url()));
        url.path_segments_mut().map_err(no_path)?.pop_if_empty().extend(path);
        self.call(caller, Request::new(Method::GET, url), String::new()).await
    }

    /// A call with parameters as a form has them.
    pub(super) async fn form(&self, caller: &Credential, parameters: &[(&str, &str)]) -> Result<String, AwsError> {
        let content_type = (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let mut form = self.url.clone();
        form.query_pairs_mut().clear().extend_pairs(parameters);
        let body = form.query().unwrap_or_default().to_owned();
        let answer = self.post(caller, [content_type].into_iter().collect(), body).await?;
        String::from_utf8(answer.into()).map_err(|_| AwsError::Answer(self.service.into()))
    }

    async fn post(&self, caller: &Credential, headers: HeaderMap, body: String) -> Result<Bytes, AwsError> {
        let mut request = Request::new(Method::POST, self.url.clone());
        *request.headers_mut() = headers;
        self.call(caller, request, body).await
    }

    /// Signs a request that has no body yet, and sends it with this one.
    async fn call(&self, caller: &Credential, mut request: Request, body: String) -> Result<Bytes, AwsError> {
        let scope = Scope { region: &self.region, service: self.service, now: SystemTime::now() };
        let payload = hexadecimal(&Sha256::digest(&body));
        let (method, url) = (request.method().clone(), request.url().clone());
        sign(caller, &scope, &method, &url, request.headers_mut(), payload)
            .map_err(|words| AwsError::Client(words.into()))?;
        *request.body_mut() = Some(body.into());
        timeout(PATIENCE, self.exchange(request)).await.unwrap_or_else(|_| {
            Err(AwsError::Unreachable(format!("{} did not answer within {} s", self.public_url(), PATIENCE.as_secs())))
        })
    }

    /// The URL as people may see it.
    fn public_url(&self) -> String {
        crate::answer::public(&self.url)
    }

    async fn exchange(&self, request: Request) -> Result<Bytes, AwsError> {
        let unreachable = |error: reqwest::Error| {
            AwsError::Unreachable(format!("cannot call {}: {}", self.public_url(), crate::http::root(&error)))
        };
        let mut response = self.http.execute(request).await.map_err(unreachable)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(AwsError::Answer(self.service.into()));
            }
            body.extend_from_slice(&chunk);
        }
        let status = response.status();
        if status.is_success() {
            return Ok(body.into());
        }
        let header = response.headers().get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        let (error_type, message) = told(header, &body);
        if status.is_server_error() || status.as_u16() == 429 || error_type.contains("Throttling") {
            return Err(AwsError::Unreachable(format!(
                "{} answered {status} ({error_type}: {message})",
                self.public_url()
            )));
        }
        Err(AwsError::Refused { service: self.service.into(), status: status.as_u16(), error_type, message })
    }
}

/// Asks where it is told to and nowhere else, and once.
pub(super) fn http_client() -> Result<Client, AwsError> {
    let client = |error: &dyn std::fmt::Display| AwsError::Client(error.to_string());
    let tls = system_tls().map_err(|error| client(&error))?;
    Client::builder()
        .user_agent(concat!("esm/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE)
        .http1_only()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .retry(reqwest::retry::never())
        .build()
        .map_err(|error| client(&error))
}

/// Type and message of an error, as JSON has them in one way or another, and XML.
fn told(header: Option<&str>, body: &[u8]) -> (String, String) {
    #[derive(serde::Deserialize)]
    struct Typed {
        #[serde(rename = "__type")]
        error_type: Option<String>,
    }
    let text = String::from_utf8_lossy(body);
    let in_tag = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once('<')?.0.to_owned())
    };
    let typed = serde_json::from_slice(body).ok().and_then(|Typed { error_type }| error_type);
    let error_type = header.map(str::to_owned).or(typed).or_else(|| in_tag("Code")).unwrap_or_default();
    let error_type = error_type.split(':').next().unwrap_or_default().rsplit('#').next().unwrap_or_default().to_owned();
    let message = Members::parse(body).and_then(|members| members.message).or_else(|| in_tag("Message"));
    (for_log(&error_type), for_log(&message.unwrap_or_default()))
}

/// Where a service is, without a slash at the end.
pub(crate) fn endpoint(service: &str, region: &str, endpoint_url: Option<&str>) -> String {
    match endpoint_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            format!("https://{service}.{region}.{domain}")
        }
    }
}
