//! External programs and packages: runs programs, fetches npm and Debian packages into ignored folders.
//!
//! Needs no root, and writes nothing outside `target/`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};

/// Returns the root of the checkout.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Returns the ignored folder for build results: `target/`, or `CARGO_TARGET_DIR`.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Returns `target/tools`, which has one folder per tool.
pub fn tools_dir() -> PathBuf {
    target_dir().join("tools")
}

/// Lock on a folder under `target/` while it is filled, so that two processes do not fill it at once.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Waits for the lock named `name`. It is released on drop, and by the system when the process dies.
pub fn lock(name: &str) -> Result<FolderLock> {
    let path = tools_dir().join(format!("{name}.lock"));
    fs::create_dir_all(tools_dir())?;
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(FolderLock { _file: file })
}

/// Returns a command for messages: the program and its arguments.
fn command_line(command: &Command) -> String {
    let args = command.get_args().map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    format!("{} {args}", command.get_program().to_string_lossy())
}

/// Runs a command with this process's output streams. Any failure is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", command_line(command)))?;
    ensure!(status.success(), "`{}` ended with {status}", command_line(command));
    Ok(())
}

/// Runs a command and returns its standard output. On failure the error contains its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let out =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", command_line(command)))?;
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        let tail: Vec<&str> = stderr.lines().rev().take(15).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("`{}` ended with {}:\n{}", command_line(command), out.status, tail.join("\n"));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a command and discards its output. It is killed after `limit`, which is an error.
pub fn run_for(command: &mut Command, limit: Duration) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start `{}`", command_line(command)))?;
    match wait_timeout(&mut child, limit)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("`{}` ended with {status}", command_line(command)),
        None => bail!("`{}` gave no answer within {} s", command_line(command), limit.as_secs()),
    }
}

fn wait_timeout(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns whether the program can be started.
pub fn exists(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Returns whether the process is alive; false for a zombie.
pub fn is_alive(pid: u32) -> bool {
    let state = if Path::new("/proc/self/stat").exists() {
        // `ID (name) STATE ..`; the name can contain anything.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().unwrap_or_default().trim().to_owned()
    } else {
        output(Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()])).unwrap_or_default()
    };
    !state.trim().is_empty() && !state.starts_with(['Z', 'X'])
}

/// Stores a failure in `target/tools/NAME.failed`, so that a hanging server does not delay every run.
pub fn remember_failure(name: &str, why: &str) -> Result<()> {
    fs::create_dir_all(tools_dir())?;
    fs::write(tools_dir().join(format!("{name}.failed")), why)?;
    Ok(())
}

/// Returns the failure stored under `name` within the last `ttl`.
pub fn remembered_failure(name: &str, ttl: Duration) -> Option<String> {
    let path = tools_dir().join(format!("{name}.failed"));
    let written = fs::metadata(&path).and_then(|m| m.modified()).ok()?;
    let fresh = SystemTime::now().duration_since(written).is_ok_and(|age| age < ttl);
    if fresh { fs::read_to_string(path).ok() } else { None }
}

/// Creates `target/tools/npm/NAME/node_modules` from the pinned `package.json` and `package-lock.json` in `from`.
///
/// Returns the folder with `node_modules`. Install scripts are not run, because no tool used here needs one.
pub fn npm_install(name: &str, from: &Path) -> Result<PathBuf> {
    let _lock = lock(&format!("npm-{name}"))?;
    let dir = tools_dir().join("npm").join(name);
    let stamp = dir.join("installed.lock");
    let wanted = fs::read(from.join("package-lock.json"))
        .with_context(|| format!("no package-lock.json in {}", from.display()))?;
    if fs::read(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(dir);
    }
    ensure!(exists("npm"), "npm is missing; install Node.js 20 or newer (it brings npm)");
    eprintln!("fetching: npm ci for {name}");
    fs::create_dir_all(&dir)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(from.join(file), dir.join(file))?;
    }
    output(
        Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(&dir),
    )?;
    fs::write(stamp, wanted)?;
    Ok(dir)
}

/// Fetches Debian packages with their missing dependencies, and unpacks them without root into
/// `target/tools/debian/NAME`. Returns that folder.
pub fn debian_unpack(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let _lock = lock(&format!("debian-{name}"))?;
    let dir = tools_dir().join("debian").join(name);
    let stamp = dir.join("unpacked");
    if stamp.exists() {
        return Ok(dir);
    }
    ensure!(exists("apt-get") && exists("dpkg"), "this is no Debian: apt-get or dpkg is missing");
    let private = private_apt(&tools_dir().join("apt"))?;
    // The system's own package lists first. If they are missing or too old, lists of our own.
    let debs = match download_debs(name, packages, &[]) {
        Ok(debs) => debs,
        Err(error) => {
            eprintln!("with the machine's package lists: {error:#}\nfetching package lists");
            output(Command::new("apt-get").arg("update").args(&private))?;
            download_debs(name, packages, &private)?
        }
    };
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    for deb in &debs {
        output(Command::new("dpkg").arg("-x").arg(deb).arg(&dir))?;
    }
    fs::write(stamp, packages.join("\n"))?;
    for deb in &debs {
        fs::remove_file(deb)?;
    }
    Ok(dir)
}

/// Returns the options that make apt keep its lists and its cache under `dir`.
fn private_apt(dir: &Path) -> Result<Vec<String>> {
    let (state, cache) = (dir.join("state"), dir.join("cache"));
    fs::create_dir_all(state.join("lists/partial"))?;
    fs::create_dir_all(cache.join("archives/partial"))?;
    Ok(vec![
        format!("-oDir::State={}", state.display()),
        "-oDir::State::status=/var/lib/dpkg/status".to_owned(),
        format!("-oDir::Cache={}", cache.display()),
    ])
}

/// Downloads the packages and those of their dependencies that are not installed. Returns the files.
fn download_debs(name: &str, packages: &[&str], options: &[String]) -> Result<Vec<PathBuf>> {
    // --print-uris only plans the installation; that needs no lock and no root.
    let plan = output(
        Command::new("apt-get")
            .args(["install", "--print-uris", "--no-install-recommends", "--yes", "-oDebug::NoLocking=1"])
            .args(options)
            .args(packages),
    )?;
    let needed = needed_packages(&plan);
    ensure!(!needed.is_empty(), "apt-get names nothing to download for {}", packages.join(" "));
    let into = tools_dir().join("apt").join("debs").join(name);
    fs::create_dir_all(&into)?;
    eprintln!("downloading {}", needed.join(" "));
    output(Command::new("apt-get").arg("download").args(options).args(&needed).current_dir(&into))?;
    let debs: Vec<PathBuf> = fs::read_dir(&into)?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .collect();
    ensure!(debs.len() >= needed.len(), "apt-get downloaded {} of {} packages", debs.len(), needed.len());
    Ok(debs)
}

/// Returns the package names in the lines `'uri' file_version_arch.deb size hash` of apt-get's plan.
fn needed_packages(plan: &str) -> Vec<String> {
    plan.lines()
        .filter(|line| line.starts_with('\''))
        .filter_map(|line| line.split_whitespace().nth(1))
        .filter_map(|file| file.split('_').next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_names_are_read_from_the_plan() {
        let plan = "Reading package lists...\n'http://h/p/a_1%3a2_amd64.deb' liba_1%3a2_amd64.deb 12 SHA256:00\n\
                    The following NEW packages\n'http://h/b.deb' b-web_1.9_all.deb 7 SHA256:11\n";
        assert_eq!(needed_packages(plan), ["liba", "b-web"]);
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let error = run_for(Command::new("sleep").arg("600"), Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("no answer"), "{error}");
    }

    #[test]
    fn a_failing_command_is_named_with_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo broken pipe organ >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("broken pipe organ"), "{error}");
    }
}
