//! Which parameters a standby whose replay is paused has less of than its primary had. No view shows it; the control file
//! does, in which PostgreSQL records the primary's values before it pauses (xlog_redo, XLOG_PARAMETER_CHANGE).

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use tracing::debug;

use crate::control::ControlData;
use crate::observation::Lacking;
use crate::settings::Settings;

/// Time limit for `pg_controldata`, within an observation.
const LIMIT: Duration = Duration::from_millis(500);

/// From the control file of the running server, which has `limits` in effect; `None` when it cannot be read right now.
pub(super) async fn ask(settings: &Settings, limits: &BTreeMap<String, u32>) -> Option<Vec<Lacking>> {
    let program = settings.bin_directory.join("pg_controldata");
    let mut command = Command::new(&program);
    command.arg("-D").arg(&settings.data_directory).env_clear().env("LC_ALL", "C");
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = match timeout(LIMIT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => output,
        outcome => {
            debug!(program = %program.display(), ?outcome, "cannot read the control file of the server that runs");
            return None;
        }
    };
    let lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    ControlData::parse(&lines).ok().map(|control| compare(&control, limits))
}

fn compare(control: &ControlData, limits: &BTreeMap<String, u32>) -> Vec<Lacking> {
    let less = |(name, primary): &(String, u32)| {
        let here = *limits.get(name)?;
        (here < *primary).then(|| Lacking { name: name.clone(), here, primary: *primary })
    };
    control.hot_standby_minimum.iter().filter_map(less).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_less_is_lacking() {
        let minimum = [("max_connections", 60), ("max_wal_senders", 10), ("max_worker_processes", 8)];
        let minimum = minimum.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let control = ControlData {
            system_identifier: 7,
            state: "in archive recovery".to_owned(),
            checkpoint: outrider_wal::Lsn::INVALID,
            checkpoint_timeline: outrider_wal::TimelineId::FIRST,
            recovery_end: outrider_wal::Lsn::INVALID,
            recovery_end_timeline: outrider_wal::TimelineId::FIRST,
            hot_standby_minimum: minimum,
        };
        let limits = [("max_connections", 40), ("max_wal_senders", 10), ("max_worker_processes", 9)];
        let limits = limits.map(|(name, value)| (name.to_owned(), value)).into();
        let lacking = Lacking { name: "max_connections".to_owned(), here: 40, primary: 60 };
        assert_eq!(compare(&control, &limits), [lacking]);
    }
}
