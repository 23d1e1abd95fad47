//! Keys that a reload cannot change while the collector runs.

use std::hash::{DefaultHasher, Hash, Hasher};

use toml::Spanned;

use super::{Config, SinkKind};

/// Returns a digest of the tables of the sinks as written. Secrets cannot be recovered from it.
pub(super) fn digest(sinks: &[Spanned<toml::Table>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for sink in sinks {
        sink.get_ref().to_string().hash(&mut hasher);
    }
    hasher.finish()
}

impl Config {
    /// Returns the keys whose change needs a restart, each with whether this configuration differs from the `running`
    /// one.
    ///
    /// They concern open sockets and files, running workers and queues of a fixed size.
    fn compare_restart_keys(&self, running: &Config) -> [(&'static str, bool); 16] {
        let (new, old) = (&self.limits, &running.limits);
        [
            ("listen", self.listen != running.listen),
            ("admin.listen", self.admin_listen != running.admin_listen),
            ("data_dir", self.data_dir != running.data_dir),
            ("tls (on or off)", self.tls.is_some() != running.tls.is_some()),
            ("log", self.log != running.log),
            ("sink", self.sinks_digest != running.sinks_digest),
            ("app.timezone (for exact_counts)", running.counts_days() && self.zones() != running.zones()),
            ("embedded", self.embedded != running.embedded),
            ("query", self.query_source != running.query_source),
            ("limits.queue_requests", new.queue_requests != old.queue_requests),
            ("limits.commit_bytes", new.commit_bytes != old.commit_bytes),
            ("limits.spool_max_bytes", new.spool_max_bytes != old.spool_max_bytes),
            ("limits.dead_letter_bytes", new.dead_letter_bytes != old.dead_letter_bytes),
            ("limits.dedup_memory_bytes", new.dedup_memory_bytes != old.dedup_memory_bytes),
            ("limits.dedup_fresh_ids", new.dedup_fresh_ids != old.dedup_fresh_ids),
            ("limits.install_clocks", new.install_clocks != old.install_clocks),
        ]
    }

    /// Returns every key whose change needs a restart.
    #[must_use]
    pub fn keys_needing_restart(&self) -> Vec<&'static str> {
        self.compare_restart_keys(self).into_iter().map(|(key, _)| key).collect()
    }

    /// Returns the keys whose change needs a restart and in which this configuration differs from the `running` one.
    #[must_use]
    pub fn needs_restart(&self, running: &Config) -> Vec<&'static str> {
        self.compare_restart_keys(running).into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }

    /// Returns whether a sink counts by the days of the apps, whose time zones it reads at its start.
    fn counts_days(&self) -> bool {
        self.sinks.iter().any(|sink| matches!(&sink.kind, SinkKind::Elasticsearch(settings) if settings.exact_counts))
    }

    /// Returns this configuration with the values of `running` for every key whose change needs a restart.
    #[must_use]
    pub fn applied_to(mut self, running: &Config) -> Config {
        self.listen.clone_from(&running.listen);
        self.admin_listen.clone_from(&running.admin_listen);
        self.data_dir.clone_from(&running.data_dir);
        self.log.clone_from(&running.log);
        self.sinks.clone_from(&running.sinks);
        self.query_source.clone_from(&running.query_source);
        self.embedded.clone_from(&running.embedded);
        self.sinks_digest = running.sinks_digest;
        self.limits.queue_requests = running.limits.queue_requests;
        self.limits.commit_bytes = running.limits.commit_bytes;
        self.limits.spool_max_bytes = running.limits.spool_max_bytes;
        self.limits.dead_letter_bytes = running.limits.dead_letter_bytes;
        self.limits.dedup_memory_bytes = running.limits.dedup_memory_bytes;
        self.limits.dedup_fresh_ids = running.limits.dedup_fresh_ids;
        self.limits.install_clocks = running.limits.install_clocks;
        if self.tls.is_some() != running.tls.is_some() {
            self.tls.clone_from(&running.tls);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "[[app]]\nkey = \"demo\"\ntimezone = \"UTC\"\n";

    #[test]
    fn what_cannot_change_while_running_is_named_and_stays() {
        let running = Config::parse(&format!("data_dir = \"/a\"\n{APP}[limits]\nconnections = 5\n")).unwrap();
        let mut new = Config::parse(&format!(
            "listen = \"127.0.0.1:1\"\nadmin = {{listen = \"127.0.0.1:2\"}}\ndata_dir = \"/b\"\n{APP}[limits]\nconnections = 6\n\
             queue_requests = 7\ncommit_bytes = 9999\nspool_max_bytes = 9999\ndedup_memory_bytes = 9999\ndedup_fresh_ids = 9999\n\
             install_clocks = 9999\ndead_letter_bytes = 99999\n[log]\nlevel = \"debug\"\n[embedded]\nenabled = false\n[query]\nsource = \"ch\"\n\
             [[sink]]\nname = \"ch\"\nkind = \"clickhouse\"\nurl = \"http://127.0.0.1:9\"\n"
        ))
        .unwrap();
        // A file that names a certificate needs one that can be read.
        new.tls = Some(crate::config::TlsConfig { cert: "c.pem".into(), key: "k.pem".into() });
        // Zones matter to a sink that counts by days, in a test of their own.
        let expected: Vec<_> = new.keys_needing_restart().into_iter().filter(|key| !key.starts_with("app.")).collect();
        assert_eq!(new.needs_restart(&running), expected);
        let applied = new.clone().applied_to(&running);
        assert_eq!(applied.limits.connections, 6, "what can change does");
        assert!(applied.needs_restart(&running).is_empty());
        let applied = running.clone().applied_to(&new);
        assert!(applied.needs_restart(&new).is_empty(), "and the other way round");
    }

    #[test]
    fn a_sink_that_counts_by_days_hears_of_zones_at_its_start_only() {
        let file = |zone: &str, exact: bool| {
            let text = format!(
                "[[app]]\nkey = \"a\"\ntimezone = \"{zone}\"\n[[sink]]\nname = \"es\"\nkind = \"elasticsearch\"\n\
                 url = \"http://127.0.0.1:9200\"\nexact_counts = {exact}\n"
            );
            Config::parse(&text).unwrap()
        };
        let named = file("Asia/Shanghai", true).needs_restart(&file("UTC", true));
        assert_eq!(named, ["app.timezone (for exact_counts)"]);
        assert!(file("Asia/Shanghai", false).needs_restart(&file("UTC", false)).is_empty());
    }

    #[test]
    fn the_same_file_needs_nothing() {
        let config = Config::parse(APP).unwrap();
        assert!(config.needs_restart(&Config::parse(APP).unwrap()).is_empty());
    }
}
