//! Whatever was answered survives, whenever the process ends; and what runs afterwards is what should.

use proptest::{prelude::*, test_runner::TestRunner};

use super::*;
use crate::control::plane::{Changes, ControlError, LONGEST_PAGE, ListFilter};

#[derive(Clone, Debug)]
enum Act {
    Create {
        queue: u8,
        enabled: bool,
        batch_size: Option<u16>,
    },
    Update {
        which: u8,
        enabled: Option<bool>,
        batch_size: Option<u16>,
        other_secret: Option<bool>,
    },
    Delete {
        which: u8,
    },
    Tag {
        which: u8,
        key: u8,
    },
    Untag {
        which: u8,
        key: u8,
    },
    /// Time for the reconciler.
    Settle,
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    let (which, key, size) = (0..6_u8, 0..3_u8, prop::option::of(1..=10_000_u16));
    prop_oneof![
        4 => (0..5_u8, any::<bool>(), size.clone())
            .prop_map(|(queue, enabled, batch_size)| Act::Create { queue, enabled, batch_size }),
        4 => (which.clone(), any::<Option<bool>>(), size, any::<Option<bool>>())
            .prop_map(|(which, enabled, batch_size, other_secret)| Act::Update { which, enabled, batch_size, other_secret }),
        2 => which.clone().prop_map(|which| Act::Delete { which }),
        1 => (which.clone(), key.clone()).prop_map(|(which, key)| Act::Tag { which, key }),
        1 => (which, key).prop_map(|(which, key)| Act::Untag { which, key }),
        2 => Just(Act::Settle),
        2 => Just(Act::Crash),
    ]
}

/// What was answered so far.
#[derive(Default)]
struct Model {
    mappings: BTreeMap<Uuid, (MappingSpec, BTreeMap<String, String>)>,
    /// In the order of their making, deleted ones too.
    made: Vec<Uuid>,
}

impl Model {
    fn pick(&self, which: u8) -> Uuid {
        self.made.get(usize::from(which)).copied().unwrap_or(Uuid::nil())
    }

    async fn play(&mut self, bench: Bench, act: &Act) -> Bench {
        let plane = &bench.plane;
        match act {
            Act::Create { queue, enabled, batch_size } => {
                let batch_size = batch_size.map(|size| i64::from(size).try_into().unwrap());
                let spec = MappingSpec { enabled: *enabled, batch_size, ..spec(&queue.to_string()) };
                let tags: BTreeMap<_, _> = [("made".into(), queue.to_string())].into();
                match plane.create(spec.clone(), tags.clone()).await {
                    Ok(view) => {
                        assert!(!self.mappings.values().any(|(other, _)| other.queue == spec.queue));
                        assert_eq!(view.spec, spec);
                        self.made.push(view.uuid);
                        self.mappings.insert(view.uuid, (spec, tags));
                    }
                    // The other one may be on its way out.
                    Err(error) => assert!(matches!(error, ControlError::ResourceConflict(_)), "{error:?}"),
                }
            }
            Act::Update { which, enabled, batch_size, other_secret } => {
                let uuid = self.pick(*which);
                let changes = Changes {
                    enabled: *enabled,
                    batch_size: batch_size.map(|size| i64::from(size).try_into().unwrap()),
                    secret: other_secret.map(|other| if other { "other" } else { "login" }.into()),
                    ..Changes::default()
                };
                let result = plane.update(uuid, changes).await;
                if self.expect(uuid, result.as_ref().map(drop)) {
                    self.mappings.get_mut(&uuid).unwrap().0 = result.unwrap().spec;
                    let spec = &self.mappings[&uuid].0;
                    assert!(enabled.is_none_or(|enabled| spec.enabled == enabled));
                }
            }
            Act::Delete { which } => {
                let uuid = self.pick(*which);
                let result = plane.delete(uuid).await;
                if self.expect(uuid, result.as_ref().map(drop)) {
                    self.mappings.remove(&uuid);
                }
            }
            Act::Tag { which, key } | Act::Untag { which, key } => {
                let uuid = self.pick(*which);
                let arn = format!("{}{uuid}", plane.identity().mapping_arn_prefix());
                let key = format!("tag {key}");
                let result = match act {
                    Act::Tag { .. } => plane.tag(&arn, [(key.clone(), "x".into())].into()).await,
                    _ => plane.untag(&arn, std::slice::from_ref(&key)).await,
                };
                // Tags of what is being deleted may change, and nobody minds.
                if let (Ok(()), Some((_, tags))) = (&result, self.mappings.get_mut(&uuid)) {
                    match act {
                        Act::Tag { .. } => drop(tags.insert(key, "x".into())),
                        _ => drop(tags.remove(&key)),
                    }
                }
                assert!(result.is_ok() || !self.mappings.contains_key(&uuid), "{result:?}");
            }
            Act::Settle => self.check(&bench).await,
            Act::Crash => return bench.crash("").await,
        }
        bench
    }

    /// Whether it was done; if not, it must have been for a reason.
    fn expect(&self, uuid: Uuid, result: Result<(), &ControlError>) -> bool {
        match result {
            Ok(()) => assert!(self.mappings.contains_key(&uuid)),
            Err(ControlError::ResourceInUse(_)) => {}
            Err(error) => {
                assert!(matches!(error, ControlError::ResourceNotFound(_)), "{error:?}");
                assert!(!self.mappings.contains_key(&uuid));
            }
        }
        result.is_ok()
    }

    /// Every answered change is there, no mapping runs that should not, and none is missing.
    async fn check(&self, bench: &Bench) {
        let views = async |bench: &Bench| {
            let (views, _) = bench.plane.list(&ListFilter::default(), None, LONGEST_PAGE).await.unwrap();
            views.iter().all(|view| view.state.is_settled()).then_some(views)
        };
        let views = bench.until("the end of all changes", views).await;
        let mut found = BTreeMap::new();
        for view in views {
            let state = if view.spec.enabled { State::Enabled } else { State::Disabled };
            assert_eq!(view.state, state);
            let tags = bench.plane.tags(&view.arn).await.unwrap();
            found.insert(view.uuid, (view.spec, tags));
        }
        assert_eq!(found, self.mappings);
        let should: BTreeMap<Uuid, usize> =
            found.iter().filter(|(_, (spec, _))| spec.enabled).map(|(uuid, _)| (*uuid, 1)).collect();
        // After a crash what was enabled before is shown so, and starts now.
        bench.until("what should run", async |bench| (bench.readers.open() == should).then_some(())).await;
    }
}

#[test]
fn every_answered_change_survives_a_crash_and_what_runs_is_what_should() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cases = if std::env::var_os("ESM_TEST_ALL").is_some() { 5_000 } else { 500 };
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..Default::default() });
    let outcome = runner.run(&prop::collection::vec(act(), 1..16), |acts| {
        runtime.block_on(async {
            let mut model = Model::default();
            let mut bench = Bench::start("").await;
            for act in &acts {
                bench = model.play(bench, act).await;
            }
            model.check(&bench).await;
        });
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
