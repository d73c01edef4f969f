//! Secrets Manager: the text of a secret.

use std::sync::Arc;

use serde::Deserialize;

use super::{AwsClient, AwsError, CredentialChain};

/// Reads secrets in one region.
pub struct SecretsManager {
    client: AwsClient,
    credentials: Arc<CredentialChain>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetSecretValue {
    secret_string: Option<String>,
}

impl SecretsManager {
    /// Connects to nothing yet. `endpoint_url` stands for AWS's own.
    pub fn new(region: &str, endpoint_url: Option<&str>, credentials: Arc<CredentialChain>) -> Result<Self, AwsError> {
        Ok(Self { client: AwsClient::new("secretsmanager", region, endpoint_url)?, credentials })
    }

    /// The current text of a secret.
    pub async fn read(&self, arn: &str) -> Result<String, AwsError> {
        let caller = self.credentials.credential().await?;
        let body = serde_json::json!({ "SecretId": arn }).to_string();
        let answer = self.client.json(&caller, "secretsmanager.GetSecretValue", body).await;
        self.credentials.heed(&answer).await;
        // What the parser says is not repeated: it may quote the secret.
        let answer: GetSecretValue = serde_json::from_slice(&answer?).map_err(|_| no_text())?;
        answer.secret_string.ok_or_else(no_text)
    }
}

fn no_text() -> AwsError {
    AwsError::Answer("GetSecretValue (is it a secret with a text?)".into())
}
