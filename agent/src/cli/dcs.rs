//! `outrider dcs rebuild`: when the DCS has lost the cluster's keys or went back and nobody leads, asks every member what it
//! remembers and has, and writes the keys anew. `outrider_ha::rebuild` decides who leads.

mod shown;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use outrider_dcs::{Dcs, Snapshot, SyncState};
use outrider_ha::{
    MemberName, NotRebuilt, Rebuilding, Role, SynchronousMode, SystemId, Testimony, Witness, rebuild,
};
use outrider_wal::{Lsn, TimelineId};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::confirm::meant;
use super::exit::{self, Refusal};
use super::format::Format;
use super::member::{Member, MemberOptions};
use crate::clock;
use crate::config::{self, Config};
use crate::observe::cluster::watermark;
use crate::state::{DcsRecord, sync_state};

/// Time limit for a leader once the keys are there; what keeps it from leading is in `outrider list`.
const LEADER_LIMIT: Duration = Duration::from_secs(60);
/// Interval between checks for the new leader.
const LEADER_INTERVAL: Duration = Duration::from_millis(200);

/// Look after the cluster's keys in the DCS
#[derive(Args)]
pub(super) struct DcsCommand {
    #[command(subcommand)]
    command: DcsAct,
}

#[derive(Subcommand)]
enum DcsAct {
    /// Rewrite the cluster's keys after the DCS was wiped, restored from an old copy, or moved
    Rebuild(Rebuild),
}

/// Rewrite the cluster's keys after the DCS was wiped, restored from an old copy, or moved
///
/// Run it on one member, while no member leads. It asks all members what they remember of the DCS and what data they have, shows
/// it, takes the member that surely has every acknowledged commit, and writes the keys: identifier, configuration, history, and
/// that member as the only one that may be promoted. The agents do the rest. A primary that still runs when its etcd is wiped
/// writes the keys anew by itself; then there is nothing to do here.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Rebuild {
    #[command(flatten)]
    options: MemberOptions,
    /// Show who has what and who would lead, and change nothing
    #[arg(long)]
    plan: bool,
    /// Go on even though a member that may have more acknowledged commits does not answer; they are lost then
    #[arg(long)]
    accept_data_loss: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
    /// The form of the plan
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  outrider dcs rebuild -c member.yml --plan    who has what, and who would be taken?
  outrider dcs rebuild -c member.yml";

pub(super) fn run(asked: DcsCommand) -> Result<ExitCode, Refusal> {
    let DcsAct::Rebuild(asked) = asked.command;
    let Some(file) = asked.options.config.clone() else {
        return Err(Refusal::Usage(
            "the keys are rebuilt by a member: give its configuration file with -c FILE or in OUTRIDER_CONFIG".to_owned(),
        ));
    };
    let config = exit::load(&file)?;
    let runtime = exit::runtime()?;
    let local = Member::of(asked.options)?;
    runtime.block_on(rebuild_keys(
        &config,
        &local,
        asked.plan,
        asked.accept_data_loss,
        asked.yes,
        asked.format,
    ))
}

/// The answer to `GET /dcs`.
#[derive(Clone, Deserialize)]
struct Answer {
    name: String,
    role: Role,
    system_identifier: Option<String>,
    timeline: TimelineId,
    position: Lsn,
    may_lead: bool,
    record: DcsRecord,
}

/// All answers by member; `None` for one that did not answer.
type Heard = BTreeMap<String, Option<Answer>>;

async fn rebuild_keys(
    config: &Config,
    local: &Member,
    only_plan: bool,
    accept_data_loss: bool,
    yes: bool,
    format: Format,
) -> Result<ExitCode, Refusal> {
    let dcs = config.open_dcs(config.etcd.retry_timeout)?;
    let snapshot = dcs.read().await.map_err(anyhow::Error::new)?;
    let remembered = DcsRecord::read(&config.postgres.state_directory)
        .with_context(|| {
            format!("cannot read what this member remembers in {}", config.postgres.state_directory.display())
        })?
        .unwrap_or_default();
    let heard = ask_everybody(config, local, &snapshot, &remembered).await;
    let mode = mode(config, &heard);
    let decided = rebuild(&witnesses(&heard), &watermark(&snapshot), mode, accept_data_loss);
    let shown = shown::show(&config.scope, &heard, &snapshot, &decided, format)?;
    if only_plan {
        exit::print(&shown)?;
        return match &decided {
            Ok(_) => Ok(ExitCode::SUCCESS),
            Err(refusal) => Err(refused(refusal)),
        };
    }
    let rebuilding = match decided {
        Ok(rebuilding) => rebuilding,
        Err(refusal) => {
            exit::print(&shown)?;
            return Err(refused(&refusal));
        }
    };
    let act = format!("rebuild the keys of cluster {} so that {} leads", config.scope, rebuilding.best);
    meant(&shown, &format!("Are you sure you want to {act}? [y/N]: "), &format!("{act}: add --yes"), yes)?;
    write(dcs.as_ref(), config, &heard, (&snapshot, mode), &rebuilding).await?;
    exit::print(&format!(
        "the keys of cluster {} have been rewritten (generation {}); waiting for {} to lead\n",
        config.scope, rebuilding.generation, rebuilding.best
    ))?;
    wait_for_leader(dcs.as_ref(), &rebuilding.best).await
}

/// Asks every member known to the DCS, to this member or to one that answers.
async fn ask_everybody(
    config: &Config,
    local: &Member,
    snapshot: &Snapshot,
    remembered: &DcsRecord,
) -> Heard {
    let mut urls: BTreeMap<String, String> = remembered.members.clone();
    let own = format!("http://{}/patroni", config.rest.connect_address);
    urls.insert(config.name.clone(), own);
    let now = snapshot.members.iter();
    urls.extend(now.filter_map(|member| Some((member.name.clone(), member.api_url()?.to_owned()))));
    let mut heard = Heard::new();
    loop {
        let unasked: Vec<(String, String)> = urls
            .iter()
            .filter(|(name, _)| !heard.contains_key(*name))
            .map(|(name, url)| (name.clone(), url.clone()))
            .collect();
        if unasked.is_empty() {
            return heard;
        }
        let mut asked = JoinSet::new();
        for (name, url) in unasked {
            let member = local.other(&url);
            asked.spawn(async move {
                let answer = match member {
                    Ok(member) => member.get("/dcs").await.ok(),
                    Err(_) => None,
                };
                let answer = answer.and_then(|answer| serde_json::from_value::<Answer>(answer).ok());
                // A different name at a member's address means a different member.
                (name.clone(), answer.filter(|answer| answer.name == name))
            });
        }
        while let Some(Ok((name, answer))) = asked.join_next().await {
            if let Some(answer) = &answer {
                for (other, url) in &answer.record.members {
                    urls.entry(other.clone()).or_insert_with(|| url.clone());
                }
            }
            heard.insert(name, answer);
        }
    }
}

fn witnesses(heard: &Heard) -> Vec<Witness> {
    let witness = |(name, answer): (&String, &Option<Answer>)| Witness {
        name: name.as_str().into(),
        says: answer.as_ref().map(testimony),
    };
    heard.iter().map(witness).collect()
}

/// The mode according to the newest configuration.
fn mode(config: &Config, heard: &Heard) -> SynchronousMode {
    let newest = heard.values().flatten().max_by_key(|answer| answer.record.watermark.extent());
    let configuration = newest.and_then(|answer| answer.record.config.clone()).unwrap_or_else(|| json!({}));
    config::policy(&configuration, &[], &config.tags, &config::first_policy(config)).synchronous_mode
}

fn testimony(answer: &Answer) -> Testimony {
    let revision = answer.record.watermark.sync_revision;
    Testimony {
        watermark: answer.record.watermark,
        sync: answer.record.sync.as_ref().map(|_| sync_state(&answer.record.sync(), revision)),
        leader: answer.record.leader.as_deref().map(MemberName::from),
        role: answer.role,
        system: answer.system_identifier.as_deref().and_then(|system| system.parse().ok()).map(SystemId),
        timeline: answer.timeline,
        position: answer.position,
        may_lead: answer.may_lead,
    }
}

fn refused(refusal: &NotRebuilt) -> Refusal {
    let next = match refusal {
        NotRebuilt::PrimaryRuns { .. } => "wait for it, and try again",
        NotRebuilt::NothingIsRemembered => {
            "start the agents of the members that had the cluster, and try again; for a new cluster start them with new state directories"
        }
        NotRebuilt::NobodyHasData => {
            "start the agents of the members that have data and try again, or restore a server from the archive"
        }
        NotRebuilt::MayLoseCommits { .. } => {
            "bring them back and try again; or, when they are gone for good, add --accept-data-loss: what they alone have is lost then"
        }
    };
    anyhow!("the keys were not rebuilt: {refusal}; {next}").into()
}

async fn write(
    dcs: &dyn Dcs,
    config: &Config,
    heard: &Heard,
    (snapshot, mode): (&Snapshot, SynchronousMode),
    rebuilding: &Rebuilding,
) -> Result<(), Refusal> {
    let record = heard.get(rebuilding.record_of.as_str()).and_then(Option::as_ref);
    let record = &record.context("the member whose record is taken was heard a moment ago")?.record;
    let sync = (mode == SynchronousMode::On)
        .then(|| SyncState { leader: Some(rebuilding.best.to_string()), ..SyncState::default() });
    let mut keys = record.rebuilt(&config.name, sync);
    keys.generation.generation = rebuilding.generation;
    keys.generation.term_base = rebuilding.term_base.0;
    if keys.system_identifier.is_empty() {
        return Err(anyhow!("no member remembers the system identifier of the cluster").into());
    }
    let seen = snapshot.generation.as_ref().map_or(0, |entry| entry.revision);
    dcs.rebuild_cluster(&keys, seen).await.map_err(|error| {
        let error = anyhow::Error::new(error);
        Refusal::Failed(
            error
                .context("the keys were not rebuilt; look with `outrider dcs rebuild --plan`, and try again"),
        )
    })
}

async fn wait_for_leader(dcs: &dyn Dcs, best: &MemberName) -> Result<ExitCode, Refusal> {
    let deadline = clock::monotonic() + LEADER_LIMIT;
    while clock::monotonic() < deadline {
        // A DCS that does not answer for a moment is asked again.
        let leader = dcs.read().await.ok().and_then(|snapshot| snapshot.leader);
        if let Some(leader) = leader {
            return exit::print(&format!("{} is the leader\n", leader.name));
        }
        sleep(LEADER_INTERVAL).await;
    }
    Err(anyhow!(
        "the keys are there, and {best} does not lead after {} s: `outrider list` says why",
        LEADER_LIMIT.as_secs()
    )
    .into())
}
