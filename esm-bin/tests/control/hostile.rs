//! Requests that nobody means well with: each is refused, and nothing is hurt by it.

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    common::service::{PATIENCE, Service},
    service::{NoRabbitMq, disabled, example, with},
};

const MAPPINGS: &str = "/2015-03-31/event-source-mappings";

struct Target {
    service: Service,
    client: Client,
}

impl Target {
    async fn start() -> Self {
        let service = Service::start(&example(&NoRabbitMq, "http://127.0.0.1:1/")).await;
        Self { service, client: Client::new() }
    }

    async fn sends(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> StatusCode {
        let request = self.client.request(method, self.service.url(path)).body(body);
        request.send().await.expect("is answered").status()
    }

    /// Whether a body is refused on the ways that take one.
    async fn refuses(&self, body: &[u8]) {
        let shown = || String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let status = self.sends(Method::POST, MAPPINGS, body.to_vec()).await;
        assert!(status.is_client_error(), "{status}: {}", shown());
        let tags = "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Aevent-source-mapping%3Ax";
        let status = self.sends(Method::POST, tags, body.to_vec()).await;
        assert!(status.is_client_error(), "{status}: {}", shown());
    }

    /// Everything is as it was.
    async fn is_unhurt(&self) {
        let answer = self.client.get(self.service.url(MAPPINGS)).send().await.expect("is answered");
        assert_eq!(answer.json::<Value>().await.expect("is JSON"), json!({ "EventSourceMappings": [] }));
        assert!(!self.service.log().contains("panicked"), "{}", self.service.log());
    }
}

#[tokio::test]
async fn broken_bodies_are_refused() {
    let target = Target::start().await;
    let body = serde_json::to_vec(&disabled("queue")).unwrap();
    for length in 1..body.len() {
        target.refuses(&body[..length]).await; // truncated
    }
    for bytes in [&b"\xff"[..], b"\0", b"nul", b"\"text\"", b"1", b"[]", b"[{}]", b"{]", b"{\"a\":}", b"\xef\xbb\xbf{}"]
    {
        target.refuses(bytes).await;
    }
    for place in (0..body.len()).step_by(3) {
        let mut broken = body.clone();
        broken[place] = 0xff; // never in UTF-8
        target.refuses(&broken).await;
    }
    target.is_unhurt().await;
}

#[tokio::test]
async fn deep_huge_and_doubled_bodies_are_refused() {
    let target = Target::start().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [200, 100_000] {
            let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            target.refuses(nested.as_bytes()).await;
            target.refuses(format!("{{\"Tags\":{nested}}}").as_bytes()).await;
            target.refuses(open.repeat(depth).as_bytes()).await;
        }
    }
    let body = disabled("queue").to_string();
    target.refuses(body.replacen('{', "{\"BatchSize\":1,\"BatchSize\":2,", 1).as_bytes()).await;
    target.refuses(body.replacen('{', "{\"Batch\\u0053ize\":1,\"BatchSize\":1,", 1).as_bytes()).await;
    target.refuses(with(disabled("queue"), json!({ "Queues": vec!["q"; 10_000] })).to_string().as_bytes()).await;
    let many: serde_json::Map<_, _> = (0..10_000).map(|number| (format!("k{number}"), json!("v"))).collect();
    target.refuses(with(disabled("queue"), json!({ "Tags": many.clone() })).to_string().as_bytes()).await;
    target.refuses(with(disabled("queue"), Value::Object(many)).to_string().as_bytes()).await;
    target
        .refuses(with(disabled("queue"), json!({ "FunctionName": "f".repeat(1_000_000) })).to_string().as_bytes())
        .await;
    assert_eq!(target.sends(Method::POST, MAPPINGS, vec![b' '; 3_000_000]).await, StatusCode::PAYLOAD_TOO_LARGE);
    target.is_unhurt().await;
}

#[tokio::test]
async fn every_member_with_a_wrong_value_is_refused() {
    let target = Target::start().await;
    let wrong = [
        json!(-2),
        json!(0.5),
        json!(1e300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!("\0"),
        json!("\u{202e}x y!"),
        json!([1]),
        json!([[]]),
        json!([null]),
        json!({ "a": {} }),
        json!({ "": "" }),
        json!("x".repeat(20_000)),
    ];
    let names = [
        "EventSourceArn",
        "FunctionName",
        "Enabled",
        "BatchSize",
        "FilterCriteria",
        "MaximumBatchingWindowInSeconds",
        "Queues",
        "SourceAccessConfigurations",
        "Tags",
        "KMSKeyArn",
        "ScalingConfig",
        "MaximumRetryAttempts",
        "DestinationConfig",
        "MaximumRecordAgeInSeconds",
        "BisectBatchOnFunctionError",
        "FunctionResponseTypes",
        "MetricsConfig",
        "StartingPosition",
        "Topics",
        "ParallelizationFactor",
        "UUID",
        "State",
        "eventSourceArn",
        "",
        "\u{0}",
    ];
    for name in names {
        for value in &wrong {
            let request = with(disabled("queue"), json!({ name: value }));
            let status = target.sends(Method::POST, MAPPINGS, request.to_string()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{name} {value}");
        }
    }
    target.is_unhurt().await;
}

/// Bytes changed at random give whatever they give, but never our own failure.
#[tokio::test]
async fn damaged_requests_never_make_us_fail() {
    let target = Target::start().await;
    let request =
        with(disabled("queue"), json!({ "BatchSize": 5, "Tags": { "a": "b" }, "FilterCriteria": { "Filters": [] } }));
    let body = request.to_string().into_bytes();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).expect("is small")
    };
    for _ in 0..2_000 {
        let mut damaged = body.clone();
        for _ in 0..=next(3) {
            let place = next(damaged.len());
            damaged[place] = b"{}[]\",:0a\\ \xc3"[next(12)];
        }
        let status = target.sends(Method::POST, MAPPINGS, damaged.clone()).await;
        assert!(!status.is_server_error(), "{status}: {}", String::from_utf8_lossy(&damaged));
    }
    assert!(!target.service.log().contains("panicked"), "{}", target.service.log());
}

#[tokio::test]
async fn broken_paths_are_refused() {
    let target = Target::start().await;
    let long = "x".repeat(8_000);
    let paths = [
        "/%ff",
        "/..",
        "/%2e%2e%2f",
        "/%00",
        "/91EAEB7E-C976-4939-9451-8709DB01F137",
        "/91eaeb7ec976493994518709db01f137",
        "/{91eaeb7e-c976-4939-9451-8709db01f137}",
        "/urn:uuid:91eaeb7e-c976-4939-9451-8709db01f137",
        "/a/b",
        "//",
        "/?x=%",
        &format!("/{long}"),
    ];
    for path in paths {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let status = target.sends(method.clone(), &format!("{MAPPINGS}{path}"), "{}").await;
            assert!(status.is_client_error(), "{status}: {method} {path}");
        }
    }
    for arn in ["%ff", "x", "arn:aws:lambda:us-east-1:000000000000:function:f", "a/b", "%", &long] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let status =
                target.sends(method.clone(), &format!("/2017-03-31/tags/{arn}?tagKeys=a"), r#"{"Tags":{}}"#).await;
            assert!(status.is_client_error(), "{status}: {method} {arn}");
        }
    }
    target.is_unhurt().await;
}

#[tokio::test]
async fn a_page_in_a_browser_cannot_make_a_mapping() {
    let target = Target::start().await;
    let own = target.service.url("");
    let status = async |origin: &str| {
        let request = target.client.post(target.service.url(MAPPINGS)).header("Origin", origin);
        request.header("Content-Type", "text/plain").body(disabled("queue").to_string()).send().await.unwrap().status()
    };
    for page in ["http://example.org", "null", "http://127.0.0.1", &own, ""] {
        assert_eq!(status(page).await, StatusCode::FORBIDDEN, "{page}");
    }
    target.is_unhurt().await;
}

/// What is written on a connection, and how the answer begins; empty: closed without one.
async fn exchange(target: &Target, bytes: &[u8]) -> String {
    let address = target.service.url("").replace("http://", "");
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(bytes).await.expect("writes");
    let mut answer = vec![0; 12];
    let reading = timeout(PATIENCE, stream.read_exact(&mut answer));
    match reading.await.expect("the connection ends") {
        Ok(_) => String::from_utf8_lossy(&answer).into_owned(),
        Err(_) => String::new(),
    }
}

#[tokio::test]
async fn a_body_that_never_ends_and_what_is_no_http_are_answered_and_given_up() {
    let target = Target::start().await;
    let head = format!("POST {MAPPINGS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{");
    let chunked =
        format!("POST {MAPPINGS} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n");
    let many = format!("GET {MAPPINGS} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(10_000));
    let (slow, also_slow, many, broken) = tokio::join!(
        exchange(&target, head.as_bytes()),
        exchange(&target, chunked.as_bytes()),
        exchange(&target, many.as_bytes()),
        exchange(&target, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    );
    assert_eq!((slow.as_str(), also_slow.as_str()), ("HTTP/1.1 408", "HTTP/1.1 408"));
    assert!(["HTTP/1.1 431", "HTTP/1.1 400"].contains(&many.as_str()), "{many}");
    assert_eq!(broken, "HTTP/1.1 400");
    target.is_unhurt().await;
}
