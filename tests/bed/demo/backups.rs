//! The part about the archive: a base backup, and the proof that a server comes back from it.

use anyhow::ensure;
use outrider_bed::{Cluster, Member};

use crate::screen::Screen;

/// Takes a backup, and lets a fresh Postgres recover from it and from the WAL after it. Whether it came back.
pub(crate) async fn prove(screen: &Screen, cluster: &Cluster) -> anyhow::Result<bool> {
    screen.heading("If all nodes were lost");
    let leader = cluster.wait_for_leader().await?;
    screen.event("outrider backup: a standby reads its data, the archive gets it");
    screen.block(said(leader, &["backup"])?);
    screen.event(
        "outrider verify --drill: a server restored into an empty directory, recovered to the last commit",
    );
    let scratch = cluster.guard.directory().join("drill");
    let output = leader.outrider(&["verify", "--drill", "--scratch", &scratch.to_string_lossy()])?;
    screen.block(String::from_utf8_lossy(&output.stdout).trim_end());
    screen.result(output.status.success(), "the archive brings the cluster back");
    Ok(output.status.success())
}

/// What a command of the program about this member says.
fn said(member: &Member, arguments: &[&str]) -> anyhow::Result<String> {
    let output = member.outrider(arguments)?;
    let fault = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "outrider {} failed: {}", arguments.join(" "), fault.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
