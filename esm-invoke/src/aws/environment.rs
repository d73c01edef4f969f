//! What the credential chain reads: files, programs, and services that hand out credentials.

use std::{process::Command, time::Duration};

use bytes::Bytes;
use reqsign_core::{CommandExecute, CommandOutput, Error, FileRead, HttpSend, Result};
use tokio::{task::spawn_blocking, time::timeout};

/// How long one of the services may take, which are near or not there at all.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a program may take, which perhaps asks somebody else.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(60);
/// Files and answers with credentials are small.
const LARGEST: usize = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> Result<Vec<u8>> {
        let path = path.to_owned();
        let read = spawn_blocking(move || std::fs::read(&path)).await;
        let read = read.map_err(|error| Error::unexpected("reading was given up").with_source(error))?;
        read.map_err(|error| Error::unexpected("a file cannot be read").with_source(error))
    }
}

#[derive(Debug)]
pub(super) struct Programs;

impl CommandExecute for Programs {
    async fn command_execute<'a>(&'a self, program: &'a str, arguments: &'a [&'a str]) -> Result<CommandOutput> {
        let mut command = Command::new(program);
        command.args(arguments);
        let run = timeout(PROGRAM_PATIENCE, spawn_blocking(move || command.output())).await;
        let output = match run {
            Ok(Ok(Ok(output))) => output,
            Ok(Ok(Err(error))) => {
                return Err(Error::unexpected(format!("`{program}` cannot be run")).with_source(error));
            }
            Ok(Err(_)) | Err(_) => return Err(Error::unexpected(format!("`{program}` took too long"))),
        };
        let status = output.status.code().unwrap_or(-1);
        Ok(CommandOutput { status, stdout: output.stdout, stderr: output.stderr })
    }
}

#[derive(Debug)]
pub(super) struct Services(pub(super) reqwest::Client);

impl HttpSend for Services {
    async fn http_send(&self, request: http_types::Request<Bytes>) -> Result<http_types::Response<Bytes>> {
        let unreachable = |error: reqwest::Error| {
            let words = format!("{} cannot be reached", error.url().and_then(|url| url.host_str()).unwrap_or("it"));
            Error::unexpected(words).with_source(error.without_url()).set_retryable(true)
        };
        let request = request.map(reqwest::Body::from).try_into().map_err(unreachable)?;
        let exchange = async {
            let mut response = self.0.execute(request).await?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                if body.len() + chunk.len() > LARGEST {
                    break; // then it is no answer that can be read
                }
                body.extend_from_slice(&chunk);
            }
            let mut answer = http_types::Response::new(Bytes::from(body));
            *answer.status_mut() = response.status();
            *answer.headers_mut() = std::mem::take(response.headers_mut());
            Ok(answer)
        };
        match timeout(PATIENCE, exchange).await {
            Ok(answer) => answer.map_err(unreachable),
            Err(_) => Err(Error::unexpected("a service for credentials took too long").set_retryable(true)),
        }
    }
}
