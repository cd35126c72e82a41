//! The files that Postgres reads: `postgresql.conf` generated beside the preserved `postgresql.base.conf`, `pg_hba.conf`,
//! `standby.signal`, the password file. What can change while Postgres runs is in the file; what needs a restart is passed
//! as an argument, so that nothing can override it.

mod auto_conf;
mod hba;
mod in_effect;
mod parameters;
mod password_file;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use crate::conninfo::{Upstream, conninfo};
use crate::error::Error;
use crate::file;
use crate::observation::{Observation, Role};
use crate::options;
use crate::quote::quote_name;
use crate::settings::Settings;

pub use hba::line::check as check_hba_line;
pub(crate) use in_effect::waiting;
pub use parameters::slot_name;
pub(crate) use password_file::write as write_password_file;

/// The wanted configuration of Postgres, besides the member's own settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Parameters of the whole cluster.
    pub parameters: BTreeMap<String, String>,
    /// Lines of `pg_hba.conf` for the whole cluster.
    pub pg_hba: Vec<String>,
    /// The addresses of the cluster's members, ascending.
    pub members: Vec<IpAddr>,
    /// The standbys that every commit waits for, all of them, in the order of the setting.
    pub synchronous: Vec<String>,
    /// The upstream of a standby.
    pub upstream: Option<Upstream>,
    /// Queries must not hold up replay, whatever the parameters say.
    pub hastened: bool,
    /// For a standby: its primary's values of the parameters it must not have less of. It gets at least these, whatever the
    /// parameters say. Empty for a primary.
    pub least: BTreeMap<String, u32>,
}

/// The generated file.
const MAIN: &str = "postgresql.conf";
/// The file that was there before.
const BASE: &str = "postgresql.base.conf";

impl Configuration {
    /// The value of `synchronous_standby_names`.
    #[must_use]
    pub fn synchronous_standby_names(&self) -> String {
        if self.synchronous.is_empty() {
            return String::new();
        }
        let names: Vec<String> = self.synchronous.iter().map(|name| quote_name(name)).collect();
        format!("{} ({})", names.len(), names.join(","))
    }

    /// Makes commits wait for these standbys. Their order means nothing, since commits wait for each of them. It is chosen
    /// so that every one that stays changes place, and with it the priority that its walsender shows once it knows.
    pub fn set_synchronous(&mut self, names: &[String]) {
        let mut order = names.to_vec();
        let before = std::mem::take(&mut self.synchronous);
        let keeps_a_place = |order: &[String]| order.iter().zip(&before).any(|(new, old)| new == old);
        for _ in 0..order.len() {
            if !keeps_a_place(&order) {
                break;
            }
            order.rotate_left(1);
        }
        self.synchronous = order;
    }

    /// Adopts from a running Postgres whom commits wait for, and where it streams from.
    pub fn adopt(&mut self, seen: &Observation) {
        self.synchronous = names(&seen.synchronous_standby_names);
        if let Role::Standby { upstream: Some((host, port)), .. } = &seen.role {
            self.upstream = Some(Upstream { host: host.clone(), port: *port });
        }
    }

    /// Writes everything but `standby.signal`, for a Postgres that is not about to start. What needs a restart stays as it
    /// was at the last one: whoever copies the files has WAL written with those values, and may start them without our
    /// arguments. Unchanged files are not touched.
    pub(crate) fn write(&self, settings: &Settings) -> Result<(), Error> {
        let mut wanted = parameters::fixed(settings, self);
        parameters::raise(&mut wanted, &self.least);
        let effect = in_effect::read(&settings.data_directory)?;
        let waits = |(name, value): &(&String, &String)| effect.get(*name).is_some_and(|now| now != *value);
        let waiting = in_effect::note(wanted.iter().filter(waits));
        let mut fixed = wanted.clone();
        fixed.extend(effect);
        self.write_with(settings, &fixed, &waiting)
    }

    /// Writes the same for a start, and returns the postmaster's arguments: everything that needs a restart. `least`: the
    /// minimum values for a standby, which otherwise would not start, or whose replay would soon pause.
    pub(crate) fn write_for_start(
        &self,
        settings: &Settings,
        least: &BTreeMap<String, u32>,
    ) -> Result<Vec<String>, Error> {
        let mut fixed = parameters::fixed(settings, self);
        parameters::raise(&mut fixed, least);
        self.write_with(settings, &fixed, "")?;
        Ok(fixed.into_iter().flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]).collect())
    }

    fn write_with(
        &self,
        settings: &Settings,
        fixed: &BTreeMap<String, String>,
        waiting: &str,
    ) -> Result<(), Error> {
        let directory = &settings.data_directory;
        let password_file = password_file::write(settings)?;
        keep_base(directory, MAIN, BASE)?;
        keep_base(directory, hba::FILE, hba::BASE)?;
        auto_conf::release(settings)?;
        let main = self.main(settings, fixed, &password_file) + waiting;
        file::replace(&directory.join(MAIN), &main, 0o600)?;
        file::replace(&directory.join(hba::FILE), &hba::text(settings, self)?, 0o600)
    }

    /// Whether a restart would lower one of this server's parameters that standbys must not have less of than their primary.
    #[must_use]
    pub fn lowers(&self, settings: &Settings, limits: &BTreeMap<String, u32>) -> bool {
        let wanted = parameters::fixed(settings, self);
        let less = |(name, now): (&String, &u32)| {
            wanted.get(name).and_then(|value| value.parse::<u32>().ok()).is_some_and(|value| value < *now)
        };
        limits.iter().any(less)
    }

    /// Every parameter for Postgres, except whom it waits for and where it streams from.
    pub(crate) fn all_parameters(&self, settings: &Settings) -> BTreeMap<String, String> {
        let mut all = parameters::changeable(settings, self);
        all.extend(parameters::fixed(settings, self));
        all
    }

    fn main(&self, settings: &Settings, fixed: &BTreeMap<String, String>, password_file: &Path) -> String {
        let mut text = String::from(
            "# Written by Outrider; changes to this file are lost. Set parameters with `PATCH /config` (postgresql.parameters)\n\
             # or in the member's file; what was in this file before is in the one that is included.\n",
        );
        let mut add = |line: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line}");
        };
        if settings.archive_command.is_none() {
            for (name, value) in parameters::ARCHIVING {
                add(format_args!("{name} = {}", parameters::quote(value)));
            }
        }
        add(format_args!("include {}\n", parameters::quote(BASE)));
        // What is passed as an argument is written too, for whoever starts Postgres without arguments: pg_rewind, or a
        // person.
        for (name, value) in fixed.iter().chain(&parameters::changeable(settings, self)) {
            add(format_args!("{name} = {}", parameters::quote(value)));
        }
        if has_tablespace_in_place(&settings.data_directory) {
            // Otherwise no recovery would finish (PostgreSQL, CheckTablespaceDirectory).
            add(format_args!("allow_in_place_tablespaces = 'on'"));
        }
        add(format_args!(
            "synchronous_standby_names = {}",
            parameters::quote(&self.synchronous_standby_names())
        ));
        let user = &settings.replication;
        let primary_conninfo = self.upstream.as_ref().map(|upstream| {
            conninfo(upstream, user, password_file, &settings.name, &options::of_replication())
        });
        let slot = if self.upstream.is_some() { slot_name(&settings.name) } else { String::new() };
        add(format_args!("primary_conninfo = {}", parameters::quote(&primary_conninfo.unwrap_or_default())));
        add(format_args!("primary_slot_name = {}", parameters::quote(&slot)));
        add(format_args!(
            "restore_command = {}",
            parameters::quote(settings.restore_command.as_deref().unwrap_or_default())
        ));
        add(format_args!("recovery_target_timeline = 'latest'"));
        if self.hastened {
            add(format_args!("max_standby_streaming_delay = 0\nmax_standby_archive_delay = 0"));
        }
        text
    }
}

/// Whether a tablespace is a directory inside the data directory: created with `allow_in_place_tablespaces`.
fn has_tablespace_in_place(data_directory: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(data_directory.join("pg_tblspc")) else { return false };
    entries.flatten().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
}

/// The standbys in a `synchronous_standby_names` as this agent or Patroni writes it: every name is quoted.
fn names(setting: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = setting;
    while let Some((_, quoted)) = rest.split_once('"') {
        let mut name = String::new();
        let mut characters = quoted.char_indices().peekable();
        let mut end = quoted.len();
        while let Some((at, character)) = characters.next() {
            if character != '"' {
                name.push(character);
            } else if characters.next_if(|(_, next)| *next == '"').is_some() {
                name.push('"');
            } else {
                end = at + 1;
                break;
            }
        }
        names.push(name);
        rest = quoted.get(end..).unwrap_or_default();
    }
    names
}

/// Makes the next start a standby's or a primary's.
pub(crate) fn set_standby_signal(data_directory: &Path, standby: bool) -> Result<(), Error> {
    let path = data_directory.join("standby.signal");
    if standby { file::replace(&path, "", 0o600) } else { file::remove(&path) }
}

/// Saves the file as the base, once; if there is no file, the base is empty.
fn keep_base(directory: &Path, name: &str, base: &str) -> Result<(), Error> {
    let (path, base) = (directory.join(name), directory.join(base));
    if base.exists() {
        return Ok(());
    }
    let text = file::read_if_there(&path)?;
    file::replace(&base, &text.unwrap_or_default(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_stays_changes_its_place() {
        let names = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        for (before, after) in [("a", "ab"), ("ab", "bc"), ("abc", "abd"), ("", "ab")] {
            let mut configuration = Configuration { synchronous: names(before), ..Configuration::default() };
            configuration.set_synchronous(&names(after));
            let kept =
                configuration.synchronous.iter().zip(names(before)).filter(|(new, old)| *new == old).count();
            assert_eq!(kept, 0, "{before} -> {:?}", configuration.synchronous);
            assert_eq!(configuration.synchronous.len(), after.len());
        }
    }

    #[test]
    fn every_standby_is_waited_for() {
        let mut configuration = Configuration::default();
        assert_eq!(configuration.synchronous_standby_names(), "");
        configuration.set_synchronous(&["member-1".to_owned(), "x\"y".to_owned()]);
        assert_eq!(configuration.synchronous_standby_names(), r#"2 ("member-1","x""y")"#);
        assert_eq!(names(&configuration.synchronous_standby_names()), configuration.synchronous);
        assert_eq!(names("\"p2\""), ["p2"]);
        assert_eq!(names(""), [""; 0]);
    }
}
