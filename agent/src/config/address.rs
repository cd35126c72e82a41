//! Network addresses as people write them: `host:port`, `*:port`, `[::1]:port`.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

/// A host or a list of hosts, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// As written, without the brackets of IPv6.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
}

impl Address {
    /// Parses `host:port`; the port is optional when there is a default.
    pub(super) fn parse(text: &str, usual_port: Option<u16>) -> Option<Self> {
        let text = text.trim();
        let (host, port) = match text.rsplit_once(':') {
            // Without brackets, a text with several colons is an IPv6 address without a port.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
            _ => (text, usual_port?),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty() && port != 0).then(|| Address { host: host.to_owned(), port })
    }

    /// Whether it means all addresses of the machine, which is not an address to give to others.
    pub(super) fn is_wildcard(&self) -> bool {
        matches!(self.host.as_str(), "*" | "0.0.0.0" | "::")
    }

    /// Whether it is a single host that can be given to others.
    pub(super) fn is_reachable(&self) -> bool {
        !self.is_wildcard() && !self.host.contains(',')
    }

    /// The first address that the name resolves to.
    pub(super) fn resolve(&self) -> std::io::Result<SocketAddr> {
        let host = if self.host == "*" { "0.0.0.0" } else { &self.host };
        (host, self.port)
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| std::io::Error::other("the name has no address"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, shown) in [
            ("127.0.0.1:8008", "127.0.0.1:8008"),
            ("[::1]:8008", "[::1]:8008"),
            ("::1", "[::1]:5432"),
            ("db1.example.org", "db1.example.org:5432"),
            ("*:6432", "*:6432"),
            ("127.0.0.1,10.0.0.1:5433", "127.0.0.1,10.0.0.1:5433"),
        ] {
            assert_eq!(
                Address::parse(text, Some(5432)).map(|address| address.to_string()).as_deref(),
                Some(shown)
            );
        }
        for bad in ["", ":5432", "host:", "host:70000", "host:0"] {
            assert_eq!(Address::parse(bad, Some(5432)), None, "{bad}");
        }
    }
}
