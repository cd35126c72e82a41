//! The supervisor's own end after SIGTERM: when to stop Postgres fast, when immediately, when to exit. Pure.

use crate::options::Options;

/// How long the supervisor stays for a last request of the agent, such as `pg_controldata` after the stop, once Postgres
/// and the tool are gone.
const LAST_QUESTION_NS: u64 = 500 * 1_000_000;
/// Longest part of the grace period reserved for killing what a fast stop did not end.
const KILL_MARGIN_NS: u64 = 2 * 1_000_000_000;

/// The moments of the end, and what has been done already.
#[derive(Debug)]
pub(crate) struct Termination {
    fast_at_ns: u64,
    immediate_at_ns: u64,
    idle_since_ns: Option<u64>,
    fast_sent: bool,
    immediate_sent: bool,
}

/// What there is to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alive {
    pub(crate) postmaster: bool,
    pub(crate) tool: bool,
    /// An agent is connected.
    pub(crate) agent: bool,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing yet.
    Wait,
    /// Stop Postgres fast and cancel the tool.
    StopFast,
    /// Stop Postgres immediately.
    StopImmediate,
    /// Everything is gone.
    Leave,
}

impl Termination {
    /// Starts it.
    pub(crate) fn new(now_ns: u64, options: &Options) -> Self {
        let grace_ns = nanoseconds(options.grace_period);
        let handover_ns = nanoseconds(options.handover_timeout).min(grace_ns / 2);
        Self {
            fast_at_ns: now_ns.saturating_add(handover_ns),
            immediate_at_ns: now_ns.saturating_add(grace_ns - KILL_MARGIN_NS.min(grace_ns / 4)),
            idle_since_ns: None,
            fast_sent: false,
            immediate_sent: false,
        }
    }

    /// Told a second time: no more time for a handover.
    pub(crate) fn hurry(&mut self, now_ns: u64) {
        self.fast_at_ns = self.fast_at_ns.min(now_ns);
    }

    /// What to do now; each stop is reported once.
    pub(crate) fn next(&mut self, now_ns: u64, alive: Alive) -> Next {
        let handing_over = alive.agent && now_ns < self.fast_at_ns;
        if !alive.postmaster && !alive.tool {
            let idle_since = *self.idle_since_ns.get_or_insert(now_ns);
            let asked_in_time = now_ns < idle_since.saturating_add(LAST_QUESTION_NS);
            return if handing_over && asked_in_time { Next::Wait } else { Next::Leave };
        }
        self.idle_since_ns = None;
        if now_ns >= self.immediate_at_ns && !self.immediate_sent {
            self.immediate_sent = true;
            self.fast_sent = true;
            return Next::StopImmediate;
        }
        if !handing_over && !self.fast_sent {
            self.fast_sent = true;
            return Next::StopFast;
        }
        Next::Wait
    }

    /// When to ask again if nothing else happens.
    pub(crate) fn wake_at_ns(&self) -> Option<u64> {
        let fast = (!self.fast_sent).then_some(self.fast_at_ns);
        let immediate = (!self.immediate_sent).then_some(self.immediate_at_ns);
        let leave = self.idle_since_ns.map(|since| since.saturating_add(LAST_QUESTION_NS));
        [fast, immediate, leave].into_iter().flatten().min()
    }
}

fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const SECOND: u64 = 1_000_000_000;
    const BUSY: Alive = Alive { postmaster: true, tool: false, agent: true };
    const IDLE: Alive = Alive { postmaster: false, tool: false, agent: true };

    fn begun() -> Termination {
        let path = PathBuf::from("/nowhere");
        Termination::new(100 * SECOND, &Options::new(path.clone(), path.clone(), path))
    }

    #[test]
    fn a_connected_agent_has_the_handover_time_then_fast_then_immediate() {
        let mut end = begun();
        assert_eq!(end.wake_at_ns(), Some(105 * SECOND));
        assert_eq!(end.next(104 * SECOND, BUSY), Next::Wait);
        assert_eq!(end.next(105 * SECOND, BUSY), Next::StopFast);
        assert_eq!(end.next(106 * SECOND, BUSY), Next::Wait);
        assert_eq!(end.wake_at_ns(), Some(128 * SECOND));
        assert_eq!(end.next(128 * SECOND, BUSY), Next::StopImmediate);
        assert_eq!(end.next(129 * SECOND, BUSY), Next::Wait);
        assert_eq!(end.wake_at_ns(), None);
        assert_eq!(end.next(129 * SECOND, IDLE), Next::Leave);
    }

    #[test]
    fn without_an_agent_postgres_is_stopped_at_once() {
        assert_eq!(begun().next(100 * SECOND, Alive { agent: false, ..BUSY }), Next::StopFast);
    }

    #[test]
    fn an_agent_that_hangs_up_during_the_handover_ends_it() {
        let mut end = begun();
        assert_eq!(end.next(101 * SECOND, BUSY), Next::Wait);
        assert_eq!(end.next(102 * SECOND, Alive { agent: false, ..BUSY }), Next::StopFast);
    }

    #[test]
    fn a_second_signal_ends_the_handover() {
        let mut end = begun();
        end.hurry(101 * SECOND);
        assert_eq!(end.next(101 * SECOND, BUSY), Next::StopFast);
    }

    #[test]
    fn after_the_agents_own_stop_there_is_time_for_a_last_question() {
        let mut end = begun();
        assert_eq!(end.next(101 * SECOND, IDLE), Next::Wait);
        assert_eq!(end.next(101 * SECOND + 400_000_000, Alive { tool: true, ..IDLE }), Next::Wait);
        assert_eq!(end.next(103 * SECOND, IDLE), Next::Wait);
        assert_eq!(end.wake_at_ns(), Some(103 * SECOND + LAST_QUESTION_NS));
        assert_eq!(end.next(104 * SECOND, IDLE), Next::Leave);
    }

    #[test]
    fn a_short_grace_period_still_ends_in_time() {
        let path = PathBuf::from("/nowhere");
        let mut options = Options::new(path.clone(), path.clone(), path);
        options.grace_period = std::time::Duration::from_secs(4);
        let mut end = Termination::new(0, &options);
        assert_eq!(end.next(2 * SECOND, BUSY), Next::StopFast);
        assert_eq!(end.next(3 * SECOND, BUSY), Next::StopImmediate);
    }
}
