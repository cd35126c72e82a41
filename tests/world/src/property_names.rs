//! The names of the properties: what is searched for, in words. `properties` says what each means.

/// Two Postgres accept writes at one time.
pub const SINGLE_WRITER: &str = "at most one writable primary";
/// A serving primary lacks a commit that a client was told of.
pub const NOTHING_LOST: &str = "no acknowledged commit is lost";
/// Somebody was promoted who may lack one.
pub const ELIGIBLE: &str = "only an eligible standby is promoted";
/// A holder of an earlier term acted as if it still led.
pub const TERMS_ASCEND: &str = "terms never go back";
/// Two timelines have one number.
pub const BORN_ONCE: &str = "a timeline is born once";
/// A switchover left its new primary with something to replay.
pub const HANDED_OVER_READY: &str = "a switchover hands over only to who has replayed";
/// A Postgres was started on half a data directory, or on none.
pub const ONLY_WHOLE_DATA: &str = "only a whole data directory is started";
/// There are two clusters.
pub const ONE_CLUSTER: &str = "no second cluster is made";
/// A restart takes more than one member down.
pub const ONE_AT_A_TIME: &str = "a restart takes one member down at a time";
/// It takes the primary down while somebody else can lead.
pub const SWITCHED_FIRST: &str = "a restart moves the primary first";
/// It takes the members in the wrong order.
pub const IN_ORDER: &str = "a restart keeps its order";
/// What a rollback threw away is back.
pub const ROLLED_BACK: &str = "what was rolled back stays so";
/// A rollback is done.
pub const ROLLBACK: &str = "a rollback completes";
/// A member that was away does not find at the leader what was kept for it.
pub const WAL_KEPT: &str = "WAL that was promised is kept";
/// A member whose WAL was gone follows again.
pub const COPIED_ANEW: &str = "a member whose WAL is gone is copied anew";
/// The agent would have refused its own plan.
pub const RULES_KEPT: &str = "no plan breaks a rule";
/// Nothing more happens and the cluster is not whole.
pub const COMES_TO_REST_WHOLE: &str = "the cluster comes to rest whole";
/// A standby leads after its primary was lost.
pub const FAILOVER: &str = "a failover completes";
/// The member that was asked for leads.
pub const SWITCHOVER: &str = "a switchover completes";
/// All Postgres were down, and one serves.
pub const ALL_BACK: &str = "everything down and up again";
