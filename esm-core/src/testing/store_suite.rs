//! What every store promises, as functions that every store's tests call.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use uuid::Uuid;

use crate::{
    status::State,
    store::{Filter, Route, Store, StoreError, StoredMapping},
};

/// A store that is empty at first.
#[async_trait]
pub trait StoreUnderTest: Send + Sync {
    /// Opens it, again if it was open before; what was open is not used any more.
    async fn open(&self) -> Arc<dyn Store>;
}

/// A mapping of its own route.
pub fn stored_mapping(number: u128) -> StoredMapping {
    StoredMapping {
        uuid: Uuid::from_u128(number),
        route: Route {
            function_name: "function".into(),
            function_arn: "arn:function".into(),
            event_source_arn: "arn:broker".into(),
            virtual_host: "/".into(),
            queue: format!("queue {number}"),
        },
        spec: r#"{"a":"ü \" \u0000"}"#.into(),
        tags: [("team".into(), "pizza".into()), ("empty".into(), String::new())].into(),
        state: State::Creating,
        revision: 1,
        last_modified_ms: 1_601_927_898_741,
        unreadable: None,
    }
}

fn next(mapping: &StoredMapping, state: State) -> StoredMapping {
    StoredMapping { state, revision: mapping.revision + 1, ..mapping.clone() }
}

/// Results are there after the store was opened again, and none that was not given last.
pub async fn the_last_results_take_the_place_of_those_before(under_test: &dyn StoreUnderTest) {
    let store = under_test.open().await;
    assert_eq!(store.results().await, Ok(BTreeMap::new()));
    let results = |numbers: &[u128]| {
        numbers.iter().map(|number| (Uuid::from_u128(*number), format!("PROBLEM: \"{number}\" ü"))).collect()
    };
    for numbers in [&[1, 2, 3][..], &[2, 4], &[2, 4], &[]] {
        let kept: BTreeMap<_, _> = results(numbers);
        under_test.open().await.keep_results(&kept).await.expect("are kept");
        assert_eq!(under_test.open().await.results().await, Ok(kept));
    }
}

/// What was answered is there after the store was opened again.
pub async fn every_answered_change_is_there_after_reopening(under_test: &dyn StoreUnderTest) {
    let store = under_test.open().await;
    let added = stored_mapping(1);
    store.add(&added).await.expect("is kept");
    let store = under_test.open().await;
    assert_eq!(store.get(added.uuid).await, Ok(Some(added.clone())));

    let changed = StoredMapping {
        spec: "{}".into(),
        tags: [("other".into(), "tag".into())].into(),
        route: Route { function_arn: "arn:function:alias".into(), ..added.route.clone() },
        last_modified_ms: added.last_modified_ms + 1,
        ..next(&added, State::Updating)
    };
    assert_eq!(store.replace(&changed).await, Ok(true));
    let store = under_test.open().await;
    assert_eq!(store.get(added.uuid).await, Ok(Some(changed.clone())));

    assert_eq!(store.settle(added.uuid, 2, State::Updating, State::Enabled).await, Ok(true));
    let store = under_test.open().await;
    assert_eq!(store.get(added.uuid).await, Ok(Some(StoredMapping { state: State::Enabled, ..changed.clone() })));

    assert_eq!(store.replace(&next(&changed, State::Deleting)).await, Ok(true));
    assert_eq!(store.remove(added.uuid).await, Ok(true));
    let store = under_test.open().await;
    assert_eq!(store.get(added.uuid).await, Ok(None));
}

/// A second mapping with the same route is refused, by adding and by changing, and the first is named.
pub async fn no_two_mappings_have_the_same_route(under_test: &dyn StoreUnderTest) {
    let store = under_test.open().await;
    let (one, other) = (stored_mapping(1), stored_mapping(2));
    store.add(&one).await.expect("is kept");
    store.add(&other).await.expect("is kept");
    let same = StoredMapping { route: one.route.clone(), ..stored_mapping(3) };
    assert_eq!(store.add(&same).await, Err(StoreError::Conflict { uuid: one.uuid }));
    let same = StoredMapping { route: one.route.clone(), ..next(&other, State::Updating) };
    assert_eq!(store.replace(&same).await, Err(StoreError::Conflict { uuid: one.uuid }));
    assert_eq!(store.get(other.uuid).await, Ok(Some(other)), "a refused change changes nothing");
}

/// Who knows an older revision, or another state, changes nothing.
pub async fn a_change_that_came_too_late_does_nothing(under_test: &dyn StoreUnderTest) {
    let store = under_test.open().await;
    let first = stored_mapping(1);
    store.add(&first).await.expect("is kept");
    let second = next(&first, State::Updating);
    assert_eq!(store.replace(&second).await, Ok(true));

    assert_eq!(store.replace(&next(&first, State::Deleting)).await, Ok(false));
    assert_eq!(store.settle(first.uuid, 1, State::Updating, State::Enabled).await, Ok(false), "an old revision");
    assert_eq!(store.settle(first.uuid, 2, State::Creating, State::Enabled).await, Ok(false), "another state");
    assert_eq!(store.remove(first.uuid).await, Ok(false), "it is not being deleted");
    assert_eq!(store.get(first.uuid).await, Ok(Some(second)));
    let absent = Uuid::from_u128(9);
    assert_eq!(store.get(absent).await, Ok(None));
    assert_eq!(store.replace(&next(&stored_mapping(9), State::Updating)).await, Ok(false));
    assert_eq!(store.settle(absent, 1, State::Creating, State::Enabled).await, Ok(false));
}

/// Pages are in the order of the UUIDs and leave nothing out, and filters name exactly theirs.
pub async fn pages_are_in_order_and_filtered(under_test: &dyn StoreUnderTest) {
    let store = under_test.open().await;
    for number in [5, 1, 4, 2, 3] {
        let mut mapping = stored_mapping(number);
        if number % 2 == 0 {
            mapping.route.function_name = "other".into();
            mapping.route.function_arn = format!("arn:other:{number}");
        }
        if number > 3 {
            mapping.route.event_source_arn = "arn:other".into();
        }
        store.add(&mapping).await.expect("is kept");
    }
    let check = async |filter: Filter, after: Option<u128>, most: u32, expected: &[u128]| {
        let page = store.page(&filter, after.map(Uuid::from_u128), most).await.expect("is read");
        let found: Vec<u128> = page.iter().map(|mapping| mapping.uuid.as_u128()).collect();
        assert_eq!(found, expected, "{filter:?}");
    };
    check(Filter::default(), None, 2, &[1, 2]).await;
    check(Filter::default(), Some(2), 2, &[3, 4]).await;
    check(Filter::default(), Some(4), 2, &[5]).await;
    check(Filter::default(), Some(5), 2, &[]).await;
    let of_broker = Filter { event_source_arn: Some("arn:other".into()), ..Filter::default() };
    check(of_broker.clone(), None, 9, &[4, 5]).await;
    let of_function = Filter { function_name: Some("other".into()), ..Filter::default() };
    check(of_function.clone(), Some(2), 9, &[4]).await;
    check(Filter { function_arn: Some("arn:other:2".into()), ..of_function.clone() }, None, 9, &[2]).await;
    check(Filter { event_source_arn: of_broker.event_source_arn, ..of_function }, None, 9, &[4]).await;
}

/// What is active is everything but the disabled mappings.
pub async fn active_are_all_but_the_disabled_mappings(under_test: &dyn StoreUnderTest) {
    let store = under_test.open().await;
    let mut expected = Vec::new();
    for (number, state) in (1..).zip(State::ALL) {
        let mapping = StoredMapping { state, ..stored_mapping(number) };
        store.add(&mapping).await.expect("is kept");
        if state != State::Disabled {
            expected.push(mapping);
        }
    }
    assert_eq!(store.active().await, Ok(expected));
}
