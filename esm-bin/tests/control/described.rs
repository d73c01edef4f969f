//! Brokers and secrets that only AWS knows.

use std::time::Duration;

use esm_rabbitmq::testing::TestBroker as RabbitMq;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::Instant};

use crate::{
    aws::{AmazonMq, Moto, ask},
    common::{
        function::{Answer, Function},
        service::{Config, PATIENCE, Service, wait_for},
    },
    service::{FUNCTION_ARN, NoRabbitMq, SECRET_ARN, disabled, example, text, with},
};

const MAPPINGS: &str = "/2015-03-31/event-source-mappings";
const UNKNOWN_ARN: &str = "arn:aws:mq:eu-west-1:123456789012:broker:pasta:b-5678";

/// A request for a mapping of a broker that is not in the configuration.
fn request(queue: &str) -> Value {
    with(disabled(queue), json!({ "EventSourceArn": UNKNOWN_ARN, "Enabled": true }))
}

async fn create(service: &Service, request: &Value) -> (StatusCode, Value) {
    let answer = reqwest::Client::new().post(service.url(MAPPINGS)).body(request.to_string()).send().await;
    let answer = answer.expect("is answered");
    (answer.status(), answer.json().await.expect("is JSON"))
}

async fn made(service: &Service, request: &Value) -> Value {
    let (status, answer) = create(service, request).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    answer
}

/// Waits until a mapping says something, and returns it.
async fn says(service: &Service, made: &Value, words: &str) -> Value {
    let url = service.url(&format!("{MAPPINGS}/{}", text(&made["UUID"])));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mapping: Value = reqwest::get(&url).await.expect("is answered").json().await.expect("is JSON");
        if format!("{} {}", mapping["StateTransitionReason"], mapping["LastProcessingResult"]).contains(words) {
            return mapping;
        }
        assert!(Instant::now() < deadline, "{mapping} does not say {words}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn messages_of_a_broker_that_only_amazon_mq_knows_reach_their_function() {
    let broker = RabbitMq::shared();
    let virtual_host = broker.virtual_host("described").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("one", "quorum").await;
    publisher.declare("other", "classic").await;
    let amazon_mq = AmazonMq::start().await;
    amazon_mq.describes("RABBITMQ", &[&broker.url]);
    let function = Function::start().await;
    let mut config = example(&NoRabbitMq, &function.url);
    let in_the_file = format!(
        "[[event_source_mappings]]\nfunction_name = \"function\"\nevent_source = {UNKNOWN_ARN:?}\nqueues = [\"other\"]\n\
         secret = {SECRET_ARN:?}\nvirtual_host = {virtual_host:?}\n"
    );
    config.tables += &in_the_file;
    ask(&mut config, &amazon_mq.url);
    let service = Service::start(&config).await;
    let access = json!([
        { "Type": "BASIC_AUTH", "URI": SECRET_ARN },
        { "Type": "VIRTUAL_HOST", "URI": virtual_host },
    ]);

    let made = made(&service, &with(request("one"), json!({ "SourceAccessConfigurations": access }))).await;

    assert_eq!((&made["State"], &made["EventSourceArn"]), (&json!("Creating"), &json!(UNKNOWN_ARN)));
    publisher.publish("one", ["by the API"]).await;
    publisher.publish("other", ["by the file"]).await;
    wait_for("both messages", || (function.bodies().len() == 2).then_some(())).await;
    let mut bodies = function.bodies();
    bodies.sort_unstable();
    assert_eq!(bodies, ["by the API", "by the file"]);
    assert!(function.calls().iter().all(|call| call.event["eventSourceArn"] == UNKNOWN_ARN));
    let (status, ready) = service.readyz().await;
    assert_eq!(status, 200, "{ready}");
    assert_eq!(service.mapping("one").await["EventSource"], "pasta");
    let asked = amazon_mq.asked();
    let (path, authorization) = &asked[0];
    assert_eq!((asked.len(), path.as_str()), (1, "/v1/brokers/b-5678"), "both mappings share what is known");
    assert!(authorization.contains("/eu-west-1/mq/aws4_request, SignedHeaders=host;x-amz-date"), "{authorization}");
}

#[tokio::test]
async fn a_mapping_made_while_amazon_mq_is_away_says_so_and_heals_by_itself() {
    let amazon_mq = AmazonMq::start().await;
    let mut config = example(&NoRabbitMq, "http://127.0.0.1:1/");
    ask(&mut config, &amazon_mq.url);
    let service = Service::start(&config).await;
    let access = json!([{ "Type": "BASIC_AUTH", "URI": SECRET_ARN }, { "Type": "VIRTUAL_HOST", "URI": "/" }]);

    let plain = made(&service, &request("plain")).await;
    let hosted = made(&service, &with(request("hosted"), json!({ "SourceAccessConfigurations": access }))).await;

    let waiting = says(&service, &plain, "answered 503").await;
    assert_eq!((&waiting["State"], &waiting["StateTransitionReason"]), (&json!("Enabled"), &json!("USER_INITIATED")));
    assert!(text(&waiting["LastProcessingResult"]).starts_with("PROBLEM: EventSourceArn: "), "{waiting}");
    assert_eq!(service.readyz().await.0, 200, "it is tried again and again");
    let (status, again) = create(&service, &with(request("plain"), json!({ "BatchSize": 7 }))).await;
    assert_eq!(status, StatusCode::CONFLICT, "{again}");

    amazon_mq.describes("ACTIVEMQ", &["tcp://127.0.0.1:1"]);
    let connecting = says(&service, &plain, "broker `pasta at tcp://127.0.0.1:1").await;
    assert_eq!(connecting["State"], "Enabled");
    let refused = says(&service, &hosted, "VIRTUAL_HOST").await;
    assert_eq!(refused["State"], "Enabled");
    assert!(text(&refused["StateTransitionReason"]).starts_with("ESM_CONFIG_NOT_VALID: VIRTUAL_HOST: "), "{refused}");
    assert_eq!(service.readyz().await.0, 503, "that is not tried again before somebody changes it");
    let (status, refused) =
        create(&service, &with(request("third"), json!({ "SourceAccessConfigurations": access }))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let words = "Unsupported source access configurations type for given event source mapping type.";
    assert!(text(&refused["message"]).starts_with(words), "what is known is judged at once: {refused}");
}

#[tokio::test]
async fn what_amazon_mq_says_for_certain_is_said_at_once_and_by_mappings_that_are_there() {
    let amazon_mq = AmazonMq::start().await;
    amazon_mq.describes("RABBITMQ", &["amqp://127.0.0.1:1"]);
    let mut config = example(&NoRabbitMq, "http://127.0.0.1:1/");
    ask(&mut config, &amazon_mq.url);
    let mut service = Service::start(&config).await;
    let mapping = made(&service, &request("queue")).await;
    says(&service, &mapping, "broker `pasta at amqp://127.0.0.1:1").await;

    let check = async |service: &mut Service, code: &str, refusal: &str| {
        service.kill();
        service.start_again().await; // and what was known is not known any more
        let shown = says(service, &mapping, "cannot be looked up").await;
        assert!(text(&shown["StateTransitionReason"]).starts_with(code), "{shown}");
        assert_eq!((&shown["State"], service.readyz().await.0), (&json!("Enabled"), 200));
        let (status, answer) = create(service, &request("another")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        let said = text(&answer["message"]);
        assert!(said.starts_with(refusal) && said.contains("said by Amazon MQ"), "{answer}");
    };
    amazon_mq.refuses(404, "NotFoundException");
    check(&mut service, "ESM_CONFIG_NOT_VALID: EventSourceArn: ", "Unrecognized event source.").await;
    amazon_mq.refuses(403, "ForbiddenException");
    let words = "The function execution role does not have permissions to call DescribeBroker on MQ";
    check(&mut service, "EVENT_SOURCE_AUTHZ_ERROR: EventSourceArn: ", words).await;
    amazon_mq.refuses(403, "UnrecognizedClientException");
    check(&mut service, "EVENT_SOURCE_AUTHN_ERROR: EventSourceArn: ", "Unrecognized event source.").await;
    amazon_mq.describes("ROCKETMQ", &["amqp://127.0.0.1:1"]);
    service.kill();
    service.start_again().await;
    let shown = says(&service, &mapping, "ROCKETMQ").await;
    assert!(text(&shown["StateTransitionReason"]).starts_with("ESM_CONFIG_NOT_VALID"), "{shown}");

    let mut nobody = example(&NoRabbitMq, "http://127.0.0.1:1/");
    ask(&mut nobody, &amazon_mq.url);
    nobody.environment.retain(|(name, _)| !name.contains("ACCESS_KEY"));
    let service = Service::start(&nobody).await;
    let (status, answer) = create(&service, &request("queue")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let said = text(&answer["message"]);
    assert!(said.starts_with("Unrecognized event source.") && said.contains("no credentials for AWS"), "{answer}");
}

/// Neither whoever calls nor anybody else waits for long.
#[tokio::test]
async fn an_amazon_mq_that_never_answers_holds_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = example(&NoRabbitMq, "http://127.0.0.1:1/");
    ask(&mut config, &format!("http://{}", silent.local_addr().unwrap()));
    let service = Service::start(&config).await;

    let begun = Instant::now();
    let made = made(&service, &request("queue")).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());

    assert_eq!((&made["State"], &made["StateTransitionReason"]), (&json!("Creating"), &json!("USER_INITIATED")));
    assert_eq!(service.readyz().await.0, 503, "nobody knows yet");
    let elsewhere = with(disabled("elsewhere"), json!({ "Enabled": true, "FunctionName": FUNCTION_ARN }));
    let elsewhere = self::made(&service, &elsewhere).await;
    says(&service, &elsewhere, "cannot be reached").await;
}

fn login(password: &str) -> String {
    json!({ "username": "managed", "password": password }).to_string()
}

#[tokio::test]
#[ignore = "needs a broker and moto"]
async fn a_password_that_is_rotated_in_secrets_manager_under_load_costs_no_message() {
    const MANY: u64 = 2_000;
    let broker = RabbitMq::shared();
    let virtual_host = broker.virtual_host("managed").await;
    broker.put_user("managed", "first-password").await;
    broker.permit(&virtual_host, "managed", ".*").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    let moto = Moto::start().await;
    let secret = moto.create_secret("managed", &login("first-password")).await;
    let function = Function::start_with(|_| Answer::After(Duration::from_millis(40))).await;
    let mut config: Config = example(&broker, &function.url);
    config.server = "secrets_max_age_in_seconds = 1".into();
    ask(&mut config, &moto.url);
    let service = Service::start(&config).await;
    let access = json!([
        { "Type": "BASIC_AUTH", "URI": secret },
        { "Type": "VIRTUAL_HOST", "URI": virtual_host },
    ]);
    let more = json!({ "Enabled": true, "BatchSize": 20, "SourceAccessConfigurations": access });

    made(&service, &with(disabled("queue"), more)).await;
    publisher.publish("queue", (0..MANY).map(|number| number.to_string())).await;
    wait_for("the first batches", || (function.bodies().len() > 100).then_some(())).await;
    broker.put_user("managed", "second-password").await;
    moto.put_secret(&secret, &login("second-password")).await;
    wait_for("a session with the new password", || service.log().contains("the login has changed").then_some(())).await;

    service.metric_becomes("esm_deleted_events_total", &[], MANY).await;
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0, "no session was lost");
    let mut numbers: Vec<u64> = function.bodies().iter().map(|body| body.parse().expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..MANY).collect::<Vec<_>>(), "each message was processed once");
    assert!(!service.log().contains("-password"), "a secret in the log");
}
