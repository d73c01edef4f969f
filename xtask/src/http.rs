//! The little HTTP that tasks need: asking a server on this host for a page.
//!
//! It speaks HTTP/1.0, so that a body ends with the connection and never comes in chunks.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// A server on loopback that does not answer within this time is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// The login of a private broker's management, `guest:guest` in base64. Other servers take no notice of it.
const LOGIN: &str = "Z3Vlc3Q6Z3Vlc3Q=";

/// The page, which must be there.
pub(crate) fn get(port: u16, path: &str) -> Result<String> {
    request(port, "GET", path, "")
}

/// What a server answers to a JSON document.
pub(crate) fn post(port: u16, path: &str, document: &str) -> Result<String> {
    request(port, "POST", path, document)
}

/// Removes what a server keeps there.
pub(crate) fn delete(port: u16, path: &str) -> Result<()> {
    request(port, "DELETE", path, "").map(drop)
}

fn request(port: u16, method: &str, path: &str, document: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = document.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Basic {LOGIN}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + document).as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (status, body) = parse(&answer).with_context(|| format!("no HTTP answer from port {port}"))?;
    ensure!((200..300).contains(&status), "{path} on port {port} answers {status}: {}", body.trim());
    Ok(body.to_owned())
}

fn parse(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split_whitespace().nth(1)?.parse().ok()?, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_body() {
        assert_eq!(parse("HTTP/1.1 200 OK\r\na: b\r\n\r\none\r\n\r\ntwo"), Some((200, "one\r\n\r\ntwo")));
        assert_eq!(parse("SSH-2.0-OpenSSH"), None);
    }
}
