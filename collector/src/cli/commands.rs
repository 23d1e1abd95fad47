//! What each command does.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use super::{Command, USAGE, dead_letters};
use crate::config::{Config, ConfigError, EMBEDDED};
use crate::db::DbError;
use crate::serve::Collector;
use crate::sinks::sqlite::StoredRows;
use crate::spool::{Ledger, Reader};

/// Files besides connections: databases, their logs, the runtime's own.
const OTHER_FILES: u64 = 64;

/// How long work on other threads that nobody waits for any more may take when the process ends.
const LEFTOVERS: Duration = Duration::from_millis(300);

/// Why a command failed.
pub(super) enum Failure {
    /// The configuration is wrong.
    Config(ConfigError),
    /// Anything else.
    Runtime(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Config(error)
    }
}

pub(super) fn runtime(error: impl std::fmt::Display) -> Failure {
    Failure::Runtime(error.to_string())
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve { config, listen, data_dir } => serve(config.as_deref(), listen, data_dir),
        Command::Check { config } => {
            Config::read(&config)?;
            print(&format!("{} is valid\n", config.display()))
        }
        Command::Export { data_dir, app, from, to } => {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            // It flushes by itself, and a reader that has gone away is no error to it.
            crate::export::run(&data_dir, app.as_deref(), from.as_deref(), to.as_deref(), &mut out).map_err(runtime)
        }
        Command::Ledger { data_dir } => {
            let ledger = ledger(&data_dir)?;
            print(&format!("{}\n", serde_json::to_string(&ledger).map_err(runtime)?))
        }
        Command::DeadLetters { action, data_dir, sink, config } => {
            dead_letters::run(action, &data_dir, sink.as_deref(), config.as_deref())
        }
        Command::Help => print(USAGE),
        Command::Version => print(concat!("subway-collector ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(runtime)
}

fn serve(path: Option<&Path>, listen: Option<Vec<SocketAddr>>, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let mut config = match path {
        Some(path) => Config::read(path)?,
        None => Config::embedded(),
    };
    let file = path.and_then(|path| std::path::absolute(path).ok());
    config.listen = listen.unwrap_or(config.listen);
    config.data_dir = data_dir.unwrap_or(config.data_dir);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(runtime)?;
    open_files(config.limits.connections);
    let result = tokio.block_on(async {
        let signal = Signal::catch().map_err(runtime)?;
        let addresses = config.listen.clone();
        let collector = Collector::start(config).await.map_err(runtime)?;
        collector.note_config(file.as_deref()).map_err(runtime)?;
        let listener = TcpListener::bind(&addresses[..]).await.map_err(|error| {
            let tried: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
            Failure::Runtime(format!("cannot listen on {}: {error}", tried.join(", ")))
        })?;
        let announce = |address: SocketAddr| {
            // Nobody reads stdout: then nobody needs the line.
            let _ = print(&format!("listening on http://{address}\n"));
        };
        collector.serve(listener, signal.caught(), announce).await.map_err(runtime)
    });
    tokio.shutdown_timeout(LEFTOVERS);
    result
}

/// Lets the process open as many files as it may, because every connection is one.
#[cfg(unix)]
fn open_files(connections: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
    let current = getrlimit(Resource::Nofile).current;
    if current.is_some_and(|current| current < connections.saturating_add(OTHER_FILES)) {
        tracing::warn!(
            open_files = current,
            connections,
            "the system allows fewer open files than connections are configured"
        );
    }
}

#[cfg(not(unix))]
fn open_files(_: u64) {}

/// The signals that end the collector. They are caught from the start on, so that none is lost while it opens its files.
struct Signal {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signal {
    #[cfg(unix)]
    fn catch() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(unix)]
    async fn caught(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn catch() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn caught(self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// The ledger. The embedded store tells itself how far it is: the spool's cursor follows, and not at all after a crash.
fn ledger(data_dir: &Path) -> Result<Ledger, Failure> {
    let spool = Reader::open(data_dir).map_err(runtime)?;
    let position = match StoredRows::open(data_dir).and_then(|store| store.position()) {
        Err(DbError::Absent(_)) => 0,
        position => position.map_err(|error| Failure::Runtime(format!("the embedded store: {error}")))?,
    };
    Ok(spool.ledger().map_err(runtime)?.reached(EMBEDDED, position))
}
