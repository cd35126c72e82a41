//! What a failed request to one endpoint means: whether it was carried out, whether another endpoint can serve it, whether
//! a retry can help.

use std::error::Error as StdError;
use std::io;

use etcd_client::Error as EtcdError;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use crate::error::Cause;

/// Why one endpoint did not answer a request.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was never sent, or etcd says that it did nothing. Another endpoint, or a later attempt, may serve it.
    NotDone(Cause),
    /// It was sent, and its outcome is not known.
    MaybeDone(Cause),
    /// The token has expired: authenticate again. Nothing was done.
    StaleToken(Cause),
    /// The connection cannot be trusted: wrong certificate, perhaps only at this endpoint.
    Distrusted(Cause),
    /// Authentication has been turned on in etcd, and the request had no user. Nothing was done.
    NoUser(Cause),
    /// etcd refuses the user or the request, at every endpoint.
    Refused(Cause),
    /// etcd does not know the lease.
    LeaseGone,
}

impl Failure {
    /// The deadline of one request passed.
    pub(super) fn late(_: Elapsed) -> Self {
        Failure::MaybeDone("no answer in time".into())
    }

    /// For a connection being made: nothing but reading was done on it.
    pub(super) fn while_connecting(self) -> Self {
        match self {
            Failure::MaybeDone(cause) => Failure::NotDone(cause),
            other => other,
        }
    }
}

/// What the error means, with a readable cause.
pub(super) fn classify(error: EtcdError) -> Failure {
    let words: Cause = in_words(&error).into();
    match by_words(error) {
        Failure::NotDone(_) => Failure::NotDone(words),
        Failure::MaybeDone(_) => Failure::MaybeDone(words),
        Failure::StaleToken(_) => Failure::StaleToken(words),
        Failure::Distrusted(_) => Failure::Distrusted(words),
        Failure::NoUser(_) => Failure::NoUser(words),
        Failure::Refused(_) => Failure::Refused(words),
        Failure::LeaseGone => Failure::LeaseGone,
    }
}

/// etcd's own words are the only reliable sign: its gRPC codes are shared (etcd, api/v3rpc/rpctypes/error.go).
fn by_words(error: EtcdError) -> Failure {
    let EtcdError::GRpcStatus(status) = &error else {
        return match error {
            EtcdError::LeaseKeepAliveError(words) if words == "lease not found" => Failure::LeaseGone,
            EtcdError::InvalidUri(_) | EtcdError::InvalidArgs(_) | EtcdError::InvalidMetadataValue(_) => {
                Failure::Refused(boxed(error))
            }
            other => by_transport(boxed(other)),
        };
    };
    let words = status.message().to_owned();
    let says = |part: &str| words.contains(part);
    if says("requested lease not found") {
        Failure::LeaseGone
    } else if says("invalid auth token") || says("revision of auth store is old") {
        Failure::StaleToken(boxed(error))
    } else if says("user name is empty") {
        Failure::NoUser(boxed(error))
    } else if REFUSALS.iter().any(|refusal| says(refusal)) {
        Failure::Refused(boxed(error))
    } else if says("too many requests") || says("database space exceeded") || says("not capable") {
        Failure::NotDone(boxed(error))
    } else {
        by_transport(boxed(error))
    }
}

/// Credentials were sent to an etcd that wants none.
pub(super) fn is_without_authentication(error: &EtcdError) -> bool {
    matches!(error, EtcdError::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}

/// Answers that do not change, however often and wherever one asks.
const REFUSALS: [&str; 8] = [
    "permission denied",
    "authentication failed",
    "authentication is not enabled",
    "user name not found",
    "request is too large",
    "too many operations in txn request",
    "duplicate key given in txn request",
    "key is not provided",
];

/// An error without etcd's words: how far did the request get?
fn by_transport(cause: Cause) -> Failure {
    let (mut refused, mut distrusted) = (false, false);
    let mut link: Option<&(dyn StdError + 'static)> = Some(cause.as_ref());
    while let Some(error) = link {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // Only connect() fails with it, so no byte of the request was sent.
            refused |= error.kind() == io::ErrorKind::ConnectionRefused;
            // How rustls reports a certificate that it, or the server, does not accept.
            distrusted |= error.kind() == io::ErrorKind::InvalidData;
        }
        link = error.source();
    }
    match (refused, distrusted) {
        (_, true) => Failure::Distrusted(cause),
        (true, false) => Failure::NotDone(cause),
        (false, false) => Failure::MaybeDone(cause),
    }
}

/// etcd-client's error does not expose its source; this does.
fn boxed(error: EtcdError) -> Cause {
    match error {
        EtcdError::GRpcStatus(status) => Box::new(status),
        EtcdError::TransportError(error) => Box::new(error),
        EtcdError::IoError(error) => Box::new(error),
        other => Box::new(other),
    }
}

/// The same for people: the libraries between etcd and here print their own types and fields.
fn in_words(error: &EtcdError) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut link: Option<&(dyn StdError + 'static)> = match error {
        EtcdError::GRpcStatus(status) => {
            let said = status.message();
            words.push(if said.is_empty() { status.code().description() } else { said }.to_owned());
            status.source()
        }
        EtcdError::TransportError(error) => Some(error),
        EtcdError::IoError(error) => Some(error),
        other => return other.to_string(),
    };
    // These only say that there is a source, or name the library's own types.
    let is_noise = |text: &str| {
        ["transport error", "client error (", "error trying to connect", "status: ", "code: "]
            .iter()
            .any(|noise| text.starts_with(noise))
    };
    while let Some(behind) = link {
        let text = behind.to_string();
        if !is_noise(&text) && !words.iter().any(|said| said.contains(&text)) {
            words.push(text);
        }
        link = behind.source();
    }
    let most_telling = words.iter().any(|text| !is_noise(text));
    words.retain(|text| !(most_telling && is_noise(text)));
    if words.is_empty() {
        words.push("the connection was lost".to_owned());
    }
    words.join(": ")
}

/// The operation ran out of time before anything was sent.
pub(super) fn out_of_time(until: Instant) -> Cause {
    format!("no endpoint answered in time; gave up {} ms late", until.elapsed().as_millis()).into()
}
