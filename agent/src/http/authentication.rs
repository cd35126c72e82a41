//! Who may change things: Basic authentication for every method but the reading ones, when it is configured.

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Visitors;
use crate::config::Rest;

/// Lets reading requests through, and others with the right name and password.
pub(super) async fn check(State(visitors): State<Visitors>, request: Request, next: Next) -> Response {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let header = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    match if reads { None } else { refusal(&visitors.config.rest, header) } {
        None => next.run(request).await,
        Some(words) => {
            let challenge = [(WWW_AUTHENTICATE, "Basic realm=\"Outrider\"")];
            (StatusCode::UNAUTHORIZED, challenge, words).into_response()
        }
    }
}

/// Why a request with this header may not change anything; `None` when it may.
fn refusal(rest: &Rest, header: Option<&str>) -> Option<&'static str> {
    let (Some(username), Some(password)) = (&rest.username, &rest.password) else { return None };
    let Some(header) = header else { return Some("no auth header received") };
    let given = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let given = given.and_then(|(_, encoded)| STANDARD.decode(encoded.trim()).ok()).unwrap_or_default();
    let wanted = format!("{username}:{}", password.expose());
    (!is_same(&given, wanted.as_bytes())).then_some("not authenticated")
}

/// Takes as long for a near miss as for a far one.
fn is_same(given: &[u8], wanted: &[u8]) -> bool {
    let differences = wanted
        .iter()
        .enumerate()
        .fold(0, |sum, (index, byte)| sum | (byte ^ given.get(index).copied().unwrap_or_default()));
    given.len() == wanted.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use outrider_archive::store::Secret;

    use super::*;

    fn rest(username: Option<&str>, password: Option<&str>) -> Rest {
        Rest {
            listen: ([127, 0, 0, 1], 8008).into(),
            connect_address: "127.0.0.1:8008".to_owned(),
            username: username.map(str::to_owned),
            password: password.map(Secret::new),
            allow_unauthenticated: false,
        }
    }

    #[test]
    fn only_the_right_name_and_password_may_change_things() {
        let rest = rest(Some("admin"), Some("s:ecret"));
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(refusal(&rest, Some(&header("admin:s:ecret"))), None);
        assert_eq!(refusal(&rest, None), Some("no auth header received"));
        for wrong in ["admin:s:ecre", "admin:s:ecrets", "admin:", "", "Admin:s:ecret"] {
            assert_eq!(refusal(&rest, Some(&header(wrong))), Some("not authenticated"), "{wrong}");
        }
        assert_eq!(refusal(&rest, Some("Bearer x")), Some("not authenticated"));
        assert_eq!(refusal(&rest, Some("Basic %%%")), Some("not authenticated"));
    }

    #[test]
    fn without_a_password_nobody_is_asked_for_one() {
        assert_eq!(refusal(&rest(None, None), None), None);
    }
}
