//! A member's configuration: one YAML file with Patroni's keys, and the environment. Validated when it is loaded: all
//! errors are reported at once.

mod address;
mod archive;
mod bootstrap;
mod effective;
mod environment;
mod error;
mod etcd;
mod judge;
mod keys;
mod log;
mod origin;
mod policy;
mod postgresql;
mod programs;
mod rest;
mod retention;
mod rules;
#[cfg(test)]
pub(crate) mod sample;
mod section;
mod slot;
mod supervisor;
mod tls;
mod tried;
mod values;
mod written;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use outrider_dcs::EtcdOptions;
use outrider_postgres::Settings;
use serde_json::{Map, Value};

use self::error::Findings;
use self::section::Section;

pub(crate) use archive::{Archive, SOCKET as ARCHIVE_SOCKET};
pub(crate) use effective::effective;
pub(crate) use environment::Environment;
pub(crate) use error::ConfigError;
pub(crate) use judge::{Judged, Tried, judge, try_parameters};
pub(crate) use log::{Log, LogFormat};
pub(crate) use origin::{ArchiveOrigin, Origin, ReplicaMethod};
pub(crate) use policy::{MEMBER_SLOTS_TTL, first_policy, member_slots_ttl, policy, policy_tags};
pub(crate) use postgresql::{beside, wal_fetch, wal_fetch_from};
pub(crate) use rest::Rest;
pub(crate) use rules::Violation;
pub(crate) use rules::slots::declared as declared_slots;
pub(crate) use section::{DURATION_RULE, duration};
pub(crate) use slot::taken_slot;
pub(crate) use supervisor::{SOCKET as SUPERVISOR_SOCKET, Supervised};
pub(crate) use tried::{foreign, try_file};
pub(crate) use values::maximum_lag_on_replica;

/// Tags with a boolean.
const BOOLEAN_TAGS: [&str; 5] = ["nofailover", "nosync", "noloadbalance", "clonefrom", "nostream"];
/// Tags with a number.
const NUMBER_TAGS: [&str; 2] = ["failover_priority", "sync_priority"];
/// Tags with a text.
const TEXT_TAGS: [&str; 1] = ["replicatefrom"];

/// Largest configuration file, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Everything that a member is configured with.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The file it was read from.
    pub(crate) file: PathBuf,
    /// The cluster's name.
    pub(crate) scope: String,
    /// Prefix of its keys in the DCS.
    pub(crate) namespace: String,
    /// The member's name.
    pub(crate) name: String,
    /// How to reach the DCS.
    pub(crate) etcd: EtcdOptions,
    /// The REST API.
    pub(crate) rest: Rest,
    /// The local Postgres.
    pub(crate) postgres: Settings,
    /// `host:port` by which others reach the local Postgres.
    pub(crate) connect_address: String,
    /// The archive for WAL.
    pub(crate) archive: Option<Archive>,
    /// How the cluster is created when there is none.
    pub(crate) origin: Origin,
    /// How this member gets its data when it has none: the first method that works.
    pub(crate) replica_methods: Vec<ReplicaMethod>,
    /// The supervisor.
    pub(crate) supervisor: Supervised,
    /// The rules that a new cluster starts with.
    pub(crate) bootstrap_dcs: Value,
    /// Patroni's tags, published as they are.
    pub(crate) tags: Map<String, Value>,
    /// The log.
    pub(crate) log: Log,
    /// Files that passwords and keys are read from, including the configuration file when it has any.
    pub(crate) secret_files: Vec<PathBuf>,
}

/// A configuration, and its keys without effect.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The configuration.
    pub(crate) config: Config,
    /// One line for each key that does nothing here.
    pub(crate) warnings: Vec<String>,
}

/// Reads the file and the environment.
///
/// # Errors
/// For a file that cannot be read, and for all errors in it at once.
pub(crate) fn load(path: &Path, environment: &Environment) -> Result<Loaded, ConfigError> {
    let text = read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let mut document = parse(path, &text)?;
    environment::apply(environment, &mut document);
    let mut findings = Findings::default();
    keys::check(&document, &mut findings);
    let in_file = secret_files(path, &Value::Object(document.clone()));
    let mut config = config(&Section::root(&document), environment, &mut findings);
    config.secret_files = in_file;
    check_ports(&config, &mut findings);
    // A reader of this path may run in another directory.
    config.file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if !findings.errors.0.is_empty() {
        return Err(ConfigError::Keys { path: path.to_owned(), errors: findings.errors });
    }
    Ok(Loaded { config, warnings: findings.warnings })
}

fn config(root: &Section<'_>, environment: &Environment, findings: &mut Findings) -> Config {
    let scope = name(root, "scope", "the name of the cluster, the same for all its members", findings);
    let name = name(root, "name", "the name of this member, unique in its cluster", findings);
    if let Some(rule) = slot::fault(&name) {
        findings.wrong("name", &Value::from(name.as_str()), rule);
    }
    let (bootstrap_dcs, retry_timeout) = bootstrap::read(root, findings);
    let (data_directory, state_directory) = postgresql::directories(root, findings);
    let supervisor = supervisor::read(root, &state_directory, findings);
    let archive = archive::read(root, &scope, &supervisor.socket, findings);
    let origin = origin::read(root, archive.as_ref(), findings);
    let replica_methods =
        origin::replica_methods(&root.section("postgresql", findings), archive.as_ref(), findings);
    let context = postgresql::MemberContext {
        name: name.clone(),
        scope: scope.clone(),
        data_directory,
        state_directory,
        supervisor_socket: supervisor.socket.clone(),
        archive: archive.as_ref(),
        environment,
        program: own_program(),
    };
    let (postgres, connect_address) = postgresql::read(root, context, findings);
    Config {
        file: PathBuf::new(),
        scope,
        namespace: root.text("namespace", findings).unwrap_or_else(|| "service".to_owned()),
        name,
        etcd: etcd::read(root, retry_timeout, findings),
        rest: rest::read(root, findings),
        postgres,
        connect_address,
        archive,
        origin,
        replica_methods,
        supervisor,
        bootstrap_dcs,
        tags: tags(root, findings),
        log: log::read(root, findings),
        secret_files: Vec::new(),
    }
}

/// The configuration file when it holds a secret, and the files it names for secrets.
fn secret_files(file: &Path, document: &Value) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![document];
    while let Some(next) = open.pop() {
        for (key, value) in next.as_object().into_iter().flatten() {
            let name = key.strip_suffix("_file").unwrap_or(key);
            match value {
                Value::Object(_) => open.push(value),
                Value::Null => {}
                value if environment::is_secret(name) && name == key && !value.is_null() => {
                    files.push(file.to_owned());
                }
                Value::String(path) if environment::is_secret(name) => files.push(PathBuf::from(path)),
                _ => {}
            }
        }
    }
    files.sort();
    files.dedup();
    files
}

/// Two servers cannot share a port.
fn check_ports(config: &Config, findings: &mut Findings) {
    let (rest, postgres) = (config.rest.listen, &config.postgres);
    let hosts: Vec<&str> = postgres.listen_addresses.split(',').map(str::trim).collect();
    let everywhere =
        rest.ip().is_unspecified() || hosts.iter().any(|host| matches!(*host, "*" | "0.0.0.0" | "::"));
    let same = hosts.iter().any(|host| {
        host.parse::<IpAddr>().map_or(*host == "localhost" && rest.ip().is_loopback(), |ip| ip == rest.ip())
    });
    if rest.port() == postgres.port && (everywhere || same) {
        let rule = "is the port of Postgres (postgresql.listen); give the REST API another";
        findings.wrong("restapi.listen", &Value::from(rest.to_string()), rule);
    }
}

/// Without its own path Postgres would look for the program where its shell does.
fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("outrider"))
}

/// A name that is valid in a DCS key, in `/sync`'s list and in `application_name`.
fn name(root: &Section<'_>, key: &str, meaning: &str, findings: &mut Findings) -> String {
    if root.get(key).is_none() {
        findings.missing(key, format!("is missing: {meaning}"));
    }
    let rule = "expected 1 to 63 letters, digits, '-', '_' or '.'";
    root.parsed(key, rule, findings, |text| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_dots = text.chars().all(|c| c == '.');
        ((1..=63).contains(&text.len()) && text.chars().all(fits) && !is_dots).then(|| text.to_owned())
    })
    .unwrap_or_default()
}

fn tags(root: &Section<'_>, findings: &mut Findings) -> Map<String, Value> {
    let section = root.section("tags", findings);
    let mut tags: Map<String, Value> =
        section.entries().map(|(key, value)| (key.clone(), value.clone())).collect();
    // Other members read them by type, however they are written here.
    for key in BOOLEAN_TAGS {
        if let Some(truth) = section.boolean(key, findings) {
            tags.insert(key.to_owned(), Value::Bool(truth));
        }
    }
    for key in NUMBER_TAGS {
        let rule = "expected a whole number, 0 or more";
        if let Some(number) = section.parsed(key, rule, findings, |text| text.parse::<u32>().ok()) {
            tags.insert(key.to_owned(), Value::from(number));
        }
    }
    // Tags are for arbitrary names, but one that nearly matches a known tag is a mistake.
    for key in section.entries().map(|(key, _)| key) {
        let counts = BOOLEAN_TAGS.iter().chain(&NUMBER_TAGS).chain(&TEXT_TAGS).copied();
        if let Some(meant) = keys::misspelt(key, counts) {
            findings.missing(section.name(key), format!("is not a known tag; did you mean {meant}?"));
        }
    }
    tags
}

fn read(path: &Path) -> std::io::Result<String> {
    let length = std::fs::metadata(path)?.len();
    if length > FILE_MAX {
        return Err(std::io::Error::other(format!("it has {length} bytes, more than {FILE_MAX}")));
    }
    std::fs::read_to_string(path)
}

fn parse(path: &Path, text: &str) -> Result<Map<String, Value>, ConfigError> {
    let bad = |problem: String| ConfigError::Yaml { path: path.to_owned(), problem };
    let document = written::read(text).map_err(|fault| bad(fault.without_snippet().to_string()))?;
    match document {
        Value::Object(map) => Ok(map),
        Value::Null => Err(bad("it is empty; scope, name, etcd3 and postgresql are needed".to_owned())),
        _ => Err(bad("expected keys with values at the top".to_owned())),
    }
}
