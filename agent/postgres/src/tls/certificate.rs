//! The digest of a certificate to which a password's proof is bound (RFC 5929, `tls-server-end-point`): with the digest algorithm
//! of its own signature, SHA-256 instead of weaker ones. Reads no more of a certificate than that needs.

use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// `1.2.840.113549.1.1`, PKCS #1.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// `1.2.840.10045.4`, ANSI X9.62.
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// `None` for signatures without such a digest, such as Ed25519: nothing can be bound to such a certificate.
pub(super) fn end_point_digest(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = signature_algorithm(certificate)?;
    let rsa = algorithm.strip_prefix(RSA);
    let ecdsa = algorithm.strip_prefix(ECDSA);
    match (rsa, ecdsa) {
        // MD5 and SHA-1 with RSA, SHA-1 with ECDSA; then SHA-256.
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => Some(Sha256::digest(certificate).to_vec()),
        (Some([12]), _) | (_, Some([3, 3])) => Some(Sha384::digest(certificate).to_vec()),
        (Some([13]), _) | (_, Some([3, 4])) => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

/// `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { algorithm OBJECT IDENTIFIER, ... }, ... }`.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (fields, _) = element(certificate, SEQUENCE)?;
    let (_, after) = element(fields, SEQUENCE)?;
    let (algorithm, _) = element(after, SEQUENCE)?;
    element(algorithm, OBJECT_IDENTIFIER).map(|(identifier, _)| identifier)
}

/// The content of the leading element with this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        // This many bytes of length follow.
        long @ 0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate with nothing in it but the algorithm of its signature.
    fn signed_with(identifier: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).unwrap();
            [&[tag, 0x81, length], content].concat()
        };
        let algorithm = wrap(SEQUENCE, &wrap(OBJECT_IDENTIFIER, identifier));
        wrap(SEQUENCE, &[wrap(SEQUENCE, b"to be signed"), algorithm].concat())
    }

    #[test]
    fn the_digest_is_that_of_the_signature() {
        let length = |family: &[u8], end: &[u8]| {
            end_point_digest(&signed_with(&[family, end].concat())).map(|digest| digest.len())
        };
        for (end, bytes) in [(5, 32), (11, 32), (12, 48), (13, 64)] {
            assert_eq!(length(RSA, &[end]), Some(bytes), "RSA {end}");
        }
        for (end, bytes) in [(2, 32), (3, 48), (4, 64)] {
            assert_eq!(length(ECDSA, &[3, end]), Some(bytes), "ECDSA {end}");
        }
        // RSASSA-PSS states it elsewhere; Ed25519 has none.
        assert_eq!(length(RSA, &[10]), None);
        assert_eq!(length(&[0x2b, 0x65], &[0x70]), None);
    }

    #[test]
    fn what_is_no_certificate_has_no_digest() {
        let whole = signed_with(&[RSA, &[11]].concat());
        for end in 0..whole.len() {
            assert_eq!(end_point_digest(&whole[..end]), None, "{end}");
        }
        assert_eq!(end_point_digest(&[SEQUENCE, 0x85, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
