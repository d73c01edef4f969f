//! Requests signed as AWS's own clients do it, and what becomes of them when something is changed.

use std::{
    env, io,
    process::Command,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use axum::{
    Extension, Json,
    http::{HeaderValue, Method, Request, StatusCode, Uri, request::Parts},
    routing::{any, get},
};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::*;

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const UPDATE: &str = "/2015-03-31/event-source-mappings/9a4b3c2d-0000-4000-8000-000000000000";
const TAG: &str = "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Aevent-source-mapping%3A1";
const BODY: &str = r#"{"BatchSize":10}"#;

fn keys() -> Vec<AccessKey> {
    [("OTHER", "another"), (KEY, SECRET)].map(|(id, secret)| AccessKey { id: id.into(), secret: secret.into() }).into()
}

/// Who signs, and for what.
struct Signer {
    id: &'static str,
    secret: &'static str,
    region: &'static str,
    service: &'static str,
}

const SIGNER: Signer = Signer { id: KEY, secret: SECRET, region: "us-east-1", service: "lambda" };

impl Signer {
    fn sign(&self, method: Method, uri: &str, body: &str, at: SystemTime) -> Parts {
        let headers = [("host", "localhost:9321"), ("content-type", "application/json"), ("x-amz-meta", "a  b")];
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(()).unwrap();
        let identity = Credentials::new(self.id, self.secret, None, None, "test").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(at)
            .settings(SigningSettings::default())
            .build()
            .unwrap();
        let signable = SignableRequest::new(
            request.method().as_str(),
            uri,
            headers.into_iter(),
            SignableBody::Bytes(body.as_bytes()),
        );
        let (instructions, _) = sign(signable.unwrap(), &params.into()).unwrap().into_parts();
        instructions.apply_to_request_http1x(&mut request);
        request.into_parts().0
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_817_255)
}

fn verify(head: &Parts, body: &[u8], now: SystemTime) -> Result<String, Refusal> {
    let presented = Presented::read(head, "us-east-1", now)?;
    Ok(presented.verify(&keys(), head, body)?.id.clone())
}

#[test]
fn what_a_client_of_aws_has_signed_is_taken() {
    for (method, uri, body) in [
        (Method::GET, "/2015-03-31/event-source-mappings?FunctionName=a%3Ab&MaxItems=10", ""),
        (Method::GET, "/2015-03-31/event-source-mappings/", ""),
        (Method::PUT, UPDATE, BODY),
        (Method::POST, TAG, r#"{"Tags":{"a":"ü"}}"#),
        (Method::DELETE, &format!("{TAG}?tagKeys=a+b&tagKeys=c%2Fd"), ""),
    ] {
        let head = SIGNER.sign(method, uri, body, now());
        assert_eq!(verify(&head, body.as_bytes(), now()), Ok(KEY.into()), "{uri}");
    }
}

#[test]
fn the_signature_is_that_of_awss_published_example() {
    // https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
                         SignedHeaders=content-type;host;x-amz-date, \
                         Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
    let head = Request::get("/?Action=ListUsers&Version=2010-05-08")
        .header("host", "iam.amazonaws.com")
        .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
        .header("x-amz-date", "20150830T123600Z")
        .header("authorization", authorization)
        .body(())
        .unwrap()
        .into_parts()
        .0;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
    assert!(matches!(Presented::read(&head, "us-east-1", now), Err(Refusal::Scope { .. })), "it is for iam");
    let presented = Presented::of_any_service(&head, now).unwrap();
    assert_eq!(presented.verify(&keys(), &head, b"").map(|key| key.id.as_str()), Ok(KEY));
}

#[test]
fn a_signature_counts_for_five_minutes_around_its_time() {
    let head = SIGNER.sign(Method::PUT, UPDATE, BODY, now());
    let at = |now| verify(&head, BODY.as_bytes(), now);
    let (limit, second) = (Duration::from_secs(300), Duration::from_secs(1));
    assert_eq!(at(now() + limit), Ok(KEY.into()));
    assert_eq!(at(now() - limit), Ok(KEY.into()));
    let expired = at(now() + limit + second).unwrap_err();
    assert!(matches!(expired, Refusal::Expired { .. }), "{expired}");
    let early = at(now() - limit - second).unwrap_err();
    assert!(matches!(early, Refusal::NotYetCurrent { .. }), "{early}");
    // Nor does another date make an old one young again.
    let mut replayed = SIGNER.sign(Method::PUT, UPDATE, BODY, now() - 12 * limit);
    replayed.headers.insert("x-amz-date", HeaderValue::from_static("20261001T011415Z"));
    assert_eq!(verify(&replayed, BODY.as_bytes(), now()), Err(Refusal::Mismatch));
}

/// As on AWS: nothing is remembered of requests, so who can read one needs to be kept from it by TLS.
#[test]
fn a_request_that_is_sent_again_counts_until_its_time_is_over() {
    let recorded = SIGNER.sign(Method::DELETE, UPDATE, "", now());
    for seconds in [0, 1, 300] {
        assert_eq!(verify(&recorded, b"", now() + Duration::from_secs(seconds)), Ok(KEY.into()));
    }
    let later = verify(&recorded, b"", now() + Duration::from_secs(301));
    assert!(matches!(later, Err(Refusal::Expired { .. })), "{later:?}");
}

#[test]
fn a_wrong_key_and_a_wrong_secret_are_refused_in_the_same_words() {
    for signer in [
        Signer { id: "AKIDUNKNOWN", ..SIGNER },
        Signer { secret: "guessed", ..SIGNER },
        Signer { id: "AKIDUNKNOWN", secret: "", ..SIGNER },
    ] {
        let head = signer.sign(Method::PUT, UPDATE, BODY, now());
        assert_eq!(verify(&head, BODY.as_bytes(), now()), Err(Refusal::Mismatch));
    }
}

#[test]
fn a_signature_for_something_else_is_refused() {
    let scope = Err(Refusal::Scope { region: "us-east-1".into() });
    for signer in [Signer { region: "eu-west-1", ..SIGNER }, Signer { service: "s3", ..SIGNER }] {
        let head = signer.sign(Method::PUT, UPDATE, BODY, now());
        assert_eq!(verify(&head, BODY.as_bytes(), now()), scope);
    }
    let other = |path: &str, method: Method, body: &str| {
        let mut head = SIGNER.sign(Method::PUT, UPDATE, BODY, now());
        head.uri = path.parse().unwrap();
        head.method = method;
        assert_eq!(verify(&head, body.as_bytes(), now()), Err(Refusal::Mismatch), "{path}");
    };
    other(UPDATE, Method::PUT, r#"{"BatchSize":99}"#);
    other(UPDATE, Method::PUT, "");
    other(UPDATE, Method::DELETE, BODY);
    other(&format!("{UPDATE}?x=y"), Method::PUT, BODY);
    other(&UPDATE.replace("9a4b", "9a4c"), Method::PUT, BODY);
    other(&UPDATE.replace("/9a4b", "//9a4b"), Method::PUT, BODY);
    other(&UPDATE.replace("/9a4b", "/./9a4b"), Method::PUT, BODY);
}

#[test]
fn what_is_not_signed_as_it_must_be_is_refused_with_its_reason() {
    let check = |change: &dyn Fn(&mut Parts), expected: Refusal| {
        let mut head = SIGNER.sign(Method::PUT, UPDATE, BODY, now());
        change(&mut head);
        assert_eq!(verify(&head, BODY.as_bytes(), now()), Err(expected));
    };
    let authorization = |head: &mut Parts, from: &str, to: &str| {
        let text = head.headers["authorization"].to_str().unwrap().replace(from, to);
        head.headers.insert("authorization", text.parse().unwrap());
    };
    let incomplete = Refusal::Incomplete;
    check(&|head| drop(head.headers.remove("authorization")), Refusal::Missing);
    check(
        &|head| {
            head.headers.remove("authorization");
            head.uri = format!("{UPDATE}?X-Amz-Signature=00").parse().unwrap();
        },
        incomplete("presigned URLs are not taken"),
    );
    check(
        &|head| {
            let second = head.headers["authorization"].clone();
            head.headers.append("authorization", second);
        },
        incomplete("there are several Authorization headers"),
    );
    check(
        &|head| authorization(head, "AWS4-HMAC-SHA256", "Basic"),
        incomplete("Authorization must begin with AWS4-HMAC-SHA256"),
    );
    check(&|head| authorization(head, ", Signature=", ", Sig="), incomplete("Authorization has an unknown member"));
    check(&|head| authorization(head, ", Signature=", ", Credential="), incomplete("Authorization has a member twice"));
    check(
        &|head| authorization(head, "/lambda/", "/"),
        incomplete("Credential needs a key, date, region, service and aws4_request"),
    );
    check(
        &|head| authorization(head, "=content-type", "=Content-Type"),
        incomplete("SignedHeaders must be in lower case"),
    );
    check(&|head| authorization(head, "host;", ""), incomplete("the header host must be signed"));
    check(&|head| authorization(head, ";x-amz-date", ""), incomplete(UNSIGNED));
    check(
        &|head| authorization(head, "/20261001/", "/20261002/"),
        incomplete("Credential must have the date of X-Amz-Date"),
    );
    check(&|head| drop(head.headers.remove("content-type")), incomplete("a signed header is missing"));
    check(&|head| drop(head.headers.insert("x-amz-target", HeaderValue::from_static("x"))), incomplete(UNSIGNED));
    check(
        &|head| drop(head.headers.insert("x-amz-date", HeaderValue::from_static("yesterday"))),
        incomplete("X-Amz-Date must be like 20201231T235959Z"),
    );
    check(
        &|head| {
            head.headers.append("x-amz-date", HeaderValue::from_static("20261001T011415Z"));
        },
        incomplete("X-Amz-Date must be there once"),
    );
    let no_text = HeaderValue::from_bytes(b"\xff").unwrap();
    check(&|head| drop(head.headers.insert("x-amz-meta", no_text.clone())), incomplete("a signed header is no text"));
}

const UNSIGNED: &str = "every header that begins with x-amz- must be signed";

#[test]
fn a_body_that_was_left_unsigned_is_refused() {
    // As S3 takes it: the client signs the words UNSIGNED-PAYLOAD in place of a hash.
    let mut head = SIGNER.sign(Method::PUT, UPDATE, BODY, now());
    head.headers.insert("x-amz-content-sha256", HeaderValue::from_static("UNSIGNED-PAYLOAD"));
    let text =
        head.headers["authorization"].to_str().unwrap().replace(";x-amz-date", ";x-amz-content-sha256;x-amz-date");
    head.headers.insert("authorization", text.parse().unwrap());
    assert_eq!(verify(&head, BODY.as_bytes(), now()), Err(Refusal::Mismatch));
}

/// Where [`parts_of`] has the URI.
const URI: usize = 1;

/// Everything of a request that a signature covers, as bytes that can be changed.
fn parts_of(head: &Parts, body: &str) -> Vec<Vec<u8>> {
    let covered = ["host", "x-amz-date", "x-amz-meta", "content-type", "authorization"];
    let mut parts = vec![head.method.as_str().into(), head.uri.to_string().into(), body.into()];
    parts.extend(covered.map(|name| head.headers[name].as_bytes().to_vec()));
    parts
}

/// `None`: no such request can arrive.
fn request_of(parts: &[Vec<u8>]) -> Option<(Parts, Vec<u8>)> {
    let covered = ["host", "x-amz-date", "x-amz-meta", "content-type", "authorization"];
    let mut head = Request::new(()).into_parts().0;
    head.method = Method::from_bytes(&parts[0]).ok()?;
    head.uri = Uri::try_from(parts[1].as_slice()).ok()?;
    for (name, value) in covered.into_iter().zip(&parts[3..]) {
        head.headers.insert(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some((head, parts[2].clone()))
}

/// `%3A` and `%3a` in a query are the same parameter, for the routes too.
fn same_but_for_spelling(one: &Parts, other: &Parts) -> bool {
    let parameters = |head: &Parts| {
        let decode = |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).collect::<Vec<_>>();
        head.uri.query().map(|query| query.split('&').map(decode).collect::<Vec<_>>())
    };
    one.method == other.method && one.uri.path() == other.uri.path() && parameters(one) == parameters(other)
}

#[test]
fn a_request_with_any_bit_flipped_is_refused() {
    let uri = format!("{TAG}?tagKeys=a%2Fb&tagKeys=c+d");
    let signed = SIGNER.sign(Method::DELETE, &uri, BODY, now());
    assert_eq!(verify(&signed, BODY.as_bytes(), now()), Ok(KEY.to_owned()));
    let parts = parts_of(&signed, BODY);
    let mut arrived = 0;
    for (part, place, bit) in parts.iter().enumerate().flat_map(|(part, bytes)| {
        let places = (0..bytes.len()).flat_map(|place| (0..8).map(move |bit| (place, bit)));
        places.map(move |(place, bit)| (part, place, bit))
    }) {
        let mut flipped = parts.clone();
        flipped[part][place] ^= 1_u8 << bit;
        if let Some((head, body)) = request_of(&flipped)
            && (part != URI || !same_but_for_spelling(&signed, &head))
        {
            arrived += 1;
            assert!(verify(&head, &body, now()).is_err(), "{head:?}");
        }
    }
    assert!(arrived > 2_000, "{arrived} of them were requests at all");
}

/// A guard around routes that answer with who called.
async fn serve(access: Access) -> String {
    let who = async |method: Method, Extension(caller): Extension<Caller>| {
        let subject = (method == Method::POST).then(|| Extension(Subject("the new one".into())));
        (subject, Json(json!({ "UUID": caller.to_string() })))
    };
    let routes = Router::new().route("/2015-03-31/{*rest}", any(who)).route("/2017-03-31/{*rest}", any(who));
    let open = Router::new().route("/healthz", get(async || "ok"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let all = open.merge(guard(routes, Arc::new(access)));
    tokio::spawn(crate::listener::serve(listener, watch::channel(None).1, all, CancellationToken::new()));
    base
}

async fn send(base: &str, head: Parts, body: impl Into<reqwest::Body>) -> (StatusCode, String, String) {
    let url = format!("{base}{}", head.uri);
    let request = reqwest::Client::new().request(head.method, url).headers(head.headers).body(body);
    let response = request.send().await.unwrap();
    let error = response.headers().get("x-amzn-errortype").map(|value| value.to_str().unwrap().to_owned());
    (response.status(), error.unwrap_or_default(), response.text().await.unwrap())
}

#[tokio::test]
async fn with_a_key_every_call_of_the_control_api_needs_a_signature_and_nothing_else_does() {
    let base = serve(Access::new(keys(), "us-east-1".into())).await;
    let signed = |method, uri| SIGNER.sign(method, uri, BODY, SystemTime::now());

    let (status, _, who) = send(&base, signed(Method::PUT, UPDATE), BODY).await;
    assert_eq!((status, who), (StatusCode::OK, format!("{{\"UUID\":\"{KEY}\"}}")));
    let (status, _, _) = send(&base, signed(Method::POST, TAG), BODY).await;
    assert_eq!(status, StatusCode::OK);

    for (uri, method) in
        [(UPDATE, Method::PUT), (TAG, Method::DELETE), ("/2015-03-31/event-source-mappings", Method::GET)]
    {
        let mut head = signed(method, uri);
        head.headers.remove("authorization");
        let (status, error, body) = send(&base, head, "").await;
        assert_eq!((status, error.as_str()), (StatusCode::FORBIDDEN, "MissingAuthenticationTokenException"));
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["message"], "Missing Authentication Token");
    }
    let (status, error, _) = send(&base, signed(Method::PUT, UPDATE), "{}").await;
    assert_eq!((status, error.as_str()), (StatusCode::FORBIDDEN, "InvalidSignatureException"));

    let health = reqwest::get(format!("{base}/healthz")).await.unwrap();
    assert_eq!(health.text().await.unwrap(), "ok");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_all_there() {
    let base = serve(Access::new(keys(), "us-east-1".into())).await;
    let head = SIGNER.sign(Method::PUT, UPDATE, BODY, SystemTime::now());
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 8_192])));
    let (status, error, _) = send(&base, head, reqwest::Body::wrap_stream(endless)).await;
    assert_eq!((status, error.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException"));
}

#[tokio::test]
async fn without_a_key_anybody_may_call_but_no_web_page() {
    let base = serve(Access::new(Vec::new(), "us-east-1".into())).await;
    let mut head = Request::put(UPDATE).body(()).unwrap().into_parts().0;
    let (status, _, who) = send(&base, head.clone(), BODY).await;
    assert_eq!((status, who.as_str()), (StatusCode::OK, "{\"UUID\":\"anonymous\"}"));
    head.headers.insert("origin", HeaderValue::from_static("https://example.com"));
    let (status, error, _) = send(&base, head.clone(), BODY).await;
    assert_eq!((status, error.as_str()), (StatusCode::FORBIDDEN, "AccessDeniedException"));
    head.headers.remove("origin");
    for (host, expected) in [
        ("localhost:9321", StatusCode::OK),
        ("LOCALHOST", StatusCode::OK),
        ("127.0.0.1:9321", StatusCode::OK),
        ("[::1]:9321", StatusCode::OK),
        ("rebound.example.com:9321", StatusCode::FORBIDDEN),
        ("127.0.0.1.example.com", StatusCode::FORBIDDEN),
        ("", StatusCode::FORBIDDEN),
    ] {
        head.headers.insert("host", HeaderValue::from_static(host));
        assert_eq!(send(&base, head.clone(), BODY).await.0, expected, "{host}");
    }
}

#[tokio::test]
async fn a_change_whose_caller_has_gone_is_carried_out_to_its_end() {
    use tokio::io::AsyncWriteExt as _;

    let (began, mut beginnings) = mpsc::channel(1);
    let (ended, mut ends) = mpsc::channel(1);
    let go_on = Arc::new(Notify::new());
    let change = {
        let go_on = go_on.clone();
        async move || {
            began.send(()).await.unwrap();
            go_on.notified().await;
            ended.send(()).await.unwrap();
        }
    };
    let routes = Router::new().route(UPDATE, any(change));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let end = CancellationToken::new();
    let all = guard(routes, Arc::new(Access::new(Vec::new(), "us-east-1".into())));
    let serving = tokio::spawn(crate::listener::serve(listener, watch::channel(None).1, all, end.clone()));

    let mut caller = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("PUT {UPDATE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    caller.write_all(request.as_bytes()).await.unwrap();
    beginnings.recv().await.unwrap();
    drop(caller);
    end.cancel();
    serving.await.unwrap(); // its connection has ended
    go_on.notify_one();

    assert_eq!(ends.recv().await, Some(()));
}

#[tokio::test]
async fn a_refusal_is_answered_in_the_shape_of_awss_errors() {
    let response = Refusal::Mismatch.into_response();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.headers()["x-amzn-errortype"], "InvalidSignatureException");
    assert!(response.headers().contains_key("x-amzn-requestid"));
    let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(body["message"].as_str().unwrap().starts_with("The request signature we calculated does not match"));
}

/// What is logged, as JSON, one object a line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap();
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_change_leaves_a_line_that_says_who_and_what_and_with_which_result() {
    // Of the whole process, and other tests write to it: what is this one's has `AUDITED` in it.
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let key = AccessKey { id: "AUDITED".into(), secret: SECRET.into() };
    let base = serve(Access::new(vec![key], "us-east-1".into())).await;
    let caller = Signer { id: "AUDITED", ..SIGNER };
    let signed = |method, uri| caller.sign(method, uri, BODY, SystemTime::now());

    send(&base, signed(Method::PUT, UPDATE), BODY).await;
    send(&base, signed(Method::DELETE, TAG), BODY).await;
    send(&base, signed(Method::POST, "/2015-03-31/event-source-mappings/"), BODY).await;
    send(&base, signed(Method::GET, UPDATE), BODY).await;
    let stranger = Signer { secret: "guessed", ..caller };
    send(&base, stranger.sign(Method::PATCH, "/2015-03-31/AUDITED", BODY, SystemTime::now()), BODY).await;

    let lines = log.lines();
    let ours = |line: &&Value| line["target"] == "audit" && line.to_string().contains("AUDITED");
    let told = |line: &Value| json!([line["caller"], line["operation"], line["subject"], line["status"]]);
    let arn = "arn:aws:lambda:us-east-1:000000000000:event-source-mapping:1";
    assert_eq!(
        lines.iter().filter(ours).map(told).collect::<Vec<_>>(),
        [
            json!(["AUDITED", "UpdateEventSourceMapping", "9a4b3c2d-0000-4000-8000-000000000000", 200]),
            json!(["AUDITED", "UntagResource", arn, 200]),
            json!(["AUDITED", "CreateEventSourceMapping", "the new one", 200]),
            json!([null, "PATCH /2015-03-31/AUDITED", null, null]),
        ]
    );
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains(SECRET) && !text.contains("BatchSize") && !text.contains("Signature="), "{text}");
}

/// Calls everything there is, by AWS's client for Python, and prints what comes back.
const BOTO3: &str = r#"
import sys, boto3, botocore
def client(secret, region="us-east-1", token=None):
    return boto3.client("lambda", endpoint_url=sys.argv[1], region_name=region, aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key=secret, aws_session_token=token, config=botocore.config.Config(retries={"max_attempts": 1}))
arn = "arn:aws:lambda:us-east-1:000000000000:event-source-mapping:9a4b3c2d-0000-4000-8000-000000000000"
def call(client):
    yield client.create_event_source_mapping(FunctionName="f:ä", Queues=["a b/c"], Tags={"ü": "+ %"})
    yield client.get_event_source_mapping(UUID="9a4b3c2d-0000-4000-8000-000000000000")
    yield client.list_event_source_mappings(FunctionName="f:alias", EventSourceArn="arn:aws:mq:us-east-1:111122223333:broker:a b:b-1")
    yield client.update_event_source_mapping(UUID="9a4b3c2d-0000-4000-8000-000000000000", BatchSize=7)
    yield client.delete_event_source_mapping(UUID="9a4b3c2d-0000-4000-8000-000000000000")
    yield client.tag_resource(Resource=arn, Tags={"a": "b"})
    yield client.untag_resource(Resource=arn, TagKeys=["a/b", "c d", "ü+"])
    yield client.list_tags(Resource=arn)
for one in (client(sys.argv[2]), client(sys.argv[2], token="session")):
    print(sum(answer["ResponseMetadata"]["HTTPStatusCode"] == 200 for answer in call(one)))
for wrong in (client("guessed"), client(sys.argv[2], "eu-west-1")):
    try:
        next(call(wrong))
    except botocore.exceptions.ClientError as error:
        print(error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs boto3"]
async fn awss_client_for_python_is_let_in_by_its_signatures() {
    let base = serve(Access::new(keys(), "us-east-1".into())).await;
    let python = env::var_os("ESM_TEST_PYTHON").expect("ESM_TEST_PYTHON names a Python that has boto3");
    let output = Command::new(python).args(["-c", BOTO3, &base, SECRET]).output().unwrap();
    let (printed, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(printed, "8\n8\nInvalidSignatureException 403\nInvalidSignatureException 403\n", "{failed}");
}
