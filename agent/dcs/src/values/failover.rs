//! The wish for a manual failover or switchover, as the REST API and patronictl leave it. Does not judge it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The key `failover`. Shape: `{"leader":"p1","member":"p2","scheduled_at":"2026-01-01T00:00:00+00:00"}`, each optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// The member that leads now: named, it is a switchover; absent, a failover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Who shall lead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Not before this moment, ISO 8601 with an offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<String>,
}

impl Failover {
    /// Nothing is wished for: the key is never deleted, `{}` stands for none.
    pub(crate) const CLEARED: &str = "{}";

    /// Reads the JSON, or the `leader:member` of old. `None` when it asks for nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let wish = match serde_json::from_str::<Value>(text) {
            Ok(value) => Failover {
                leader: name(value.get("leader").and_then(Value::as_str)),
                member: name(value.get("member").and_then(Value::as_str)),
                scheduled_at: name(value.get("scheduled_at").and_then(Value::as_str)),
            },
            Err(_) => {
                let mut names = text.split(':').map(str::trim);
                Failover { leader: name(names.next()), member: name(names.next()), scheduled_at: None }
            }
        };
        (wish.leader.is_some() || wish.member.is_some()).then_some(wish)
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
        let wish = Failover::parse("p1: p2").unwrap();
        assert_eq!((wish.leader.as_deref(), wish.member.as_deref()), (Some("p1"), Some("p2")));
        assert_eq!(Failover::parse(":p2").unwrap().member.as_deref(), Some("p2"));
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
