//! ClickHouse 18.16, a server with configuration files.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::ClickHouse;
use crate::process;
use crate::rundir::RunDir;

const USERS: &str = "<yandex>
  <profiles><default/></profiles>
  <users><default><password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users>
  <quotas><default/></quotas>
</yandex>
";

/// Starts an instance from the unpacked Debian packages.
pub(super) fn start_from(home: &Path) -> Result<ClickHouse> {
    let (dir, port) = (RunDir::new()?, process::free_port()?);
    for folder in ["data", "tmp", "schemas"] {
        fs::create_dir(dir.join(folder))?;
    }
    fs::write(dir.join("users.xml"), USERS)?;
    let config = dir.join("config.xml");
    fs::write(
        &config,
        format!(
            "<yandex>\n  <logger><level>warning</level><console>1</console></logger>\n  <http_port>{port}</http_port>\n  \
             <tcp_port>{}</tcp_port>\n  <listen_host>127.0.0.1</listen_host>\n  <path>{}/</path>\n  <tmp_path>{}/</tmp_path>\n  \
             <format_schema_path>{}/</format_schema_path>\n  <users_config>users.xml</users_config>\n  \
             <default_profile>default</default_profile>\n  <default_database>default</default_database>\n  \
             <mark_cache_size>67108864</mark_cache_size>\n</yandex>\n",
            process::free_port()?,
            dir.join("data").display(),
            dir.join("tmp").display(),
            dir.join("schemas").display(),
        ),
    )?;
    let command =
        vec![home.join("usr/sbin/clickhouse-server").into(), format!("--config-file={}", config.display()).into()];
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let libraries = std::env::join_paths([home.join("usr/lib").join(&triple), home.join("lib").join(&triple)])?;
    let env = vec![("LD_LIBRARY_PATH".to_owned(), libraries)];
    ClickHouse::run(command, env, (dir, port), ("SELECT 1", "1".to_owned()))
}
