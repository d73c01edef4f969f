//! What is refused, and in which words.

use super::{ACTIVEMQ, BROKER, FUNCTION, MAPPING, SECRET, check, check_mapping, valid, whole};

#[test]
fn ten_mistakes_are_ten_problems_with_their_keys() {
    let text = r#"
        [server]
        listen = "0.0.0.0:9321"
        acount_id = "000000000000"
        [brokers.pizza]
        engine = "rabbitmq"
        endpoints = ["amqp://localhost", "amqp://guest:hunter2@localhost"]
        consumer_timeout_in_seconds = "long"
        [secrets.login]
        username = "guest"
        password = { env = "ABSENT" }
        [functions.f]
        lambda = { name = "f g" }
        [[event_source_mappings]]
        function_name = "g"
        event_source = "pizza"
        queues = ["q", "r"]
        secret = "login"
        batch_size = 10001
        filter_criteria = ['{"data":{"kind":"order"}}']
    "#;
    check(
        text,
        &[
            "server.listen: whoever reaches this address may change every mapping",
            "server.acount_id: is not a known key; did you mean `account_id`?",
            "brokers.pizza.consumer_timeout_in_seconds: must be a whole number, is a text",
            "brokers.pizza.endpoints[1]: must not hold a user name or password",
            "secrets.login.password.env: the environment has no variable ABSENT",
            "functions.f.lambda.name: must be a function's name",
            "event_source_mappings[0].function_name: there is no [functions.g]; there are: f",
            "event_source_mappings[0].queues: must name exactly one queue, names 2",
            "event_source_mappings[0].batch_size: must be from 1 to 10000, is 10001",
            "event_source_mappings[0].filter_criteria[0]: data.kind must be a list",
        ],
    );
}

#[test]
fn the_region_of_an_arn_leads_to_no_other_host() {
    let secret = "secret = \"arn:aws:secretsmanager:x@127.0.0.1/internal:123456789012:secret:s\"";
    check(
        &whole().replace("secret = \"login\"", secret),
        &["event_source_mappings[0].secret: names no table of [secrets]"],
    );
    let function = "function_name = \"arn:aws:lambda:x@127.0.0.1/internal:123456789012:function:f\"";
    check(
        &whole().replace("function_name = \"f\"", function),
        &["event_source_mappings[0].function_name: must be a function's name"],
    );
}

#[test]
fn what_is_missing_is_named() {
    check(&[BROKER, SECRET, FUNCTION, MAPPING].concat(), &[]);
    check("", &[]);
    check(
        "[brokers.b]\n[secrets.s]\n[functions.f]\n[[event_source_mappings]]\n",
        &[
            "brokers.b.engine: is missing",
            "brokers.b.endpoints: is missing",
            "secrets.s.username: is missing",
            "secrets.s.password: is missing",
            "functions.f: has no backend",
            "event_source_mappings[0].function_name: is missing",
            "event_source_mappings[0].event_source: is missing",
            "event_source_mappings[0].secret: is missing",
            "event_source_mappings[0].queues: is missing",
        ],
    );
}

#[test]
fn each_value_of_a_wrong_kind_is_a_problem_of_its_own() {
    check_mapping(
        "batch_size = \"many\"\nmaximum_batching_window_in_seconds = 1.5\nenabled = 1\nvirtual_host = [\"/\"]\n\
         scaling_config = 4\ntags = []\n",
        &[
            "event_source_mappings[0].virtual_host: must be a text in quotes, is a list",
            "event_source_mappings[0].batch_size: must be a whole number, is a text",
            "event_source_mappings[0].maximum_batching_window_in_seconds: must be a whole number, is a number with",
            "event_source_mappings[0].scaling_config: must be a table, is a whole number",
            "event_source_mappings[0].tags: must be a table, is a list",
            "event_source_mappings[0].enabled: must be true or false, is a whole number",
        ],
    );
    check(
        "brokers = 5\nserver = []\nfunctions = [{}]\nevent_source_mappings = {}\n",
        &[
            "server: must be a table, is a list",
            "brokers: must be a table, is a whole number",
            "functions: must be a table, is a list",
            "event_source_mappings: must be a list in brackets, is a table",
        ],
    );
}

#[test]
fn a_syntax_error_has_its_line_and_column() {
    check("[server]\nlisten = 127.0.0.1:1\n", &["line 2, column "]);
    check("[secrets.s]\npassword = \"hunter2\nusername = 1\n", &["line 2, column "]);
    check("a = 1\na = 2\n", &["line 2, column 1: is no TOML: duplicate key"]);
}

#[test]
fn numbers_are_held_to_the_documented_ranges() {
    let batch = "event_source_mappings[0].batch_size: must be from 1 to 10000";
    check_mapping("batch_size = 0", &[batch]);
    check_mapping("batch_size = 10001", &[batch]);
    check_mapping("batch_size = 10000", &[]);
    let window = "event_source_mappings[0].maximum_batching_window_in_seconds: must be from 0 to 300";
    check_mapping("maximum_batching_window_in_seconds = 301", &[window]);
    check_mapping("maximum_batching_window_in_seconds = 0", &[]);
    let scaling = "event_source_mappings[0].scaling_config.maximum_concurrency: must be from 2 to 1000";
    check_mapping("scaling_config = { maximum_concurrency = 1 }", &[scaling]);
    check_mapping("scaling_config = { maximum_concurrency = 1000 }", &[]);
    let function = |line: &str| [BROKER, SECRET, FUNCTION, line, "\n", MAPPING].concat();
    check(&function("timeout_in_seconds = 841"), &["functions.f.timeout_in_seconds: must be from 1 to 840, is 841"]);
    check(&function("reserved_concurrency = 0"), &["functions.f.reserved_concurrency: 0 would never invoke"]);
}

#[test]
fn the_ways_to_tell_what_failed_are_what_aws_says() {
    check_mapping(
        "function_response_types = [\"ReportBatchItemFailures\"]\nbisect_batch_on_function_error = true",
        &[],
    );
    check_mapping("function_response_types = []", &[]);
    check_mapping(
        "function_response_types = [\"Report\"]",
        &["event_source_mappings[0].function_response_types[0]: must be \"ReportBatchItemFailures\""],
    );
    let twice = "function_response_types = [\"ReportBatchItemFailures\", \"ReportBatchItemFailures\"]";
    check_mapping(twice, &["event_source_mappings[0].function_response_types: must have one element at the most"]);
    check_mapping(
        "bisect_batch_on_function_error = 1",
        &["event_source_mappings[0].bisect_batch_on_function_error: must be true or false"],
    );
}

#[test]
fn a_failure_destination_is_a_queue_of_a_broker_of_the_same_kind() {
    let destination = |arn: &str| format!("destination_config = {{ on_failure = {{ destination = {arn:?} }} }}");
    let key = "event_source_mappings[0].destination_config.on_failure.destination: ";
    let check = |arn: &str, expected: &str| {
        let expected = format!("{key}{expected}");
        let more = "\n[brokers.active]\nengine = \"activemq\"\nendpoints = [\"tcp://h\"]\n";
        check_mapping(&(destination(arn) + more), &[&expected]);
    };
    let ours = "arn:aws:mq:us-east-1:000000000000:queue";
    for arn in
        ["pizza", "arn:aws:sqs:us-east-1:000000000000:queue", &format!("{ours}:pizza:"), &format!("{ours}:pizza::")]
    {
        check(arn, "must be arn:aws:mq:");
    }
    check(&format!("{ours}:pasta::q"), "names the broker \"pasta\"");
    check(
        "arn:aws:mq:eu-west-1:000000000000:queue:pizza::x",
        "must begin with arn:aws:mq:us-east-1:000000000000:queue:",
    );
    check(&format!("{ours}:pizza::q"), "is the queue that the mapping reads");
    check(&format!("{ours}:pizza:%2F:q"), "is the queue that the mapping reads");
    check(&format!("{ours}:active:v:x"), "names a virtual host, and ActiveMQ has none");
    check_mapping("destination_config = {}", &[]);
    check_mapping("destination_config = { on_failure = {} }", &[]);
    check_mapping(
        "destination_config = { on_success = {} }",
        &["event_source_mappings[0].destination_config.on_success: "],
    );
}

#[test]
fn bounds_need_somewhere_for_messages_to_go() {
    let destination = "destination_config = { on_failure = { destination = \
                       \"arn:aws:mq:us-east-1:000000000000:queue:pizza:other:a:b\" } }";
    for bound in ["maximum_record_age_in_seconds = 60", "maximum_retry_attempts = 3"] {
        let key = bound.split(' ').next().expect("a key");
        check_mapping(bound, &[&format!("event_source_mappings[0].{key}: needs somewhere for messages to go")]);
        check_mapping(&format!("{bound}\n{destination}"), &[]);
        check_mapping(&format!("{bound}\ntags = {{ \"esm:dead-letter\" = \"broker\" }}"), &[]);
    }
    check_mapping("maximum_record_age_in_seconds = -1", &[]);
    let age = "event_source_mappings[0].maximum_record_age_in_seconds: must be";
    for seconds in [-2, 0, 59, 604_801] {
        check_mapping(&format!("maximum_record_age_in_seconds = {seconds}"), &[age]);
    }
}

#[test]
fn what_this_build_does_not_act_on_is_refused() {
    check_mapping(
        "metrics_config = {}",
        &["event_source_mappings[0].metrics_config: this build does not act on it yet"],
    );
    check("[server]\nmemory_limit_in_mebibytes = 15\n", &["server.memory_limit_in_mebibytes: must be from 16"]);
    check("[functions.g]\nhttp = { url = \"http://h/\", protocol = \"lambda\" }\n", &[]);
    check("[brokers.b]\nengine = \"kafka\"\nendpoints = [\"h\"]\n", &["brokers.b.engine: must be"]);
}

#[test]
fn a_delivery_limit_is_a_number_of_returns_or_none() {
    let with = |limit: &str| {
        format!("[brokers.b]\nengine = \"rabbitmq\"\nendpoints = [\"amqp://h\"]\ndelivery_limit = {limit}\n")
    };
    check(&with("20"), &[]);
    check(&with("-1"), &[]);
    check(&with("0"), &["brokers.b.delivery_limit: must be 1 or more, or -1 for none"]);
    check(&with("-2"), &["brokers.b.delivery_limit: must be from -1 to 2147483647"]);
    check(&with("\"many\""), &["brokers.b.delivery_limit: must be a whole number"]);
}

#[test]
fn a_function_on_lambda_is_named_in_awss_forms() {
    let lambda = |members: &str| format!("[functions.f]\nlambda = {{ {members} }}\n");
    let arn = "arn:aws:lambda:eu-west-1:123456789012:function:f:live";
    let describe = |members: &str| {
        let config = valid(&lambda(members), &[]);
        config.targets.functions().next().unwrap().backend.describe()
    };
    let path = "/2015-03-31/functions/f%3Alive/invocations";
    assert_eq!(
        describe("name = \"f:live\", region = \"cn-north-1\""),
        format!("Lambda function f:live in cn-north-1, at https://lambda.cn-north-1.amazonaws.com.cn{path}")
    );
    assert_eq!(
        describe("name = \"f:live\", endpoint_url = \"http://127.0.0.1:3001/\""),
        format!("Lambda function f:live in us-east-1, at http://127.0.0.1:3001{path}")
    );
    let role = "role_arn = \"arn:aws:iam::123456789012:role/invoker\"";
    assert!(describe(&format!("name = {arn:?}, {role}")).contains(" in eu-west-1, at https://lambda.eu-west-1."));
    check(&lambda("name = \"a b\""), &["functions.f.lambda.name: must be a function's name"]);
    check(&lambda(""), &["functions.f.lambda.name: is missing"]);
    check(
        &lambda(&format!("name = {arn:?}, region = \"us-east-1\"")),
        &["functions.f.lambda.region: is not that of the ARN, eu-west-1"],
    );
    check(
        &lambda("name = \"f\", role_arn = \"invoker\", endpoint_url = \"localhost\""),
        &["functions.f.lambda.endpoint_url: must be a URL", "functions.f.lambda.role_arn: must be a role's ARN"],
    );
    check(
        &(lambda("name = \"f\"") + "http = { url = \"http://h/\" }\n"),
        &["functions.f: has several of http, process and lambda"],
    );
    check("[aws]\nendpoint_url = \"localhost\"\n", &["aws.endpoint_url: must be a URL"]);
}

#[test]
fn a_secret_that_has_no_table_may_be_one_of_secrets_manager() {
    let arn = "arn:aws:secretsmanager:us-west-2:111122223333:secret:MQBrokerUserPassword-xPBMTt";
    let with = |secret: &str| [BROKER, FUNCTION, &MAPPING.replace("\"login\"", &format!("{secret:?}"))].concat();
    check(&with(arn), &[]);
    let unknown = "event_source_mappings[0].secret: names no table of [secrets]";
    check(&with(&arn.replace("secretsmanager", "ssm")), &[unknown]);
    check(&with(&arn.replace("111122223333", "1")), &[unknown]);
    let named = format!("[secrets.{arn:?}]\nusername = \"u\"\npassword = {{ env = \"PASSWORD\" }}\n");
    check(&[named.as_str(), &with(arn)].concat(), &[]);
}

#[test]
fn who_may_call_is_told_by_access_keys() {
    let keys = |ids: &[&str]| {
        let key = |id: &&str| {
            format!("[[server.access_keys]]\naccess_key_id = {id:?}\nsecret_access_key = {{ env = \"PASSWORD\" }}\n")
        };
        format!("[server]\nlisten = \"0.0.0.0:9321\"\n{}", ids.iter().map(key).collect::<String>())
    };
    assert!(valid(&keys(&["AKID"]), &[]).server.access.needs_signature());
    let warning = "server.listen: calls are signed, and not encrypted";
    let warnings = valid(&keys(&["AKID", "AKID2"]), &[]).warnings;
    assert!(warnings.iter().any(|found| found.to_string().starts_with(warning)), "{warnings:?}");
    check(&keys(&[]), &["server.listen: whoever reaches this address"]);
    check(&keys(&["AKID", "AKID"]), &["server.access_keys[1]: has the access_key_id of one before it"]);
    check(&keys(&["A/B"]), &["server.access_keys[0].access_key_id: must have from 1 to 128 letters"]);
    check(
        &keys(&["A"]).replace("PASSWORD", "EMPTY"),
        &["server.access_keys[0].secret_access_key.env: the environment"],
    );
    check(
        &keys(&["A"]).replace("{ env = \"PASSWORD\" }", "\"hunter2\""),
        &["server.access_keys[0].secret_access_key: must not stand here"],
    );
    check(
        "[server]\ntls = { cert_file = \"a.pem\" }\n",
        &["server.tls.cert_file: cannot read `/nonexistent/a.pem`", "server.tls.key_file: is missing"],
    );
}

#[test]
fn references_lead_to_tables_by_name_or_arn() {
    let arn = "arn:aws:mq:us-east-1:111122223333:broker:pizza:b-1";
    let with = |function: &str, source: &str| {
        let mapping = MAPPING.replace("\"f\"", &format!("\"{function}\"")).replace("pizza", source);
        [BROKER, "arn = \"", arn, "\"\n", SECRET, FUNCTION, &mapping].concat()
    };
    check(&with("f:alias", arn), &[]);
    check(&with("arn:aws:lambda:us-east-1:123456789012:function:f", "pizza"), &[]);
    check(&with("no name", "pizza"), &["event_source_mappings[0].function_name: must be a function's name"]);
    let unknown = "event_source_mappings[0].event_source: names no broker and no ARN of one; there are: pizza";
    check(&with("f", "pasta"), &[unknown]);
    check(
        &[BROKER, FUNCTION, MAPPING].concat(),
        &["event_source_mappings[0].secret: names no table of [secrets]; there is none"],
    );
    // A reference to something broken is no further problem.
    let broken = whole().replace("amqp://localhost", "http://localhost");
    check(&broken, &["brokers.pizza.endpoints[0]: must be amqp://"]);
}

#[test]
fn a_batch_must_not_be_held_longer_than_the_broker_allows() {
    let with = |timeout: u32, window: u32| {
        let function = format!("{FUNCTION}timeout_in_seconds = {timeout}\n");
        let mapping = format!("{MAPPING}maximum_batching_window_in_seconds = {window}\n");
        [BROKER, SECRET, &function, &mapping].concat()
    };
    check(&with(840, 119), &[]);
    check(&with(840, 120), &["event_source_mappings[0]: the batching window (120s) and twice"]);
    assert_eq!(valid(&with(840, 60), &[]).warnings.len(), 1, "there is no time for a second attempt");
    assert_eq!(valid(&with(840, 59), &[]).warnings, []);
}

#[test]
fn a_consumer_timeout_leaves_time_to_hand_a_batch_back() {
    let of = |seconds: u32| format!("{BROKER}consumer_timeout_in_seconds = {seconds}\n");
    check(&of(61), &[]);
    check(&of(60), &["brokers.pizza.consumer_timeout_in_seconds: must be more than 60: a batch is handed back"]);
}

#[test]
fn queues_and_virtual_hosts_are_held_to_amqps_length() {
    let mapping = |queue: &str| MAPPING.replace("\"q\"", &format!("{queue:?}"));
    let whole = |queue: &str, virtual_host: &str| {
        let virtual_host = format!("virtual_host = {virtual_host:?}\n");
        [BROKER, SECRET, FUNCTION, &mapping(queue), &virtual_host].concat()
    };
    let key = "event_source_mappings[0]";
    check(&whole(&"q".repeat(255), ""), &[]);
    check(&whole(&"ü".repeat(128), "/"), &[&format!("{key}.queues[0]: must have from 1 to 255 bytes")]);
    check(
        &whole("", &"v".repeat(256)),
        &[&format!("{key}.queues[0]: must have from 1"), &format!("{key}.virtual_host: must have from 0 to 255 bytes")],
    );
}

#[test]
fn what_activemq_does_not_know_is_refused() {
    let whole = |mapping: &str| [ACTIVEMQ, SECRET, FUNCTION, MAPPING, mapping].concat();
    let key = "event_source_mappings[0]";
    check(&whole(""), &[]);
    check(&whole("virtual_host = \"/\""), &[&format!("{key}.virtual_host: ActiveMQ has no virtual hosts")]);
    for tag in ["esm:dead-letter\" = \"broker", "esm:header-bytes\" = \"signed", "esm:strict-consumers\" = \"true"] {
        check(&whole(&format!("tags = {{ \"{tag}\" }}")), &[&format!("{key}.tags: the tag esm:")]);
    }
    let queue = |queue: &str| whole("").replace("[\"q\"]", &format!("[{queue:?}]"));
    check(&queue("Consumer.esm.VirtualTopic.orders"), &[]);
    check(&queue("q?consumer.exclusive=true"), &[]);
    check(&queue("a,b"), &[&format!("{key}.queues[0]: names several destinations")]);
    check(&queue("topic://t"), &[&format!("{key}.queues[0]: is no queue")]);
    check(&queue(&"q".repeat(1_001)), &[&format!("{key}.queues[0]: must have from 1 to 1000 bytes")]);
    let broker = |line: &str| format!("{ACTIVEMQ}{line}\n");
    check(&broker("dead_letter_queue = \"DLQ.orders\""), &[]);
    check(&broker("dead_letter_queue = \"a,b\""), &["brokers.pizza.dead_letter_queue: must name one queue"]);
    check(
        &broker("consumer_timeout_in_seconds = 60"),
        &["brokers.pizza.consumer_timeout_in_seconds: has no effect: it concerns brokers with engine = \"rabbitmq\""],
    );
    check(
        &broker("delivery_limit = 20"),
        &["brokers.pizza.delivery_limit: has no effect: it concerns brokers with engine = \"rabbitmq\""],
    );
    check(&broker("tls = {}"), &["brokers.pizza.tls: has no effect, since no endpoint begins with ssl://"]);
    check(
        &ACTIVEMQ.replace("tcp://localhost", "amqp://localhost"),
        &["brokers.pizza.endpoints[0]: must be tcp://host:port, ssl://host:port or failover:"],
    );
}

#[test]
fn giving_up_needs_somewhere_to_go_on_rabbitmq() {
    let key = "event_source_mappings[0].maximum_retry_attempts";
    check_mapping("maximum_retry_attempts = 3", &[&format!("{key}: needs somewhere for messages to go")]);
    check_mapping("maximum_retry_attempts = -1", &[]);
    check_mapping("maximum_retry_attempts = -2", &[&format!("{key}: must be from -1 to 10000")]);
    check_mapping("maximum_retry_attempts = 0\ntags = { \"esm:dead-letter\" = \"broker\" }", &[]);
    check(
        &(BROKER.to_owned() + "dead_letter_queue = \"q\"\n"),
        &["brokers.pizza.dead_letter_queue: has no effect: it concerns brokers with engine = \"activemq\""],
    );
}

#[test]
fn tags_with_our_prefix_act_and_others_are_kept() {
    let tags = |tags: &str| format!("tags = {{ {tags} }}");
    let key = |name: &str| format!("event_source_mappings[0].tags.{name}");
    check_mapping(&tags(r#""esm:dead-letter" = "broker", "esm:strict-consumers" = "true", team = "pizza""#), &[]);
    check_mapping(&tags(r#""esm:header-bytes" = "unsigned", "esm:maximum-concurrency" = "1""#), &[]);
    check_mapping(&tags(r#""esm:event-profile" = "wire""#), &[]);
    check_mapping(
        &tags(r#""esm:event-profile" = "seed""#),
        &[&key("\"esm:event-profile\": must be \"documented\" or")],
    );
    check_mapping(&tags(r#""esm:dead-letter" = "drop""#), &[&key("\"esm:dead-letter\": must be \"broker\"")]);
    check_mapping(&tags(r#""esm:strict-consumers" = true"#), &[&key("\"esm:strict-consumers\": must be a text")]);
    check_mapping(&tags(r#""esm:maximum-concurrency" = "0""#), &[&key("\"esm:maximum-concurrency\": must be from 1")]);
    check_mapping(&tags(r#""esm:colour" = "red""#), &[&key("\"esm:colour\": is not a known esm: tag")]);
    check_mapping(&tags(r#""aws:x" = "y""#), &[&key("\"aws:x\": keys that begin with aws: are reserved")]);
    let many: Vec<_> = (0..51).map(|number| format!("t{number} = \"\"")).collect();
    check_mapping(&tags(&many.join(", ")), &["event_source_mappings[0].tags: must be at most 50 tags, are 51"]);
    check_mapping(&tags(&format!("a = \"{}\"", "v".repeat(257))), &[&key("a: a tag's value has at most 256")]);
    let both = r#"scaling_config = { maximum_concurrency = 2 }
                  tags = { "esm:maximum-concurrency" = "2" }"#;
    check_mapping(both, &["event_source_mappings[0].scaling_config: the tag esm:maximum-concurrency"]);
}

#[test]
fn a_functions_url_is_called_as_its_settings_say() {
    let http = |keys: &str| format!("{SECRET}[functions.f]\nhttp = {{ url = \"http://h/\", {keys} }}\n");
    let key = |rest: &str| format!("functions.f.http{rest}");
    check(&http(r#"protocol = "webhook", headers = { X-A = "b", authorization = { env = "PASSWORD" } }"#), &[]);
    check(&http(r#"protocol = "webhook", secret = "login", hmac_secret = { env = "PASSWORD" }"#), &[]);
    check(&http(r#"protocol = "grpc""#), &[&key(".protocol: must be \"lambda\" or \"webhook\"")]);
    check(&http(r#"hmac_secret = { env = "PASSWORD" }"#), &[&key(".hmac_secret: has an effect with protocol")]);
    check(&http(r#"protocol = "webhook", hmac_secret = "hunter2""#), &[&key(".hmac_secret: must not stand here")]);
    check(&http(r#"secret = "hunter2""#), &[&key(".secret: names no table of [secrets]; there are: login")]);
    check(&http(r#"headers = { "a b" = "hunter2" }"#), &[&key(": `a b` is no header that can be set")]);
    check(&http(r#"headers = { Host = "x" }"#), &[&key(": `Host` is no header that can be set")]);
    check(&http("tls = {}"), &[&key(": tls has no effect on a URL that begins with http://")]);
    check(&http(r#"tls = { ca_file = "absent" }"#), &[&key(".tls.ca_file: cannot read `/nonexistent/absent`")]);
}

#[test]
fn a_functions_processes_need_a_command_and_keep_to_their_limits() {
    let process = |keys: &str| format!("[functions.f]\nprocess = {{ {keys}, dir = \"/\" }}\n");
    let key = |rest: &str| format!("functions.f.process{rest}");
    check(&process(r#"command = ["./bootstrap"]"#), &[]);
    check("[functions.f]\nprocess = { dir = \"/\" }\n", &[&key(".command: is missing")]);
    check(&process("command = []"), &[&key(".command: must name a program")]);
    check(&process(r#"command = "./bootstrap""#), &[&key(".command: must be a list in brackets, is a text")]);
    check(&process(r#"command = ["x", 1]"#), &[&key(".command[1]: must be a text in quotes")]);
    let with = |keys: &str| process(&format!("command = [\"x\"], {keys}"));
    check(&with("instances = 0"), &[&key(".instances: must be from 1 to 1000, is 0")]);
    check(&with("idle_timeout_in_seconds = 0"), &[&key(".idle_timeout_in_seconds: must be from 1 to 86400")]);
    check(&with("memory_in_mebibytes = 8"), &[&key(".memory_in_mebibytes: must be from 16")]);
    check(&with("open_files = 4"), &[&key(".open_files: must be from 16")]);
    check(&with(r#"file_access = { read = ["/usr"], write = ["/tmp"] }"#), &[]);
    check(&with(r#"file_access = { read = "/usr" }"#), &[&key(".file_access.read: must be a list")]);
    check(
        &with(r#"file_access = { write = ["/tmp", "absent"], execute = [] }"#),
        &[
            &key(".file_access.write[1]: cannot use `/nonexistent/absent`: "),
            &key(".file_access.execute: is not a known"),
        ],
    );
    check(&with("environment = { A = 1 }"), &[&key(".environment.A: must be a table, is a whole number")]);
    check(&with(r#"environment = { "A=B" = "c" }"#), &[&key(".environment.\"A=B\": is no name of a variable")]);
    check(&with("environment = { A = { env = \"ABSENT\" } }"), &[&key(".environment.A.env: the environment has no")]);
    check(
        &with(r#"environment = { AWS_LAMBDA_RUNTIME_API = "x" }"#),
        &[&key(": environment must not have AWS_LAMBDA_RUNTIME_API")],
    );
    check(
        "[functions.f]\nprocess = { command = [\"x\"], dir = \"absent\" }\n",
        &[&key(".dir: `/nonexistent/absent` is not a folder")],
    );
    check(
        "[functions.f]\nhttp = { url = \"http://h/\" }\nprocess = { command = [\"x\"] }\n",
        &["functions.f: has several of http, process and lambda"],
    );
}

#[test]
fn tls_files_are_looked_for_and_relative_to_the_configuration() {
    let broker = |line: &str| format!("[brokers.b]\nengine = \"rabbitmq\"\nendpoints = [\"amqps://h\"]\n{line}\n");
    check(
        &broker("tls = { ca_file = \"ca.pem\", cert_file = \"c.pem\" }"),
        &[
            "brokers.b.tls.ca_file: cannot read `/nonexistent/ca.pem`",
            "brokers.b.tls.cert_file: cannot read `/nonexistent/c.pem`",
        ],
    );
    let two = broker("tls = { ca_file = \"ca.pem\" }").replace("amqps://h", "h");
    check(&two, &["brokers.b.tls.ca_file: cannot read", "brokers.b.endpoints[0]: must be amqp://"]);
    check(&broker("tls = {}").replace("amqps", "amqp"), &["brokers.b.tls: has no effect"]);
}
