//! Who we are for AWS: the chain of places where AWS's own tools look, and perhaps a role that is
//! assumed with what was found there. Kept until shortly before it expires.

use std::{collections::HashMap, sync::Arc};

use reqsign_aws_core::{Credential, DefaultCredentialProvider};
use reqsign_core::{Context, ProvideCredential as _, SigningCredential as _, StaticEnv};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{
    client::{AwsClient, AwsError, http_client},
    environment::{Files, Programs, Services},
};

/// Whose credentials are used, and where.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The region that requests are signed for.
    pub region: String,
    /// Stands for AWS, as in tests.
    pub endpoint_url: Option<String>,
    /// The variables of the environment, in which the chain begins.
    pub environment: HashMap<String, String>,
    /// The ARN of a role to assume.
    pub role_arn: Option<String>,
}

/// Finds credentials, and keeps them while they last.
pub struct CredentialChain {
    context: Context,
    provider: DefaultCredentialProvider,
    /// Assumes the role.
    assume: Option<(AwsClient, String)>,
    known: Mutex<Option<Credential>>,
}

impl CredentialChain {
    /// Looks for nothing yet.
    pub fn new(identity: Identity) -> Result<Arc<Self>, AwsError> {
        let Identity { region, endpoint_url, environment, role_arn } = identity;
        let http = http_client()?;
        let home_dir = environment.get("HOME").map(Into::into);
        let context = Context::new()
            .with_file_read(Files)
            .with_http_send(Services(http))
            .with_command_execute(Programs)
            .with_env(StaticEnv { home_dir, envs: environment });
        let sts = |role| Ok::<_, AwsError>((AwsClient::new("sts", &region, endpoint_url.as_deref())?, role));
        let assume = role_arn.map(sts).transpose()?;
        Ok(Arc::new(Self { context, provider: DefaultCredentialProvider::new(), assume, known: Mutex::default() }))
    }

    /// Credentials that last for two minutes at least.
    pub(crate) async fn credential(&self) -> Result<Credential, AwsError> {
        // Held while they are looked for, so that this is done once for all who need them.
        let mut known = self.known.lock().await;
        if let Some(credential) = known.as_ref().filter(|known| known.is_valid()) {
            return Ok(credential.clone());
        }
        let found = self.provider.provide_credential(&self.context).await.map_err(|error| {
            let words = format!("{:#}", Told(&error));
            if error.is_retryable() { AwsError::Unreachable(words) } else { AwsError::NoCredentials(words) }
        })?;
        let found = found.ok_or_else(|| AwsError::NoCredentials(NONE_FOUND.into()))?;
        let credential = match &self.assume {
            None => found,
            Some((sts, role)) => assume(sts, role, &found).await?,
        };
        *known = Some(credential.clone());
        Ok(credential)
    }

    /// If they were refused, the next ones are looked for anew.
    #[cfg(feature = "aws")]
    pub(super) async fn heed<T: Sync>(&self, answer: &Result<T, AwsError>) {
        if answer.as_ref().is_err_and(AwsError::concerns_credentials) {
            self.forget().await;
        }
    }

    /// They were refused: the next ones are looked for anew.
    pub(crate) async fn forget(&self) {
        *self.known.lock().await = None;
    }
}

const NONE_FOUND: &str = "no credentials for AWS were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a \
                          profile, or a role of the machine or container";

/// An error with its causes.
struct Told<'a>(&'a reqsign_core::Error);

impl std::fmt::Display for Told<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = std::error::Error::source(self.0);
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssumeRoleResponse {
    assume_role_result: AssumeRoleResult,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssumeRoleResult {
    credentials: Assumed,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Assumed {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

async fn assume(sts: &AwsClient, role_arn: &str, caller: &Credential) -> Result<Credential, AwsError> {
    let parameters = [
        ("Action", "AssumeRole"),
        ("Version", "2011-06-15"),
        ("RoleArn", role_arn),
        ("RoleSessionName", "esm"),
        ("DurationSeconds", "3600"),
    ];
    let answer = sts.form(caller, &parameters).await?;
    let no_answer = || AwsError::Answer("AssumeRole".into());
    let answer: AssumeRoleResponse = quick_xml::de::from_str(&answer).map_err(|_| no_answer())?;
    let Assumed { access_key_id, secret_access_key, session_token, expiration } = answer.assume_role_result.credentials;
    Ok(Credential {
        access_key_id,
        secret_access_key,
        session_token: Some(session_token),
        expires_in: Some(expiration.parse().map_err(|_| no_answer())?),
    })
}
