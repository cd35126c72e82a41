//! A request for a manual failover or switchover, as written by the REST API and patronictl. Does not judge it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The key `failover`. Shape: `{"leader":"p1","member":"p2","scheduled_at":"2026-01-01T00:00:00+00:00"}`, each optional, plus
/// Outrider's terms, which Patroni does not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// The member that leads now. If named, it is a switchover; if absent, a failover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The member that is to lead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Not before this moment, ISO 8601 with an offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<String>,
    /// Until when it is valid, and what it gives up. Absent when Patroni's command line wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outrider: Option<FailoverTerms>,
}

/// The terms of a request for another leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverTerms {
    /// Names it in logs and answers.
    pub id: String,
    /// Deadline after which it is void: milliseconds since 1970, UTC.
    pub deadline_unix_ms: u64,
    /// How long it was valid when it was written, or from when it is due: a member whose clock differs also counts for
    /// itself.
    pub valid_ms: u64,
    /// Whether commits that the candidate lacks may be lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_data_loss: bool,
    /// Whether to wait for a candidate that is not ready yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wait: bool,
}

/// Replaces a request that was refused or is done, to tell whoever waits for it. Patroni sees no request in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverAnswer {
    /// The request's id.
    pub id: String,
    /// The reason of the member that removed it, in words.
    pub why: String,
    /// Whether it was refused because the candidate lacks commits, whose loss a person may accept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lacks_data: bool,
}

#[derive(Serialize, Deserialize)]
struct Answered {
    outrider: FailoverAnswer,
}

impl Failover {
    /// No request: the key is never deleted, `{}` stands for none.
    pub(crate) const CLEARED: &str = "{}";

    /// Reads the JSON, or the old `leader:member`. `None` when it requests nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let request = match serde_json::from_str::<Value>(text) {
            Ok(value) => Failover {
                leader: name(value.get("leader").and_then(Value::as_str)),
                member: name(value.get("member").and_then(Value::as_str)),
                scheduled_at: name(value.get("scheduled_at").and_then(Value::as_str)),
                outrider: value.get("outrider").and_then(|terms| serde_json::from_value(terms.clone()).ok()),
            },
            Err(_) => {
                let mut names = text.split(':').map(str::trim);
                Failover { leader: name(names.next()), member: name(names.next()), ..Failover::default() }
            }
        };
        (request.leader.is_some() || request.member.is_some()).then_some(request)
    }

    /// Its id, if it has one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.outrider.as_ref().map(|terms| terms.id.as_str())
    }
}

impl FailoverAnswer {
    /// Reads the JSON; `None` when it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str::<Answered>(text).ok().map(|answered| answered.outrider)
    }

    /// As stored in the key.
    pub(crate) fn text(&self) -> String {
        super::compact_json(&Answered { outrider: self.clone() })
    }
}

fn name(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::compact_json;

    #[test]
    fn an_empty_object_asks_for_nothing() {
        for none in ["{}", "", "null", "{\"leader\":null}", ":"] {
            assert_eq!(Failover::parse(none), None, "{none}");
        }
    }

    #[test]
    fn the_old_form_is_read() {
        let request = Failover::parse("p1: p2").unwrap();
        assert_eq!((request.leader.as_deref(), request.member.as_deref()), (Some("p1"), Some("p2")));
        assert_eq!(Failover::parse(":p2").unwrap().member.as_deref(), Some("p2"));
    }

    #[test]
    fn terms_and_answers_are_read_as_written_and_an_answer_is_no_wish() {
        let terms = FailoverTerms {
            id: "p1-1".into(),
            deadline_unix_ms: 30,
            valid_ms: 20,
            accept_data_loss: true,
            wait: false,
        };
        let request = Failover { member: Some("p2".into()), outrider: Some(terms), ..Failover::default() };
        assert_eq!(Failover::parse(&compact_json(&request)), Some(request));
        let answer = FailoverAnswer { id: "p1-1".into(), why: "it lacks data".into(), lacks_data: true };
        assert_eq!(FailoverAnswer::parse(&answer.text()), Some(answer.clone()));
        assert_eq!(Failover::parse(&answer.text()), None);
        assert_eq!(FailoverAnswer::parse(Failover::CLEARED), None);
    }

    #[test]
    fn the_bytes_are_patronis() {
        let text = r#"{"leader":"p1","member":"p2","scheduled_at":"2026-01-01T00:00:00+00:00"}"#;
        assert_eq!(compact_json(&Failover::parse(text).unwrap()), text);
        assert_eq!(
            compact_json(&Failover { member: Some("p2".into()), ..Failover::default() }),
            r#"{"member":"p2"}"#
        );
    }
}
