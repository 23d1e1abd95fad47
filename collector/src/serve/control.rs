//! Control socket, by which commands reach the collector that runs on the same data directory.
//!
//! It is a Unix socket in that directory, which only the owner of the directory can open. A command is one line, its
//! answer lines of JSON.

use std::path::{Path, PathBuf};

/// Name of the socket in the data directory.
const SOCKET_FILE: &str = "control.sock";

/// Longest command, bytes.
#[cfg(unix)]
const MAX_COMMAND_BYTES: u64 = 1024;

/// Returns the path of the socket. The system takes about a hundred bytes; a longer path is replaced by one through the
/// open directory, which must stay open as long as the path is used.
#[cfg(target_os = "linux")]
fn socket_path(data_dir: &Path) -> std::io::Result<(PathBuf, Option<std::fs::File>)> {
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    const MAX_PATH_BYTES: usize = 100;
    let path = data_dir.join(SOCKET_FILE);
    if path.as_os_str().as_bytes().len() <= MAX_PATH_BYTES {
        return Ok((path, None));
    }
    let dir = std::fs::File::open(data_dir)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_FILE}", dir.as_raw_fd())), Some(dir)))
}

#[cfg(all(unix, not(target_os = "linux")))]
fn socket_path(data_dir: &Path) -> std::io::Result<(PathBuf, Option<std::fs::File>)> {
    Ok((data_dir.join(SOCKET_FILE), None))
}

/// Connects to the collector that runs on `data_dir`. Blocks.
///
/// # Errors
/// If there is none, or it is another user's.
#[cfg(unix)]
pub(crate) fn connect_control(data_dir: &Path) -> std::io::Result<std::os::unix::net::UnixStream> {
    let (path, _dir) = socket_path(data_dir)?;
    std::os::unix::net::UnixStream::connect(path)
}

/// Fails, because this system has no control sockets.
///
/// # Errors
/// Always.
#[cfg(not(unix))]
pub fn connect_control(data_dir: &Path) -> std::io::Result<std::net::TcpStream> {
    Err(std::io::Error::other(format!(
        "{}: there are no control sockets on this system",
        data_dir.join(SOCKET_FILE).display()
    )))
}

#[cfg(unix)]
pub(super) use server::serve;

#[cfg(unix)]
mod server {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::{Value, json};
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{UnixListener, UnixStream};

    use super::{MAX_COMMAND_BYTES, Path, SOCKET_FILE, socket_path};
    use crate::fanout::Replayer;
    use crate::spool::{SinkRemoval, Spool};

    /// Answer to an unknown command.
    const UNKNOWN_COMMAND: &str = "unknown command; known are `replay SINK`, `retire SINK` and `forget SINK`";

    /// Answers commands; returns only with the task that runs it. If the socket cannot be created, the commands that
    /// need it fail, but the collector runs.
    pub(crate) async fn serve(data_dir: &Path, replayer: Replayer, spool: Spool) {
        // Left behind by a collector that was killed; the directory is ours alone.
        let _ = std::fs::remove_file(data_dir.join(SOCKET_FILE));
        let listener = socket_path(data_dir).and_then(|(path, _dir)| {
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(data_dir.join(SOCKET_FILE), std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        });
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(%error, "no control socket: `dead-letters replay` and `sinks` wait for the collector to stop");
                return std::future::pending().await;
            }
        };
        while let Ok((stream, _)) = listener.accept().await {
            let (replayer, spool) = (replayer.clone(), spool.clone());
            tokio::spawn(async move {
                if let Err(error) = answer(stream, &replayer, spool).await {
                    tracing::debug!(%error, "a control connection broke");
                }
            });
        }
        std::future::pending().await
    }

    async fn answer(stream: UnixStream, replayer: &Replayer, spool: Spool) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut command = String::new();
        BufReader::new(read.take(MAX_COMMAND_BYTES)).read_line(&mut command).await?;
        let sink = match command.trim().split_once(' ') {
            Some(("replay", sink)) => sink,
            Some(("retire", sink)) => {
                return write_line(&mut write, &end_sink(spool, SinkRemoval::Retire, sink).await).await;
            }
            Some(("forget", sink)) => {
                return write_line(&mut write, &end_sink(spool, SinkRemoval::Forget, sink).await).await;
            }
            _ => return write_line(&mut write, &json!({"error": UNKNOWN_COMMAND})).await,
        };
        let (sender, mut progress) = tokio::sync::mpsc::unbounded_channel();
        let replay = replayer.replay(sink, |report| {
            let _ = sender.send(json!(report));
        });
        tokio::pin!(replay);
        let result = loop {
            tokio::select! {
                result = &mut replay => break result,
                // A client that disconnects does not end the replay.
                Some(report) = progress.recv() => drop(write_line(&mut write, &report).await),
            }
        };
        let last = match result {
            Ok(report) => {
                let mut last = json!(report);
                last["done"] = Value::Bool(true);
                last
            }
            Err(error) => json!({"error": error.to_string()}),
        };
        write_line(&mut write, &last).await
    }

    async fn end_sink(spool: Spool, how: SinkRemoval, sink: &str) -> Value {
        let sink = sink.to_owned();
        match tokio::task::spawn_blocking(move || how.apply(&spool, &sink)).await {
            Ok(Ok(())) => json!({"done": true}),
            Ok(Err(error)) => json!({"error": error.to_string()}),
            Err(error) => json!({"error": error.to_string()}),
        }
    }

    async fn write_line(write: &mut (impl AsyncWriteExt + Unpin), value: &Value) -> std::io::Result<()> {
        write.write_all(format!("{value}\n").as_bytes()).await
    }
}
