//! How Postgres is to be configured, and whether a running one has been told.

use std::collections::BTreeMap;
use std::net::IpAddr;

use outrider_postgres::{Configuration, Observation, Upstream};

/// What is remembered of it.
pub(crate) struct Settings {
    wanted: Configuration,
    /// It has changed and a running Postgres was not told yet.
    is_news: bool,
    /// That of a Postgres that ran before this agent was read from it.
    adopted: bool,
}

impl Settings {
    /// A Postgres that ran before this agent may have been given that of an older file.
    pub(super) fn new(wanted: Configuration) -> Self {
        Settings { wanted, is_news: true, adopted: false }
    }

    /// All of it.
    pub(crate) fn wanted(&self) -> &Configuration {
        &self.wanted
    }

    /// Whether a running Postgres was not told yet.
    pub(crate) fn are_news(&self) -> bool {
        self.is_news
    }

    /// It was told.
    pub(crate) fn were_told(&mut self) {
        self.is_news = false;
    }

    /// The parameters of the cluster.
    pub(crate) fn set_parameters(&mut self, parameters: BTreeMap<String, String>) {
        self.is_news |= self.wanted.parameters != parameters;
        self.wanted.parameters = parameters;
    }

    /// The lines of `pg_hba.conf` that the cluster asks for.
    pub(crate) fn set_pg_hba(&mut self, lines: &[String]) {
        self.is_news |= self.wanted.pg_hba != lines;
        self.wanted.pg_hba = lines.to_vec();
    }

    /// From where the members connect, whom `pg_hba.conf` lets in.
    pub(crate) fn set_members(&mut self, members: Vec<IpAddr>) {
        self.is_news |= self.wanted.members != members;
        self.wanted.members = members;
    }

    /// What a standby must not have less of.
    pub(crate) fn set_least(&mut self, least: BTreeMap<String, u32>) {
        self.is_news |= self.wanted.least != least;
        self.wanted.least = least;
    }

    /// A leader has nobody to have less than. Its file is written anew soon enough, and not in the moment of its promotion.
    pub(crate) fn forget_least(&mut self) {
        self.wanted.least.clear();
    }

    /// From whom to stream; `None` for a primary.
    pub(crate) fn follow(&mut self, upstream: Option<Upstream>) {
        self.wanted.upstream = upstream;
    }

    /// Whom commits wait for.
    pub(crate) fn wait_for(&mut self, names: &[String]) {
        self.wanted.set_synchronous(names);
    }

    /// Whether queries may not hold up replay.
    pub(crate) fn hasten(&mut self, hastened: bool) {
        self.wanted.hastened = hastened;
    }

    /// A Postgres that this agent did not start keeps whom its commits wait for and where it streams from, until a step
    /// changes them: `/sync` may rest on it.
    pub(crate) fn adopt(&mut self, seen: &Observation) {
        if !self.adopted {
            self.wanted.adopt(seen);
        }
        self.adopted = true;
    }
}
