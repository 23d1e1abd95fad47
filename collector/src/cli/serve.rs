//! `serve`: the process around a collector - its configuration, its logs, its signals, its files.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::log;
use super::output::{Failure, print, runtime};
use crate::config::{Config, ConfigError};
use crate::serve::{Collector, Reloader};

/// Files besides connections: databases, their logs, the runtime's own.
const OTHER_FILES: u64 = 64;

/// How long work on other threads that nobody waits for any more may take when the process ends.
const LEFTOVERS: Duration = Duration::from_millis(300);

/// Where the configuration comes from: a file, if any, and what the command line says instead.
pub(super) struct Source {
    pub(super) config: Option<PathBuf>,
    pub(super) listen: Option<Vec<SocketAddr>>,
    pub(super) data_dir: Option<PathBuf>,
}

impl Source {
    fn read(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::embedded(),
        };
        config.listen = self.listen.clone().unwrap_or(config.listen);
        config.data_dir = self.data_dir.clone().unwrap_or(config.data_dir);
        Ok(config)
    }
}

pub(super) fn run(source: Source) -> Result<(), Failure> {
    let config = source.read()?;
    log::start(&config.log);
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(runtime)?;
    open_files(config.limits.connections);
    let result = tokio.block_on(serve(source, config));
    tokio.shutdown_timeout(LEFTOVERS);
    result
}

async fn serve(source: Source, config: Config) -> Result<(), Failure> {
    let file = source.config.as_deref().and_then(|path| std::path::absolute(path).ok());
    let signals = Signals::catch(source.config.is_some()).map_err(runtime)?;
    let (addresses, operators) = (config.listen.clone(), config.admin_listen.clone());
    let collector = Collector::start(config).await.map_err(runtime)?;
    collector.note_config(file.as_deref()).map_err(runtime)?;
    let listener = bind(&addresses).await?;
    let collector = match operators {
        Some(addresses) => collector.with_operators(bind(&addresses).await?),
        None => collector,
    };
    let announce = |url: &str| {
        // Nobody reads stdout: then nobody needs the line.
        let _ = print(&format!("listening on {url}\n"));
    };
    let Signals { end, again } = signals;
    let reloading = reload(again, Arc::new(source), collector.reloader());
    tokio::select! {
        ended = collector.serve(listener, end.caught(), announce) => ended.map_err(runtime),
        never = reloading => match never {},
    }
}

async fn bind(addresses: &[SocketAddr]) -> Result<TcpListener, Failure> {
    TcpListener::bind(addresses).await.map_err(|error| {
        let tried: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        Failure::Runtime(format!("cannot listen on {}: {error}", tried.join(", ")))
    })
}

/// Reads the file again at every signal. A file that is wrong changes nothing.
async fn reload(mut again: Again, source: Arc<Source>, reloader: Arc<Reloader>) -> Infallible {
    loop {
        again.caught().await;
        let file = Arc::clone(&source);
        let config = match tokio::task::spawn_blocking(move || file.read()).await {
            Ok(Ok(config)) => config,
            Ok(Err(error)) => {
                tracing::error!(%error, "the configuration is refused; everything stays as it was");
                reloader.refused();
                continue;
            }
            // Only when the process ends.
            Err(_) => continue,
        };
        open_files(config.limits.connections);
        match reloader.reload(config).await {
            Ok(left) => {
                for key in left {
                    tracing::warn!(key, "this change needs a restart");
                }
                tracing::info!("the configuration has been read again");
            }
            Err(error) => tracing::error!(%error, "the configuration cannot be applied; everything stays as it was"),
        }
    }
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

/// The signals. They are caught from the start on, so that none is lost while the collector opens its files.
struct Signals {
    end: End,
    again: Again,
}

#[cfg(unix)]
mod unix {
    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::Signals;

    /// The signals that end the collector: SIGTERM, SIGINT, and SIGHUP where there is no file to read again (a terminal
    /// that closes).
    pub(super) struct End {
        terminate: Signal,
        interrupt: Signal,
        hangup: Option<Signal>,
    }

    impl End {
        pub(super) async fn caught(mut self) {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                () = recv(&mut self.hangup) => {}
            }
        }
    }

    /// SIGHUP, where it means that the configuration is to be read again.
    pub(super) struct Again(Option<Signal>);

    impl Again {
        pub(super) async fn caught(&mut self) {
            recv(&mut self.0).await;
        }
    }

    async fn recv(signal: &mut Option<Signal>) {
        match signal {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }

    impl Signals {
        pub(super) fn catch(has_file: bool) -> std::io::Result<Self> {
            let hangup = signal(SignalKind::hangup())?;
            let (ends, again) = if has_file { (None, Some(hangup)) } else { (Some(hangup), None) };
            let end = End {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hangup: ends,
            };
            Ok(Self { end, again: Again(again) })
        }
    }
}

#[cfg(unix)]
use unix::{Again, End};

#[cfg(not(unix))]
mod other {
    use super::Signals;

    pub(super) struct End;

    impl End {
        pub(super) async fn caught(self) {
            let _ = tokio::signal::ctrl_c().await;
        }
    }

    pub(super) struct Again;

    impl Again {
        pub(super) async fn caught(&mut self) {
            std::future::pending().await
        }
    }

    impl Signals {
        pub(super) fn catch(_: bool) -> std::io::Result<Self> {
            Ok(Self { end: End, again: Again })
        }
    }
}

#[cfg(not(unix))]
use other::{Again, End};
