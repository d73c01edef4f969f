//! What a configuration comes to.

use std::time::Duration;

use esm_core::mapping::{DeadLetter, RedeliveryPolicy};

use super::{ACTIVEMQ, BROKER, FUNCTION, MAPPING, SECRET, check_mapping, planned, read_with, valid, whole};

#[test]
fn the_sample_has_no_problems_and_no_warnings() {
    let config = valid(include_str!("../../../../esm.sample.toml"), &[]);
    assert_eq!(config.warnings, []);
    let [configured] = config.mappings.as_slice() else { panic!("the sample has one mapping") };
    assert_eq!(planned(configured).function.reserved_concurrency, Some(10));
    let dead_letter = planned(configured).mapping.dead_letter;
    assert_eq!(dead_letter, DeadLetter::Park, "what has no dead-letter exchange is not rejected");
    assert_eq!(configured.tags["team"], "pizza");
}

#[test]
fn a_mapping_is_made_of_what_the_file_says() {
    let config = valid(&[BROKER, SECRET, FUNCTION, MAPPING].concat(), &[]);
    let [configured] = config.mappings.as_slice() else { panic!("there is one mapping") };
    let mapping = &planned(configured).mapping;
    // Metrics, consumer tags and people's scripts hold it: it must never change.
    assert_eq!(mapping.uuid.to_string(), "191a3993-ba24-591e-b9ca-fa13c91ab6ee");
    assert_eq!((mapping.queue.as_str(), planned(configured).virtual_host.as_deref()), ("q", Some("/")));
    assert_eq!((mapping.batch_size.get(), mapping.maximum_concurrency.get()), (100, 1));
    assert_eq!(mapping.window.duration(), Duration::from_millis(500));
    assert_eq!(mapping.dead_letter, DeadLetter::Park);
    assert_eq!(planned(configured).function.timeout, Duration::from_secs(60));
    assert_eq!(planned(configured).broker.consumer_timeout, Some(Duration::from_secs(1_800)));
    assert_eq!(planned(configured).broker.delivery_limit, None, "that of the broker's version");
    assert!(planned(configured).broker.arn.starts_with("arn:aws:mq:us-east-1:000000000000:broker:pizza:b-"));
    assert!(configured.spec.enabled);
}

#[test]
fn a_mapping_of_activemq_has_the_jms_clients_defaults() {
    let config = valid(&[ACTIVEMQ, SECRET, FUNCTION, MAPPING].concat(), &[]);
    let [configured] = config.mappings.as_slice() else { panic!("there is one mapping") };
    let mapping = &planned(configured).mapping;
    assert_eq!(mapping.uuid.to_string(), "643f8fc4-0424-5593-b7f8-7e8017fe8bba");
    assert_eq!(mapping.redelivery, RedeliveryPolicy::ACTIVEMQ);
    assert_eq!((mapping.maximum_concurrency.get(), planned(configured).virtual_host.as_deref()), (5, None));
    assert_eq!(mapping.dead_letter, DeadLetter::Broker);
    assert_eq!(planned(configured).broker.consumer_timeout, None);
    assert_eq!(planned(configured).broker.dead_letter_queue.as_deref(), Some("ActiveMQ.DLQ"));

    let attempts = |attempts: &str| {
        let config = valid(&[ACTIVEMQ, SECRET, FUNCTION, MAPPING, attempts].concat(), &[]);
        planned(&config.mappings[0]).mapping.redelivery.maximum_redeliveries
    };
    assert_eq!(attempts("maximum_retry_attempts = 0"), Some(0));
    assert_eq!(attempts("maximum_retry_attempts = 6"), Some(6));
    assert_eq!(attempts("maximum_retry_attempts = -1"), None);
}

#[test]
fn what_failed_is_told_from_its_neighbours_if_the_file_says_so() {
    let policy = |lines: &str| planned(&valid(&(whole() + lines), &[]).mappings[0]).mapping.redelivery;
    assert_eq!(
        policy("function_response_types = []\nbisect_batch_on_function_error = false"),
        RedeliveryPolicy::RABBITMQ
    );
    let reports = RedeliveryPolicy { reports_item_failures: true, ..RedeliveryPolicy::RABBITMQ };
    assert_eq!(policy("function_response_types = [\"ReportBatchItemFailures\"]"), reports);
    let config = valid(
        &(whole()
            + "maximum_record_age_in_seconds = 60\ndestination_config = { on_failure = { destination = \
               \"arn:aws:mq:us-east-1:000000000000:queue:pizza:%2Fother:letters:dead\" } }"),
        &[],
    );
    let configured = &config.mappings[0];
    assert_eq!(planned(configured).mapping.dead_letter, DeadLetter::Destination);
    assert_eq!(planned(configured).mapping.redelivery.maximum_age, Some(Duration::from_secs(60)));
    let plan = crate::check::plan(&config).join("\n");
    assert!(
        plan.contains("published to arn:aws:mq:us-east-1:000000000000:queue:pizza:%2Fother:letters:dead"),
        "{plan}"
    );
    let bisects = RedeliveryPolicy { bisects: true, ..RedeliveryPolicy::RABBITMQ };
    assert_eq!(policy("bisect_batch_on_function_error = true"), bisects);
}

#[test]
fn the_memory_is_shared_by_the_mappings_that_are_enabled() {
    const MEBIBYTE: usize = 1024 * 1024;
    let with = |lines: &str, more: &str| {
        let server = format!("[server]\nlisten = \"127.0.0.1:0\"\n{lines}\n");
        valid(&[&server, BROKER, SECRET, FUNCTION, MAPPING, more].concat(), &[])
    };
    let other = MAPPING.replace("\"q\"", "\"other\"");
    assert_eq!(with("", "").share_of_memory(), 512 * MEBIBYTE);
    let limit = "memory_limit_in_mebibytes = 16";
    assert_eq!(with(limit, "").share_of_memory(), 16 * MEBIBYTE);
    assert_eq!(with(limit, "").warnings, []);
    let two = with(limit, &other);
    assert_eq!(two.share_of_memory(), 8 * MEBIBYTE);
    let [warning] = two.warnings.as_slice() else { panic!("there is one warning: {:?}", two.warnings) };
    assert_eq!(warning.key, "server.memory_limit_in_mebibytes");
    assert_eq!(with(limit, &(other + "enabled = false\n")).share_of_memory(), 16 * MEBIBYTE);
}

#[test]
fn the_same_mapping_twice_is_refused_and_a_shared_queue_is_warned_of() {
    check_mapping(
        MAPPING,
        &["event_source_mappings[1]: has the function, broker, virtual host and queue of event_sou"],
    );
    let other = MAPPING.replace("\"f\"", "\"g\"");
    let function = FUNCTION.replace(".f]", ".g]");
    let config = valid(&(whole() + &function + &other), &[]);
    let [warning] = config.warnings.as_slice() else { panic!("there is one warning: {:?}", config.warnings) };
    assert_eq!(warning.key, "event_source_mappings[1]");
    let disabled = valid(&(whole() + &function + &other + "enabled = false\n"), &[]);
    assert_eq!(disabled.warnings, []);
    assert!(!disabled.mappings[1].spec.enabled);
}

#[test]
fn a_function_runs_no_more_invocations_at_once_than_it_has_processes_for() {
    let function = |lines: &str| {
        let text = format!("[functions.f]\nprocess = {{ command = [\"x\"], instances = 4 }}\n{lines}\n");
        let config = valid(&text, &[]);
        let function = config.targets.functions().next().expect("there is one");
        function.clone()
    };
    assert_eq!(function("").reserved_concurrency, Some(4));
    assert_eq!(function("reserved_concurrency = 3").reserved_concurrency, Some(3));
    assert_eq!(function("reserved_concurrency = 5").reserved_concurrency, Some(4));
    let described = function("").backend.describe();
    assert_eq!(described, "at most 4 at once of `x` in /nonexistent, ended after 600s without work");
}

#[test]
fn the_environment_overrides_keys_and_is_named_in_problems() {
    let config = valid(
        &whole(),
        &[
            ("ESM__SERVER__LISTEN", "127.0.0.1:7"),
            ("ESM__BROKERS__PIZZA__ENDPOINTS", "amqp://a, amqp://b"),
            ("ESM__EVENT_SOURCE_MAPPINGS__0__BATCH_SIZE", "7"),
            ("ESM__EVENT_SOURCE_MAPPINGS__0__ENABLED", "true"),
            ("ESM__EVENT_SOURCE_MAPPINGS__0__QUEUES", "00123"),
        ],
    );
    let [configured] = config.mappings.as_slice() else { panic!("there is one mapping") };
    assert_eq!(config.server.listen.port(), 7);
    assert_eq!(planned(configured).broker.endpoints, ["amqp://a", "amqp://b"]);
    assert_eq!(planned(configured).mapping.batch_size.get(), 7);
    assert_eq!(planned(configured).mapping.queue, "00123", "a text stays as it is");

    let list = [("ESM__BROKERS__PIZZA__ENDPOINTS", "failover:(tcp://a,tcp://b), tcp://c")];
    let config = valid(&[ACTIVEMQ, SECRET, FUNCTION, MAPPING].concat(), &list);
    assert_eq!(planned(&config.mappings[0]).broker.endpoints, ["failover:(tcp://a,tcp://b)", "tcp://c"]);

    let variables = [("ESM__", "x"), ("ESM__SERVER__LISTN", "x"), ("ESM__SERVER__LISTEN", "x")];
    let problems = read_with(&whole(), &variables).err().unwrap();
    let [nothing, listen, unknown] = problems.as_slice() else { panic!("{problems:#?}") };
    assert!(nothing.starts_with("ESM__: names no key"), "{nothing}");
    assert!(listen.starts_with("server.listen: must be an IP address"), "{listen}");
    assert!(listen.ends_with("(set by ESM__SERVER__LISTEN)"), "{listen}");
    assert_eq!(unknown, "server.listn: is not a known key; did you mean `listen`? (set by ESM__SERVER__LISTN)");
}

#[test]
fn filters_are_compiled_and_an_empty_list_filters_nothing() {
    let config =
        valid(&(whole() + r#"filter_criteria = ['{"data":{"kind":["order"]}}', '{"redelivered":[true]}']"#), &[]);
    let filter = planned(&config.mappings[0]).mapping.filter.as_ref().expect("there are filters");
    assert_eq!(filter.patterns().len(), 2);
    let config = valid(&(whole() + "filter_criteria = []"), &[]);
    assert!(planned(&config.mappings[0]).mapping.filter.is_none());
}

#[test]
fn a_broker_that_amazon_mq_has_to_be_asked_about_is_no_problem() {
    let arn = "arn:aws:mq:eu-west-1:123456789012:broker:pasta:b-1";
    let mapping = MAPPING.replace("\"pizza\"", &format!("{arn:?}"));
    let config = valid(&[BROKER, SECRET, FUNCTION, &mapping].concat(), &[]);
    let [configured] = config.mappings.as_slice() else { panic!("there is one mapping") };
    assert_eq!(configured.uuid.to_string(), "d6ef553d-c280-577a-b3d2-1e97ffdb9f8a");
    assert!(configured.planned.is_none());
    let plan = crate::check::plan(&config).join("\n");
    assert!(plan.contains("broker       is looked up by DescribeBroker of b-1 in eu-west-1 when esm serves"), "{plan}");

    let known = BROKER.to_owned() + &format!("arn = {arn:?}\n");
    let config = valid(&[&known, SECRET, FUNCTION, &mapping].concat(), &[]);
    assert_eq!(planned(&config.mappings[0]).broker.name, "pizza", "a table comes first");

    let twice = [BROKER, SECRET, FUNCTION, &mapping, &mapping].concat();
    let problems = read_with(&twice, &[]).err().unwrap();
    assert!(problems[0].starts_with("event_source_mappings[1]: has the function, broker"), "{problems:?}");
}
