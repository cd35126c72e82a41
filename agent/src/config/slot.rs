//! The replication slot of a member: its name must not collide with another member's slot or with the agent's own.

use outrider_dcs::Snapshot;
use outrider_postgres::{ARCHIVE_SLOT, slot_name};

/// What is wrong with a name, whatever the other members are called.
pub(super) fn fault(name: &str) -> Option<String> {
    let is_ours = slot_name(name) == ARCHIVE_SLOT;
    is_ours.then(|| {
        format!("would use the replication slot {ARCHIVE_SLOT}, which Outrider reserves; choose another name")
    })
}

/// Why the member `me` may take no part: another member with the same slot name was there first. Each would take the other's slot
/// away on the leader.
pub(crate) fn taken_slot(me: &str, cluster: &Snapshot) -> Option<String> {
    let slot = slot_name(me);
    let entered = cluster.member(me).map_or(i64::MAX, |own| own.created);
    let first = cluster
        .members
        .iter()
        .filter(|other| other.name != me && other.created < entered)
        .find(|other| slot_name(&other.name) == slot)?;
    Some(format!(
        "name: {me:?}: makes the replication slot {slot}, as that of member {:?} does, which was in the cluster before: \
         give this member another name",
        first.name
    ))
}

#[cfg(test)]
mod tests {
    use outrider_dcs::Member;
    use serde_json::Value;

    use super::*;
    use crate::sample::entry;

    /// In the order in which they registered.
    fn cluster(names: &[&str]) -> Snapshot {
        let member = |(created, name): (i64, &&str)| Member {
            created,
            revision: 100 - created,
            ..entry(name, Value::Null)
        };
        Snapshot { members: (1..).zip(names).map(member).collect(), ..Snapshot::default() }
    }

    #[test]
    fn the_one_that_came_second_gives_way() {
        let long = "x".repeat(63);
        // Patroni allows longer names and truncates their slot names.
        let longer = format!("{}1", "x".repeat(63));
        for (first, second) in
            [("a-b", "a_b"), ("a_b", "a.b"), ("N2", "n2"), ("n2", "N2"), (longer.as_str(), long.as_str())]
        {
            let entered = cluster(&["other", first, second]);
            assert_eq!(taken_slot(first, &entered), None, "{first} came before {second}");
            let words = taken_slot(second, &entered).expect("it came second");
            assert!(
                words.contains(&format!("{first:?}")) && words.contains(&format!("{second:?}")),
                "{words}"
            );
            assert!(
                taken_slot(second, &cluster(&["other", first])).is_some(),
                "{second} has not entered yet"
            );
        }
    }

    #[test]
    fn names_with_slots_of_their_own_and_a_namesake_are_no_matter_of_slots() {
        assert_eq!(taken_slot("n2", &cluster(&["n1", "n2", "n22", "n-2"])), None);
        assert_eq!(taken_slot("n2", &cluster(&[])), None);
        assert_eq!(taken_slot("n2", &cluster(&["n2"])), None);
    }

    #[test]
    fn the_slot_for_the_archive_is_nobodys() {
        for name in ["outrider_archive", "Outrider-Archive", "outrider.archive"] {
            assert!(fault(name).is_some(), "{name}");
        }
        assert_eq!(fault("outrider"), None);
    }
}
