//! Whether a request gives the right name and password: Basic authentication, when it is configured.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::Rest;

/// Why a request with this header may not change anything; `None` when it may.
pub(super) fn refusal(rest: &Rest, header: Option<&str>) -> Option<&'static str> {
    let (Some(username), Some(password)) = (&rest.username, &rest.password) else { return None };
    let Some(header) = header else { return Some("no auth header received") };
    let given = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let given = given.and_then(|(_, encoded)| STANDARD.decode(encoded.trim()).ok()).unwrap_or_default();
    let wanted = format!("{username}:{}", password.expose());
    (!is_same(&given, wanted.as_bytes())).then_some("not authenticated")
}

/// In constant time, however near the miss is.
fn is_same(given: &[u8], wanted: &[u8]) -> bool {
    let differences = wanted
        .iter()
        .enumerate()
        .fold(0, |sum, (index, byte)| sum | (byte ^ given.get(index).copied().unwrap_or_default()));
    given.len() == wanted.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_name_and_password_may_change_things() {
        let rest = Rest::of_test(Some("admin"), Some("s:ecret"));
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
        assert_eq!(refusal(&Rest::of_test(None, None), None), None);
    }
}
