//! libpq connection strings: those for standbys, `pg_basebackup` and `pg_rewind`, and the address in one.

use std::fmt::Write as _;
use std::path::Path;

use crate::settings::User;

/// Where another member's Postgres listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Upstream {
    /// From the `conn_url` that a member publishes, such as `postgres://10.0.0.1:5432/postgres`; `None` when it is invalid.
    #[must_use]
    pub fn from_url(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))?;
        let authority = rest.split(['/', '?']).next()?;
        let address = authority.rsplit('@').next()?;
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            Some(_) | None => (address, 5432),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then(|| Upstream { host: host.to_owned(), port })
    }
}

/// A connection string. The password is in `password_file`, never in here. `options`: the session's own settings.
pub(crate) fn conninfo(
    upstream: &Upstream,
    user: &User,
    password_file: &Path,
    application_name: &str,
    options: &str,
) -> String {
    let mut text = String::new();
    let mut add = |key: &str, value: &str| {
        if !text.is_empty() {
            text.push(' ');
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "{key}={}", quote(value));
    };
    add("host", &upstream.host);
    add("port", &upstream.port.to_string());
    add("user", &user.name);
    add("passfile", &password_file.to_string_lossy());
    add("application_name", application_name);
    add("options", options);
    user.tls.given().iter().for_each(|(key, value)| add(key, value));
    // A dead host swallows connections instead of refusing them: do not wait longer than an election takes.
    add("connect_timeout", "3");
    add("tcp_user_timeout", "5000");
    add("keepalives_idle", "5");
    add("keepalives_interval", "2");
    add("keepalives_count", "3");
    text
}

/// Host and port of a `primary_conninfo`; `None` when it has no host.
pub(crate) fn address(conninfo: &str) -> Option<(String, u16)> {
    let host = value(conninfo, "host")?;
    let port = value(conninfo, "port").and_then(|port| port.parse().ok()).unwrap_or(5432);
    Some((host, port))
}

/// libpq's quoting.
fn quote(value: &str) -> String {
    let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:".contains(c));
    if plain { value.to_owned() } else { format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'")) }
}

fn value(conninfo: &str, wanted: &str) -> Option<String> {
    let mut characters = conninfo.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        characters.peek()?;
        let mut key = String::new();
        while let Some(c) = characters.next_if(|c| *c != '=') {
            key.push(c);
        }
        characters.next()?;
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = characters.next_if_eq(&'\'').is_some();
        let mut text = String::new();
        while let Some(c) = characters.next_if(|c| if quoted { *c != '\'' } else { !c.is_whitespace() }) {
            text.push(if c == '\\' { characters.next()? } else { c });
        }
        if quoted {
            characters.next()?;
        }
        if key.trim() == wanted {
            return Some(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Password;
    use crate::tls::{SslMode, Tls};

    #[test]
    fn an_address_is_found_again_whatever_is_in_it() {
        let upstream = Upstream { host: "a b'c\\".to_owned(), port: 7 };
        let options = r"-c host=h -c a=b\ c";
        let mut user = User {
            name: "it's me".to_owned(),
            password: Password::new("secret".to_owned()),
            tls: Tls::default(),
        };
        let of = |user: &User| conninfo(&upstream, user, Path::new("/run/pass file"), "member1", options);
        let text = of(&user);
        assert_eq!(address(&text), Some((upstream.host.clone(), 7)));
        assert_eq!(value(&text, "user").as_deref(), Some("it's me"));
        assert_eq!(value(&text, "passfile").as_deref(), Some("/run/pass file"));
        assert_eq!(value(&text, "options").as_deref(), Some(options));
        assert_eq!(value(&text, "sslmode"), None);
        user.tls = Tls {
            mode: Some(SslMode::VerifyFull),
            authorities: Some("/etc/my ca's.crt".into()),
            ..Tls::default()
        };
        assert_eq!(value(&of(&user), "sslmode").as_deref(), Some("verify-full"));
        assert_eq!(value(&of(&user), "sslrootcert").as_deref(), Some("/etc/my ca's.crt"));
        assert_eq!(address(""), None);
    }

    #[test]
    fn members_urls_are_read() {
        let read = |url| Upstream::from_url(url).map(|upstream| (upstream.host, upstream.port));
        assert_eq!(read("postgres://10.0.0.1:5433/postgres"), Some(("10.0.0.1".to_owned(), 5433)));
        assert_eq!(read("postgres://[::1]:5433/postgres"), Some(("::1".to_owned(), 5433)));
        assert_eq!(read("postgres://[::1]/postgres"), Some(("::1".to_owned(), 5432)));
        assert_eq!(read("http://10.0.0.1:5433"), None);
        assert_eq!(read("postgres://:5433"), None);
    }
}
