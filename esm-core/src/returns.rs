//! Queues that count how often a message comes back, and drop it beyond a limit: what is returned there, and what is
//! rather worked off.

use tokio::time::Duration;

/// With so few returns left a message is not given back any more.
const RESERVE: u32 = 3;
/// What a session may begin after it was asked to end, even if the function's timeout leaves less: most functions
/// answer long before it.
const LEAST: Duration = Duration::from_secs(5);

/// For how long what was not tried is kept while nothing can be tried, if the broker lets a delivery be held for so long.
/// A batch that has to go back by then goes first, and what is behind it need not.
pub(crate) fn longest_wait(hold_limit: Duration) -> Duration {
    hold_limit / 2 + Duration::from_secs(1)
}

/// Whether one of the next returns would be the last of a message that has come back so often: it is invoked next and
/// alone, and not given back as long as that can be helped.
pub(crate) fn is_endangered(returns: u32, limit: Option<u32>) -> bool {
    limit.is_some_and(|limit| returns > 0 && returns.saturating_add(RESERVE) >= limit)
}

/// For how long a session that was asked to end may begin to invoke, so that what it begins ends in time.
pub(crate) fn last_start(drain_timeout: Duration, function_timeout: Duration) -> Duration {
    drain_timeout.saturating_sub(function_timeout).max(LEAST.min(drain_timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_endangered_from_three_returns_before_the_limit_on() {
        let check = |returns, limit, expected| assert_eq!(is_endangered(returns, limit), expected, "{returns}");
        check(0, Some(20), false);
        check(16, Some(20), false);
        check(17, Some(20), true);
        check(21, Some(20), true);
        check(u32::MAX, Some(20), true);
        check(u32::MAX, None, false);
        // What has never come back is as safe as it can be, however low the limit is.
        check(0, Some(1), false);
        check(1, Some(1), true);
    }

    #[test]
    fn what_begins_at_the_end_ends_before_the_deadline_or_begins_soon() {
        let check = |drain, function, expected| {
            let seconds = Duration::from_secs;
            assert_eq!(last_start(seconds(drain), seconds(function)), seconds(expected), "{drain} {function}");
        };
        check(65, 60, 5);
        check(65, 3, 62);
        check(60, 60, 5);
        check(2, 60, 2);
    }
}
