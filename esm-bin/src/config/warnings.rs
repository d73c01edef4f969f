//! What works as configured and may surprise.

use std::collections::BTreeMap;

use esm_core::source::HOLD_MARGIN;

use esm_core::{event::EVENT_SIZE_LIMIT, memory::Memory};

use super::{ConfiguredMapping, Problem, Server};
use crate::control::spec::Planned;

pub(super) fn all(server: &Server, mappings: &[ConfiguredMapping]) -> Vec<Problem> {
    let mut warnings = Vec::new();
    if !server.listen.ip().is_loopback() && server.tls.is_none() {
        let words = "calls are signed, and not encrypted: whoever is on the way can read them; see server.tls";
        warnings.push(Problem::new("server.listen", words));
    }
    warnings.extend(short_drain(server, mappings));
    warnings.extend(small_share(server, mappings));
    warnings.extend(mappings.iter().filter_map(|configured| large_prefetch(configured, server.memory_limit)));
    warnings.extend(mappings.iter().filter_map(short_hold));
    warnings.extend(shared_queues(mappings));
    warnings
}

fn short_drain(server: &Server, mappings: &[ConfiguredMapping]) -> Option<Problem> {
    let enabled = mappings.iter().filter(|mapping| mapping.spec.enabled);
    let longest = enabled.filter_map(|mapping| Some(mapping.planned.as_ref()?.function.timeout)).max()?;
    (server.drain_timeout? < longest).then(|| {
        let words = format!(
            "a function may run for {longest:?}, so a stop may cut an invocation short; its messages are delivered again"
        );
        Problem::new("server.drain_timeout_in_seconds", words)
    })
}

/// What the mappings of the file that are enabled get of the memory, each.
pub(crate) fn share(server: &Server, mappings: &[ConfiguredMapping]) -> usize {
    Memory::share_of(server.memory_limit, mappings.iter().filter(|mapping| mapping.spec.enabled).count())
}

fn small_share(server: &Server, mappings: &[ConfiguredMapping]) -> Option<Problem> {
    let share = share(server, mappings);
    // Half of it is what a mapping borrows.
    (share / 2 < EVENT_SIZE_LIMIT).then(|| {
        let words = format!(
            "each enabled mapping gets {share} bytes, of which it borrows half: batches of large messages stay smaller than \
             an event may be"
        );
        Problem::new("server.memory_limit_in_mebibytes", words)
    })
}

fn large_prefetch(configured: &ConfiguredMapping, share: usize) -> Option<Problem> {
    let Planned { mapping, source, .. } = &**configured.planned.as_ref()?;
    let limit = source.prefetch_limit();
    let (asked, fitting) = (
        u32::from(mapping.maximum_concurrency.get()),
        mapping.effective_concurrency(mapping.prefetch(limit, 0, share)),
    );
    (fitting < asked).then(|| {
        let words = format!(
            "{asked} batches of {} are more than the {limit} messages that the broker lends at once; {fitting} full \
             batches can be in flight",
            mapping.batch_size.get()
        );
        Problem::new(&configured.key, words)
    })
}

fn short_hold(configured: &ConfiguredMapping) -> Option<Problem> {
    let Planned { mapping, function, broker, .. } = &**configured.planned.as_ref()?;
    let held = mapping.window.duration() + 2 * function.timeout;
    (held + HOLD_MARGIN >= broker.consumer_timeout?).then(|| {
        let words = "the broker's consumer timeout leaves no time for a second attempt after one that used the \
                     function's whole timeout; such a batch is handed back to the broker and taken again";
        Problem::new(&configured.key, words)
    })
}

fn shared_queues(mappings: &[ConfiguredMapping]) -> Vec<Problem> {
    let mut readers = BTreeMap::new();
    let mut warnings = Vec::new();
    for reader in mappings.iter().filter(|mapping| mapping.spec.enabled) {
        let Some(planned) = &reader.planned else { continue };
        let queue = (&planned.broker.name, &planned.virtual_host, &planned.mapping.queue);
        if let Some(other) = readers.insert(queue, &reader.key) {
            let words = format!("{other} reads the same queue; each message goes to only one of the two");
            warnings.push(Problem::new(&reader.key, words));
        }
    }
    warnings
}
