//! The fuse: until when Postgres may be writable. Only the rule; it reads no clock and kills nothing.
//!
//! - Armed with an absolute deadline and the term of the lease that it comes from.
//! - A term lower than the highest seen is refused: it comes from a leader of the past.
//! - Within the rules above the last word holds. A later deadline extends. An earlier one shortens: that
//!   only fences sooner, and an agent that takes over a long lease and shortens it in the DCS must be able
//!   to shorten the fuse *before*, or the lease would be free while the fuse still allows writes.
//! - Blown while Postgres was writable, it cannot be armed again until that Postgres is gone.

use crate::protocol::{FuseStatus, Refusal, RefusalCode};

/// Largest distance of a deadline: a further one is not a lease's, but from another clock or in another unit.
const FURTHEST_NS: u64 = 3_600 * 1_000_000_000;

/// A deadline and its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Armed {
    pub(crate) deadline_ns: u64,
    pub(crate) term: u64,
}

/// The deadline last armed, and whether it passed while Postgres was writable.
#[derive(Debug, Default)]
pub(crate) struct Fuse {
    armed: Option<Armed>,
    highest_term: u64,
    blown: bool,
}

impl Fuse {
    /// Accepts the deadline, or says why not.
    pub(crate) fn arm(&mut self, now_ns: u64, deadline_ns: u64, term: u64) -> Result<Armed, Refusal> {
        if self.blown {
            return Err(refuse(
                RefusalCode::FuseExpired,
                format!(
                    "fuse not armed for term {term}: it has blown, and the Postgres it guarded is not gone"
                ),
            ));
        }
        if term < self.highest_term {
            let highest = self.highest_term;
            return Err(refuse(
                RefusalCode::TermWentBack,
                format!("fuse not armed for term {term}: term {highest} was seen"),
            ));
        }
        if deadline_ns <= now_ns {
            let late = milliseconds(now_ns - deadline_ns);
            return Err(refuse(
                RefusalCode::DeadlinePast,
                format!("fuse not armed for term {term}: its deadline was {late} ms ago"),
            ));
        }
        if deadline_ns - now_ns > FURTHEST_NS {
            let far = milliseconds(deadline_ns - now_ns);
            return Err(refuse(
                RefusalCode::DeadlineTooFar,
                format!("fuse not armed for term {term}: its deadline is {far} ms away, over an hour"),
            ));
        }
        let armed = Armed { deadline_ns, term };
        self.armed = Some(armed);
        self.highest_term = term;
        Ok(armed)
    }

    /// Whether Postgres may become writable now; `act` is the request, for the message.
    pub(crate) fn permit(&self, now_ns: u64, act: &str) -> Result<(), Refusal> {
        match self.armed {
            None => {
                Err(refuse(RefusalCode::FuseNotArmed, format!("{act} refused: the fuse was never armed")))
            }
            Some(armed) if self.blown || armed.deadline_ns <= now_ns => {
                let Armed { deadline_ns, term } = armed;
                let late = milliseconds(now_ns.saturating_sub(deadline_ns));
                Err(refuse(
                    RefusalCode::FuseExpired,
                    format!("{act} refused: the fuse of term {term} expired {late} ms ago"),
                ))
            }
            Some(_) => Ok(()),
        }
    }

    /// Called while Postgres is writable: blows the fuse if its deadline has passed. `Some` only once.
    pub(crate) fn blow(&mut self, now_ns: u64) -> Option<Armed> {
        // A writable Postgres without a fuse must not exist; if it does, it is fenced like one whose fuse expired.
        let armed = self.armed.unwrap_or(Armed { deadline_ns: now_ns, term: self.highest_term });
        if self.blown || armed.deadline_ns > now_ns {
            return None;
        }
        self.blown = true;
        Some(armed)
    }

    /// The fenced Postgres is gone: the fuse may be armed again.
    pub(crate) fn reset(&mut self) {
        self.blown = false;
    }

    /// When to check the fuse again, while Postgres is writable.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        if self.blown { None } else { self.armed.map(|armed| armed.deadline_ns) }
    }

    /// For the status.
    pub(crate) fn status(&self, now_ns: u64) -> Option<FuseStatus> {
        self.armed.map(|Armed { deadline_ns, term }| FuseStatus {
            deadline_ns,
            term,
            expired: self.blown || deadline_ns <= now_ns,
        })
    }
}

fn refuse(code: RefusalCode, message: String) -> Refusal {
    Refusal { code, message }
}

fn milliseconds(ns: u64) -> u64 {
    ns / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> RefusalCode {
        outcome.expect_err("should be refused").code
    }

    #[test]
    fn a_fuse_never_armed_permits_nothing() {
        assert_eq!(code(Fuse::default().permit(5, "start")), RefusalCode::FuseNotArmed);
    }

    #[test]
    fn an_armed_fuse_permits_until_its_deadline_and_not_at_it() {
        let mut fuse = Fuse::default();
        fuse.arm(10, 20, 1).unwrap();
        assert!(fuse.permit(19, "start").is_ok());
        assert_eq!(code(fuse.permit(20, "start")), RefusalCode::FuseExpired);
    }

    #[test]
    fn a_deadline_that_is_past_or_now_is_refused_and_the_armed_one_stays() {
        let mut fuse = Fuse::default();
        fuse.arm(10, 20, 1).unwrap();
        assert_eq!(code(fuse.arm(15, 14, 1)), RefusalCode::DeadlinePast);
        assert_eq!(code(fuse.arm(15, 15, 1)), RefusalCode::DeadlinePast);
        assert_eq!(fuse.deadline_ns(), Some(20));
    }

    #[test]
    fn a_deadline_of_another_clock_is_refused() {
        let unix_time_ns = 1_700_000_000 * 1_000_000_000;
        assert_eq!(code(Fuse::default().arm(10, unix_time_ns, 1)), RefusalCode::DeadlineTooFar);
        assert!(Fuse::default().arm(10, 10 + FURTHEST_NS, 1).is_ok());
    }

    #[test]
    fn a_lower_term_is_refused_even_with_a_later_deadline() {
        let mut fuse = Fuse::default();
        fuse.arm(10, 20, 7).unwrap();
        assert_eq!(code(fuse.arm(10, 30, 6)), RefusalCode::TermWentBack);
        assert!(fuse.arm(10, 30, 7).is_ok());
        assert!(fuse.arm(10, 40, 8).is_ok());
    }

    #[test]
    fn a_refused_deadline_does_not_raise_the_term() {
        let mut fuse = Fuse::default();
        assert_eq!(code(fuse.arm(10, 5, 9)), RefusalCode::DeadlinePast);
        assert!(fuse.arm(10, 20, 1).is_ok());
    }

    #[test]
    fn the_last_deadline_holds_whether_later_or_earlier() {
        let mut fuse = Fuse::default();
        fuse.arm(10, 100, 1).unwrap();
        fuse.arm(10, 50, 1).unwrap();
        assert_eq!(fuse.deadline_ns(), Some(50));
        fuse.arm(10, 200, 1).unwrap();
        assert_eq!(fuse.blow(199), None);
        assert_eq!(fuse.blow(200), Some(Armed { deadline_ns: 200, term: 1 }));
    }

    #[test]
    fn a_blown_fuse_stays_blown_until_its_postgres_is_gone() {
        let mut fuse = Fuse::default();
        fuse.arm(10, 20, 1).unwrap();
        assert!(fuse.blow(25).is_some());
        assert_eq!(fuse.blow(26), None);
        assert_eq!(code(fuse.arm(26, 90, 2)), RefusalCode::FuseExpired);
        assert_eq!(code(fuse.permit(26, "promote")), RefusalCode::FuseExpired);
        fuse.reset();
        assert_eq!(code(fuse.permit(27, "promote")), RefusalCode::FuseExpired);
        fuse.arm(27, 90, 2).unwrap();
        assert!(fuse.permit(28, "promote").is_ok());
    }

    #[test]
    fn a_fuse_that_ran_out_over_no_writable_postgres_can_be_armed_again() {
        let mut fuse = Fuse::default();
        fuse.arm(10, 20, 1).unwrap();
        assert!(fuse.status(30).is_some_and(|status| status.expired));
        fuse.arm(30, 40, 1).unwrap();
        assert!(fuse.permit(31, "start").is_ok());
    }

    #[test]
    fn a_writable_postgres_with_no_fuse_at_all_is_fenced_at_once() {
        assert_eq!(Fuse::default().blow(5), Some(Armed { deadline_ns: 5, term: 0 }));
    }
}
