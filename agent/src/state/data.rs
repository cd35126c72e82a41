//! The local data directory: whose data it is, on which timeline, how far it was seen, and where its timelines came from.

use outrider_postgres::ControlData;
use outrider_wal::{Lsn, TimelineHistory, TimelineId, TimelineStarts};
use tracing::{error, warn};

use crate::log::{Said, causes};

/// What is remembered of it.
#[derive(Default)]
pub(crate) struct Data {
    /// The control file, while nothing has run since it was read.
    control: Option<ControlData>,
    system: Option<u64>,
    timeline: TimelineId,
    last_position: Lsn,
    history: TimelineHistory,
    /// The timeline for which `history` was read.
    history_of: Option<TimelineId>,
    starts: TimelineStarts,
    /// Why that cannot be told, as it was last logged.
    starts_fault: Said,
    rewind_failed: bool,
    /// Why the data directory is refused, as it was last logged.
    refused: Said,
}

impl Data {
    /// The data directory was replaced: nothing that was known of the old one holds.
    pub(crate) fn was_replaced(&mut self) {
        let (starts_fault, refused) =
            (std::mem::take(&mut self.starts_fault), std::mem::take(&mut self.refused));
        *self = Data { starts_fault, refused, ..Data::default() };
    }

    /// The control file, while nothing has run since it was read.
    pub(crate) fn control(&self) -> Option<&ControlData> {
        self.control.as_ref()
    }

    /// Something runs, or has run: the control file is not what it was.
    pub(crate) fn is_in_use(&mut self) {
        self.control = None;
    }

    /// Nothing runs, and the control file is this.
    pub(crate) fn is_at_rest(&mut self, control: ControlData) {
        self.refused.forget();
        self.system = Some(control.system_identifier);
        self.control = Some(control);
    }

    /// It cannot be used.
    pub(crate) fn is_refused(&mut self, why: &str) {
        if self.refused.is_news(why) {
            error!("the data directory cannot be used: {why}");
        }
    }

    /// It is nobody's: half made.
    pub(crate) fn is_of_nobody(&mut self) {
        self.system = None;
    }

    /// Postgres runs on it, and is there.
    pub(crate) fn was_seen_at(&mut self, system: u64, timeline: TimelineId, position: Lsn) {
        self.system = Some(system);
        self.timeline = self.timeline.max(timeline);
        self.last_position = self.last_position.max(position);
    }

    /// The system identifier.
    pub(crate) fn system(&self) -> Option<u64> {
        self.system
    }

    /// The newest timeline that it was seen on.
    pub(crate) fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The furthest position that Postgres was seen at since it was last replaced.
    pub(crate) fn last_position(&self) -> Lsn {
        self.last_position
    }

    /// The ancestors of the timeline that it is on.
    pub(crate) fn history(&self) -> &TimelineHistory {
        &self.history
    }

    /// The timeline whose ancestors are known for good.
    pub(crate) fn history_of(&self) -> Option<TimelineId> {
        self.history_of
    }

    /// These are the ancestors of `timeline`. One that was just begun may not have its file yet.
    pub(crate) fn came_from(&mut self, history: TimelineHistory, timeline: TimelineId) {
        let complete = timeline.get() <= 1 || !history.switches().is_empty();
        self.history = history;
        self.history_of = complete.then_some(timeline);
    }

    /// When these were begun, and its own.
    pub(crate) fn starts(&self) -> &TimelineStarts {
        &self.starts
    }

    /// They were begun then.
    pub(crate) fn began(&mut self, starts: TimelineStarts) {
        self.starts = starts;
    }

    /// It cannot be told when `timeline` was begun.
    pub(crate) fn began_unknown(&mut self, timeline: TimelineId, fault: &outrider_postgres::Error) {
        let text = causes(fault);
        if self.starts_fault.is_news(&text) {
            warn!(%timeline, fault = %text, "cannot read when this timeline began");
        }
    }

    /// Whether the last rewind failed.
    pub(crate) fn rewind_failed(&self) -> bool {
        self.rewind_failed
    }

    /// It could not be rewound; `for_good`: for a reason that lies in the data.
    pub(crate) fn was_not_rewound(&mut self, for_good: bool) {
        self.rewind_failed = for_good;
    }
}
