//! Mappings of the configuration file, and the file read again.

use super::*;
use crate::control::plane::Changes;

async fn of_queue(bench: &Bench, queue: &str) -> Option<View> {
    let (views, _) = bench.plane.list(&super::super::plane::ListFilter::default(), None, 100).await.unwrap();
    views.into_iter().find(|view| view.spec.queue == queue)
}

#[tokio::test]
async fn what_did_not_change_in_the_file_is_not_disturbed() {
    let before = [file_mapping("stays", ""), file_mapping("changes", ""), file_mapping("goes", "")].concat();
    let bench = Bench::start(&before).await;
    let uuids = async |queue: &str| of_queue(&bench, queue).await.unwrap().uuid;
    let (stays, changes, goes) = (uuids("stays").await, uuids("changes").await, uuids("goes").await);
    for uuid in [stays, changes, goes] {
        bench.becomes(uuid, State::Enabled).await;
    }

    let after = [file_mapping("stays", ""), file_mapping("changes", "batch_size = 5"), file_mapping("comes", "")];
    bench.reload(&after.concat());

    bench.until("the end of one", async |bench| (!bench.readers.open().contains_key(&goes)).then_some(())).await;
    assert!(of_queue(&bench, "goes").await.is_none());
    let comes = of_queue(&bench, "comes").await.unwrap().uuid;
    bench.becomes(comes, State::Enabled).await;
    let prefetch =
        async |bench: &Bench| (bench.readers.at(changes, |reader| reader.queue.prefetch()) == 10).then_some(());
    bench.until("its new settings", prefetch).await;
    for uuid in [stays, changes, comes] {
        assert_eq!(bench.readers.at(uuid, |reader| (reader.open, reader.opened)), (1, 1));
    }
    bench.reload(&after.concat().replace("batch_size = 5", "batch_size = 5\nenabled = false"));
    bench.becomes(changes, State::Disabled).await;
    assert_eq!(bench.readers.at(changes, |reader| reader.open), 0);
}

#[tokio::test]
async fn a_mapping_that_comes_to_stand_in_the_file_too_can_still_be_changed_and_disabled() {
    let bench = Bench::start("").await;
    let uuid = bench.plane.create(spec("q"), BTreeMap::new()).await.unwrap().uuid;
    bench.becomes(uuid, State::Enabled).await;
    bench.reload(&file_mapping("q", ""));

    let smaller = Changes { batch_size: Some(5.try_into().unwrap()), ..Changes::default() };
    bench.plane.update(uuid, smaller).await.unwrap();
    bench.becomes(uuid, State::Enabled).await;
    let disabled = Changes { enabled: Some(false), ..Changes::default() };
    bench.plane.update(uuid, disabled).await.unwrap();

    bench.becomes(uuid, State::Disabled).await;
}

#[tokio::test]
async fn what_a_mapping_refers_to_may_go_and_come_back() {
    let bench = Bench::start("").await;
    let uuid = bench.plane.create(spec("q"), BTreeMap::new()).await.unwrap().uuid;
    bench.becomes(uuid, State::Enabled).await;
    let without_function = TARGETS.replace("[functions.f]", "[functions.h]");
    let read = |text: &str| {
        let config = config::read_after(Some(&bench.plane.targets()), text, Path::new(""), &environment());
        let Config { targets, mappings, .. } = config.expect("has no problems");
        bench.plane.replace_file(targets, mappings);
    };

    read(&without_function);

    let shows = async |bench: &Bench| {
        let view = bench.plane.get(uuid).await.unwrap();
        view.state_transition_reason.starts_with("FUNCTION_CONFIG_NOT_VALID: ").then_some(view)
    };
    let view = bench.until("the reason", shows).await;
    assert_eq!(view.state, State::Enabled);
    assert_eq!(view.last_processing_result, "PROBLEM: FunctionName: there is no [functions.f]; there are: g, h");
    assert!(bench.readers.open().is_empty());
    assert!(!bench.plane.readiness().await.unwrap().is_ready, "nothing is tried before the file is mended");
    read(TARGETS);
    bench.until("its return", async |bench| bench.readers.open().contains_key(&uuid).then_some(())).await;
    let healed = bench.plane.get(uuid).await.unwrap();
    assert_eq!(healed.state_transition_reason, "USER_INITIATED");
    assert!(bench.plane.readiness().await.unwrap().is_ready);

    read(&without_function);
    bench.until("the reason again", shows).await;
    let disable = Changes { enabled: Some(false), ..Default::default() };
    bench.plane.update(uuid, disable).await.unwrap();
    bench.becomes(uuid, State::Disabled).await;
    bench.plane.delete(uuid).await.unwrap();
    bench.until("its end", async |bench| bench.plane.get(uuid).await.err()).await;
}
