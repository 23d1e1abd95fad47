//! Fetches artifacts from Maven repositories with the machine's own `mvn`, into `target/tools/servers`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tools;

/// Plugin that fetches artifacts, pinned.
const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";
/// Oldest Java that runs the servers.
const JAVA: u32 = 17;

/// Returns the folder of fetched servers.
fn servers_dir() -> PathBuf {
    tools::tools_dir().join("servers")
}

/// Returns `mvn` with a repository of our own and without prompts.
fn maven() -> Result<Command> {
    ensure!(tools::exists("mvn"), "mvn is missing; install Maven (Debian: apt-get install maven)");
    let mut command = Command::new("mvn");
    command.args(["--batch-mode", "--quiet", "--no-transfer-progress"]);
    command.arg(format!("-Dmaven.repo.local={}", servers_dir().join("m2").display()));
    Ok(command)
}

/// Fetches and unpacks one archive, written `group:artifact:version:zip`. Returns the folder.
pub(crate) fn unpack(name: &str, artifact: &str) -> Result<PathBuf> {
    fill(name, artifact, |dir| {
        eprintln!("fetching {name}: mvn dependency:unpack {artifact}");
        tools::output(
            maven()?
                .arg(format!("{PLUGIN}:unpack"))
                .arg(format!("-Dartifact={artifact}"))
                .arg(format!("-DoutputDirectory={}", dir.display()))
                .current_dir(dir),
        )
        .map(drop)
    })
}

/// Fetches the artifacts, written `group:artifact:version`, with their dependencies. Returns the folder of the jars.
pub(crate) fn jars(name: &str, artifacts: &[&str]) -> Result<PathBuf> {
    let pom = pom(artifacts)?;
    let dir = fill(name, &pom, |dir| {
        eprintln!("fetching {name}: mvn dependency:copy-dependencies {}", artifacts.join(" "));
        fs::write(dir.join("pom.xml"), &pom)?;
        tools::output(
            maven()?
                .arg(format!("{PLUGIN}:copy-dependencies"))
                .arg("-DincludeScope=runtime")
                .arg(format!("-DoutputDirectory={}", dir.join("lib").display()))
                .current_dir(dir),
        )
        .map(drop)
    })?;
    Ok(dir.join("lib"))
}

/// Runs `work` on an empty folder, unless the folder was created from the same input before.
fn fill(name: &str, made_of: &str, work: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
    // One lock for all, because they share the repository.
    let _lock = tools::lock("servers-maven")?;
    let dir = servers_dir().join(name);
    let stamp = dir.join("made-of");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == made_of) {
        return Ok(dir);
    }
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    work(&dir)?;
    fs::write(stamp, made_of)?;
    Ok(dir)
}

fn pom(artifacts: &[&str]) -> Result<String> {
    let mut dependencies = String::new();
    for artifact in artifacts {
        let parts: Vec<&str> = artifact.split(':').collect();
        let [group, name, version] = parts[..] else { anyhow::bail!("`{artifact}` is not group:artifact:version") };
        dependencies.push_str(&format!(
            "<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>\n"
        ));
    }
    Ok(format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\n\
         <groupId>subway</groupId><artifactId>servers</artifactId><version>1</version><packaging>pom</packaging>\n\
         <dependencies>\n{dependencies}</dependencies></project>\n"
    ))
}

/// Returns the home of a Java that is new enough: `JAVA_HOME`, or the one whose `java` is on the path.
pub(crate) fn java_home() -> Result<PathBuf> {
    let missing = || format!("java is missing; install Java {JAVA} (Debian: apt-get install openjdk-17-jre-headless)");
    let home = match std::env::var_os("JAVA_HOME") {
        Some(home) => PathBuf::from(home),
        None => {
            let java = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .map(|dir| dir.join("java"))
                .find(|java| java.is_file())
                .with_context(missing)?;
            let java = fs::canonicalize(java)?;
            java.parent().and_then(Path::parent).with_context(missing)?.to_path_buf()
        }
    };
    let java = home.join("bin/java");
    let said = Command::new(&java).arg("-version").output().with_context(missing)?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let version = said.split('"').nth(1).unwrap_or_default();
    let major: u32 = version.split(['.', '-']).next().and_then(|major| major.parse().ok()).unwrap_or(0);
    ensure!(major >= JAVA, "{} is version {version}; Java {JAVA} or newer is needed", java.display());
    Ok(home)
}
