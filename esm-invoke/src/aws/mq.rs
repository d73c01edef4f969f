//! Amazon MQ: what kind of broker an id names, and where it listens.

use std::sync::Arc;

use serde::Deserialize;

use super::{AwsClient, AwsError, CredentialChain};

/// Describes brokers in one region.
pub struct AmazonMq {
    client: AwsClient,
    credentials: Arc<CredentialChain>,
}

/// What `DescribeBroker` says of a broker, as far as a client of it needs that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `ACTIVEMQ` or `RABBITMQ`, so far.
    pub engine: String,
    /// `RUNNING`, and others.
    pub state: String,
    /// Of every instance, for every protocol. There are none while the broker is made.
    pub endpoints: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescribeBroker {
    engine_type: String,
    #[serde(default)]
    broker_state: Option<String>,
    #[serde(default)]
    broker_instances: Option<Vec<Instance>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    #[serde(default)]
    endpoints: Option<Vec<String>>,
}

impl AmazonMq {
    /// Connects to nothing yet. `endpoint_url` stands for AWS's own.
    pub fn new(region: &str, endpoint_url: Option<&str>, credentials: Arc<CredentialChain>) -> Result<Self, AwsError> {
        Ok(Self { client: AwsClient::new("mq", region, endpoint_url)?, credentials })
    }

    /// The broker with this id, which begins with `b-`.
    pub async fn describe(&self, broker_id: &str) -> Result<Description, AwsError> {
        let caller = self.credentials.credential().await?;
        let answer = self.client.get(&caller, &["v1", "brokers", broker_id]).await;
        self.credentials.heed(&answer).await;
        let answer = serde_json::from_slice(&answer?).map_err(|_| AwsError::Answer("DescribeBroker".into()))?;
        let DescribeBroker { engine_type, broker_state, broker_instances } = answer;
        let instances = broker_instances.unwrap_or_default().into_iter();
        Ok(Description {
            engine: engine_type,
            state: broker_state.unwrap_or_default(),
            endpoints: instances.flat_map(|instance| instance.endpoints.unwrap_or_default()).collect(),
        })
    }
}
