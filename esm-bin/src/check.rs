//! What a configuration comes to, for people: the plan of each mapping, and what may surprise.

use esm_core::{
    event::EVENT_SIZE_LIMIT,
    mapping::{DeadLetter, RedeliveryDelay, RedeliveryPolicy},
};

use crate::{
    config::{Config, ConfiguredMapping, Lookup, Targets},
    control::spec::{MappingSpec, Planned},
};

const FAILING_BATCH: &str = "\
a failing batch is retried until it succeeds or its messages expire; with 1 batch in flight it holds its queue meanwhile; \
bisect_batch_on_function_error, function_response_types and maximum_retry_attempts change that";

const FAILING_MESSAGE: &str = "\
a message that fails is retried until it succeeds or expires; with 1 batch in flight it holds its queue meanwhile; \
maximum_retry_attempts changes that";

/// The plan of every mapping, then the warnings, line by line.
pub fn plan(config: &Config) -> Vec<String> {
    let share = config.share_of_memory();
    let mut lines: Vec<String> =
        config.mappings.iter().flat_map(|mapping| mapping_plan(mapping, &config.targets, share)).collect();
    lines.extend(config.warnings.iter().map(|warning| format!("warning: {warning}")));
    let (limit, share) = (mebibytes(config.server.memory_limit), mebibytes(share));
    lines.push(format!("memory: {limit} for messages in hand, {share} of them for each enabled mapping of the file"));
    lines.push(format!("no problems; would listen on {}", config.server.listen));
    lines
}

fn mapping_plan(configured: &ConfiguredMapping, targets: &Targets, share: usize) -> Vec<String> {
    let ConfiguredMapping { key, uuid, spec, tags, planned } = configured;
    let state = if spec.enabled { "" } else { " (disabled, not started)" };
    let mut lines = vec![format!("{key}: {uuid}{state}")];
    let Some(planned) = planned else {
        let question = targets.lookup(&spec.event_source).map(|lookup| Lookup::question(&lookup)).unwrap_or_default();
        lines.extend([
            format!("  {:<12} {:?}", "queue", spec.queue),
            format!("  {:<12} is looked up by {question} when esm serves", "broker"),
            format!("  {:<12} {}", "broker ARN", spec.event_source),
            format!("  {:<12} {}", "function", spec.function_name.name()),
            format!("  {:<12} what else it comes to depends on the broker's engine", ""),
        ]);
        return lines;
    };
    let Planned { mapping, virtual_host, broker, function, source, .. } = &**planned;
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<12} {text}"));
    line(
        "queue",
        match virtual_host {
            Some(virtual_host) => format!("{:?} in virtual host {virtual_host:?}", mapping.queue),
            None => format!("{:?}", mapping.queue),
        },
    );
    line("broker", format!("{} at {}", broker.name, broker.endpoints.join(", ")));
    line("broker ARN", broker.arn.clone());
    line("function", format!("{}, at most {:?} for an invocation", function.name, function.timeout));
    line("", function.backend.describe());
    if let Some(reserved) = function.reserved_concurrency {
        line("", format!("{reserved} at once over all of its mappings"));
    }
    let (records, window) = (mapping.batch_size.get(), mapping.window.duration());
    line(
        "batches",
        format!("close at {records} records, {window:?} after the first, or below {EVENT_SIZE_LIMIT} bytes"),
    );
    line("concurrency", concurrency(mapping.maximum_concurrency.get()));
    let (prefetch, budget) = (mapping.prefetch(source.prefetch_limit(), 0, share), mapping.budget(share));
    line("prefetch", format!("{prefetch} messages, or {} of larger ones", mebibytes(budget)));
    line("retries", retries(mapping.redelivery));
    if mapping.redelivery.reports_item_failures {
        line("", "only what the function names in batchItemFailures; the rest of a batch is acknowledged".into());
    }
    if mapping.redelivery.bisects {
        line("", "a batch that fails is halved at once, until what fails stands alone".into());
    }
    if let Some(age) = mapping.redelivery.maximum_age {
        line("", format!("given up when older than {age:?}"));
    }
    if let Some(limit) = broker.consumer_timeout {
        line("", format!("handed back in time before the broker's consumer timeout of {limit:?}"));
        line("", delivery_limit(broker.delivery_limit));
    }
    for pattern in mapping.filter.iter().flat_map(|filter| filter.patterns()) {
        line("filter", pattern.clone());
    }
    line("dead letters", dead_letters(spec, planned));
    for (key, value) in tags {
        line("tag", format!("{key} = {value:?}"));
    }
    if mapping.redelivery.maximum_redeliveries.is_none() {
        let words = if mapping.redelivery.isolates() { FAILING_MESSAGE } else { FAILING_BATCH };
        line("warning", words.into());
    }
    lines
}

fn mebibytes(bytes: usize) -> String {
    let tenths = bytes / (1024 * 1024 / 10);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn delivery_limit(limit: Option<i64>) -> String {
    match limit {
        None => "the delivery limit of quorum queues is that of the broker's version: 20 from RabbitMQ 4.0 on".into(),
        Some(-1) => "quorum queues have no delivery limit".into(),
        Some(limit) => format!("quorum queues take a message back {limit} times before they drop it"),
    }
}

fn retries(policy: RedeliveryPolicy) -> String {
    let delay = match policy.delay {
        RedeliveryDelay::Fixed => "1s each time",
        RedeliveryDelay::Exponential => "1s doubling to 60s",
    };
    match policy.maximum_redeliveries {
        None => format!("in place, after {delay}, until success or expiry"),
        Some(0) => "none; a batch that fails is halved until what fails stands alone, and is given up".into(),
        Some(most) => format!(
            "in place, at most {most}, after {delay}; at the last the batch is halved until what fails stands alone, and is given up"
        ),
    }
}

fn concurrency(batches: u16) -> String {
    match batches {
        1 => "1 batch in flight, so order is kept".into(),
        _ => format!("{batches} batches in flight, so order is not kept"),
    }
}

fn dead_letters(spec: &MappingSpec, planned: &Planned) -> String {
    if let Some(destination) = &spec.on_failure {
        return format!("published to {destination} and confirmed, then acknowledged");
    }
    match (&planned.broker.dead_letter_queue, planned.mapping.dead_letter) {
        (Some(queue), _) => format!(
            "by a poison acknowledgement, for the broker's dead-letter strategy; what that would drop is published to {queue:?}"
        ),
        (None, DeadLetter::Broker) => "rejected, for the queue's dead-letter exchange (tag esm:dead-letter)".into(),
        (None, DeadLetter::Park | DeadLetter::Destination) => {
            "kept unacknowledged, since no target is known (see the tag esm:dead-letter)".into()
        }
    }
}
