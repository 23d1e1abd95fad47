//! Configuration: one TOML file that is parsed and validated as a whole before anything starts. It does not know what
//! the settings do.
//!
//! An unknown key is an error. `${NAME}` in a string is replaced by the environment variable NAME. Every error names
//! the line and the key.

mod app;
mod embedded;
mod limits;
mod log;
mod network;
mod reload;
mod sink;
mod text;
mod tls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

pub use app::AppConfig;
pub use embedded::Embedded;
pub use limits::Limits;
pub use log::{LogConfig, LogFormat};
pub use network::Network;
pub use sink::{
    BlockCompression, BulkCompression, ClickHouse, Delivery, EMBEDDED, Elasticsearch, Kafka, SinkConfig, SinkKind,
    WhenFull,
};
pub use text::{Secret, Text};
pub use tls::{TlsConfig, TlsError};

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses of the main listener, which binds the first that is free. Port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// Addresses of the listener for metrics and administration, if it is not the main one.
    pub admin_listen: Option<Vec<SocketAddr>>,
    /// Directory of all data.
    pub data_dir: PathBuf,
    /// Token of the admin endpoints; created at the first start if absent.
    pub admin_token: Option<Secret>,
    /// Apps: at least one, with different keys.
    pub apps: Vec<AppConfig>,
    /// Limits.
    pub limits: Limits,
    /// Sinks besides the embedded one, with different names.
    pub sinks: Vec<SinkConfig>,
    /// Embedded store.
    pub embedded: Embedded,
    /// Name of the sink that queries are answered from; `None` if no configured store can answer.
    pub query_source: Option<String>,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<Network>,
    /// Certificate, if the collector serves HTTPS itself.
    pub tls: Option<TlsConfig>,
    /// Log.
    pub log: LogConfig,
    /// Digest of the tables of the sinks as written. A reload compares it.
    pub sinks_digest: u64,
}

/// Reason why a configuration is refused: where, and what is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file is not TOML, a key is unknown or missing, or a value has the wrong type or form.
    #[error("{0}")]
    Toml(String),
    /// A value is not allowed.
    #[error("line {line}, key `{key}`: {why}")]
    Value {
        /// Line of the file, from 1.
        line: usize,
        /// The key, with its table.
        key: String,
        /// What is wrong with the value.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<Spanned<Text>>,
    data_dir: Option<Spanned<Text>>,
    admin_token: Option<Spanned<Text>>,
    admin: Option<Admin>,
    #[serde(default)]
    app: Vec<Spanned<app::Table>>,
    #[serde(default)]
    limits: limits::Table,
    #[serde(default)]
    sink: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    embedded: embedded::Table,
    query: Option<QueryTable>,
    #[serde(default)]
    trusted_proxies: Vec<Spanned<Text>>,
    tls: Option<tls::Table>,
    #[serde(default)]
    log: log::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Admin {
    listen: Spanned<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryTable {
    source: Spanned<Text>,
}

/// Returns the sink that queries are answered from. It must exist and be able to answer.
///
/// The default is the embedded store; if it is off, the only sink that can answer; `None` if none can.
fn query_source(
    source: &Source<'_>,
    table: Option<QueryTable>,
    sinks: &[SinkConfig],
    embedded: &Embedded,
) -> Result<Option<String>, ConfigError> {
    let Some(QueryTable { source: name }) = table else {
        if embedded.enabled {
            return Ok(Some(EMBEDDED.to_owned()));
        }
        let can: Vec<&str> = sinks.iter().filter(|sink| sink.kind.answers()).map(|sink| sink.name.as_str()).collect();
        return match can[..] {
            [] => Ok(None),
            [only] => Ok(Some(only.to_owned())),
            _ => {
                let why = format!("is needed: the embedded store is off, and any of {} could be read", can.join(", "));
                Err(source.error(0..0, "query.source", why))
            }
        };
    };
    let (at, name) = (name.span(), name.into_inner().to_string());
    let invalid = |why: String| Err(source.error(at, "query.source", why));
    match sinks.iter().find(|sink| sink.name == name) {
        None if name != EMBEDDED => invalid(format!("no sink is named {name}")),
        None if !embedded.enabled => invalid("the embedded store is off ([embedded] enabled = false)".into()),
        Some(sink) if !sink.kind.answers() => invalid(format!("{name} is of kind kafka, which cannot be asked")),
        _ => Ok(Some(name)),
    }
}

/// Text of the file, from which errors get their line.
struct Source<'a>(&'a str);

impl Source<'_> {
    fn error(&self, at: Range<usize>, key: &str, why: impl Into<String>) -> ConfigError {
        let line = self.0.bytes().take(at.start).filter(|byte| *byte == b'\n').count() + 1;
        ConfigError::Value { line, key: key.into(), why: why.into() }
    }

    /// Returns an error of the parser with its line. The text of the line is left out, because it can contain a secret.
    fn toml(&self, error: &toml::de::Error) -> ConfigError {
        let Some(at) = error.span() else { return ConfigError::Toml(error.message().replace('\n', " ")) };
        let before = &self.0.as_bytes()[..at.start.min(self.0.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count();
        let words = self.0.lines().nth(line).and_then(|text| text.split_once('=')).map_or("", |(key, _)| key.trim());
        let is_key = !words.is_empty() && words.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-.".contains(&c));
        let key = if is_key { format!(", key `{words}`") } else { String::new() };
        ConfigError::Toml(format!("line {}{key}: {}", line + 1, error.message().replace('\n', " ")))
    }
}

/// Default of `listen`.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// A text is not an address to listen on.
#[derive(Debug, thiserror::Error)]
#[error("must be a host and a port, such as 127.0.0.1:8080, [::1]:8080 or localhost:8080: {0}")]
pub struct AddressError(#[source] std::io::Error);

/// Resolves `HOST:PORT` to its addresses. Blocks while a name is looked up.
///
/// # Errors
/// If the text has another form, or the name has no address.
pub fn resolve(text: &str) -> Result<Vec<SocketAddr>, AddressError> {
    let found = text.to_socket_addrs().map(Vec::from_iter).map_err(AddressError)?;
    if found.is_empty() { Err(AddressError(std::io::Error::other("the name has no address"))) } else { Ok(found) }
}

/// Default of `data_dir`.
const DATA_DIR: &str = "./subway-data";

impl Config {
    /// Returns the configuration that serves without a file: loopback, `./subway-data`, one app with the key `demo`.
    #[must_use]
    pub fn embedded() -> Self {
        Self {
            listen: vec![LISTEN],
            admin_listen: None,
            data_dir: PathBuf::from(DATA_DIR),
            admin_token: None,
            apps: vec![AppConfig::demo()],
            limits: Limits::default(),
            sinks: Vec::new(),
            embedded: Embedded::default(),
            query_source: Some(EMBEDDED.to_owned()),
            trusted_proxies: Vec::new(),
            tls: None,
            log: LogConfig::default(),
            sinks_digest: 0,
        }
    }

    /// Returns the time zones of the apps, as key and IANA name.
    #[must_use]
    pub fn zones(&self) -> Vec<(String, String)> {
        let zone = |app: &AppConfig| (app.key.clone(), app.timezone.iana_name().unwrap_or("UTC").to_owned());
        self.apps.iter().map(zone).collect()
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let source = Source(text);
        let file: File = toml::from_str(text).map_err(|error| source.toml(&error))?;
        let listen_at = |at: Spanned<Text>, key: &str| {
            resolve(at.get_ref()).map_err(|error| source.error(at.span(), key, error.to_string()))
        };
        let listen = file.listen.map(|at| listen_at(at, "listen")).transpose()?.unwrap_or_else(|| vec![LISTEN]);
        let admin_listen = file.admin.map(|admin| listen_at(admin.listen, "admin.listen")).transpose()?;
        let data_dir = match file.data_dir {
            None => PathBuf::from(DATA_DIR),
            Some(dir) if dir.get_ref().is_empty() => {
                return Err(source.error(dir.span(), "data_dir", "must not be empty"));
            }
            Some(dir) => PathBuf::from(&**dir.get_ref()),
        };
        let admin_token = file.admin_token.map(|token| Secret::token(&source, "admin_token", token)).transpose()?;
        let sinks_digest = reload::digest(&file.sink);
        let sinks = sink::parse_all(&source, file.sink)?;
        let embedded = file.embedded.validate(&source, &sinks)?;
        let network = |text: Spanned<Text>| {
            text.get_ref().parse().map_err(|why| source.error(text.span(), "trusted_proxies", why))
        };
        Ok(Self {
            listen,
            admin_listen,
            data_dir,
            admin_token,
            apps: app::parse_all(&source, file.app)?,
            limits: file.limits.validate(&source)?,
            query_source: query_source(&source, file.query, &sinks, &embedded)?,
            embedded,
            sinks,
            trusted_proxies: file.trusted_proxies.into_iter().map(network).collect::<Result<_, _>>()?,
            tls: file.tls.map(|tls| tls.validate(&source)).transpose()?,
            log: file.log.validate(&source)?,
            sinks_digest,
        })
    }
}

#[cfg(test)]
mod tests;
