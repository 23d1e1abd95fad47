//! The console's test: a real headless Chromium against the built collector.
//!
//! The tests themselves are in `collector/console/test`; this brings what they need and tells them where it is.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::tools;

/// A browser that starts on this machine.
struct Browser {
    executable: PathBuf,
    /// Shared libraries that come with it, where the machine's own do not do.
    libraries: Option<PathBuf>,
    /// A fontconfig file that adds the fonts that come with it.
    fonts: Option<PathBuf>,
}

/// Runs the console's browser tests against `collector`, a built `subway-collector`; screenshots go to
/// `target/screenshots`.
///
/// What the tests need is fetched into `target/tools`. Where that fails the tests are skipped with a message that
/// cannot be overlooked; under `CI=true` that is an error.
///
/// # Errors
/// A test failed, the collector is missing, or under `CI=true` the browser or a package could not be had.
pub(crate) fn test(collector: &Path) -> Result<()> {
    ensure!(collector.is_file(), "no collector at {}; build it first", collector.display());
    let tests = tools::root().join("collector/console/test");
    let prepared = prepare(&tests);
    let (packages, browser) = match prepared {
        Ok(prepared) => prepared,
        Err(error) if env::var("CI").as_deref() != Ok("true") => {
            eprintln!(
                "xtask: ==== SKIPPED: the console's browser tests ====\nxtask: {error:#}\nxtask: under CI=true this is a failure"
            );
            return Ok(());
        }
        Err(error) => return Err(error.context("the console's browser tests cannot run")),
    };
    let temporary = tools::target_dir().join("tmp");
    fs::create_dir_all(&temporary)?;
    let mut node = Command::new("node");
    node.args(["--test", "--test-reporter=spec"])
        .args(
            ["time.test.mjs", "json.test.mjs", "numbers.test.mjs", "live.test.mjs", "odd.test.mjs", "trust.test.mjs"]
                .map(|file| tests.join(file)),
        )
        .env("SUBWAY_COLLECTOR", fs::canonicalize(collector)?)
        .env("SUBWAY_CONSOLE_TOOLS", &packages)
        .env("SUBWAY_BROWSER", &browser.executable)
        .env("SUBWAY_SCREENSHOTS", tools::target_dir().join("screenshots"))
        .env("TMPDIR", &temporary);
    if let Some(libraries) = &browser.libraries {
        node.env("SUBWAY_BROWSER_LIBRARIES", libraries);
    }
    if let Some(fonts) = &browser.fonts {
        node.env("SUBWAY_BROWSER_FONTS", fonts);
    }
    tools::run(&mut node).context("the console's browser tests")
}

/// The folder with the test's npm packages, and a browser.
fn prepare(tests: &Path) -> Result<(PathBuf, Browser)> {
    ensure!(tools::exists("node"), "Node.js 20 or newer is missing");
    let packages = tools::npm_install("console", tests)?;
    let browser = match system_browser() {
        Some(browser) => browser,
        None => npm_browser(tests)?,
    };
    Ok((packages, browser))
}

/// The machine's own Chromium, if it starts.
fn system_browser() -> Option<Browser> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join("chromium"))
        .find(|executable| executable.is_file() && starts(executable, None))
        .map(|executable| Browser { executable, libraries: None, fonts: None })
}

/// The Chromium inside an npm package, unpacked into `target/tools/browser`; needs no root and nothing from the system.
fn npm_browser(tests: &Path) -> Result<Browser> {
    let from = tests.join("browser");
    let package = tools::npm_install("console-browser", &from)?;
    let home = tools::tools_dir().join("browser");
    let _lock = tools::lock("browser")?;
    tools::output(Command::new("node").arg(from.join("unpack.mjs")).arg(&package).arg(&home))
        .context("cannot unpack the browser")?;
    let executable = home.join("chromium");
    let fonts = Some(home.join("fonts.conf"));
    if starts(&executable, None) {
        return Ok(Browser { executable, libraries: None, fonts });
    }
    let libraries = home.join("system/lib");
    ensure!(
        starts(&executable, Some(&libraries)),
        "there is no `chromium` on the PATH, and the one from npm does not start: {}",
        executable.display()
    );
    Ok(Browser { executable, libraries: Some(libraries), fonts })
}

/// True if the browser finds its libraries and tells its version.
fn starts(executable: &Path, libraries: Option<&Path>) -> bool {
    let mut command = Command::new(executable);
    command
        .args(["--headless", "--no-sandbox", "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.status().is_ok_and(|status| status.success())
}
