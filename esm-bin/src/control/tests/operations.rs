//! What is answered to people, and what comes of it.

use esm_core::filter::FilterCriteria;

use super::*;
use crate::control::plane::{Changes, ControlError, ListFilter};

fn tags<const N: usize>(tags: [(&str, &str); N]) -> BTreeMap<String, String> {
    tags.map(|(key, value)| (key.into(), value.into())).into()
}

#[tokio::test]
async fn a_mapping_lives_through_the_documented_states() {
    let bench = Bench::start("").await;
    let plane = &bench.plane;
    let created = plane.create(spec("q"), tags([("team", "pizza")])).await.unwrap();
    assert_eq!((created.state, created.state_transition_reason.as_str()), (State::Creating, "USER_INITIATED"));
    assert_eq!(created.last_processing_result, "No records processed");
    assert_eq!(created.function_arn, "arn:aws:lambda:us-east-1:000000000000:function:f");
    assert!(created.event_source_arn.starts_with("arn:aws:mq:us-east-1:000000000000:broker:rabbit:b-"));
    let uuid = created.uuid;
    assert_eq!(created.arn, format!("arn:aws:lambda:us-east-1:000000000000:event-source-mapping:{uuid}"));
    bench.becomes(uuid, State::Enabled).await;
    assert_eq!(bench.readers.open(), [(uuid, 1)].into());

    let disable = Changes { enabled: Some(false), ..Changes::default() };
    assert_eq!(plane.update(uuid, disable.clone()).await.unwrap().state, State::Disabling);
    bench.becomes(uuid, State::Disabled).await;
    assert_eq!(bench.readers.open(), [].into());
    assert_eq!(plane.update(uuid, disable).await.unwrap().state, State::Disabled, "at once");

    let enable = Changes { enabled: Some(true), ..Changes::default() };
    assert_eq!(plane.update(uuid, enable).await.unwrap().state, State::Enabling);
    bench.becomes(uuid, State::Enabled).await;
    let deleted = plane.delete(uuid).await.unwrap();
    assert_eq!(deleted.state, State::Deleting);
    assert!(deleted.last_modified_ms >= created.last_modified_ms);
    bench.until("its end", async |bench| bench.plane.get(uuid).await.err()).await;
    assert_eq!(bench.readers.open(), [].into());

    let asleep = plane.create(MappingSpec { enabled: false, ..spec("q") }, BTreeMap::new()).await.unwrap();
    assert_eq!(asleep.state, State::Disabled);
    assert_eq!(bench.readers.at(uuid, |reader| reader.opened), 2, "once for each time that it was enabled");
}

#[tokio::test]
async fn an_update_connects_anew_only_if_it_concerns_the_connection() {
    let bench = Bench::start("").await;
    let uuid = bench.plane.create(spec("q"), BTreeMap::new()).await.unwrap().uuid;
    bench.becomes(uuid, State::Enabled).await;
    let filter = FilterCriteria::parse(&[r#"{"id":["a"]}"#.into()]).unwrap();
    let settings = Changes {
        batch_size: Some(7.try_into().unwrap()),
        window: Some(1.try_into().unwrap()),
        filter: Some(Some(Arc::new(filter))),
        maximum_concurrency: Some(Some(3.try_into().unwrap())),
        function_name: Some("f:live".parse().unwrap()),
        ..Changes::default()
    };
    let updated = bench.plane.update(uuid, settings).await.unwrap();
    assert_eq!(updated.state, State::Updating);
    assert!(updated.function_arn.ends_with(":function:f:live"));
    bench.becomes(uuid, State::Enabled).await;
    let prefetch = async |bench: &Bench| (bench.readers.at(uuid, |reader| reader.queue.prefetch()) == 28).then_some(());
    bench.until("the prefetch of the new settings", prefetch).await;
    assert_eq!(bench.readers.at(uuid, |reader| (reader.open, reader.opened)), (1, 1));

    let secret = Changes { secret: Some("other".into()), ..Changes::default() };
    bench.plane.update(uuid, secret).await.unwrap();
    let view = bench.becomes(uuid, State::Enabled).await;
    assert_eq!(bench.readers.at(uuid, |reader| (reader.open, reader.opened)), (1, 2));
    assert_eq!((view.spec.secret.as_str(), view.spec.batch_size), ("other", Some(7.try_into().unwrap())));
    let function = Changes { function_name: Some("g".parse().unwrap()), ..Changes::default() };
    bench.plane.update(uuid, function).await.unwrap();
    bench.becomes(uuid, State::Enabled).await;
    let metrics = prometheus::TextEncoder::new().encode_to_string(&bench.registry.gather()).unwrap();
    assert!(metrics.contains(&format!("function=\"g\",mapping=\"{uuid}\"")) && !metrics.contains("function=\"f\",m"));

    bench.plane.tag(&view.arn, tags([("esm:strict-consumers", "true")])).await.unwrap();
    let opened =
        async |bench: &Bench| (bench.readers.at(uuid, |reader| (reader.open, reader.opened)) == (1, 4)).then_some(());
    bench.until("a session by the new tag", opened).await;
}

#[tokio::test]
async fn what_cannot_be_done_is_answered_in_awss_words() {
    let bench = Bench::start(&file_mapping("of file", "")).await;
    let plane = &bench.plane;
    let uuid = plane.create(spec("q"), BTreeMap::new()).await.unwrap().uuid;
    bench.becomes(uuid, State::Enabled).await;
    let create = async |spec: MappingSpec| plane.create(spec, BTreeMap::new()).await.unwrap_err();
    let conflict = create(MappingSpec { enabled: false, ..spec("q") }).await;
    let arn = plane.get(uuid).await.unwrap().event_source_arn;
    assert_eq!(
        conflict,
        ControlError::ResourceConflict(format!(
            "An event source mapping with event source (\"{arn}\"), function \
             (\"arn:aws:lambda:us-east-1:000000000000:function:f\"), queues (\"q\") already exists. Please update or \
             delete the existing mapping with UUID {uuid}"
        ))
    );
    assert!(matches!(create(spec("of file")).await, ControlError::ResourceConflict(_)));
    let invalid = async |spec: MappingSpec, expected: &str| match create(spec).await {
        ControlError::InvalidParameterValue(words) => assert!(words.starts_with(expected), "{words}"),
        other => panic!("{other:?}"),
    };
    let absent = MappingSpec { function_name: "absent".parse().unwrap(), ..spec("r") };
    invalid(absent, "Function does not exist (FunctionName: there is no [functions.absent]; there are: f, g)").await;
    invalid(MappingSpec { event_source: "absent".into(), ..spec("r") }, "Unrecognized event source. (").await;
    let activemq = MappingSpec { event_source: "active".into(), virtual_host: Some("/".into()), ..spec("r") };
    invalid(activemq, "Unsupported source access configurations type for given event source mapping type. (").await;
    let bounded = MappingSpec { maximum_retry_attempts: Some(2.try_into().unwrap()), ..spec("r") };
    invalid(bounded, "MaximumRetryAttempts: needs somewhere for messages to go that are given up").await;

    let absent = Uuid::from_u128(1);
    let not_found = ControlError::ResourceNotFound("The resource you requested does not exist.".into());
    assert_eq!(plane.get(absent).await.unwrap_err(), not_found);
    assert_eq!(plane.update(absent, Changes::default()).await.unwrap_err(), not_found);
    assert_eq!(plane.delete(absent).await.unwrap_err(), not_found);
    let no_arn = ControlError::ResourceNotFound("Event source mapping not found: arn:x".into());
    assert_eq!(plane.tags("arn:x").await.unwrap_err(), no_arn);

    let of_file = plane.list(&ListFilter::default(), None, 100).await.unwrap().0;
    let of_file = of_file.into_iter().find(|view| view.spec.queue == "of file").unwrap();
    for refused in [
        plane.update(of_file.uuid, Changes::default()).await.map(drop).unwrap_err(),
        plane.delete(of_file.uuid).await.map(drop).unwrap_err(),
        plane.tag(&of_file.arn, tags([("a", "b")])).await.unwrap_err(),
    ] {
        let ControlError::ResourceConflict(words) = refused else { panic!("{refused:?}") };
        assert!(words.contains("configuration file as event_source_mappings[0]"), "{words}");
    }
}

#[tokio::test]
async fn a_mapping_on_its_way_to_another_state_is_in_use() {
    let bench = Bench::start("").await;
    let uuid = bench.plane.create(spec("q"), BTreeMap::new()).await.unwrap().uuid;
    bench.becomes(uuid, State::Enabled).await;
    bench.reconciler.abort(); // so that it stays where it is
    bench.until("the reconciler's end", async |bench| bench.reconciler.is_finished().then_some(())).await;
    bench.plane.update(uuid, Changes::default()).await.unwrap();
    let in_use = |what: &str| {
        ControlError::ResourceInUse(format!("Cannot {what} the event source mapping because it is in use."))
    };
    assert_eq!(bench.plane.update(uuid, Changes::default()).await.unwrap_err(), in_use("update"));
    assert_eq!(bench.plane.delete(uuid).await.unwrap_err(), in_use("delete"));
}

#[tokio::test]
async fn a_mapping_in_trouble_stays_enabled_and_says_why() {
    let bench = Bench::start("").await;
    let plane = &bench.plane;
    let one = plane.create(spec("q"), BTreeMap::new()).await.unwrap().uuid;
    let other = MappingSpec { function_name: "g".parse().unwrap(), ..spec("q") };
    let other = plane.create(other, BTreeMap::new()).await.unwrap().uuid;
    bench.becomes(one, State::Enabled).await;
    bench.becomes(other, State::Enabled).await;
    let shared = plane.get(one).await.unwrap().last_processing_result;
    assert_eq!(
        shared,
        format!(
            "No records processed; the event source mapping {other} reads the same queue, so each message goes to only one of the two"
        )
    );

    let broker = || "b".to_owned();
    let refusal = SourceError::Authentication { broker: broker(), words: "no".into() };
    bench.readers.at(one, |reader| {
        reader.refusals = vec![refusal; 1];
        reader.queue.lose(SourceError::ConnectionLost { broker: broker(), words: "cut".into() });
    });
    let in_trouble = async |bench: &Bench| {
        let view = bench.plane.get(one).await.unwrap();
        view.state_transition_reason.starts_with("EVENT_SOURCE_AUTHN_ERROR: ").then_some(view)
    };
    let view = bench.until("its reason", in_trouble).await;
    assert_eq!(view.state, State::Enabled);
    assert!(view.last_processing_result.starts_with("PROBLEM: broker `b` refused the login"));
    assert!(plane.readiness().await.unwrap().is_ready, "it keeps trying");
    let healed = async |bench: &Bench| {
        (bench.plane.get(one).await.unwrap().state_transition_reason == "USER_INITIATED").then_some(())
    };
    bench.until("its recovery", healed).await;
}

#[tokio::test]
async fn lists_have_file_and_store_in_one_order_and_pages() {
    let bench = Bench::start(&(file_mapping("one", "") + &file_mapping("two", "enabled = false"))).await;
    let plane = &bench.plane;
    for number in 0..7 {
        let function = if number < 3 { "g:live" } else { "g" };
        let spec =
            MappingSpec { function_name: function.parse().unwrap(), enabled: false, ..spec(&number.to_string()) };
        plane.create(spec, BTreeMap::new()).await.unwrap();
    }
    let mut found = Vec::new();
    let mut marker = None;
    loop {
        let (page, next) = plane.list(&ListFilter::default(), marker.as_deref(), 4).await.unwrap();
        assert!(page.len() == 4 || next.is_none());
        found.extend(page);
        marker = next;
        if marker.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 9);
    assert!(found.is_sorted_by(|one, other| one.uuid < other.uuid));
    let count = async |event_source: Option<&str>, function: Option<&str>| {
        let filter = ListFilter {
            event_source: event_source.map(Into::into),
            function_name: function.map(|name| name.parse().unwrap()),
        };
        plane.list(&filter, None, 100).await.unwrap().0.len()
    };
    assert_eq!(count(Some("rabbit"), None).await, 9);
    assert_eq!(count(Some(&found[0].event_source_arn), Some("f")).await, 2);
    assert_eq!(count(Some("active"), None).await, 0);
    assert_eq!(count(None, Some("g")).await, 7);
    assert_eq!(count(None, Some("arn:aws:lambda:us-east-1:000000000000:function:g:live")).await, 3);
    assert_eq!(count(Some("absent"), Some("absent")).await, 0);
    let invalid = plane.list(&ListFilter::default(), Some("x"), 4).await.unwrap_err();
    assert!(matches!(invalid, ControlError::InvalidParameterValue(_)));
}

#[tokio::test]
async fn tags_are_merged_removed_and_held_to_their_rules() {
    let bench = Bench::start("").await;
    let plane = &bench.plane;
    let attempts = MappingSpec { maximum_retry_attempts: Some(3.try_into().unwrap()), enabled: false, ..spec("q") };
    let arn = plane.create(attempts, tags([("esm:dead-letter", "broker"), ("a", "1")])).await.unwrap().arn;
    plane.tag(&arn, tags([("a", "2"), ("b", "3")])).await.unwrap();
    plane.untag(&arn, &["absent".into(), "b".into()]).await.unwrap();
    assert_eq!(plane.tags(&arn).await.unwrap(), tags([("a", "2"), ("esm:dead-letter", "broker")]));
    for (key, value) in [("esm:colour", "red"), ("aws:x", "y"), ("esm:maximum-concurrency", "0")] {
        let refused = plane.tag(&arn, tags([(key, value)])).await.unwrap_err();
        assert!(matches!(refused, ControlError::InvalidParameterValue(_)), "{refused:?}");
    }
    let needed = plane.untag(&arn, &["esm:dead-letter".into()]).await.unwrap_err();
    assert!(matches!(needed, ControlError::InvalidParameterValue(_)), "{needed:?}");
}
