//! What is wrong with a configuration: every error with its key, its value and the rule. Secrets are not shown.

use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file.
    #[error("cannot read the configuration file {path}; give the path of the member's YAML file")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What is in the file.
    #[error("cannot read {path} as YAML: {problem}")]
    Yaml {
        /// Which.
        path: PathBuf,
        /// What is wrong, and on which line; without the surrounding text, which may hold a password.
        problem: String,
    },
    /// The values.
    #[error("{} in the configuration {path}:{errors}", count(.errors))]
    Keys {
        /// The file.
        path: PathBuf,
        /// All of them.
        errors: KeyErrors,
    },
}

/// All errors of one configuration, in the order of reading.
#[derive(Debug, Default)]
pub(crate) struct KeyErrors(pub(crate) Vec<KeyError>);

/// One error.
#[derive(Debug)]
pub(crate) struct KeyError {
    /// The key with the sections before it, such as `restapi.listen`.
    pub(crate) key: String,
    /// The value as found; `None` when it is absent or secret.
    pub(crate) value: Option<Value>,
    /// What it should be.
    pub(crate) rule: String,
}

/// Collected while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What must be fixed.
    pub(super) errors: KeyErrors,
    /// What has no effect.
    pub(super) warnings: Vec<String>,
}

impl Findings {
    /// The key is there and its value breaks the rule.
    pub(super) fn wrong(&mut self, key: impl Into<String>, value: &Value, rule: impl Into<String>) {
        self.errors.0.push(KeyError { key: key.into(), value: Some(value.clone()), rule: rule.into() });
    }

    /// The key is absent, or its value must not be shown.
    pub(super) fn missing(&mut self, key: impl Into<String>, rule: impl Into<String>) {
        self.errors.0.push(KeyError { key: key.into(), value: None, rule: rule.into() });
    }
}

fn count(errors: &KeyErrors) -> String {
    match errors.0.len() {
        1 => "1 error".to_owned(),
        many => format!("{many} errors"),
    }
}

impl fmt::Display for KeyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}: {value}: {}", self.key, self.rule),
            None => write!(f, "{}: {}", self.key, self.rule),
        }
    }
}
