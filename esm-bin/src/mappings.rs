//! The mappings of a running service, for people at a terminal. Asks the control API as any client does.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    access::{AccessKey, sign_call},
    config::Environment,
};

const PATH: &str = "2015-03-31/event-source-mappings";
/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

const HEAD: [&str; 6] = ["UUID", "STATE", "FUNCTION", "EVENT SOURCE", "QUEUE", "LAST PROCESSING RESULT"];

/// A running service.
pub struct Endpoint {
    url: String,
    client: Client,
    /// With what calls are signed, and for which region.
    signer: Option<(AccessKey, String)>,
}

/// A page of a list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    event_source_mappings: Vec<Map<String, Value>>,
    #[serde(default)]
    next_marker: Option<String>,
}

impl Endpoint {
    /// The service at a URL. Calls are signed with the access key that AWS's variables hold, if they do.
    pub fn new(url: &str, environment: &Environment) -> anyhow::Result<Self> {
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let key = variable("AWS_ACCESS_KEY_ID").zip(variable("AWS_SECRET_ACCESS_KEY"));
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let region = region.map_or("us-east-1", String::as_str).to_owned();
        let signer = key.map(|(id, secret)| (AccessKey { id: id.clone(), secret: secret.as_str().into() }, region));
        let client = Client::builder().no_proxy().timeout(PATIENCE).build().context("cannot make an HTTP client")?;
        Ok(Self { url: url.trim_end_matches('/').into(), client, signer })
    }

    /// Every mapping, as a table or as the API has it.
    pub async fn list(&self, as_json: bool) -> anyhow::Result<String> {
        let mut mappings = Vec::new();
        let mut marker: Option<String> = None;
        loop {
            let query: Vec<_> = marker.iter().map(|marker| ("Marker", marker.as_str())).collect();
            let request = self.client.get(format!("{}/{PATH}", self.url)).query(&query);
            let page: Page = serde_json::from_value(self.ask(request).await?).context("the answer is no list")?;
            mappings.extend(page.event_source_mappings);
            let next = page.next_marker.filter(|next| !next.is_empty());
            if next.is_none() {
                break;
            }
            if next == marker {
                bail!("{} answers the same page again and again", self.url);
            }
            marker = next;
        }
        if as_json {
            return Ok(serde_json::to_string_pretty(&json!({ "EventSourceMappings": mappings }))?);
        }
        Ok(table(&mappings))
    }

    /// One mapping, member by member or as the API has it.
    pub async fn get(&self, uuid: Uuid, as_json: bool) -> anyhow::Result<String> {
        let mapping = self.ask(self.client.get(format!("{}/{PATH}/{uuid}", self.url))).await?;
        if as_json {
            return Ok(serde_json::to_string_pretty(&mapping)?);
        }
        let mapping = mapping.as_object().context("the answer is no mapping")?;
        let mut text = String::new();
        for (member, value) in mapping.iter().filter(|(_, value)| !value.is_null()) {
            writeln!(text, "{member:<32} {}", plain(value))?;
        }
        Ok(text)
    }

    /// The one place where a request leaves.
    async fn ask(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let mut request = request.build()?;
        if let Some((key, region)) = &self.signer {
            sign_call(&mut request, key, region, SystemTime::now()).context("cannot sign a call")?;
        }
        let answer = self.client.execute(request).await;
        let answer = answer.with_context(|| format!("cannot ask {}; is esm serve running?", self.url))?;
        let status = answer.status();
        let body = answer.bytes().await.with_context(|| format!("{} did not finish its answer", self.url))?;
        if status != StatusCode::OK {
            bail!("{} answered {status}: {}", self.url, refusal(&body));
        }
        serde_json::from_slice(&body).with_context(|| format!("{} did not answer in JSON", self.url))
    }
}

/// AWS has this member in either spelling.
fn refusal(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let words = ["message", "Message"].iter().find_map(|name| answer[name].as_str());
    visible(words.unwrap_or("it did not say why"))
}

fn table(mappings: &[Map<String, Value>]) -> String {
    let rows: Vec<[String; 6]> = mappings.iter().map(row).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([HEAD[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let line = |cells: &[String; 6]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = HEAD.map(String::from);
    [&head].into_iter().chain(&rows).map(line).collect::<Vec<_>>().join("\n")
}

fn row(mapping: &Map<String, Value>) -> [String; 6] {
    let text = |member: &str| mapping.get(member).map(plain).unwrap_or_default();
    // The rest of an ARN says nothing that tells mappings apart.
    let named = |arn: String, mark: &str| arn.split_once(mark).map_or_else(|| arn.clone(), |(_, name)| name.into());
    let broker = named(text("EventSourceArn"), ":broker:");
    [
        text("UUID"),
        text("State"),
        named(text("FunctionArn"), ":function:"),
        broker.split(':').next().unwrap_or_default().to_owned(),
        mapping.get("Queues").and_then(|queues| queues.get(0)).map(plain).unwrap_or_default(),
        text("LastProcessingResult"),
    ]
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => visible(text),
        other => other.to_string(),
    }
}

/// What a terminal would obey is shown instead.
fn visible(text: &str) -> String {
    let show = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_what_it_holds_and_shows_what_a_terminal_would_obey() {
        let mapping = json!({
            "UUID": "a0b1", "State": "Enabled", "FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:f:live",
            "EventSourceArn": "arn:aws:mq:us-east-1:000000000000:broker:pizza:b-1", "Queues": ["a\u{1b}[2J"],
            "LastProcessingResult": "OK", "KMSKeyArn": null,
        });
        let table = table(&[mapping.as_object().unwrap().clone()]);
        assert_eq!(
            table,
            "UUID  STATE    FUNCTION  EVENT SOURCE  QUEUE       LAST PROCESSING RESULT\n\
             a0b1  Enabled  f:live    pizza         a\\u{1b}[2J  OK"
        );
    }
}
