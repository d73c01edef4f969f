//! Which adapters and invokers a release has.
//!
//! What there is to choose from is read from the features of `esm-bin`, so that a new one needs no change here:
//! a feature that brings in one of our own crates is an adapter, one that switches something on in `esm-invoke`
//! an invoker.

use std::fmt;

use anyhow::{Result, bail, ensure};
use cargo_metadata::Metadata;

use crate::workspace;

/// What only an adapter says: the names of the packages and modules that speak to its broker, as they stand in
/// the paths and messages that a program keeps when its symbols are gone.
const TRACES: [(&str, &[&str]); 2] = [
    ("activemq", &["esm_activemq", "esm-activemq", "openwire"]),
    ("rabbitmq", &["esm_rabbitmq", "esm-rabbitmq", "lapin"]),
];

#[derive(Debug)]
pub(super) struct Selection {
    adapters: Kind,
    invokers: Kind,
}

/// One thing to choose: what there is, and what was chosen. Both are sorted.
#[derive(Debug)]
struct Kind {
    all: Vec<String>,
    chosen: Vec<String>,
}

impl Selection {
    /// `None` chooses all there are.
    pub(super) fn choose(
        metadata: &Metadata,
        adapters: Option<&[String]>,
        invokers: Option<&[String]>,
    ) -> Result<Self> {
        let features = &workspace::package(metadata, "esm-bin")?.features;
        let those_with = |prefix: &str| -> Vec<String> {
            let with = features.iter().filter(|(_, enables)| enables.iter().any(|item| item.starts_with(prefix)));
            with.map(|(name, _)| name.clone()).collect()
        };
        Ok(Self {
            adapters: Kind::choose("adapters", those_with("dep:esm-"), adapters)?,
            invokers: Kind::choose("invokers", those_with("esm-invoke/"), invokers)?,
        })
    }

    /// As cargo wants them.
    pub(super) fn features(&self) -> String {
        [self.adapters.chosen.as_slice(), &self.invokers.chosen].concat().join(",")
    }

    /// Tells a release that lacks something from one that has everything.
    pub(super) fn suffix(&self) -> String {
        let parts = [&self.adapters, &self.invokers].into_iter().filter(|kind| !kind.is_everything());
        parts.flat_map(|kind| &kind.chosen).fold(String::new(), |suffix, name| suffix + "-" + name)
    }

    /// The crates of ours that must not be part of this release.
    pub(super) fn unwanted_crates(&self) -> Vec<String> {
        self.adapters.left_out().map(|name| format!("esm-{name}")).collect()
    }

    /// Whether the finished program really lacks what was not chosen.
    pub(super) fn ensure_nothing_else(&self, program: &[u8]) -> Result<()> {
        for name in self.adapters.left_out() {
            let Some((_, traces)) = TRACES.iter().find(|(adapter, _)| adapter == name) else {
                bail!("nobody has said what the adapter `{name}` leaves in a program");
            };
            let found: Vec<_> = traces.iter().filter(|trace| contains(program, trace.as_bytes())).collect();
            ensure!(found.is_empty(), "the program should lack the adapter `{name}` and contains {found:?}");
        }
        for name in &self.adapters.chosen {
            // A search that finds nothing anywhere would prove nothing.
            let traces = TRACES.iter().find(|(adapter, _)| adapter == name).map_or(&[][..], |(_, traces)| traces);
            let found = traces.iter().any(|trace| contains(program, trace.as_bytes()));
            ensure!(found, "the program should have the adapter `{name}` and shows no trace of it");
        }
        Ok(())
    }
}

impl Kind {
    fn choose(what: &str, mut all: Vec<String>, wanted: Option<&[String]>) -> Result<Self> {
        all.sort();
        let Some(wanted) = wanted else { return Ok(Self { chosen: all.clone(), all }) };
        let mut chosen: Vec<String> = wanted.iter().map(|name| name.trim().to_owned()).collect();
        chosen.retain(|name| !name.is_empty());
        chosen.sort();
        chosen.dedup();
        let list = all.join(", ");
        ensure!(!chosen.is_empty(), "a release needs at least one of the {what}: {list}");
        let unknown: Vec<&str> = chosen.iter().filter(|name| !all.contains(name)).map(String::as_str).collect();
        ensure!(unknown.is_empty(), "unknown {what}: {}; there are: {list}", unknown.join(", "));
        Ok(Self { all, chosen })
    }

    fn is_everything(&self) -> bool {
        self.chosen == self.all
    }

    fn left_out(&self) -> impl Iterator<Item = &String> {
        self.all.iter().filter(|name| !self.chosen.contains(name))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adapters {} and invokers {}", self.adapters.chosen.join(", "), self.invokers.chosen.join(", "))
    }
}

fn contains(program: &[u8], trace: &[u8]) -> bool {
    program.windows(trace.len()).any(|window| window == trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(wanted: &[&str]) -> Result<Kind> {
        let names = |names: &[&str]| names.iter().copied().map(str::to_owned).collect::<Vec<_>>();
        Kind::choose("adapters", names(&["rabbitmq", "activemq"]), Some(&names(wanted)))
    }

    #[test]
    fn a_choice_is_sorted_and_names_nothing_twice() {
        assert_eq!(choose(&["rabbitmq", "activemq", " rabbitmq"]).unwrap().chosen, ["activemq", "rabbitmq"]);
    }

    #[test]
    fn a_wrong_choice_is_refused_with_what_there_is() {
        let refusal = |wanted: &[&str]| choose(wanted).unwrap_err().to_string();

        assert_eq!(refusal(&["kafka", "rabbitmq"]), "unknown adapters: kafka; there are: activemq, rabbitmq");
        assert_eq!(refusal(&[""]), "a release needs at least one of the adapters: activemq, rabbitmq");
    }

    #[test]
    fn a_program_with_an_adapter_too_many_is_noticed() {
        let adapters = choose(&["rabbitmq"]).unwrap();
        let selection = Selection { adapters, invokers: Kind { all: Vec::new(), chosen: Vec::new() } };

        selection.ensure_nothing_else(b"\0esm-rabbitmq/src/event.rs\0").unwrap();
        selection.ensure_nothing_else(b"\0esm-rabbitmq/src/event.rs\0src/openwire/\0").unwrap_err();
        selection.ensure_nothing_else(b"\0").unwrap_err();
    }
}
