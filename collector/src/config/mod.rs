//! The configuration: one TOML file, parsed and validated as a whole before anything starts.
//!
//! An unknown key is an error; `${NAME}` in any string is replaced by the environment variable NAME; every error names
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

pub use app::App;
pub use embedded::Embedded;
pub use limits::Limits;
pub use log::{Format, Log};
pub use network::Network;
pub use sink::{
    BlockCompression, BulkCompression, ClickHouse, Delivery, EMBEDDED, Elasticsearch, Kafka, Kind, Sink, WhenFull,
};
pub use text::{Secret, Text};
pub use tls::Tls;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen: the addresses of one name, of which the first that can be had is taken. Port 0 lets the system
    /// choose.
    pub listen: Vec<SocketAddr>,
    /// Where metrics and administration are served, if not with everything else.
    pub admin_listen: Option<Vec<SocketAddr>>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The token of the admin endpoints; made at the first start if absent.
    pub admin_token: Option<Secret>,
    /// The apps, at least one, no key twice.
    pub apps: Vec<App>,
    /// The limits.
    pub limits: Limits,
    /// The sinks besides the embedded one, no name twice.
    pub sinks: Vec<Sink>,
    /// The embedded store.
    pub embedded: Embedded,
    /// The name of the sink that questions are answered from; `None` if no store that there is can be asked.
    pub query_source: Option<String>,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// The certificate, if the collector speaks HTTPS itself.
    pub tls: Option<Tls>,
    /// How to log.
    pub log: Log,
    /// A digest of the tables of the sinks as written, which tells whether they are still the same.
    pub sinks_digest: u64,
}

/// Why a configuration is refused: where, and what is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not TOML, a key is unknown or missing, or a value has the wrong type or form.
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

/// The sink to read, which must be there and be able to answer. If it is not said: the embedded store; without that, the
/// one sink that can answer; `None` if none can.
fn query_source(
    source: &Source<'_>,
    table: Option<QueryTable>,
    sinks: &[Sink],
    embedded: &Embedded,
) -> Result<Option<String>, ConfigError> {
    let Some(QueryTable { source: name }) = table else {
        if embedded.enabled {
            return Ok(Some(EMBEDDED.to_owned()));
        }
        let can: Vec<&str> = sinks.iter().filter(|sink| sink.kind.answers()).map(|sink| sink.name.as_str()).collect();
        return match can[..] {
            [] => Ok(None),
            [one] => Ok(Some(one.to_owned())),
            _ => {
                let why = format!("is needed: the embedded store is off, and any of {} could be read", can.join(", "));
                Err(source.error(0..0, "query.source", why))
            }
        };
    };
    let (at, name) = (name.span(), name.into_inner().to_string());
    let wrong = |why: String| Err(source.error(at, "query.source", why));
    match sinks.iter().find(|sink| sink.name == name) {
        None if name != EMBEDDED => wrong(format!("no sink is named {name}")),
        None if !embedded.enabled => wrong("the embedded store is off ([embedded] enabled = false)".into()),
        Some(sink) if !sink.kind.answers() => wrong(format!("{name} is of kind kafka, which cannot be asked")),
        _ => Ok(Some(name)),
    }
}

/// Makes errors that name line and key.
struct Source<'a>(&'a str);

impl Source<'_> {
    fn error(&self, at: Range<usize>, key: &str, why: impl Into<String>) -> ConfigError {
        let line = self.0.bytes().take(at.start).filter(|byte| *byte == b'\n').count() + 1;
        ConfigError::Value { line, key: key.into(), why: why.into() }
    }

    /// An error of the parser, with its line, but without the text of the line: it may hold a secret.
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

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// The addresses of `HOST:PORT`; a host that is a name is looked up. Blocks.
///
/// # Errors
/// What is expected instead, as half a sentence, if the text has another form or the name has no address.
pub fn addresses(text: &str) -> Result<Vec<SocketAddr>, String> {
    let found = text.to_socket_addrs().map(Vec::from_iter).map_err(|error| error.to_string());
    let why = match found {
        Ok(found) if !found.is_empty() => return Ok(found),
        Ok(_) => "the name has no address".to_owned(),
        Err(error) => error,
    };
    Err(format!("must be a host and a port, such as 127.0.0.1:8080, [::1]:8080 or localhost:8080: {why}"))
}

const DATA_DIR: &str = "./subway-data";

impl Config {
    /// The configuration that serves without a file: loopback, `./subway-data`, one app with the key `demo`.
    #[must_use]
    pub fn embedded() -> Self {
        Self {
            listen: vec![LISTEN],
            admin_listen: None,
            data_dir: PathBuf::from(DATA_DIR),
            admin_token: None,
            apps: vec![App::demo()],
            limits: Limits::default(),
            sinks: Vec::new(),
            embedded: Embedded::default(),
            query_source: Some(EMBEDDED.to_owned()),
            trusted_proxies: Vec::new(),
            tls: None,
            log: Log::default(),
            sinks_digest: 0,
        }
    }

    /// The apps' time zones: key and IANA name.
    #[must_use]
    pub fn zones(&self) -> Vec<(String, String)> {
        let zone = |app: &App| (app.key.clone(), app.timezone.iana_name().unwrap_or("UTC").to_owned());
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
        let listening =
            |at: Spanned<Text>, key: &str| addresses(at.get_ref()).map_err(|why| source.error(at.span(), key, why));
        let listen = file.listen.map(|at| listening(at, "listen")).transpose()?.unwrap_or_else(|| vec![LISTEN]);
        let admin_listen = file.admin.map(|admin| listening(admin.listen, "admin.listen")).transpose()?;
        let data_dir = match file.data_dir {
            None => PathBuf::from(DATA_DIR),
            Some(dir) if dir.get_ref().is_empty() => {
                return Err(source.error(dir.span(), "data_dir", "must not be empty"));
            }
            Some(dir) => PathBuf::from(&**dir.get_ref()),
        };
        let admin_token = file.admin_token.map(|token| Secret::token(&source, "admin_token", token)).transpose()?;
        let sinks_digest = reload::digest(&file.sink);
        let sinks = sink::all(&source, file.sink)?;
        let embedded = file.embedded.checked(&source, &sinks)?;
        let network = |text: Spanned<Text>| {
            text.get_ref().parse().map_err(|why| source.error(text.span(), "trusted_proxies", why))
        };
        Ok(Self {
            listen,
            admin_listen,
            data_dir,
            admin_token,
            apps: app::all(&source, file.app)?,
            limits: file.limits.checked(&source)?,
            query_source: query_source(&source, file.query, &sinks, &embedded)?,
            embedded,
            sinks,
            trusted_proxies: file.trusted_proxies.into_iter().map(network).collect::<Result<_, _>>()?,
            tls: file.tls.map(|tls| tls.checked(&source)).transpose()?,
            log: file.log.checked(&source)?,
            sinks_digest,
        })
    }
}

#[cfg(test)]
mod tests;
