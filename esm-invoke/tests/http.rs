//! Invocations of real servers, well-behaved (axum) and broken (a bare socket).
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
    routing::post,
};
use esm_core::{
    batch::{Batcher, ClosedBy},
    event::{Envelope, Event},
    invoker::{Invoke, Outcome},
    testing,
};
use esm_invoke::http::{HttpInvoker, HttpSettings, Protocol};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
};

const MINUTE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);
const NULL: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull";

/// Serves in good order. Returns the address.
async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Hands every connection to `talk`. Its receive buffer is small.
fn talk<F: Future<Output = ()> + Send + 'static>(talk: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(16).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(talk(stream));
        }
    });
    address
}

/// Reads a request with its body. False when the connection ends before.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = stream.take(length.parse().unwrap());
    tokio::io::copy(&mut body, &mut tokio::io::sink()).await.is_ok() && body.limit() == 0
}

fn settings(address: SocketAddr) -> HttpSettings {
    HttpSettings::new(format!("http://{address}/2015-03-31/functions/f/invocations"), MINUTE)
}

fn invoker(address: SocketAddr) -> HttpInvoker {
    HttpInvoker::new(settings(address)).unwrap()
}

/// An event of many pieces, as batches make them.
fn event(records: u64, record_size: usize) -> Event {
    let envelope = Envelope::new(r#"{"records":["#, "]}");
    let mut mapping = testing::mapping();
    mapping.batch_size = 10_000.try_into().unwrap();
    let mut batcher = Batcher::new(&mapping, &envelope);
    for receipt in 0..records {
        batcher.push(testing::delivery(receipt, record_size));
    }
    batcher.close(ClosedBy::Window).unwrap().event(&envelope)
}

fn small() -> Event {
    event(3, 100)
}

/// Larger than what sockets and client hold between them.
fn large() -> Event {
    event(58, 100_000)
}

#[track_caller]
fn assert_function_error(outcome: &Outcome, error_type: &str, message: &str) {
    match outcome {
        Outcome::FunctionError { error_type: found, message: text } => {
            assert!(found == error_type && text.contains(message), "{outcome:?}");
        }
        _ => panic!("{outcome:?}"),
    }
}

#[track_caller]
fn assert_unavailable(outcome: &Outcome, words: &str) {
    assert!(matches!(outcome, Outcome::Unavailable { reason, .. } if reason.contains(words)), "{outcome:?}");
}

#[track_caller]
fn assert_not_usable(outcome: &Outcome, words: &str) {
    assert!(matches!(outcome, Outcome::NotUsable { reason } if reason.contains(words)), "{outcome:?}");
}

#[tokio::test]
async fn a_webhook_gets_the_event_with_its_headers_login_and_signature() {
    let (requests, mut received) = mpsc::channel::<(HeaderMap, Bytes)>(1);
    let function = move |headers: HeaderMap, body: Bytes| async move {
        requests.send((headers, body)).await.unwrap();
        (StatusCode::ACCEPTED, "thank you")
    };
    let address = serve(Router::new().route("/hook", post(function))).await;
    let mut settings = HttpSettings::new(format!("http://{address}/hook"), MINUTE);
    settings.protocol = Protocol::Webhook;
    settings.headers = vec![("X-Shop".into(), "pizza".into())];
    settings.login = Some(("Aladdin".into(), "open sesame".into()));
    settings.signing_key = Some("hunter2".into());
    let invoker = HttpInvoker::new(settings).unwrap();

    assert_eq!(invoker.invoke(small()).await.outcome, Outcome::Success);

    let (headers, body) = received.recv().await.unwrap();
    assert_eq!(body, small().to_bytes());
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["x-shop"], "pizza");
    assert_eq!(headers["authorization"], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "the example of RFC 7617");
    assert!(!headers.contains_key("x-amz-invocation-type"));
    let signature = headers["x-esm-signature"].to_str().unwrap();
    let (time, signature) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((now - 60..=now).contains(&time.parse().unwrap()), "{time}");
    assert_eq!(signature.len(), 64);
}

#[tokio::test]
async fn the_event_goes_out_whole_and_with_its_length() {
    let (requests, mut received) = mpsc::channel::<(HeaderMap, Bytes)>(1);
    let function = move |headers: HeaderMap, body: Bytes| async move {
        requests.send((headers, body)).await.unwrap();
    };
    let path = "/2015-03-31/functions/f/invocations";
    let limit = axum::extract::DefaultBodyLimit::disable();
    let invoker = invoker(serve(Router::new().route(path, post(function)).layer(limit)).await);

    for event in [small(), event(1000, 60), event(100, 1750), event(9, 5000), large()] {
        assert_eq!(invoker.invoke(event.clone()).await.outcome, Outcome::Success);
        let (headers, body) = received.recv().await.unwrap();
        assert!(body == event.to_bytes());
        assert_eq!(headers[header::CONTENT_LENGTH], event.size().to_string());
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(headers["x-amz-invocation-type"], "RequestResponse");
        assert!(!headers.contains_key(header::TRANSFER_ENCODING));
    }
}

#[tokio::test]
async fn a_connection_carries_one_invocation_after_the_other() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let address = talk(move |mut stream| {
        count.fetch_add(1, Ordering::Relaxed);
        async move {
            while read_request(&mut stream).await {
                stream.write_all(NULL).await.unwrap();
            }
        }
    });
    let invoker = invoker(address);

    for _ in 0..5 {
        assert_eq!(invoker.invoke(small()).await.outcome, Outcome::Success);
    }

    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_replaced_unnoticed() {
    let (closed, mut noticed) = mpsc::channel(8);
    let invoker = invoker(talk(move |mut stream| {
        let closed = closed.clone();
        async move {
            read_request(&mut stream).await;
            stream.write_all(NULL).await.unwrap();
            stream.shutdown().await.unwrap();
            // Ends when the client has closed its side too.
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            closed.send(()).await.unwrap();
        }
    }));

    for _ in 0..3 {
        assert_eq!(invoker.invoke(small()).await.outcome, Outcome::Success);
        noticed.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_kept_connection_that_closes_under_the_next_event_spends_no_attempt() {
    let invoker = invoker(talk(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(NULL).await.unwrap();
        stream.peek(&mut [0]).await.unwrap();
    }));

    assert_eq!(invoker.invoke(small()).await.outcome, Outcome::Success);
    assert_unavailable(&invoker.invoke(small()).await.outcome, "Connection reset");
    assert_eq!(invoker.invoke(small()).await.outcome, Outcome::Success);
}

#[tokio::test]
async fn a_server_that_dies_after_it_read_the_event_spends_an_attempt() {
    let address = talk(|mut stream| async move {
        read_request(&mut stream).await;
    });

    let outcome = invoker(address).invoke(event(100, 1750)).await.outcome;

    assert_function_error(&outcome, "Runtime.ConnectionLost", "before an answer came");
}

#[tokio::test]
async fn a_server_that_dies_within_its_answer_spends_an_attempt() {
    let address = talk(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(&NULL[..NULL.len() - 1]).await.unwrap();
    });

    let outcome = invoker(address).invoke(small()).await.outcome;

    assert_function_error(&outcome, "Runtime.ConnectionLost", "within the answer");
}

#[tokio::test]
async fn a_server_that_dies_while_it_reads_the_event_spends_no_attempt() {
    let address = talk(|mut stream| async move {
        stream.read_exact(&mut [0; 1000]).await.unwrap();
    });

    assert_unavailable(&invoker(address).invoke(large()).await.outcome, "cannot send to http://127.0.0.1:");
}

#[tokio::test]
async fn a_server_that_takes_nothing_of_the_event_spends_no_attempt() {
    let mut settings = settings(talk(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    }));
    settings.stall_timeout = SHORT;

    let outcome = HttpInvoker::new(settings).unwrap().invoke(large()).await.outcome;

    assert_unavailable(&outcome, "nothing of the event was taken for 0.1 seconds");
}

#[tokio::test]
async fn where_nobody_listens_no_attempt_is_spent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);

    assert_unavailable(&invoker(address).invoke(small()).await.outcome, "Connection refused");
}

#[tokio::test]
async fn connecting_has_a_limit_of_its_own() {
    let address = talk(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    });
    // A server that never begins its part of TLS.
    let mut settings = HttpSettings::new(format!("https://{address}/"), MINUTE);
    settings.connect_timeout = SHORT;

    let outcome = HttpInvoker::new(settings).unwrap().invoke(small()).await.outcome;

    assert_unavailable(&outcome, "timed out");
}

#[tokio::test]
async fn a_server_without_tls_spends_no_attempt() {
    let address = talk(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let settings = HttpSettings::new(format!("https://{address}/"), MINUTE);

    assert_unavailable(&HttpInvoker::new(settings).unwrap().invoke(small()).await.outcome, "cannot send to https:");
}

#[tokio::test]
async fn a_function_that_never_answers_runs_out_of_time() {
    let mut settings = settings(talk(|mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    }));
    settings.timeout = Duration::from_millis(1250);

    let outcome = HttpInvoker::new(settings).unwrap().invoke(small()).await.outcome;

    assert_function_error(&outcome, "Sandbox.Timedout", "Task timed out after 1.25 seconds");
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_judged_by_its_head_or_runs_out_of_time() {
    for (head, by_head) in [("200 OK", false), ("503 Service Unavailable", true)] {
        let mut settings = settings(talk(move |mut stream| async move {
            read_request(&mut stream).await;
            let head = format!("HTTP/1.1 {head}\r\ncontent-length: 9\r\n\r\nnull");
            stream.write_all(head.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        }));
        settings.timeout = SHORT;

        let outcome = HttpInvoker::new(settings).unwrap().invoke(small()).await.outcome;

        if by_head {
            assert_unavailable(&outcome, "answered 503 Service Unavailable (null)");
        } else {
            assert_function_error(&outcome, "Sandbox.Timedout", "0.10 seconds");
        }
    }
}

#[tokio::test]
async fn an_answer_before_the_event_was_read_is_taken_at_its_word() {
    for (status, expected) in [("413 Content Too Large", "TooLarge"), ("429 Slow Down", "Throttled")] {
        let address = talk(move |mut stream| async move {
            stream.read_exact(&mut [0; 100]).await.unwrap();
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            // Unread data would turn the close into a reset, which overtakes the answer.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
        });

        let outcome = invoker(address).invoke(large()).await.outcome;

        assert!(format!("{outcome:?}").starts_with(expected), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_named_and_not_followed() {
    let router = Router::new()
        .route(
            "/2015-03-31/functions/f/invocations",
            post(async || (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")])),
        )
        .route("/elsewhere", post(async || "null"));
    let address = serve(router).await;

    let outcome = invoker(address).invoke(small()).await.outcome;

    assert_not_usable(&outcome, &format!("307 Temporary Redirect and points to http://{address}/elsewhere"));
}

#[tokio::test]
async fn secrets_of_the_url_are_sent_and_never_told() {
    let router = Router::new().fallback(|headers: HeaderMap, uri: axum::http::Uri| async move {
        assert_eq!(headers[header::AUTHORIZATION], "Basic dXNlcjpwYXNzd29yZA==");
        assert_eq!(uri.query(), Some("code=key"));
        StatusCode::FORBIDDEN
    });
    let address = serve(router).await;
    let invoke = async |address| {
        let settings = HttpSettings::new(format!("http://user:password@{address}/f?code=key"), MINUTE);
        HttpInvoker::new(settings).unwrap().invoke(small()).await.outcome
    };

    assert_not_usable(&invoke(address).await, &format!("http://{address}/f answered 403 Forbidden;"));
    let closed = talk(|stream| async move { drop(stream) });
    for outcome in [invoke(address).await, invoke(closed).await] {
        let text = format!("{outcome:?}");
        assert!(!text.contains("user") && !text.contains("password") && !text.contains("key"), "{text}");
    }
}

#[tokio::test]
async fn a_result_has_a_largest_size() {
    let sizes = [(6_291_556, true), (6_291_557, false)];
    for (size, fits) in sizes {
        let body = format!("\"{}\"", "a".repeat(size - 2));
        let function = async move || body;
        let router = Router::new().fallback(post(function));
        let outcome = invoker(serve(router).await).invoke(small()).await.outcome;
        if fits {
            assert_eq!(outcome, Outcome::Success);
        } else {
            let message = "Response payload size exceeded maximum allowed payload size (6291556 bytes).";
            assert_function_error(&outcome, "Function.ResponseSizeTooLarge", message);
        }
    }
}

#[tokio::test]
async fn of_an_endless_error_only_the_beginning_is_read() {
    let address = talk(|mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 500 Oops\r\n\r\n").await;
        while stream.write_all(&[b'a'; 4096]).await.is_ok() {}
    });

    assert_unavailable(&invoker(address).invoke(small()).await.outcome, "500 Internal Server Error (aaaa");
}

#[tokio::test]
async fn a_server_of_another_protocol_is_not_usable() {
    for words in ["\u{15}\u{3}\u{1}\0\u{2}\u{2}\u{16}", "\0\0\u{6}\u{4}\0\0\0\0\0", "220 mail ready\r\n"] {
        let address = talk(move |mut stream| async move {
            read_request(&mut stream).await;
            stream.write_all(words.as_bytes()).await.unwrap();
        });

        assert_not_usable(&invoker(address).invoke(small()).await.outcome, "does not speak HTTP");
    }
}

#[tokio::test]
async fn an_invocation_that_is_given_up_closes_its_connection() {
    let (events, mut happened) = mpsc::channel(2);
    let invoker = invoker(talk(move |mut stream| {
        let events = events.clone();
        async move {
            events.send(read_request(&mut stream).await).await.unwrap();
            events.send(read_request(&mut stream).await).await.unwrap();
        }
    }));
    let invocation = tokio::spawn(async move { invoker.invoke(small()).await.outcome });
    assert_eq!(happened.recv().await, Some(true));

    invocation.abort();

    assert_eq!(happened.recv().await, Some(false));
}

#[test]
fn what_is_no_url_of_a_function_is_refused_without_repeating_it() {
    let check = |url: &str, words: &str| {
        let error = HttpInvoker::new(HttpSettings::new(url, MINUTE)).err().expect(url).to_string();
        assert!(error.contains(words) && !error.contains("secret"), "{error}");
    };
    check("", "relative URL without a base");
    check("localhost:8080/f", "http:// or https://, not with `localhost:`");
    check("ftp://user:secret@host/", "not with `ftp:`");
    check("http://", "empty host");
    check("http://user:secret@host:99999/", "invalid port number");
    check("http://user:secret@{{host}}/", "cannot be read");
    check("http://user:secret@a b/", "cannot be read");
}
