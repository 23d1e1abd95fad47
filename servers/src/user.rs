//! User that a server runs as. Elasticsearch and OpenSearch refuse to run as root, so under root they run as nobody.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::tools;

/// The user and group `nobody`; no entry in the user database is needed.
const NOBODY: u32 = 65534;

/// User of a server's process.
#[derive(Clone, Copy)]
pub(crate) struct User {
    id: Option<u32>,
}

impl User {
    /// Returns this user, or nobody in place of root.
    pub(crate) fn unprivileged() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { id: None });
        }
        ensure!(tools::exists("setpriv"), "setpriv is missing; install util-linux, or do not run the tests as root");
        Ok(Self { id: Some(NOBODY) })
    }

    /// Returns the words before a command that run it as this user.
    pub(crate) fn prefix(self) -> Vec<OsString> {
        match self.id {
            Some(id) => vec![
                "setpriv".into(),
                format!("--reuid={id}").into(),
                format!("--regid={id}").into(),
                "--clear-groups".into(),
            ],
            None => Vec::new(),
        }
    }

    /// Returns whether this user can read the file.
    pub(crate) fn can_read(self, file: &Path) -> bool {
        if self.id.is_none() {
            return file.exists();
        }
        let prefix = self.prefix();
        let status = Command::new(&prefix[0]).args(&prefix[1..]).args(["test", "-r"]).arg(file).status();
        status.is_ok_and(|status| status.success())
    }

    /// Makes this user the owner of a folder and its contents.
    pub(crate) fn take_ownership(self, path: &Path) -> Result<()> {
        let Some(id) = self.id else { return Ok(()) };
        chown(path, Some(id), Some(id))?;
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                self.take_ownership(&entry?.path())?;
            }
        }
        Ok(())
    }
}
