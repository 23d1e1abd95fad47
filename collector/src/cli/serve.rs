//! Runs `serve`: the process around a collector with its configuration, log, signals and file limit.

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

/// File descriptors for other things than connections: databases, their logs, the runtime.
const RESERVED_FDS: u64 = 64;

/// Time in which abandoned work on other threads can finish when the process ends.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(300);

/// Source of the configuration: a file, if any, and what the command line overrides.
pub(super) struct ConfigSource {
    pub(super) config: Option<PathBuf>,
    pub(super) listen: Option<Vec<SocketAddr>>,
    pub(super) data_dir: Option<PathBuf>,
}

impl ConfigSource {
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

pub(super) fn run(source: ConfigSource) -> Result<(), Failure> {
    let config = source.read()?;
    log::start(&config.log);
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(runtime)?;
    raise_fd_limit(config.limits.connections);
    let result = tokio.block_on(serve(source, config));
    tokio.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    result
}

async fn serve(source: ConfigSource, config: Config) -> Result<(), Failure> {
    let file = source.config.as_deref().and_then(|path| std::path::absolute(path).ok());
    let signals = Signals::install(source.config.is_some()).map_err(runtime)?;
    let (addresses, operators) = (config.listen.clone(), config.admin_listen.clone());
    let collector = Collector::start(config).await.map_err(runtime)?;
    collector.save_config_path(file.as_deref()).map_err(runtime)?;
    let listener = bind(&addresses).await?;
    let collector = match operators {
        Some(addresses) => collector.with_operators_listener(bind(&addresses).await?),
        None => collector,
    };
    let announce = |url: &str| {
        // A closed stdout is no error: then no one reads the line.
        let _ = print(&format!("listening on {url}\n"));
    };
    let Signals { shutdown, reload_signal } = signals;
    let reloading = reload(reload_signal, Arc::new(source), collector.reloader());
    tokio::select! {
        ended = collector.serve(listener, shutdown.recv(), announce) => ended.map_err(runtime),
        never = reloading => match never {},
    }
}

async fn bind(addresses: &[SocketAddr]) -> Result<TcpListener, Failure> {
    TcpListener::bind(addresses).await.map_err(|error| {
        let tried: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        Failure::Runtime(format!("cannot listen on {}: {error}", tried.join(", ")))
    })
}

/// Reloads the file at every signal. An invalid file changes nothing.
async fn reload(mut reload_signal: ReloadSignal, source: Arc<ConfigSource>, reloader: Arc<Reloader>) -> Infallible {
    loop {
        reload_signal.recv().await;
        let file = Arc::clone(&source);
        let config = match tokio::task::spawn_blocking(move || file.read()).await {
            Ok(Ok(config)) => config,
            Ok(Err(error)) => {
                tracing::error!(%error, "the configuration is refused; everything stays as it was");
                reloader.count_refused();
                continue;
            }
            // Happens only when the process ends.
            Err(_) => continue,
        };
        raise_fd_limit(config.limits.connections);
        match reloader.reload(config).await {
            Ok(unchanged) => {
                for key in unchanged {
                    tracing::warn!(key, "this change needs a restart");
                }
                tracing::info!("the configuration has been read again");
            }
            Err(error) => tracing::error!(%error, "the configuration cannot be applied; everything stays as it was"),
        }
    }
}

/// Raises the limit of open files to what the system allows, because every connection is one.
#[cfg(unix)]
fn raise_fd_limit(connections: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
    let current = getrlimit(Resource::Nofile).current;
    if current.is_some_and(|current| current < connections.saturating_add(RESERVED_FDS)) {
        tracing::warn!(
            open_files = current,
            connections,
            "the system allows fewer open files than connections are configured"
        );
    }
}

#[cfg(not(unix))]
fn raise_fd_limit(_: u64) {}

/// Signals of the process. They are handled from the start, so that none is lost while the collector opens its files.
struct Signals {
    shutdown: ShutdownSignal,
    reload_signal: ReloadSignal,
}

#[cfg(unix)]
mod unix {
    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::Signals;

    /// Signals that shut the collector down: SIGTERM, SIGINT, and SIGHUP (a closed terminal) if there is no file to
    /// reload.
    pub(super) struct ShutdownSignal {
        terminate: Signal,
        interrupt: Signal,
        hangup: Option<Signal>,
    }

    impl ShutdownSignal {
        pub(super) async fn recv(mut self) {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                () = recv_optional(&mut self.hangup) => {}
            }
        }
    }

    /// SIGHUP, where it reloads the configuration.
    pub(super) struct ReloadSignal(Option<Signal>);

    impl ReloadSignal {
        pub(super) async fn recv(&mut self) {
            recv_optional(&mut self.0).await;
        }
    }

    async fn recv_optional(signal: &mut Option<Signal>) {
        match signal {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }

    impl Signals {
        pub(super) fn install(has_file: bool) -> std::io::Result<Self> {
            let hangup = signal(SignalKind::hangup())?;
            let (hangup_shutdown, reload_signal) = if has_file { (None, Some(hangup)) } else { (Some(hangup), None) };
            let shutdown = ShutdownSignal {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hangup: hangup_shutdown,
            };
            Ok(Self { shutdown, reload_signal: ReloadSignal(reload_signal) })
        }
    }
}

#[cfg(unix)]
use unix::{ReloadSignal, ShutdownSignal};

#[cfg(not(unix))]
mod other {
    use super::Signals;

    pub(super) struct ShutdownSignal;

    impl ShutdownSignal {
        pub(super) async fn recv(self) {
            let _ = tokio::signal::ctrl_c().await;
        }
    }

    pub(super) struct ReloadSignal;

    impl ReloadSignal {
        pub(super) async fn recv(&mut self) {
            std::future::pending().await
        }
    }

    impl Signals {
        pub(super) fn install(_: bool) -> std::io::Result<Self> {
            Ok(Self { shutdown: ShutdownSignal, reload_signal: ReloadSignal })
        }
    }
}

#[cfg(not(unix))]
use other::{ReloadSignal, ShutdownSignal};
