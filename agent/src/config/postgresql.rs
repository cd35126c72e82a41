//! `postgresql`: the local Postgres, its users and its parameters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use outrider_postgres::{Password, Settings, User, check_hba_line};
use outrider_store::Location;
use serde_json::Value;

use super::address::Address;
use super::archive::Archive;
use super::environment::Environment;
use super::error::Findings;
use super::section::{Section, shown};
use super::{bootstrap, programs, rules, tls};

const LISTEN_RULE: &str = "expected host:port, such as 127.0.0.1:5432 or *:5432";

/// The member that the Postgres belongs to, and its surroundings.
pub(super) struct MemberContext<'config> {
    pub(super) name: String,
    pub(super) scope: String,
    pub(super) data_directory: PathBuf,
    pub(super) state_directory: PathBuf,
    pub(super) supervisor_socket: PathBuf,
    pub(super) archive: Option<&'config Archive>,
    pub(super) environment: &'config Environment,
    /// This program, for the commands that Postgres starts.
    pub(super) program: PathBuf,
}

/// The data directory and the agent's state directory, which is beside it by default.
pub(super) fn directories(root: &Section<'_>, findings: &mut Findings) -> (PathBuf, PathBuf) {
    let data_directory = data_directory(&root.section("postgresql", findings), findings);
    let state_directory = root.path("state_dir", findings).unwrap_or_else(|| beside(&data_directory));
    (data_directory, state_directory)
}

/// The settings, and `host:port` by which others reach this Postgres.
pub(super) fn read(
    root: &Section<'_>,
    context: MemberContext<'_>,
    findings: &mut Findings,
) -> (Settings, String) {
    let section = root.section("postgresql", findings);
    must_lie_outside(root, &context, findings);
    let listen = section
        .parsed("listen", LISTEN_RULE, findings, |text| Address::parse(text, Some(5432)))
        .unwrap_or_else(|| Address { host: "127.0.0.1".to_owned(), port: 5432 });
    let connect_address = connect_address(&section, &listen, findings);
    let parameters = parameters(&section, findings);
    let authentication = section.section("authentication", findings);
    let superuser = user(&authentication, "superuser", "postgres", findings);
    let replication = user(&authentication, "replication", "replicator", findings);
    let rewind = match authentication.get("rewind") {
        Some(_) => user(&authentication, "rewind", "rewinder", findings),
        None => superuser.clone(),
    };
    let socket_directory = socket_directory(&parameters, &context, findings);
    let settings = Settings {
        name: context.name,
        scope: context.scope,
        socket_directory,
        bin_directory: bin_directory(&section, context.environment, findings),
        data_directory: context.data_directory,
        state_directory: context.state_directory,
        listen_addresses: listen.host,
        port: listen.port,
        supervisor_socket: context.supervisor_socket,
        superuser,
        replication,
        rewind,
        parameters,
        pg_hba: pg_hba(&section, findings),
        initdb: bootstrap::initdb(root, findings),
        archive_command: context
            .archive
            .map(|archive| command(&context.program, "wal-push", &archive.socket, "%p")),
        restore_command: context
            .archive
            .map(|archive| command(&context.program, "wal-fetch", &archive.socket, "%f %p")),
    };
    (settings, connect_address)
}

/// The member's own parameters, by lower-case name as Postgres compares them.
fn parameters(section: &Section<'_>, findings: &mut Findings) -> BTreeMap<String, String> {
    let section = section.section("parameters", findings);
    let mut parameters = BTreeMap::new();
    for (name, value) in section.entries().filter(|(_, value)| !value.is_null()) {
        match rules::parameter(name, value) {
            Ok(text) => {
                parameters.insert(name.to_ascii_lowercase(), text);
            }
            Err(rule) => findings.wrong(section.name(name), &shown(value), rule),
        }
    }
    parameters
}

fn connect_address(section: &Section<'_>, listen: &Address, findings: &mut Findings) -> String {
    let rule = "expected one host:port by which the other members reach this Postgres";
    let given = section.parsed("connect_address", rule, findings, |text| {
        Address::parse(text, Some(listen.port)).filter(Address::is_reachable)
    });
    if section.get("connect_address").is_none() && !listen.is_reachable() {
        findings.missing(
            section.name("connect_address"),
            "is missing: listen names no single address, so say by which host:port the other members reach this Postgres",
        );
    }
    given.as_ref().unwrap_or(listen).to_string()
}

fn data_directory(section: &Section<'_>, findings: &mut Findings) -> PathBuf {
    if section.get("data_dir").is_none() {
        findings.missing(
            section.name("data_dir"),
            "is missing: an absolute path, empty or with this member's data",
        );
    }
    let path = section.path("data_dir", findings).unwrap_or_default();
    if path == Path::new("/") {
        findings.wrong(section.name("data_dir"), &Value::from("/"), "expected a directory of its own");
    }
    path
}

/// Beside the data directory, not in it: a clone replaces everything in it.
pub(crate) fn beside(data_directory: &Path) -> PathBuf {
    let mut name = data_directory.file_name().unwrap_or_default().to_owned();
    name.push(".outrider");
    data_directory.with_file_name(name)
}

fn bin_directory(section: &Section<'_>, environment: &Environment, findings: &mut Findings) -> PathBuf {
    if section.get("bin_dir").is_some() {
        let given = section.path("bin_dir", findings).unwrap_or_default();
        let missing = programs::missing(&given);
        if !missing.is_empty() {
            let (name, given) = (section.name("bin_dir"), given.display());
            findings.warnings.push(format!("{name}: {given} has no {}", missing.join(", no ")));
        }
        return given;
    }
    let search_path = environment.get("PATH").map(String::as_str).unwrap_or_default();
    programs::find(search_path).unwrap_or_else(|| {
        findings.missing(
            section.name("bin_dir"),
            "is missing, and PostgreSQL's server programs are neither on PATH, nor where pg_config says, nor under /usr/lib/postgresql",
        );
        PathBuf::new()
    })
}

/// Where Postgres itself is configured to put its socket, or else beside the supervisor's, which both processes can reach.
/// Never in the data directory: pg_rewind fails on the socket of the server it copies from.
fn socket_directory(
    parameters: &BTreeMap<String, String>,
    context: &MemberContext<'_>,
    findings: &mut Findings,
) -> PathBuf {
    let usual = context.supervisor_socket.parent().unwrap_or(Path::new("/")).to_owned();
    let listed = parameters.get("unix_socket_directories").and_then(|list| list.split(',').next());
    let first = listed.map(|first| first.trim().trim_matches(['\'', '"'])).filter(|first| !first.is_empty());
    let Some(wanted) = first.map(PathBuf::from) else { return usual };
    if !lies_in(&wanted, &context.data_directory) {
        return wanted;
    }
    findings.warnings.push(format!(
        "postgresql.parameters.unix_socket_directories: {} lies in the data directory, where a socket makes every \
         pg_rewind from this member fail; the socket is in {}",
        wanted.display(),
        usual.display()
    ));
    usual
}

/// What the agent keeps must be outside the data directory, which a clone replaces.
fn must_lie_outside(root: &Section<'_>, context: &MemberContext<'_>, findings: &mut Findings) {
    let supervisor = root.section("supervisor", findings).name("socket");
    for (key, path) in
        [("state_dir".to_owned(), &context.state_directory), (supervisor, &context.supervisor_socket)]
    {
        if lies_in(path, &context.data_directory) {
            let rule = "lies in the data directory, which a clone replaces; put it elsewhere";
            findings.wrong(key, &Value::from(path.display().to_string()), rule);
        }
    }
}

/// Whether a path is inside a directory, also through links. Neither has to exist yet.
fn lies_in(path: &Path, directory: &Path) -> bool {
    let resolved = |path: &Path| {
        let there = path.ancestors().find_map(|there| Some((there, there.canonicalize().ok()?)));
        match there {
            Some((there, real)) => real.join(path.strip_prefix(there).unwrap_or(Path::new(""))),
            None => path.to_owned(),
        }
    };
    !directory.as_os_str().is_empty() && resolved(path).starts_with(resolved(directory))
}

fn user(authentication: &Section<'_>, kind: &str, usual: &str, findings: &mut Findings) -> User {
    let section = authentication.section(kind, findings);
    if section.get("password").is_none() && section.get("password_file").is_none() {
        findings
            .missing(section.name("password"), "is missing: give the password, or password_file with a path");
    }
    let password = section.secret("password", findings);
    let password = password.map(|secret| secret.expose().to_owned()).unwrap_or_default();
    let name = section.text("username", findings).unwrap_or_else(|| usual.to_owned());
    User { name, password: Password::new(password), tls: tls::read(&section, findings) }
}

fn pg_hba(section: &Section<'_>, findings: &mut Findings) -> Vec<String> {
    let Some(value) = section.get("pg_hba") else { return Vec::new() };
    let lines = value.as_array().and_then(|lines| {
        lines.iter().map(|line| line.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    let Some(lines) = lines else {
        findings.missing(section.name("pg_hba"), "expected a list of lines of pg_hba.conf");
        return Vec::new();
    };
    for line in &lines {
        // The server's version is not known here, so syntax of newer versions is accepted.
        if let Err(why) = check_hba_line(line, u32::MAX) {
            findings.wrong(section.name("pg_hba"), &Value::from(line.as_str()), why);
        }
    }
    lines
}

/// A command line for Postgres to hand to the shell. Postgres itself replaces `%p` and `%f`; `%%` is a percent sign.
fn command(program: &Path, verb: &str, socket: &Path, arguments: &str) -> String {
    format!("{} {verb} --socket {} {arguments}", quoted(program), quoted(socket))
}

/// A `restore_command` that asks the agent at this socket.
pub(crate) fn wal_fetch(socket: &Path) -> String {
    command(&super::own_program(), "wal-fetch", socket, "%f %p")
}

/// A `restore_command` that reads an archive itself where no agent serves it: that of the member's file, or the one at
/// `elsewhere`; and in it the WAL of `server`.
///
/// # Errors
/// When this program or the file cannot be found.
pub(crate) fn wal_fetch_from(
    file: &Path,
    elsewhere: Option<&Location>,
    server: &str,
) -> anyhow::Result<String> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let config = std::path::absolute(file).context("cannot find the configuration file")?;
    let mut command = format!("{} wal-fetch --config {}", quoted(&program), quoted(&config));
    if let Some(location) = elsewhere {
        command.push_str(&format!(" --archive {}", quoted(Path::new(&location.to_string()))));
    }
    // By the server's name no agent is asked: the one of this machine only serves its own Postgres.
    command.push_str(&format!(" --from-server {} %f %p", quoted(Path::new(server))));
    Ok(command)
}

/// In a command for Postgres to hand to the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''").replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_in_a_directory_through_links_too() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, root.path().join("link")).unwrap();
        for inside in ["data", "data/run", "data/run/deep", "link", "link/run"] {
            assert!(lies_in(&root.path().join(inside), &data), "{inside}");
        }
        for outside in ["", "data.outrider", "data.outrider/run", "elsewhere"] {
            assert!(!lies_in(&root.path().join(outside), &data), "{outside}");
        }
        let absent = root.path().join("absent");
        assert!(lies_in(&absent.join("run"), &absent) && !lies_in(&data, &absent));
        assert!(!lies_in(&data, Path::new("")), "it is missing");
    }

    #[test]
    fn a_command_survives_the_shell_and_postgres() {
        let command =
            command(Path::new("/opt/it's 100%/outrider"), "wal-push", Path::new("/run/o/archive.sock"), "%p");
        assert_eq!(command, r"'/opt/it'\''s 100%%/outrider' wal-push --socket '/run/o/archive.sock' %p");
    }
}
