//! `slots` in the rules of the cluster: physical slots that the leader is to have. Creates none.

use std::collections::BTreeSet;

use outrider_postgres::ARCHIVE_SLOT;
use serde_json::Value;

use super::Violation;

/// Longest name in bytes, without the terminating one (`NAMEDATALEN`).
const NAME_MAX: usize = 63;

/// Entries that cannot be honoured.
pub(super) fn check(dcs: &Value, found: &mut Vec<Violation>) {
    match dcs.get("slots") {
        None | Some(Value::Null) => {}
        Some(Value::Object(slots)) => {
            for (name, value) in slots {
                if let Err(rule) = slot(name, value) {
                    let (key, value) = (format!("slots.{name}"), Some(value.clone()));
                    found.push(Violation { key, value, rule: rule.to_owned() });
                }
            }
        }
        Some(other) => {
            let rule = "expected a section of slots, each by its name".to_owned();
            found.push(Violation { key: "slots".to_owned(), value: Some(other.clone()), rule });
        }
    }
}

/// The names of the valid slots.
pub(crate) fn declared(dcs: &Value) -> BTreeSet<String> {
    let slots = dcs.get("slots").and_then(Value::as_object);
    let good = slots.into_iter().flatten().filter(|(name, value)| slot(name, value).is_ok());
    good.map(|(name, _)| name.clone()).collect()
}

fn slot(name: &str, value: &Value) -> Result<(), &'static str> {
    let letters = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'_';
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(letters) {
        return Err("is not a valid slot name: expected lower-case letters, digits and _, at most 63");
    }
    if name == ARCHIVE_SLOT {
        return Err("is the name of a slot of Outrider's own");
    }
    let is_physical = match value {
        Value::Null => true,
        Value::Object(keys) => keys.iter().all(|(key, value)| key == "type" && value == "physical"),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => false,
    };
    if is_physical {
        Ok(())
    } else {
        Err("is not honoured: expected {type: physical}; logical slots are not carried over")
    }
}
