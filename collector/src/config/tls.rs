//! `[tls]`: certificate and key of a collector that serves HTTPS itself.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use toml::Spanned;

use super::text::Text;
use super::{ConfigError, Source};

/// Files of certificate and key. They are read at the start and at every reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificate chain in PEM, with the certificate of the server first.
    pub cert: PathBuf,
    /// Private key in PEM (PKCS #8, PKCS #1 or SEC 1), not encrypted.
    pub key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    cert: Spanned<Text>,
    key: Spanned<Text>,
}

/// Certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of the certificate cannot be read.
    #[error("{}: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: pem::Error,
    },
    /// The file of the certificate contains none.
    #[error("{}: holds no certificate in PEM form", .0.display())]
    NoCertificate(PathBuf),
    /// The file of the key cannot be read.
    #[error("{}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: pem::Error,
    },
    /// The key does not work with the certificate.
    #[error("{}: {source}", path.display())]
    KeyMismatch {
        /// The file of the key.
        path: PathBuf,
        /// Cause.
        source: rustls::Error,
    },
}

impl Table {
    pub(super) fn validate(self, source: &Source<'_>) -> Result<TlsConfig, ConfigError> {
        let tls = TlsConfig { cert: (**self.cert.get_ref()).into(), key: (**self.key.get_ref()).into() };
        match tls.load() {
            Ok(_) => Ok(tls),
            Err(error) => {
                let (at, key) = match error {
                    TlsError::Certificate { .. } | TlsError::NoCertificate(_) => (self.cert.span(), "tls.cert"),
                    TlsError::Key { .. } | TlsError::KeyMismatch { .. } => (self.key.span(), "tls.key"),
                };
                Err(source.error(at, key, error.to_string()))
            }
        }
    }
}

impl TlsConfig {
    /// Reads both files, and returns the configuration of a TLS server.
    ///
    /// # Errors
    /// If one of the files cannot be used.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&self.cert).and_then(Iterator::collect);
        let chain = chain.map_err(|source| TlsError::Certificate { path: self.cert.clone(), source })?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(self.cert.clone()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|source| TlsError::Key { path: self.key.clone(), source })?;
        let mismatch = |source| TlsError::KeyMismatch { path: self.key.clone(), source };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(mismatch)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(mismatch)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Phones come back often: a ticket saves half a handshake, and the memory for sessions.
        config.ticketer = ring::Ticketer::new().map_err(mismatch)?;
        Ok(Arc::new(config))
    }
}
