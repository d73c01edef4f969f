//! Invokes a function on AWS Lambda: the Invoke API with signed requests.
//!
//! The exchange itself, and what its answers mean, are those of `http`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use esm_core::{
    event::Event,
    invoker::{Invoke, Outcome, Reply},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, header::HeaderMap};
use sha2::{Digest as _, Sha256};

use crate::{
    aws::{AwsError, CredentialChain, Scope, are_credentials_refused, endpoint, sign},
    backend::Backend,
    http::{HttpInvoker, HttpSettings, HttpSettingsError, Protocol},
    signature::hexadecimal,
};

/// All that is not unreserved in URLs.
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// As [`are_credentials_refused`], and new ones will do.
const EXPIRED: &str = "ExpiredToken";

/// Which function is invoked, and as whom.
pub struct LambdaSettings {
    /// A name or an ARN, perhaps with a qualifier.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// Stands for AWS's own endpoint, as an emulator does.
    pub endpoint_url: Option<String>,
    /// How long one invocation may run.
    pub timeout: Duration,
    /// Who invokes it.
    pub credentials: Arc<CredentialChain>,
}

/// Invokes one function on Lambda.
pub struct LambdaInvoker {
    http: HttpInvoker,
    name: String,
    region: String,
    credentials: Arc<CredentialChain>,
}

impl LambdaInvoker {
    /// Connects to nothing yet.
    pub fn new(settings: LambdaSettings) -> Result<Self, HttpSettingsError> {
        let LambdaSettings { name, region, endpoint_url, timeout, credentials } = settings;
        let base = endpoint("lambda", &region, endpoint_url.as_deref());
        // A qualifier stays with the name: SAM refuses queries.
        let encoded = utf8_percent_encode(&name, &ENCODED);
        let mut http = HttpSettings::new(format!("{base}/2015-03-31/functions/{encoded}/invocations"), timeout);
        // Emulators may leave out the header that tells errors from results. AWS does not.
        http.protocol = if endpoint_url.is_some() { Protocol::Lambda } else { Protocol::Aws };
        Ok(Self { http: HttpInvoker::new(http)?, name, region, credentials })
    }

    async fn signature(&self, event: &Event) -> Result<HeaderMap, AwsError> {
        let credential = self.credentials.credential().await?;
        let mut hash = Sha256::new();
        for piece in event.clone().into_chunks() {
            hash.update(&piece);
        }
        let payload = hexadecimal(&hash.finalize());
        let mut headers = self.http.headers().clone();
        let scope = Scope { region: &self.region, service: "lambda", now: SystemTime::now() };
        sign(&credential, &scope, &Method::POST, self.http.url(), &mut headers, payload)
            .map_err(|words| AwsError::Client(words.into()))?;
        Ok(headers)
    }

    /// Who has old credentials gets new ones, and the function's configuration is not to blame.
    async fn renew(&self, outcome: Outcome, error_type: Option<String>) -> Outcome {
        match (outcome, error_type) {
            (Outcome::NotUsable { reason }, Some(error_type)) if are_credentials_refused(&error_type) => {
                self.credentials.forget().await;
                if error_type == EXPIRED {
                    Outcome::Unavailable { reason, retry_after: None }
                } else {
                    Outcome::NotUsable { reason }
                }
            }
            (outcome, _) => outcome,
        }
    }
}

#[async_trait]
impl Invoke for LambdaInvoker {
    async fn invoke(&self, event: Event) -> Reply {
        match self.signature(&event).await {
            Ok(headers) => {
                let (Reply { outcome, body }, error_type) = self.http.post(event, headers).await;
                Reply { outcome: self.renew(outcome, error_type).await, body }
            }
            Err(AwsError::Unreachable(reason)) => {
                Outcome::Unavailable { reason: format!("no credentials for AWS: {reason}"), retry_after: None }.into()
            }
            Err(error) => Outcome::NotUsable { reason: error.to_string() }.into(),
        }
    }
}

#[async_trait]
impl Backend for LambdaInvoker {
    fn describe(&self) -> String {
        format!("Lambda function {} in {}, at {}", self.name, self.region, self.http.endpoint())
    }
}
