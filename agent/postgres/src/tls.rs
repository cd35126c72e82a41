//! How connections to other members' Postgres are protected: libpq's `sslmode` and related settings, for the agent's own sessions
//! as well as for the programs it runs. A unix socket needs none of it.

mod certificate;
mod connect;
mod connector;
mod verifier;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub(crate) use self::connect::{connect, greet};
use self::connector::Connector;
use crate::error::Error;

/// What the other end must prove, in libpq's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted only if the server refuses anything else.
    Allow,
    /// Encrypted if the server can: libpq's default.
    #[default]
    Prefer,
    /// Encrypted, with anybody; with authorities, the same as [`SslMode::VerifyCa`].
    Require,
    /// With a server whose certificate an authority has signed.
    VerifyCa,
    /// And that has the name or address connected to.
    VerifyFull,
}

/// Whether the password's proof is bound to the encrypted connection, so that nobody in between can pass it on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If both can: libpq's default.
    #[default]
    Prefer,
    /// Or the connection fails.
    Require,
}

/// The protection of one user's connections; `None` means libpq's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// `sslmode`.
    pub mode: Option<SslMode>,
    /// `sslrootcert`: a PEM file with the authorities.
    pub authorities: Option<PathBuf>,
    /// `sslcert` and `sslkey`: this end's own certificate, PEM files.
    pub own: Option<(PathBuf, PathBuf)>,
    /// `sslcrl`: a PEM file with what the authorities have revoked.
    pub revoked: Option<PathBuf>,
    /// `sslcrldir`: a directory of such files.
    pub revoked_directory: Option<PathBuf>,
    /// `gssencmode` is `disable`. The agent's own sessions never use GSSAPI.
    pub without_gss: bool,
    /// `channel_binding`.
    pub channel_binding: Option<ChannelBinding>,
}

impl SslMode {
    const WORDS: [(&'static str, SslMode); 6] = [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];

    /// libpq's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, mode)| *mode == self).map_or("", |(word, _)| word)
    }

    /// From libpq's word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, mode)| *mode)
    }

    /// Whether the certificate must be checked, so that authorities are needed.
    #[must_use]
    pub fn verifies(self) -> bool {
        matches!(self, SslMode::VerifyCa | SslMode::VerifyFull)
    }
}

impl ChannelBinding {
    const WORDS: [(&'static str, ChannelBinding); 3] = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];

    /// libpq's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, binding)| *binding == self).map_or("", |(word, _)| word)
    }

    /// From libpq's word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, binding)| *binding)
    }
}

impl Tls {
    /// What is set, by libpq's names, for a connection string and for people.
    #[must_use]
    pub fn given(&self) -> Vec<(&'static str, String)> {
        let path = |path: &PathBuf| path.display().to_string();
        let (certificate, key) =
            self.own.as_ref().map(|(certificate, key)| (path(certificate), path(key))).unzip();
        [
            ("sslmode", self.mode.map(|mode| mode.word().to_owned())),
            ("sslrootcert", self.authorities.as_ref().map(path)),
            ("sslcert", certificate),
            ("sslkey", key),
            ("sslcrl", self.revoked.as_ref().map(path)),
            ("sslcrldir", self.revoked_directory.as_ref().map(path)),
            ("gssencmode", self.without_gss.then(|| "disable".to_owned())),
            ("channel_binding", self.channel_binding.map(|binding| binding.word().to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }

    /// Whether an unencrypted connection is unacceptable.
    pub(crate) fn is_demanded(&self) -> bool {
        matches!(self.mode(), SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull)
    }

    pub(crate) fn mode(&self) -> SslMode {
        self.mode.unwrap_or_default()
    }

    /// Reads the files as a connection would.
    ///
    /// # Errors
    /// When one of them cannot be read, holds something else, or is a key that others can read, which libpq refuses.
    pub fn check(&self) -> Result<(), Error> {
        if let Some((_, key)) = &self.own {
            is_private(key)?;
        }
        if self.mode() == SslMode::Disable { Ok(()) } else { Connector::new(self).map(drop) }
    }
}

/// libpq's rule (fe-secure-openssl.c): a key belongs to its owner alone, and one of root's may be readable by a group.
fn is_private(key: &Path) -> Result<(), Error> {
    let unreadable = |source| Error::Read { path: key.to_owned(), source };
    let metadata = fs::metadata(key).map_err(unreadable)?;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden == 0 {
        return Ok(());
    }
    Err(unreadable(io::Error::other("libpq refuses a key that others can read: chmod 600 it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_passed_on_in_libpqs_words() {
        let tls = Tls {
            mode: Some(SslMode::VerifyFull),
            authorities: Some("/etc/ca.crt".into()),
            own: Some(("/etc/own.crt".into(), "/etc/own.key".into())),
            revoked: Some("/etc/ca.crl".into()),
            revoked_directory: None,
            without_gss: true,
            channel_binding: Some(ChannelBinding::Require),
        };
        let given: Vec<String> =
            tls.given().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            given.join(" "),
            "sslmode=verify-full sslrootcert=/etc/ca.crt sslcert=/etc/own.crt sslkey=/etc/own.key sslcrl=/etc/ca.crl \
             gssencmode=disable channel_binding=require"
        );
        assert_eq!(Tls::default().given(), []);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_as_libpq_does() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        fs::write(&key, "").unwrap();
        for (mode, taken) in [(0o600, true), (0o400, true), (0o644, false), (0o604, false), (0o620, false)] {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_private(&key).is_ok(), taken, "{mode:o}");
        }
        assert!(is_private(&directory.path().join("absent")).is_err());
    }
}
