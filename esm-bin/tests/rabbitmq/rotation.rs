//! Passwords that change while messages are read.

use std::{path::Path, time::Duration};

use esm_rabbitmq::testing::TestBroker;

use crate::common::{
    function::{Answer, Function},
    service::{Config, Service, wait_for},
};

/// Messages of each phase.
const MANY: u64 = 2_000;

fn write(file: &Path, password: &str) {
    std::fs::write(file, format!(r#"{{"username":"rotated","password":"{password}"}}"#)).expect("writes");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_password_that_is_rotated_under_load_costs_no_message_and_no_restart() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("rotation").await;
    broker.put_user("rotated", "first-password").await;
    broker.permit(&virtual_host, "rotated", ".*").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret.json");
    write(&file, "first-password");
    let function = Function::start_with(|_| Answer::After(Duration::from_millis(40))).await;
    let mut config = Config::new(&broker, &function.url)
        .mapping_in(&virtual_host, "queue", "batch_size = 20\nmaximum_batching_window_in_seconds = 0")
        .by_visitor();
    config.server = "secrets_max_age_in_seconds = 1".into();
    config.visitor_file = Some(file.clone());
    let service = Service::start(&config).await;

    // The first time while it works: a timer finds the new password.
    publisher.publish("queue", (0..MANY).map(|number| number.to_string())).await;
    wait_for("the first batches", || (function.bodies().len() > 100).then_some(())).await;
    broker.put_user("rotated", "second-password").await;
    write(&file, "second-password");
    wait_for("a session with the new password", || service.log().contains("the login has changed").then_some(())).await;
    service.metric_becomes("esm_deleted_events_total", &[], MANY).await;
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0, "no session was lost");

    // The second time the broker refuses it: the next attempt has what is there by then.
    broker.put_user("rotated", "third-password").await;
    write(&file, "no-password");
    wait_for("a session with another password", || {
        let sessions = service.log().matches("the login has changed").count();
        (sessions > 1).then_some(())
    })
    .await;
    let shown = service.shows("queue", "ACCESS_REFUSED").await;
    assert!(shown["StateTransitionReason"].as_str().expect("a text").starts_with("EVENT_SOURCE_AUTHN_ERROR"));
    publisher.publish("queue", (MANY..2 * MANY).map(|number| number.to_string())).await;
    std::fs::remove_file(&file).expect("removes");
    let shown = service.shows("queue", "secret `visitor` cannot be used: cannot read").await;
    assert!(shown["StateTransitionReason"].as_str().expect("a text").starts_with("EVENT_SOURCE_AUTHN_ERROR"));
    write(&file, "third-password");
    service.metric_becomes("esm_deleted_events_total", &[], 2 * MANY).await;

    let mut bodies = function.bodies();
    assert_eq!(bodies.len() as u64, 2 * MANY, "each message was processed once");
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!(bodies.len() as u64, 2 * MANY, "each message was processed");
    for password in ["first-password", "second-password", "third-password", "no-password"] {
        assert!(!service.log().contains(password), "a secret in the log");
    }
}
