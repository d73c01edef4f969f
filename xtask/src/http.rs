//! The little HTTP that tasks need: asking a local server for a page.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A server on loopback that does not answer within this time is broken.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// `GET` from a server on this host. `login` is user and password in base64, for basic authentication.
///
/// It speaks HTTP/1.0, so that the body ends with the connection and never comes in chunks.
pub(crate) fn get(port: u16, path: &str, login: Option<&str>) -> Result<Response> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let authorization = login.map(|login| format!("Authorization: Basic {login}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n{authorization}\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer)).with_context(|| format!("no HTTP answer from port {port}"))
}

fn parse(answer: &str) -> Option<Response> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Response { status, body: body.to_owned() })
}
