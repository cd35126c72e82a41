//! Which certificates of an S3 store are trusted: by Mozilla's list, which is built in, the machine's authorities, and a custom
//! one. Sends no request.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tracing::debug;

use super::options::OpenError;

/// The TLS configuration; `ca_file`: a PEM file with authorities besides the usual ones.
pub(super) fn configuration(ca_file: Option<&PathBuf>) -> Result<ClientConfig, OpenError> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    // Found like OpenSSL finds them, including SSL_CERT_FILE and SSL_CERT_DIR. If one cannot be read, the others are still
    // trusted.
    let machine = rustls_native_certs::load_native_certs();
    let (taken, left) = roots.add_parsable_certificates(machine.certs);
    debug!(taken, left, faults = ?machine.errors, "certificate authorities of this machine");
    for certificate in own(ca_file)? {
        let path = || ca_file.cloned().unwrap_or_default();
        roots.add(certificate).map_err(|_| OpenError::Certificate { path: path() })?;
    }
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| OpenError::Tls { source })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn own(ca_file: Option<&PathBuf>) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let Some(path) = ca_file else { return Ok(Vec::new()) };
    let pem =
        std::fs::read(path).map_err(|source| OpenError::ReadCertificate { path: path.clone(), source })?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(OpenError::Certificate { path: path.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        assert!(matches!(configuration(Some(&path)), Err(OpenError::ReadCertificate { .. })));
        for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(configuration(Some(&path)), Err(OpenError::Certificate { .. })), "{text}");
        }
        assert!(configuration(None).is_ok());
    }
}
