//! A collector as a child process, for demos and tests.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// A running collector. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Collector {
    child: Child,
    /// Where it listens, such as `http://127.0.0.1:8080`.
    pub(crate) address: String,
    data_dir: PathBuf,
}

impl Collector {
    /// Starts `binary` with the embedded default configuration and waits until it answers. `listen` as the option of
    /// the same name; port 0 takes a free one. Its log goes to `log`.
    pub(crate) fn start(binary: &Path, data_dir: &Path, listen: &str, log: Stdio) -> Result<Self> {
        Self::start_with(binary, data_dir, listen, log, &[])
    }

    /// [`Collector::start`] with more arguments of `serve`.
    pub(crate) fn start_with(
        binary: &Path,
        data_dir: &Path,
        listen: &str,
        log: Stdio,
        arguments: &[&std::ffi::OsStr],
    ) -> Result<Self> {
        let mut child = Command::new(binary)
            .args(["serve", "--listen", listen, "--data-dir"])
            .arg(data_dir)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let stdout = child.stdout.take().context("the collector has no output")?;
        let mut collector = Self { child, address: String::new(), data_dir: data_dir.to_owned() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ");
        collector.address = address.context("the collector ended before it listened; see its log")?.to_owned();
        Ok(collector)
    }

    /// The read token of the app `demo`, which the first start has made.
    pub(crate) fn read_token(&self) -> Result<String> {
        let file = self.data_dir.join("read-token-demo");
        let token = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(token.trim().to_owned())
    }

    /// Waits until it ends by itself or is told to.
    pub(crate) fn wait(&mut self) -> Result<()> {
        self.child.wait().context("cannot wait for the collector").map(drop)
    }

    /// Kills it as a power switch would, and waits until it is gone.
    #[cfg(test)]
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.end();
    }
}
