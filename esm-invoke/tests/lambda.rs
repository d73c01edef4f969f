//! Functions on Lambda: a scripted endpoint that gives each answer, and moto, which stands for AWS and
//! verifies signatures.
#![cfg(feature = "lambda")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri},
};
use esm_core::invoker::{Invoke, Outcome};
use esm_invoke::{
    aws::{CredentialChain, Identity},
    backend::Backend,
    lambda::{LambdaInvoker, LambdaSettings},
};
use tokio::net::TcpListener;

const ARN: &str = "arn:aws:lambda:eu-west-1:123456789012:function:pizza:live";

/// Status, a header as `name=value`, and body.
type Answer = (u16, &'static str, &'static str);
type Asked = (Uri, HeaderMap, Bytes);

/// What the endpoint answers next, and what it was asked.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<Vec<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

async fn answer(
    State(script): State<Script>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, &'static str) {
    script.asked.lock().unwrap().push((uri, headers, body));
    let (status, kind, body) = script.answers.lock().unwrap().pop().unwrap();
    let mut headers = HeaderMap::new();
    if let Some((name, value)) = kind.split_once('=') {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    (StatusCode::from_u16(status).unwrap(), headers, body)
}

impl Script {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }
}

fn environment(variables: &[(&str, &str)]) -> HashMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn keys(id: &str, secret: &str) -> HashMap<String, String> {
    environment(&[("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_EC2_METADATA_DISABLED", "true")])
}

fn chain(environment: HashMap<String, String>, endpoint: &str, role_arn: Option<String>) -> Arc<CredentialChain> {
    let (region, endpoint_url) = ("eu-west-1".into(), Some(endpoint.into()));
    CredentialChain::new(Identity { region, endpoint_url, environment, role_arn }).unwrap()
}

fn invoker(name: &str, endpoint: &str, credentials: Arc<CredentialChain>) -> LambdaInvoker {
    let settings = LambdaSettings {
        name: name.into(),
        region: "eu-west-1".into(),
        endpoint_url: Some(endpoint.into()),
        timeout: Duration::from_secs(30),
        credentials,
    };
    LambdaInvoker::new(settings).unwrap()
}

fn event() -> esm_core::event::Event {
    Bytes::from_static(br#"{"eventSource":"aws:rmq"}"#).into()
}

#[tokio::test]
async fn a_call_has_the_functions_name_in_its_path_and_a_signature() {
    let script = Script::default();
    let endpoint = script.start().await;
    script.answers.lock().unwrap().push((200, "", "null"));
    let mut environment = keys("AKID", "hunter2");
    environment.insert("AWS_SESSION_TOKEN".into(), "token".into());
    let invoker = invoker(ARN, &endpoint, chain(environment, &endpoint, None));

    assert_eq!(invoker.invoke(event()).await.outcome, Outcome::Success);
    let (uri, headers, body) = script.asked.lock().unwrap().pop().unwrap();
    let path =
        "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Apizza%3Alive/invocations";
    assert_eq!(uri.to_string(), path);
    assert_eq!(body, r#"{"eventSource":"aws:rmq"}"#);
    assert_eq!(headers["x-amz-invocation-type"], "RequestResponse");
    assert_eq!(headers["x-amz-security-token"], "token");
    let authorization = headers["authorization"].to_str().unwrap();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKID/"), "{authorization}");
    assert!(authorization.contains("/eu-west-1/lambda/aws4_request"), "{authorization}");
    let signed = "SignedHeaders=content-type;host;x-amz-date;x-amz-invocation-type;x-amz-security-token";
    assert!(authorization.contains(signed), "{authorization}");
    assert!(!invoker.describe().contains("hunter2"));
}

#[tokio::test]
async fn each_answer_of_the_invoke_api_has_its_meaning() {
    let script = Script::default();
    let endpoint = script.start().await;
    let invoker = invoker("pizza", &endpoint, chain(keys("AKID", "hunter2"), &endpoint, None));
    let check = async |status: u16, kind: &'static str, body: &'static str, expected: &str| {
        script.answers.lock().unwrap().push((status, kind, body));
        let outcome = invoker.invoke(event()).await.outcome;
        let name = match &outcome {
            Outcome::Success => "success",
            Outcome::FunctionError { .. } => "function error",
            Outcome::Throttled { .. } => "throttled",
            Outcome::Unavailable { .. } => "unavailable",
            Outcome::TooLarge { .. } => "too large",
            Outcome::NotUsable { .. } => "not usable",
        };
        assert_eq!(name, expected, "{status} {kind}: {outcome:?}");
        assert!(!format!("{outcome:?}").contains("hunter2"));
    };
    check(200, "", "{}", "success").await;
    check(200, "x-amz-function-error=Unhandled", r#"{"errorMessage":"no"}"#, "function error").await;
    check(429, "x-amzn-errortype=TooManyRequestsException", r#"{"Reason":"x"}"#, "throttled").await;
    for status in [408, 409, 410, 500, 502, 503, 504] {
        check(status, "x-amzn-errortype=ServiceException", "{}", "unavailable").await;
    }
    check(502, "x-amzn-errortype=EC2ThrottledException", "{}", "unavailable").await;
    check(502, "x-amzn-errortype=InvalidRuntimeException", "{}", "not usable").await;
    check(502, "x-amzn-errortype=KMSAccessDeniedException", "{}", "not usable").await;
    check(403, "x-amzn-errortype=AccessDeniedException", "{}", "not usable").await;
    check(403, "x-amzn-errortype=AccessDeniedException", r#"{"message":"ExpiredTokenException"}"#, "not usable").await;
    check(404, "x-amzn-errortype=ResourceNotFoundException", "{}", "not usable").await;
    check(400, "x-amzn-errortype=InvalidParameterValueException", "{}", "not usable").await;
    check(413, "x-amzn-errortype=RequestEntityTooLargeException", "{}", "too large").await;
    check(403, "x-amzn-errortype=UnrecognizedClientException", "{}", "not usable").await;
    check(403, "x-amzn-errortype=ExpiredTokenException", "{}", "unavailable").await;
}

#[tokio::test]
async fn credentials_that_were_refused_are_looked_for_anew() {
    let script = Script::default();
    let endpoint = script.start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let write = |id: &str| {
        std::fs::write(&file, format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = s\n")).unwrap();
    };
    write("OLD");
    let file_name = file.to_str().unwrap();
    let variables = [("AWS_SHARED_CREDENTIALS_FILE", file_name), ("AWS_CONFIG_FILE", "/nonexistent")];
    let invoker = invoker("pizza", &endpoint, chain(environment(&variables), &endpoint, None));
    let key = || {
        let (_, headers, _) = script.asked.lock().unwrap().pop().unwrap();
        headers["authorization"].to_str().unwrap().split(['=', '/']).nth(1).unwrap().to_owned()
    };
    script.answers.lock().unwrap().push((200, "", "null"));
    assert_eq!(invoker.invoke(event()).await.outcome, Outcome::Success);
    assert_eq!(key(), "OLD");
    write("NEW");
    script.answers.lock().unwrap().push((403, "x-amzn-errortype=ExpiredTokenException", "{}"));
    assert!(matches!(invoker.invoke(event()).await.outcome, Outcome::Unavailable { .. }));
    assert_eq!(key(), "OLD", "they are kept while they are accepted");
    script.answers.lock().unwrap().push((200, "", "null"));
    assert_eq!(invoker.invoke(event()).await.outcome, Outcome::Success);
    assert_eq!(key(), "NEW");
}

#[tokio::test]
async fn without_credentials_the_function_cannot_be_used() {
    let variables = environment(&[
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    let invoker = invoker("pizza", "http://127.0.0.1:1", chain(variables, "http://127.0.0.1:1", None));
    let outcome = invoker.invoke(event()).await.outcome;
    assert!(matches!(&outcome, Outcome::NotUsable { reason } if reason.contains("no credentials")), "{outcome:?}");
}

#[tokio::test]
async fn what_is_secret_in_an_endpoint_is_not_told() {
    let script = Script::default();
    let endpoint = script.start().await.replace("http://", "http://esm:hunter2@") + "/?token=hunter3";
    let role = "arn:aws:iam::123456789012:role/invoker".to_owned();
    for (endpoint, words) in
        [(endpoint.as_str(), "answered 503"), ("http://esm:hunter2@127.0.0.1:1/?token=hunter3", "cannot call")]
    {
        script.answers.lock().unwrap().push((503, "", "{}"));
        let invoker = invoker("pizza", endpoint, chain(keys("AKID", "s"), endpoint, Some(role.clone())));
        let outcome = invoker.invoke(event()).await.outcome;
        let Outcome::Unavailable { reason, .. } = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains(words) && !reason.contains("hunter"), "{reason}");
    }
}

mod moto {
    use std::{
        env,
        process::{Child, Command, Stdio},
    };

    use super::*;

    /// Makes a function, a user and a role that may invoke it, and a secret; then moto verifies signatures.
    const SET_UP: &str = r#"
import sys, json, io, zipfile, boto3, urllib.request
url = sys.argv[1]
def client(name):
    return boto3.client(name, endpoint_url=url, region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
def post(path, body):
    urllib.request.urlopen(urllib.request.Request(url + path, data=body.encode(), method="POST", headers={"Content-Type": "application/json"}))
post("/moto-api/config", '{"lambda": {"use_docker": false}}')
iam = client("iam")
anybody = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]})
everything = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
role = iam.create_role(RoleName="invoker", AssumeRolePolicyDocument=anybody)["Role"]["Arn"]
iam.put_role_policy(RoleName="invoker", PolicyName="all", PolicyDocument=everything)
iam.create_user(UserName="esm")
iam.put_user_policy(UserName="esm", PolicyName="all", PolicyDocument=everything)
key = iam.create_access_key(UserName="esm")["AccessKey"]
code = io.BytesIO()
with zipfile.ZipFile(code, "w") as archive:
    archive.writestr("app.py", "def handler(event, context): return event")
function = client("lambda").create_function(FunctionName="pizza", Runtime="python3.12", Role=role, Handler="app.handler", Code={"ZipFile": code.getvalue()}, Publish=True)
secret = client("secretsmanager").create_secret(Name="login", SecretString=json.dumps({"username": "guest", "password": "hunter2"}))
broker = client("mq").create_broker(BrokerName="pizza", EngineType="ACTIVEMQ", EngineVersion="5.18", DeploymentMode="ACTIVE_STANDBY_MULTI_AZ", HostInstanceType="mq.t3.micro", PubliclyAccessible=False, AutoMinorVersionUpgrade=True, Users=[])
post("/moto-api/static/lambda-simple/response", '{"results": ["{\\"called\\": true}"], "region": "eu-west-1"}')
post("/moto-api/reset-auth", "0")
print("\n".join([key["AccessKeyId"], key["SecretAccessKey"], function["FunctionArn"].removesuffix(":1"), role, secret["ARN"], broker["BrokerId"]]))
"#;

    /// A running moto. Ends when dropped.
    pub(super) struct Moto {
        child: Child,
        pub(super) url: String,
        pub(super) id: String,
        pub(super) secret: String,
        pub(super) function: String,
        pub(super) role: String,
        #[cfg(feature = "aws")]
        pub(super) login: String,
        #[cfg(feature = "aws")]
        pub(super) broker: String,
    }

    impl Moto {
        pub(super) async fn start() -> Self {
            let python = env::var_os("ESM_TEST_PYTHON").expect("ESM_TEST_PYTHON names a Python that has moto");
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let url = format!("http://127.0.0.1:{port}");
            let mut serve = Command::new(&python);
            serve.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
            let child = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let mut moto = Self {
                child,
                url: url.clone(),
                id: String::new(),
                secret: String::new(),
                function: String::new(),
                role: String::new(),
                #[cfg(feature = "aws")]
                login: String::new(),
                #[cfg(feature = "aws")]
                broker: String::new(),
            };
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                assert!(moto.child.try_wait().unwrap().is_none(), "moto ended");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let output = tokio::task::spawn_blocking(move || Command::new(python).args(["-c", SET_UP, &url]).output());
            let output = output.await.unwrap().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let printed = String::from_utf8(output.stdout).unwrap();
            let lines: Vec<_> = printed.lines().map(str::to_owned).collect();
            let [id, secret, function, role, login, broker] = <[String; 6]>::try_from(lines).unwrap();
            (moto.id, moto.secret, moto.function, moto.role) = (id, secret, function, role);
            #[cfg(feature = "aws")]
            {
                (moto.login, moto.broker) = (login, broker);
            }
            #[cfg(not(feature = "aws"))]
            drop((login, broker));
            moto
        }
    }

    impl Drop for Moto {
        fn drop(&mut self) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }

    #[tokio::test]
    #[ignore = "needs moto"]
    async fn what_stands_for_aws_takes_the_signature_and_calls_the_function() {
        let moto = Moto::start().await;
        let with = |id: &str, secret: &str, role| chain(keys(id, secret), &moto.url, role);
        let invoke =
            async |name: &str, credentials| invoker(name, &moto.url, credentials).invoke(event()).await.outcome;

        let own = with(&moto.id, &moto.secret, None);
        let reply = invoker("pizza", &moto.url, own.clone()).invoke(event()).await;
        assert_eq!((reply.outcome, reply.body), (Outcome::Success, Bytes::from_static(br#"{"called": true}"#)));
        for name in ["pizza", "pizza:$LATEST", &moto.function, &format!("{}:1", moto.function)] {
            assert_eq!(invoke(name, own.clone()).await, Outcome::Success, "{name}");
        }
        let role = with(&moto.id, &moto.secret, Some(moto.role.clone()));
        assert_eq!(invoke("pizza", role).await, Outcome::Success, "as a role");

        let refused = invoke("pizza", with(&moto.id, "guessed", None)).await;
        assert!(matches!(&refused, Outcome::NotUsable { reason } if reason.contains("403")), "{refused:?}");
    }

    #[cfg(feature = "aws")]
    #[tokio::test]
    #[ignore = "needs moto"]
    async fn secrets_manager_gives_a_secret_to_who_may_have_it() {
        use esm_invoke::aws::{AwsError, secrets::SecretsManager};

        let moto = Moto::start().await;
        let read = async |secret: &str, arn: &str| {
            let credentials = chain(keys(&moto.id, secret), &moto.url, None);
            SecretsManager::new("eu-west-1", Some(&moto.url), credentials).unwrap().read(arn).await
        };
        let text = read(&moto.secret, &moto.login).await.unwrap();
        assert_eq!(text, r#"{"username": "guest", "password": "hunter2"}"#);
        let refused = read("guessed", &moto.login).await.unwrap_err();
        assert!(matches!(refused, AwsError::Refused { .. }), "{refused}");
        let missing = read(&moto.secret, "arn:aws:secretsmanager:eu-west-1:123456789012:secret:none-abcdef").await;
        let missing = missing.unwrap_err().to_string();
        assert!(missing.contains("ResourceNotFoundException"), "{missing}");
    }

    #[cfg(feature = "aws")]
    #[tokio::test]
    #[ignore = "needs moto"]
    async fn amazon_mq_describes_a_broker() {
        use esm_invoke::aws::{AwsError, mq::AmazonMq};

        let moto = Moto::start().await;
        // It takes nobody's signature of a request without a body, not even that of AWS's own clients.
        let lenient = reqwest::Client::new().post(format!("{}/moto-api/reset-auth", moto.url)).body("1000");
        assert!(lenient.send().await.unwrap().status().is_success());
        let credentials = chain(keys(&moto.id, &moto.secret), &moto.url, None);
        let amazon_mq = AmazonMq::new("eu-west-1", Some(&moto.url), credentials).unwrap();

        let description = amazon_mq.describe(&moto.broker).await.unwrap();

        assert_eq!((&*description.engine, &*description.state), ("ACTIVEMQ", "RUNNING"));
        let secure = description.endpoints.iter().filter(|endpoint| **endpoint == "ssl://mockmq:61617");
        assert_eq!(secure.count(), 2, "{description:?}");
        let missing = amazon_mq.describe("b-0000").await.unwrap_err();
        assert!(
            matches!(&missing, AwsError::Refused { status: 404, message, .. } if message.contains("b-0000")),
            "{missing:?}"
        );
    }
}
