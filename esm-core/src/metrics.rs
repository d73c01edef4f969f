//! Metrics of the data path: AWS's names and meanings in Prometheus form.
//!
//! A mapping's series appear with its [`MappingMetrics`] and leave with the last clone of it.

use std::sync::Arc;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

use crate::{batch::ClosedBy, mapping::Mapping};

/// Why messages are given up, as the label `reason` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The record alone is larger than an event may be.
    TooLarge,
    /// It is of a type, or in a state, of which no record can be made.
    MessageType,
    /// The function failed with it as often as it may.
    Attempts,
    /// Its time to live ended while it was retried.
    Expired,
    /// It was older than the mapping wants to have it.
    Age,
}

impl DropReason {
    /// In the order of their discriminants.
    const ALL: [Self; 5] = [Self::TooLarge, Self::MessageType, Self::Attempts, Self::Expired, Self::Age];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::MessageType => "message_type",
            Self::Attempts => "attempts",
            Self::Expired => "expired",
            Self::Age => "age",
        }
    }
}

/// All families, registered once.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    concurrent_executions: IntGaugeVec,
    duration: HistogramVec,
    invocations: IntCounterVec,
    errors: IntCounterVec,
    throttles: IntCounterVec,
    polled: IntCounterVec,
    filtered_out: IntCounterVec,
    invoked: IntCounterVec,
    failed_invoke: IntCounterVec,
    dropped: IntCounterVec,
    deleted: IntCounterVec,
    on_failure_delivered: IntCounterVec,
    batches: IntCounterVec,
    batch_records: HistogramVec,
    batch_bytes: HistogramVec,
    source_connected: IntGaugeVec,
    reconnects: IntCounterVec,
    in_flight_batches: IntGaugeVec,
    parked: IntGaugeVec,
    surplus: IntCounterVec,
    message_age: HistogramVec,
}

const MAPPING: &[&str] = &["mapping"];
const FUNCTION_MAPPING: &[&str] = &["function", "mapping"];

/// 1 ms to 15 minutes: from a fast function to Lambda's longest.
const SECONDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];
/// A message may wait for days.
const AGE_SECONDS: &[f64] =
    &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0];
const RECORDS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0];
const BYTES: &[f64] =
    &[1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 524_288.0, 1_048_576.0, 2_097_152.0, 4_194_304.0, 6_291_456.0];

impl Metrics {
    /// Registers every family.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(registry, HistogramVec::new(opts, labels)?)
        };
        Ok(Self(Arc::new(Families {
            concurrent_executions: gauge(
                "esm_concurrent_executions",
                "Invocations of the function that run now (ConcurrentExecutions)",
                &["function"],
            )?,
            duration: histogram(
                "esm_duration_seconds",
                "How long invocations that ran took (Duration)",
                &["function"],
                SECONDS,
            )?,
            invocations: counter(
                "esm_invocations_total",
                "Times the function ran, whether it succeeded or failed (Invocations)",
                FUNCTION_MAPPING,
            )?,
            errors: counter(
                "esm_errors_total",
                "Invocations that ended in a function error (Errors)",
                FUNCTION_MAPPING,
            )?,
            throttles: counter(
                "esm_throttles_total",
                "Invocations refused or made to wait for lack of concurrency (Throttles)",
                FUNCTION_MAPPING,
            )?,
            polled: counter("esm_polled_events_total", "Messages received (PolledEventCount)", MAPPING)?,
            filtered_out: counter(
                "esm_filtered_out_events_total",
                "Messages that no filter accepts (FilteredOutEventCount)",
                MAPPING,
            )?,
            invoked: counter(
                "esm_invoked_events_total",
                "Records that the function ran with, again with each retry (InvokedEventCount)",
                MAPPING,
            )?,
            failed_invoke: counter(
                "esm_failed_invoke_events_total",
                "Records in invocations that failed, whether the function ran or not (FailedInvokeEventCount)",
                MAPPING,
            )?,
            dropped: counter(
                "esm_dropped_events_total",
                "Messages given up (DroppedEventCount)",
                &["mapping", "reason"],
            )?,
            deleted: counter(
                "esm_deleted_events_total",
                "Messages acknowledged after success (DeletedEventCount)",
                MAPPING,
            )?,
            on_failure_delivered: counter(
                "esm_on_failure_destination_delivered_events_total",
                "Messages given up and published to the failure destination (OnFailureDestinationDeliveredEventCount)",
                MAPPING,
            )?,
            batches: counter("esm_batches_total", "Batches, by what closed them", &["mapping", "closed_by"])?,
            batch_records: histogram("esm_batch_records", "Records in a batch", MAPPING, RECORDS)?,
            batch_bytes: histogram("esm_batch_bytes", "Bytes of a batch's event", MAPPING, BYTES)?,
            source_connected: gauge("esm_source_connected", "1 while a session with the broker is open", MAPPING)?,
            reconnects: counter("esm_reconnects_total", "Sessions opened after one was lost", MAPPING)?,
            in_flight_batches: gauge("esm_in_flight_batches", "Batches being invoked or retried", MAPPING)?,
            parked: gauge(
                "esm_parked_messages",
                "Messages kept unsettled because they cannot be processed and have no dead-letter target",
                MAPPING,
            )?,
            surplus: counter(
                "esm_surplus_events_total",
                "Messages that went back because there was no memory for them",
                MAPPING,
            )?,
            message_age: histogram(
                "esm_message_age_seconds",
                "From the message's time stamp to its first invocation",
                MAPPING,
                AGE_SECONDS,
            )?,
        })))
    }

    /// The handles of one mapping. Every series exists from here on, at zero.
    pub fn mapping(&self, mapping: &Mapping) -> Arc<MappingMetrics> {
        let families = &self.0;
        let uuid = mapping.uuid.to_string();
        let by_mapping = [uuid.as_str()];
        let by_function = [mapping.function.as_str(), uuid.as_str()];
        Arc::new(MappingMetrics {
            invocations: families.invocations.with_label_values(&by_function),
            errors: families.errors.with_label_values(&by_function),
            throttles: families.throttles.with_label_values(&by_function),
            polled: families.polled.with_label_values(&by_mapping),
            filtered_out: families.filtered_out.with_label_values(&by_mapping),
            invoked: families.invoked.with_label_values(&by_mapping),
            failed_invoke: families.failed_invoke.with_label_values(&by_mapping),
            dropped: DropReason::ALL.map(|why| families.dropped.with_label_values(&[uuid.as_str(), why.as_str()])),
            deleted: families.deleted.with_label_values(&by_mapping),
            on_failure_delivered: families.on_failure_delivered.with_label_values(&by_mapping),
            batches: ClosedBy::ALL.map(|by| families.batches.with_label_values(&[uuid.as_str(), by.as_str()])),
            batch_records: families.batch_records.with_label_values(&by_mapping),
            batch_bytes: families.batch_bytes.with_label_values(&by_mapping),
            source_connected: families.source_connected.with_label_values(&by_mapping),
            reconnects: families.reconnects.with_label_values(&by_mapping),
            in_flight_batches: families.in_flight_batches.with_label_values(&by_mapping),
            parked: families.parked.with_label_values(&by_mapping),
            surplus: families.surplus.with_label_values(&by_mapping),
            message_age: families.message_age.with_label_values(&by_mapping),
            families: families.clone(),
            function: mapping.function.clone(),
            uuid,
        })
    }

    pub(crate) fn function(&self, name: &str) -> FunctionMetrics {
        FunctionMetrics {
            concurrent_executions: self.0.concurrent_executions.with_label_values(&[name]),
            duration: self.0.duration.with_label_values(&[name]),
        }
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, family: C) -> prometheus::Result<C> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

/// One mapping's handles.
pub struct MappingMetrics {
    pub(crate) invocations: IntCounter,
    pub(crate) errors: IntCounter,
    pub(crate) throttles: IntCounter,
    pub(crate) polled: IntCounter,
    pub(crate) filtered_out: IntCounter,
    pub(crate) invoked: IntCounter,
    pub(crate) failed_invoke: IntCounter,
    pub(crate) deleted: IntCounter,
    pub(crate) on_failure_delivered: IntCounter,
    pub(crate) batch_records: Histogram,
    pub(crate) batch_bytes: Histogram,
    pub(crate) source_connected: IntGauge,
    pub(crate) reconnects: IntCounter,
    pub(crate) in_flight_batches: IntGauge,
    pub(crate) parked: IntGauge,
    pub(crate) surplus: IntCounter,
    pub(crate) message_age: Histogram,
    dropped: [IntCounter; DropReason::ALL.len()],
    batches: [IntCounter; ClosedBy::ALL.len()],
    families: Arc<Families>,
    function: String,
    uuid: String,
}

impl MappingMetrics {
    pub(crate) fn dropped(&self, reason: DropReason, count: usize) {
        self.dropped[reason as usize].inc_by(count as u64);
    }

    pub(crate) fn batch_closed(&self, by: ClosedBy, records: usize, bytes: usize) {
        self.batches[by as usize].inc();
        self.batch_records.observe(records as f64);
        self.batch_bytes.observe(bytes as f64);
    }
}

impl Drop for MappingMetrics {
    fn drop(&mut self) {
        let families = &self.families;
        let by_mapping = [self.uuid.as_str()];
        let by_function = [self.function.as_str(), self.uuid.as_str()];
        // A series that is gone already is no error.
        for family in [&families.invocations, &families.errors, &families.throttles] {
            let _ = family.remove_label_values(&by_function);
        }
        for family in [
            &families.polled,
            &families.filtered_out,
            &families.invoked,
            &families.failed_invoke,
            &families.deleted,
            &families.on_failure_delivered,
            &families.reconnects,
            &families.surplus,
        ] {
            let _ = family.remove_label_values(&by_mapping);
        }
        for family in [&families.source_connected, &families.in_flight_batches, &families.parked] {
            let _ = family.remove_label_values(&by_mapping);
        }
        for family in [&families.batch_records, &families.batch_bytes, &families.message_age] {
            let _ = family.remove_label_values(&by_mapping);
        }
        for reason in DropReason::ALL {
            let _ = families.dropped.remove_label_values(&[self.uuid.as_str(), reason.as_str()]);
        }
        for by in ClosedBy::ALL {
            let _ = families.batches.remove_label_values(&[self.uuid.as_str(), by.as_str()]);
        }
    }
}

/// One function's handles.
pub(crate) struct FunctionMetrics {
    pub(crate) concurrent_executions: IntGauge,
    pub(crate) duration: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mappings_series_come_and_go_with_it() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let mapping = crate::testing::mapping();

        let handles = metrics.mapping(&mapping);
        assert_eq!(registry.gather().len(), 19);

        drop(handles);
        assert!(registry.gather().is_empty());
    }
}
