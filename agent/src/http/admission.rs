//! Which requests are accepted: none sent by a web page, none under a name that is not this member's, and, when there is a
//! password, none that changes something without it.

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Visitors;
use super::answer::text;
use super::authentication;
use crate::config::Rest;

/// In browsers that send it, says where a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Content types that any page's form or script may `POST` without asking this member first.
const PAGE_TYPES: [&str; 3] = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];

/// How a request arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Over the network, including loopback.
    Network,
    /// Through the unix socket, from the agent's user or root.
    Socket,
}

/// What is known of the sender. Every request that changes something carries it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Has given the password, or came through the socket.
    Authenticated,
    /// Anybody who reaches this address.
    Anybody,
}

type Refusal = (StatusCode, String);

/// Passes on acceptable requests.
pub(super) async fn check(
    State((visitors, way)): State<(Visitors, Way)>,
    mut request: Request,
    next: Next,
) -> Response {
    if way == Way::Socket {
        request.extensions_mut().insert(Standing::Authenticated);
        return next.run(request).await;
    }
    let rest = &visitors.config.rest;
    let standing = if rest.has_password() { Standing::Authenticated } else { Standing::Anybody };
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    if !reads && let Some(words) = authentication::refusal(rest, header(request.headers(), &AUTHORIZATION)) {
        let challenge = [(WWW_AUTHENTICATE, "Basic realm=\"Outrider\"")];
        return (StatusCode::UNAUTHORIZED, challenge, words).into_response();
    }
    // Where everybody may read, the name does not matter; on loopback it is how a page would get in.
    let by_name = rest.listen.ip().is_loopback() || (!reads && standing == Standing::Anybody);
    let by_type = request.method() == Method::POST && standing == Standing::Anybody;
    let checked = check_origin(request.headers(), reads)
        .and_then(|()| if by_name { check_host(request.headers(), &visitors.names) } else { Ok(()) })
        .and_then(|()| if by_type { check_type(request.headers()) } else { Ok(()) });
    if let Err((code, words)) = checked {
        return text(code, words);
    }
    request.extensions_mut().insert(standing);
    next.run(request).await
}

/// The names of this member besides its IP addresses, in lower case.
pub(super) fn names(rest: &Rest, hostname: Option<&str>) -> Vec<String> {
    let host = |authority: &str| authority.rsplit_once(':').map_or(authority, |(host, _)| host).to_owned();
    let short = hostname.and_then(|name| name.split('.').next());
    let known = ["localhost".to_owned(), host(&rest.connect_address)].into_iter();
    known
        .chain(hostname.map(str::to_owned))
        .chain(short.map(str::to_owned))
        .map(|name| name.trim().to_lowercase())
        .filter(|name| !name.is_empty())
        .collect()
}

/// A page whose name resolves to this machine has this API's origin; its name then gives it away.
fn check_host(headers: &HeaderMap, names: &[String]) -> Result<(), Refusal> {
    // A client without one is not a browser.
    let Some(authority) = headers.get(HOST) else { return Ok(()) };
    let refuse = |shown: &str| {
        let words = format!(
            "\"{shown}\" is not a name of this member: ask it by its address, or by one of {}",
            names.join(", ")
        );
        Err((StatusCode::MISDIRECTED_REQUEST, words))
    };
    let Ok(authority) = authority.to_str() else { return refuse("?") };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_end_matches('.').to_lowercase();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    if bare.parse::<std::net::IpAddr>().is_ok() || names.contains(&host) {
        return Ok(());
    }
    refuse(authority)
}

/// Browsers say which page sends a request; other clients do not.
fn check_origin(headers: &HeaderMap, reads: bool) -> Result<(), Refusal> {
    let refuse = |whence: &str| {
        let words = format!("requests from web pages ({whence}) are refused");
        Err((StatusCode::FORBIDDEN, words))
    };
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().unwrap_or("?");
        let own = header(headers, &HOST).unwrap_or_default();
        let same = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(own));
        if !same || own.is_empty() {
            return refuse(origin);
        }
    }
    match header(headers, &SEC_FETCH_SITE) {
        Some(site) if !reads && !matches!(site, "same-origin" | "none") => refuse(site),
        Some(_) | None => Ok(()),
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Refusal> {
    // patronictl sends none; a page that can omit it is recognised by its origin.
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let kind = given.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim().to_lowercase();
    if PAGE_TYPES.contains(&kind.as_str()) || kind == "?" {
        let words = format!(
            "any web page could send {kind}: say what it is, as with curl -H 'Content-Type: application/json'"
        );
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, words));
    }
    Ok(())
}

/// `?` for one that is not text, so that it does not count as absent.
fn header<'request>(headers: &'request HeaderMap, name: &HeaderName) -> Option<&'request str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        given.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_member_answers_to_addresses_and_to_its_own_names() {
        let rest = Rest { connect_address: "db1.example:8008".to_owned(), ..Rest::of_test(None, None) };
        let names = names(&rest, Some("Node-7.rack.example\n"));
        for good in [
            "127.0.0.1:8008",
            "10.2.3.4",
            "[::1]:8008",
            "[fd00::1]",
            "localhost:8008",
            "LOCALHOST",
            "localhost.:80",
            "db1.example:8008",
            "node-7",
            "node-7.rack.example:1",
        ] {
            assert_eq!(check_host(&headers(&[("host", good)]), &names), Ok(()), "{good}");
        }
        assert_eq!(check_host(&HeaderMap::new(), &names), Ok(()));
        for bad in [
            "evil.example",
            "evil.example:8008",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "127.0.0.1@evil.example",
        ] {
            let refused = check_host(&headers(&[("host", bad)]), &names);
            assert_eq!(refused.unwrap_err().0, StatusCode::MISDIRECTED_REQUEST, "{bad}");
        }
    }

    #[test]
    fn what_a_page_of_another_origin_sends_is_refused() {
        let own = ("host", "127.0.0.1:8008");
        for (given, reads, taken) in [
            (vec![own], false, true),
            (vec![own, ("origin", "http://127.0.0.1:8008")], false, true),
            (vec![own, ("origin", "http://127.0.0.1:8009")], false, false),
            (vec![own, ("origin", "https://evil.example")], true, false),
            (vec![own, ("origin", "null")], false, false),
            (vec![("origin", "http://")], false, false),
            (vec![own, ("sec-fetch-site", "cross-site")], false, false),
            (vec![own, ("sec-fetch-site", "same-site")], false, false),
            (vec![own, ("sec-fetch-site", "cross-site")], true, true),
            (vec![own, ("sec-fetch-site", "same-origin")], false, true),
        ] {
            assert_eq!(check_origin(&headers(&given), reads).is_ok(), taken, "{given:?} {reads}");
        }
    }

    #[test]
    fn a_body_that_a_page_may_send_unasked_is_refused() {
        let check = |kind: &str| check_type(&headers(&[("content-type", kind)]));
        for kind in [
            "text/plain",
            "Text/Plain; charset=utf-8",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
        ] {
            assert_eq!(check(kind).unwrap_err().0, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
        }
        assert_eq!(check("application/json"), Ok(()));
        assert_eq!(check_type(&HeaderMap::new()), Ok(()));
    }
}
