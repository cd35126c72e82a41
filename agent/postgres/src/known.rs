//! What a server knows of its parameters, from `pg_settings`, and whether it would accept a value. Changes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use crate::error::Error;
use crate::number;
use crate::observer::Observer;
use crate::session::Session;

/// Time limit for the one query.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(3);

const ASK: &str = "
SELECT current_setting('server_version_num')::int, current_setting('server_version'),
       lower(name), context, vartype, unit, min_val, max_val, coalesce(enumvals, '{}')
FROM pg_settings";

/// Parameters that no file may set, though `pg_settings` does not say so.
const NEVER_IN_A_FILE: &[&str] = &[
    "config_file",
    "is_superuser",
    "role",
    "seed",
    "session_authorization",
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
];

/// Names of earlier versions that the server still accepts.
const FORMER_NAMES: &[&str] = &["sort_mem", "vacuum_mem", "force_parallel_mode", "ssl_ecdh_curve"];

/// All parameters of one server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KnownParameters {
    /// `server_version_num`.
    version_number: u32,
    /// `server_version`, for people.
    version: String,
    parameters: BTreeMap<String, Parameter>,
}

/// A row of `pg_settings`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Parameter {
    context: String,
    vartype: String,
    unit: Option<String>,
    min: Option<f64>,
    max: Option<f64>,
    values: Vec<String>,
}

/// Why a server would reject a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterFault {
    /// There is no parameter of this name.
    Unknown,
    /// The value is wrong, or it may not be set at all.
    Refused(String),
}

impl Observer {
    /// Queries the running server.
    ///
    /// # Errors
    /// When it does not let us in, or does not answer in time.
    pub async fn known_parameters(&self) -> Result<KnownParameters, Error> {
        let session = Session::open(self.settings()).await?;
        let rows = session.within("list its parameters", LIMIT, session.client().query(ASK, &[])).await?;
        let first = rows.first();
        Ok(KnownParameters {
            version_number: first.map_or(0, |row| row.get::<_, i32>(0).cast_unsigned()),
            version: first.map(|row| row.get(1)).unwrap_or_default(),
            parameters: rows.iter().map(parameter).collect(),
        })
    }
}

fn parameter(row: &Row) -> (String, Parameter) {
    let number = |at: usize| row.get::<_, Option<&str>>(at).and_then(|text| text.parse().ok());
    let parameter = Parameter {
        context: row.get(3),
        vartype: row.get(4),
        unit: row.get(5),
        min: number(6),
        max: number(7),
        values: row.get(8),
    };
    (row.get(2), parameter)
}

impl KnownParameters {
    /// `server_version_num`, such as 150016.
    #[must_use]
    pub fn version_number(&self) -> u32 {
        self.version_number
    }

    /// `server_version`, such as `15.16`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// All their names, in lower case.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.keys().map(String::as_str)
    }

    /// Whether the server would accept this value from its files. For a text only the server itself can say more.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, name: &str, value: &str) -> Result<(), ParameterFault> {
        let small = name.to_ascii_lowercase();
        let Some(parameter) = self.parameters.get(&small) else {
            return if is_custom(&small) || FORMER_NAMES.contains(&small.as_str()) {
                Ok(())
            } else {
                Err(ParameterFault::Unknown)
            };
        };
        if parameter.context == "internal" || NEVER_IN_A_FILE.contains(&small.as_str()) {
            return Err(ParameterFault::Refused("the server does not allow it to be set".to_owned()));
        }
        parameter.check(value).map_err(ParameterFault::Refused)
    }
}

/// For a parameter of an extension, which may not be loaded: names with a dot, as the server accepts them.
fn is_custom(name: &str) -> bool {
    let is_part = |part: &str| {
        let mut characters = part.chars();
        let begins = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
        let goes_on = |c: char| begins(c) || c.is_ascii_digit() || c == '$';
        characters.next().is_some_and(begins) && characters.all(goes_on)
    };
    name.contains('.') && name.split('.').all(is_part)
}

impl Parameter {
    fn check(&self, value: &str) -> Result<(), String> {
        match self.vartype.as_str() {
            "bool" if is_boolean(value) => Ok(()),
            "bool" => Err("expected a boolean: on or off".to_owned()),
            "integer" => self.within(number::integer(value, self.unit.as_deref())?),
            "real" => self.within(number::real(value, self.unit.as_deref())?),
            "enum" if self.has(value) => Ok(()),
            "enum" => Err(format!("expected one of {}", self.values.join(", "))),
            _ if value.contains('\0') => Err("a text cannot have a zero byte in it".to_owned()),
            _ => Ok(()),
        }
    }

    fn within(&self, number: f64) -> Result<(), String> {
        let too_small = self.min.is_some_and(|min| number < min);
        let too_large = self.max.is_some_and(|max| number > max);
        if !(too_small || too_large || number.is_nan()) {
            return Ok(());
        }
        let unit = self.unit.as_ref().map(|unit| format!(" in units of {unit}")).unwrap_or_default();
        let end = |end: Option<f64>| end.map_or_else(|| "any".to_owned(), |end| end.to_string());
        Err(format!("{number}{unit} is outside the range from {} to {}", end(self.min), end(self.max)))
    }

    /// Besides the values that it shows, a server accepts older words for some of them.
    fn has(&self, value: &str) -> bool {
        const FORMER_VALUES: &[(&str, &str)] =
            &[("logical", "archive"), ("logical", "hot_standby"), ("debug1", "debug")];
        let shown = |text: &str| self.values.iter().any(|one| one.eq_ignore_ascii_case(text));
        let switches = (shown("on") || shown("off")) && is_word(value);
        let former =
            FORMER_VALUES.iter().any(|(beside, word)| shown(beside) && word.eq_ignore_ascii_case(value));
        shown(value) || switches || former
    }
}

/// What an enumeration accepts for on and off.
fn is_word(value: &str) -> bool {
    ["true", "false", "yes", "no", "1", "0"].iter().any(|word| word.eq_ignore_ascii_case(value))
}

/// Any unambiguous prefix of these words.
fn is_boolean(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    matches!(value.as_str(), "0" | "1")
        || begins("true", 1)
        || begins("false", 1)
        || begins("yes", 1)
        || begins("no", 1)
        || begins("on", 2)
        || begins("off", 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> KnownParameters {
        let parameter =
            |vartype: &str, unit: Option<&str>, range: Option<(f64, f64)>, values: &[&str]| Parameter {
                context: "sighup".to_owned(),
                vartype: vartype.to_owned(),
                unit: unit.map(str::to_owned),
                min: range.map(|(min, _)| min),
                max: range.map(|(_, max)| max),
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            };
        let mut parameters = BTreeMap::new();
        let mut add = |name: &str, parameter: Parameter| parameters.insert(name.to_owned(), parameter);
        add("max_connections", parameter("integer", None, Some((1.0, 262_143.0)), &[]));
        add("shared_buffers", parameter("integer", Some("8kB"), Some((16.0, 1_073_741_823.0)), &[]));
        add("work_mem", parameter("integer", Some("kB"), Some((64.0, 2_147_483_647.0)), &[]));
        add("deadlock_timeout", parameter("integer", Some("ms"), Some((1.0, 2_147_483_647.0)), &[]));
        add("random_page_cost", parameter("real", None, Some((0.0, 1e308)), &[]));
        add("jit", parameter("bool", None, None, &[]));
        add("wal_level", parameter("enum", None, None, &["minimal", "replica", "logical"]));
        add("synchronous_commit", parameter("enum", None, None, &["local", "remote_write", "on", "off"]));
        add("log_destination", parameter("string", None, None, &[]));
        add(
            "block_size",
            Parameter { context: "internal".to_owned(), ..parameter("integer", None, None, &[]) },
        );
        KnownParameters { version_number: 150_000, version: "15.0".to_owned(), parameters }
    }

    #[test]
    fn what_the_server_takes_is_taken() {
        for (name, value) in [
            ("max_connections", "100"),
            ("MAX_CONNECTIONS", " 0x64 "),
            ("shared_buffers", "128MB"),
            ("shared_buffers", "1.5 GB"),
            ("shared_buffers", "16384"),
            ("work_mem", "4096kB"),
            ("deadlock_timeout", "1s"),
            ("deadlock_timeout", "1.5min"),
            ("random_page_cost", "1.1"),
            ("random_page_cost", "4"),
            ("jit", "tr"),
            ("jit", "OFF"),
            ("wal_level", "Logical"),
            ("wal_level", "hot_standby"),
            ("synchronous_commit", "true"),
            ("log_destination", "anything"),
            ("my_extension.knob", "x"),
            ("a.b.c$1", ""),
        ] {
            assert_eq!(known().check(name, value), Ok(()), "{name} = {value:?}");
        }
    }

    #[test]
    fn what_the_server_would_refuse_is_refused_with_the_reason() {
        for (name, value, words) in [
            ("max_connections", "500ABC", "no unit"),
            ("max_connections", "", "whole number"),
            ("max_connections", "ten", "whole number"),
            ("max_connections", "0", "0 is outside the range from 1 to 262143"),
            ("max_connections", "99999999999", "too large"),
            ("shared_buffers", "8kB", "1 in units of 8kB is outside the range"),
            ("work_mem", "64 apples", "kB, MB, GB, TB"),
            ("work_mem", "4mb", "kB, MB, GB, TB"),
            ("work_mem", "1MB x", "kB, MB, GB, TB"),
            ("deadlock_timeout", "1 MB", "ms, s, min, h, d"),
            ("random_page_cost", "cheap", "number"),
            ("random_page_cost", "-1", "outside the range"),
            ("jit", "o", "boolean"),
            ("jit", "maybe", "boolean"),
            ("jit", " on", "boolean"),
            ("wal_level", "debug", "minimal, replica, logical"),
            ("synchronous_commit", "debug", "expected one of"),
            ("block_size", "8192", "does not allow"),
        ] {
            match known().check(name, value) {
                Err(ParameterFault::Refused(why)) => {
                    assert!(why.contains(words), "{name} = {value:?}: {why}")
                }
                other => panic!("{name} = {value:?}: {other:?}"),
            }
        }
        for name in ["shared_bufers", "", "a b", "1x.y", "x..y", ".x"] {
            assert_eq!(known().check(name, "1"), Err(ParameterFault::Unknown), "{name:?}");
        }
    }
}
