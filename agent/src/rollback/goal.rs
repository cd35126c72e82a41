//! The target of a rollback as it stands in the DCS, and as the archive understands it. Looks into no archive.

use jiff::Timestamp;
use outrider_dcs::RollbackTarget;
use outrider_restore::{Goal, Target, TargetTimeline};
use outrider_wal::Lsn;

/// What was asked for.
///
/// # Errors
/// That it is no target, in words.
pub(crate) fn goal(asked: &RollbackTarget, now: Timestamp) -> Result<Goal, String> {
    let words = |fault: outrider_restore::BadTarget| fault.to_string();
    let mut targets = Vec::new();
    if let Some(time) = &asked.target_time {
        targets.push(Target::time(time, now).map_err(words)?);
    }
    if let Some(text) = &asked.target_lsn {
        let lsn = text.parse::<Lsn>().map_err(|fault| format!("target_lsn: {fault}"))?;
        targets.push(Target::Lsn(lsn));
    }
    targets.extend(asked.target_xid.map(Target::Xid));
    if let Some(name) = &asked.target_name {
        targets.push(Target::name(name).map_err(words)?);
    }
    targets.extend(asked.immediate.then_some(Target::Immediate));
    targets.extend(asked.latest.then_some(Target::Latest));
    let [target] = targets.as_slice() else {
        return Err("name one target: target_time, target_lsn, target_xid, target_name, immediate or latest"
            .to_owned());
    };
    let mut goal = Goal::to(target.clone());
    if asked.exclusive && !matches!(target, Target::Time(_) | Target::Lsn(_) | Target::Xid(_)) {
        return Err("exclusive goes with a time, an LSN or a transaction".to_owned());
    }
    goal.inclusive = !asked.exclusive;
    if let Some(timeline) = &asked.timeline {
        goal.timeline = timeline.parse::<TargetTimeline>().map_err(words)?;
    }
    Ok(goal)
}

/// What [`goal`] reads as this one. A time that counts from now is one on the wall by now.
pub(crate) fn target(goal: &Goal) -> RollbackTarget {
    let mut asked = RollbackTarget { exclusive: !goal.inclusive, ..RollbackTarget::default() };
    match &goal.target {
        Target::Latest => asked.latest = true,
        Target::Immediate => asked.immediate = true,
        Target::Time(time) => asked.target_time = Some(time.to_string()),
        Target::Lsn(lsn) => asked.target_lsn = Some(lsn.to_string()),
        Target::Xid(xid) => asked.target_xid = Some(*xid),
        Target::Name(name) => asked.target_name = Some(name.clone()),
    }
    asked.timeline = match goal.timeline {
        TargetTimeline::Latest => None,
        TargetTimeline::Current => Some("current".to_owned()),
        TargetTimeline::Number(number) => Some(number.to_string()),
    };
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(asked: RollbackTarget) -> Result<Goal, String> {
        goal(&asked, "2026-11-24T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn exactly_one_target_is_read_with_what_goes_with_it() {
        let time = Some("5 minutes ago".to_owned());
        let asked =
            RollbackTarget { target_time: time.clone(), exclusive: true, ..RollbackTarget::default() };
        let goal = read(asked).unwrap();
        assert_eq!(goal.target, Target::Time("2026-11-24T11:55:00Z".parse().unwrap()));
        assert!(!goal.inclusive);
        assert_eq!(read(target(&goal)).unwrap(), goal);
        assert!(read(RollbackTarget::default()).unwrap_err().starts_with("name one target"));
        let two = RollbackTarget { target_time: time, immediate: true, ..RollbackTarget::default() };
        assert!(read(two).unwrap_err().starts_with("name one target"));
        let odd = RollbackTarget { immediate: true, exclusive: true, ..RollbackTarget::default() };
        assert!(read(odd).is_err());
        let lsn = RollbackTarget { target_lsn: Some("x".to_owned()), ..RollbackTarget::default() };
        assert!(read(lsn).is_err());
    }
}
