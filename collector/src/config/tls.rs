//! `[tls]`: the certificate and the key of a collector that speaks HTTPS itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use toml::Spanned;

use super::text::Text;
use super::{ConfigError, Source};

/// Where certificate and key are. They are read at the start and at every reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate and what it was signed with, PEM, the server's own first.
    pub cert: PathBuf,
    /// Its key, PEM (PKCS #8, PKCS #1 or SEC 1), not encrypted.
    pub key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    cert: Spanned<Text>,
    key: Spanned<Text>,
}

/// What cannot be used, and why.
enum Unusable {
    Cert(String),
    Key(String),
}

impl Table {
    pub(super) fn checked(self, source: &Source<'_>) -> Result<Tls, ConfigError> {
        let tls = Tls { cert: (**self.cert.get_ref()).into(), key: (**self.key.get_ref()).into() };
        match tls.read() {
            Ok(_) => Ok(tls),
            Err(Unusable::Cert(why)) => Err(source.error(self.cert.span(), "tls.cert", why)),
            Err(Unusable::Key(why)) => Err(source.error(self.key.span(), "tls.key", why)),
        }
    }
}

impl Tls {
    /// Reads both files.
    ///
    /// # Errors
    /// Which file cannot be used, and why, as a sentence.
    pub fn load(&self) -> Result<Arc<ServerConfig>, String> {
        self.read().map_err(|unusable| match unusable {
            Unusable::Cert(why) | Unusable::Key(why) => why,
        })
    }

    fn read(&self) -> Result<Arc<ServerConfig>, Unusable> {
        let says = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&self.cert).and_then(Iterator::collect);
        let chain = chain.map_err(|error| Unusable::Cert(says(&self.cert, &error)))?;
        if chain.is_empty() {
            return Err(Unusable::Cert(says(&self.cert, &"holds no certificate in PEM form")));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| Unusable::Key(says(&self.key, &error)))?;
        let wrong = |error: rustls::Error| Unusable::Key(says(&self.key, &error));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(wrong)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Phones come back often: a ticket spares them and us half a handshake, and us the memory for sessions.
        config.ticketer = ring::Ticketer::new().map_err(wrong)?;
        Ok(Arc::new(config))
    }
}
