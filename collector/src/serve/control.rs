//! The control socket: what commands ask of the collector that runs on the same data directory. A Unix socket in that
//! directory, which only its owner can enter; one line asks, lines of JSON answer.

use std::path::{Path, PathBuf};

/// The socket's file name inside the data directory.
const SOCKET: &str = "control.sock";

/// Bytes of a question.
#[cfg(unix)]
const QUESTION_BYTES: u64 = 1024;

/// The path of the socket for the system, which takes about a hundred bytes: a longer one is named through the open
/// directory, which has to live as long as the path is used.
#[cfg(target_os = "linux")]
fn socket(data_dir: &Path) -> std::io::Result<(PathBuf, Option<std::fs::File>)> {
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    const PATH_BYTES: usize = 100;
    let path = data_dir.join(SOCKET);
    if path.as_os_str().as_bytes().len() <= PATH_BYTES {
        return Ok((path, None));
    }
    let dir = std::fs::File::open(data_dir)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd())), Some(dir)))
}

#[cfg(all(unix, not(target_os = "linux")))]
fn socket(data_dir: &Path) -> std::io::Result<(PathBuf, Option<std::fs::File>)> {
    Ok((data_dir.join(SOCKET), None))
}

/// Connects to the collector that runs on `data_dir`. Blocks.
///
/// # Errors
/// If there is none, or it is another user's.
#[cfg(unix)]
pub(crate) fn connect(data_dir: &Path) -> std::io::Result<std::os::unix::net::UnixStream> {
    let (path, _dir) = socket(data_dir)?;
    std::os::unix::net::UnixStream::connect(path)
}

/// Not on this system.
///
/// # Errors
/// Always.
#[cfg(not(unix))]
pub fn connect(data_dir: &Path) -> std::io::Result<std::net::TcpStream> {
    Err(std::io::Error::other(format!(
        "{}: there are no control sockets on this system",
        data_dir.join(SOCKET).display()
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

    use super::{Path, QUESTION_BYTES, SOCKET, socket};
    use crate::fanout::Replayer;
    use crate::spool::{SinkRemoval, Spool};

    /// What is understood.
    const KNOWN: &str = "unknown question; known are `replay SINK`, `retire SINK` and `forget SINK`";

    /// Answers for ever. A socket that cannot be made costs the commands that need it, not the collector.
    pub(crate) async fn serve(data_dir: &Path, replayer: Replayer, spool: Spool) {
        // Left behind by a collector that was killed; the directory is ours alone.
        let _ = std::fs::remove_file(data_dir.join(SOCKET));
        let listener = socket(data_dir).and_then(|(path, _dir)| {
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(data_dir.join(SOCKET), std::fs::Permissions::from_mode(0o600))?;
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
        let mut question = String::new();
        BufReader::new(read.take(QUESTION_BYTES)).read_line(&mut question).await?;
        let sink = match question.trim().split_once(' ') {
            Some(("replay", sink)) => sink,
            Some(("retire", sink)) => return line(&mut write, &end(spool, SinkRemoval::Retire, sink).await).await,
            Some(("forget", sink)) => return line(&mut write, &end(spool, SinkRemoval::Forget, sink).await).await,
            _ => return line(&mut write, &json!({"error": KNOWN})).await,
        };
        let (sender, mut progress) = tokio::sync::mpsc::unbounded_channel();
        let replay = replayer.replay(sink, |report| {
            let _ = sender.send(json!(report));
        });
        tokio::pin!(replay);
        let result = loop {
            tokio::select! {
                result = &mut replay => break result,
                // Somebody who has gone away does not end the replay.
                Some(report) = progress.recv() => drop(line(&mut write, &report).await),
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
        line(&mut write, &last).await
    }

    async fn end(spool: Spool, how: SinkRemoval, sink: &str) -> Value {
        let sink = sink.to_owned();
        match tokio::task::spawn_blocking(move || how.apply(&spool, &sink)).await {
            Ok(Ok(())) => json!({"done": true}),
            Ok(Err(error)) => json!({"error": error.to_string()}),
            Err(error) => json!({"error": error.to_string()}),
        }
    }

    async fn line(write: &mut (impl AsyncWriteExt + Unpin), value: &Value) -> std::io::Result<()> {
        write.write_all(format!("{value}\n").as_bytes()).await
    }
}
