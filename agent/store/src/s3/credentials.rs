//! The keys that requests are signed with: the configured ones, or the current content of files, which whoever rotates keys
//! replaces. Asks no service for any.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{info, warn};

use super::options::{CredentialFiles, OpenError, S3Options};
use crate::{Secret, causes};

/// One set of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) access_key_id: Secret,
    pub(super) secret_access_key: Secret,
    /// For temporary keys.
    pub(super) session_token: Option<Secret>,
}

/// Identifies one state of a file: another one has another time, length or inode.
type Stamp = Option<(i64, i64, u64, u64)>;

/// The keys of one store.
#[derive(Debug)]
pub(super) struct Credentials {
    given: Keys,
    files: CredentialFiles,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    keys: Arc<Keys>,
    stamps: Vec<Stamp>,
}

impl Credentials {
    /// Reads the files.
    pub(super) fn open(options: &S3Options) -> Result<Self, OpenError> {
        let given = Keys {
            access_key_id: options.access_key_id.clone(),
            secret_access_key: options.secret_access_key.clone(),
            session_token: options.session_token.clone(),
        };
        let files = options.credential_files.clone();
        let stamps = stamps(&files);
        let keys = read(&given, &files).map_err(|cause| OpenError::Credentials { cause })?;
        let known = Mutex::new(Known { keys: Arc::new(keys), stamps });
        Ok(Credentials { given, files, known })
    }

    /// The current keys. If a changed file cannot be read, that is logged and the keys stay as they were.
    pub(super) fn current(&self) -> Arc<Keys> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.files);
        if now != known.stamps {
            match read(&self.given, &self.files) {
                Ok(keys) if keys == *known.keys => {}
                Ok(keys) => {
                    info!("the credentials for the archive's store have changed");
                    known.keys = Arc::new(keys);
                }
                Err(fault) => {
                    warn!(%fault, "cannot read the changed keys of the archive's store: continuing with the old ones")
                }
            }
            known.stamps = now;
        }
        known.keys.clone()
    }
}

fn stamps(files: &CredentialFiles) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let found = fs::metadata(path).ok()?;
        Some((found.mtime(), found.mtime_nsec(), found.len(), found.ino()))
    };
    files.paths().map(stamp).collect()
}

fn read(given: &Keys, files: &CredentialFiles) -> Result<Keys, String> {
    let one = |path: &Option<PathBuf>| -> Result<Option<Secret>, String> {
        path.as_deref().map(Secret::from_file).transpose().map_err(|fault| causes(&fault))
    };
    let mut keys = given.clone();
    if let Some((path, profile)) = &files.shared {
        keys = shared(path, profile)?;
    }
    if let Some(id) = one(&files.access_key_id)? {
        keys.access_key_id = id;
    }
    if let Some(secret) = one(&files.secret_access_key)? {
        keys.secret_access_key = secret;
    }
    if let Some(token) = one(&files.session_token)? {
        keys.session_token = Some(token);
    }
    Ok(keys)
}

/// The shared credentials file of Amazon's tools: sections of names and values.
fn shared(path: &Path, profile: &str) -> Result<Keys, String> {
    let text =
        fs::read_to_string(path).map_err(|fault| format!("cannot read {}: {fault}", path.display()))?;
    let mut inside = false;
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = section.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside) {
            let value = Some(value.trim()).filter(|value| !value.is_empty()).map(Secret::new);
            match name.trim().to_ascii_lowercase().as_str() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    match (id, secret) {
        (Some(access_key_id), Some(secret_access_key)) => {
            Ok(Keys { access_key_id, secret_access_key, session_token: token })
        }
        _ => Err(format!(
            "{} has no aws_access_key_id and aws_secret_access_key in the section [{profile}]",
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::options::tests::options;

    fn shown(keys: &Keys) -> String {
        let token = keys.session_token.as_ref().map_or("-", Secret::expose);
        format!("{} {} {token}", keys.access_key_id.expose(), keys.secret_access_key.expose())
    }

    #[test]
    fn files_that_change_are_read_again_and_a_broken_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            // Replaced by a rename, as by tools that must not leave half a file.
            let (new, path) = (directory.path().join("new"), directory.path().join(name));
            fs::write(&new, text).unwrap();
            fs::rename(new, &path).unwrap();
            path
        };
        let files = CredentialFiles {
            secret_access_key: Some(write("secret", "one\n")),
            session_token: Some(write("token", "first\n")),
            ..CredentialFiles::default()
        };
        let credentials = Credentials::open(&S3Options { credential_files: files, ..options() }).unwrap();
        assert_eq!(shown(&credentials.current()), "key one first");
        write("secret", "two");
        write("token", "second");
        assert_eq!(shown(&credentials.current()), "key two second");
        write("secret", "");
        assert_eq!(shown(&credentials.current()), "key two second");
        write("secret", "three");
        assert_eq!(shown(&credentials.current()), "key three second");
    }

    #[test]
    fn a_profile_is_read_from_the_shared_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        let text = "# x\n[default]\naws_access_key_id = a\naws_secret_access_key=b=\n\n[ backup ]\nAWS_ACCESS_KEY_ID=c\n\
                    aws_secret_access_key = d\naws_session_token = e\nregion = f\n[half]\naws_access_key_id=g\n";
        fs::write(&path, text).unwrap();
        let of = |profile: &str| {
            let files = CredentialFiles {
                shared: Some((path.clone(), profile.to_owned())),
                ..CredentialFiles::default()
            };
            let opened = Credentials::open(&S3Options { credential_files: files, ..options() });
            opened.map(|credentials| shown(&credentials.current())).map_err(|fault| causes(&fault))
        };
        assert_eq!(of("default"), Ok("a b= -".to_owned()));
        assert_eq!(of("backup"), Ok("c d e".to_owned()));
        for profile in ["half", "nobody"] {
            assert!(of(profile).unwrap_err().contains(&format!("in the section [{profile}]")));
        }
    }
}
