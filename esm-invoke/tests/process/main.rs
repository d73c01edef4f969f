//! Functions on AWS's own runtime clients, in real processes: the same behaviours with each client.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod behaviours;
mod bench;
#[path = "../common/mod.rs"]
mod common;
mod pool;

/// Tests that a client's function shows these behaviours.
macro_rules! shows {
    ($client:ident, #[$attribute:meta], [$($behaviour:ident,)*]) => {
        mod $client {
            $(
                #[tokio::test]
                #[$attribute]
                async fn $behaviour() {
                    crate::behaviours::$behaviour(crate::bench::Client::$client()).await;
                }
            )*
        }
    };
}

macro_rules! shows_all {
    ($client:ident, #[$attribute:meta]) => {
        shows!($client, #[$attribute], [
            a_result_is_handed_over,
            nothing_returned_is_null,
            an_error_has_its_type_and_message,
            a_crash_is_an_exit_error,
            an_exit_without_an_answer_is_an_exit_error,
            an_exit_with_a_status_tells_it,
            a_failing_start_makes_the_function_unusable,
            a_missing_handler_makes_the_function_unusable,
            a_slow_function_is_killed_at_its_timeout,
            an_event_of_six_megabytes_arrives,
            a_result_that_is_too_large_is_an_error,
            a_slow_start_is_waited_for,
            a_process_is_told_to_end_and_may_say_goodbye,
            the_deadline_is_the_timeout_away,
            requests_and_traces_have_ids,
            the_function_knows_its_name_arn_and_memory,
            a_log_line_that_is_no_text_is_logged,
            a_thousand_invocations_in_a_row_need_one_process,
            four_invocations_run_at_once_in_four_processes,
            an_idle_process_is_ended_and_another_one_started,
        ]);
    };
}

shows_all!(rust, #[cfg(feature = "process")]);
shows_all!(python, #[ignore = "needs awslambdaric"]);
shows_all!(node, #[ignore = "needs aws-lambda-ric"]);
