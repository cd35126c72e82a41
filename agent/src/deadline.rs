//! When a request for another leader or for a restart is due, and until when it holds: by the clock on the wall, on which members
//! differ, and by each member's own count.

use std::time::Duration;

use jiff::Timestamp;
use outrider_dcs::{Failover, FailoverTerms};
use outrider_ha::Policy;

use crate::clock;

/// The terms of a request that is void `after` this time, of which it holds for `valid` once it is due.
pub(crate) fn terms(id: String, after: Duration, valid: Duration) -> FailoverTerms {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let deadline_unix_ms = now_unix_ms().saturating_add(millis(after));
    FailoverTerms { id, deadline_unix_ms, valid_ms: millis(valid), accept_data_loss: false, wait: false }
}

/// An unreadable time is never due: it stays visible in the DCS until somebody removes it.
pub(crate) fn due_in(scheduled_at: Option<&str>) -> Duration {
    scheduled_at.map_or(Duration::ZERO, |at| at.parse().map_or(FOREVER, until))
}

/// How long a request is still valid: by its deadline and by this member's own count. The clocks of members differ, and one that
/// is behind must not do what all others have abandoned. A schedule is a wall-clock time, and limits its own validity.
pub(crate) fn expires_in(request: &Failover, seen_for: Duration, policy: &Policy) -> Duration {
    let limit = policy.request_limit();
    match (request.scheduled_at.as_deref(), &request.outrider) {
        (Some(at), terms) => {
            let valid = terms.as_ref().map_or(limit, |terms| Duration::from_millis(terms.valid_ms));
            at.parse::<Timestamp>()
                .map_or(FOREVER, |at| until(at.saturating_add(valid).unwrap_or(Timestamp::MAX)))
        }
        (None, Some(terms)) => {
            let by_the_clock = Duration::from_millis(terms.deadline_unix_ms.saturating_sub(now_unix_ms()));
            by_the_clock.min(Duration::from_millis(terms.valid_ms).saturating_sub(seen_for))
        }
        (None, None) => limit.saturating_sub(seen_for),
    }
}

/// The longest that a recorded view can express.
const FOREVER: Duration = Duration::from_millis(u64::MAX);

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(clock::wall())).unwrap_or(Duration::ZERO)
}

/// Now, in milliseconds since 1970.
pub(crate) fn now_unix_ms() -> u64 {
    u64::try_from(clock::wall().as_millisecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use outrider_dcs::FailoverTerms;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> Policy {
        Policy {
            ttl: SECOND * 5,
            loop_wait: SECOND,
            maximum_lag_on_failover: 0,
            primary_start_timeout: SECOND,
            switchover_timeout: SECOND,
            step_down_margin: SECOND,
            synchronous_mode: outrider_ha::SynchronousMode::On,
            synchronous_node_count: 1,
            tags: outrider_ha::Tags::default(),
        }
    }

    fn dated(deadline_unix_ms: u64) -> Failover {
        let terms = FailoverTerms {
            id: "x".to_owned(),
            deadline_unix_ms,
            valid_ms: 20_000,
            accept_data_loss: false,
            wait: false,
        };
        Failover { member: Some("p2".to_owned()), outrider: Some(terms), ..Failover::default() }
    }

    #[test]
    fn a_wish_is_void_by_whichever_clock_says_so_first() {
        let (now, policy) = (now_unix_ms(), policy());
        let in_an_hour = dated(now + 3_600_000);
        assert_eq!(expires_in(&in_an_hour, SECOND, &policy), SECOND * 19);
        assert_eq!(expires_in(&in_an_hour, SECOND * 21, &policy), Duration::ZERO);
        assert_eq!(expires_in(&dated(now - 1), Duration::ZERO, &policy), Duration::ZERO);
    }

    #[test]
    fn a_wish_of_patronis_command_line_counts_from_when_it_is_first_seen() {
        let request = Failover { member: Some("p2".to_owned()), ..Failover::default() };
        assert_eq!(expires_in(&request, Duration::ZERO, &policy()), SECOND * 20);
        assert_eq!(expires_in(&request, SECOND * 30, &policy()), Duration::ZERO);
    }

    #[test]
    fn a_schedule_that_was_missed_is_void() {
        let at = |offset: i64| Failover {
            leader: Some("p1".to_owned()),
            scheduled_at: Some(
                Timestamp::from_second(clock::wall().as_second() + offset).unwrap().to_string(),
            ),
            ..Failover::default()
        };
        let policy = policy();
        assert!(expires_in(&at(60), SECOND * 3600, &policy) > SECOND * 70);
        assert!(due_in(at(60).scheduled_at.as_deref()) > SECOND * 50);
        let (late, missed) = (at(-5), at(-60));
        assert_eq!(due_in(late.scheduled_at.as_deref()), Duration::ZERO);
        assert!(!expires_in(&late, Duration::ZERO, &policy).is_zero());
        assert_eq!(expires_in(&missed, Duration::ZERO, &policy), Duration::ZERO);
    }
}
