//! Carries out a plan, one step after the other, until one fails. Chooses nothing: a step and the call it becomes are one line.

mod cluster_keys;
mod coming_up;
mod gap;
mod job;
mod postgres;
mod publish;
mod request;
mod restart;
mod rollback;

use outrider_ha::{MemberName, Plan, Reason, Step};

use crate::instruments::Instruments;
use crate::state::{State, TermError};

pub(crate) use job::{conclude, finished};
pub(crate) use publish::{configure, learn, leave, publish, withdraw};

/// A step that failed; the steps after it were not tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// The DCS did not do it, or did not say.
    #[error(transparent)]
    Dcs(#[from] outrider_dcs::Error),
    /// Postgres or its supervisor did not do it.
    #[error(transparent)]
    Postgres(#[from] outrider_postgres::Error),
    /// The term could not be kept on disk.
    #[error(transparent)]
    Term(#[from] TermError),
    /// A member does not say where its Postgres listens.
    #[error("{member} does not publish its Postgres' address")]
    NoAddress {
        /// Its name.
        member: MemberName,
    },
    /// The lease in hand has run out meanwhile.
    #[error("the leader lease was confirmed too long ago to {act}")]
    LeaseTooOld {
        /// What was to be done.
        act: &'static str,
    },
}

/// Carries the plan out.
///
/// # Errors
/// Of the first step that failed.
pub(crate) async fn act(plan: &Plan, instruments: &Instruments, state: &mut State) -> Result<(), StepError> {
    let mut actor = Actor { instruments, state, reason: Some(&plan.reason) };
    for step in &plan.steps {
        actor.step(step).await?;
    }
    Ok(())
}

struct Actor<'round> {
    instruments: &'round Instruments,
    state: &'round mut State,
    /// Of the plan that is carried out.
    reason: Option<&'round Reason>,
}

impl Actor<'_> {
    async fn step(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::AcquireLease { sync_revision, request } => {
                self.acquire_lease(*sync_revision, *request).await
            }
            Step::RenewLease => self.renew_lease().await,
            Step::ReleaseLease => self.release_lease().await,
            // This member's entry hangs on the same session, and `publish` leaves it alone.
            Step::LetLeaseRunOut => Ok(()),
            Step::ShortenFuse { within } => self.shorten_fuse(*within).await,
            Step::SetTtl { ttl } => self.set_ttl(*ttl).await,
            Step::HandOverLease { to } => self.hand_over_lease(to).await,
            Step::ClaimInitialize => Ok(self.instruments.dcs.claim_initialize().await?),
            Step::RecordInitialize { system } => self.record_initialize(*system).await,
            Step::RecordSync { standbys, revision } => self.record_sync(standbys, *revision).await,
            Step::RestoreSync { before } => self.restore_sync(before).await,
            Step::ClearSync { revision } => Ok(self.instruments.dcs.clear_sync(*revision).await?),
            Step::RecordHistory => self.record_history().await,
            Step::FinishRequest { revision } => Ok(self.instruments.dcs.clear_failover(*revision).await?),
            Step::ClearRequest { revision } => self.clear_request(*revision).await,
            Step::DateRequest { revision } => self.date_request(*revision).await,
            Step::AnnounceSwitchover { to } => self.announce_switchover(to).await,
            Step::AnnounceStop { to, request } => self.announce_stop(to, *request).await,
            Step::AskSwitchover => self.ask_switchover().await,
            Step::RecordRestart { member, change, revision } => {
                self.record_restart(member, change, *revision).await
            }
            Step::ClearSwitchover => self.clear_switchover().await,
            Step::RecreateCluster { standbys } => self.recreate_cluster(standbys.as_deref()).await,
            Step::Initdb => {
                self.make_first_data();
                Ok(())
            }
            Step::PostBootstrap => {
                self.post_bootstrap();
                Ok(())
            }
            Step::Start(start_as) => self.start(start_as),
            Step::Stop(mode) => {
                self.stop(mode);
                Ok(())
            }
            Step::SkipTimelines { newest } => {
                Ok(self.instruments.postgres.skip_timelines(self.state.data.timeline(), *newest)?)
            }
            Step::HastenReplay { resume } => self.hasten_replay(*resume).await,
            Step::RelaxReplay => self.relax_replay().await,
            Step::Promote => self.promote().await,
            Step::Follow { upstream } => self.follow(upstream).await,
            Step::SetSynchronous { names } => self.set_synchronous(names).await,
            Step::CreateSlots { names } => self.create_slots(names).await,
            Step::Checkpoint => {
                self.checkpoint();
                Ok(())
            }
            Step::ShortenStop { to } => {
                self.shorten_stop(to);
                Ok(())
            }
            Step::Rollback => self.roll_back(),
            Step::Clone { from } => self.clone(from),
            Step::Rewind { from } => self.rewind(from),
        }
    }
}
