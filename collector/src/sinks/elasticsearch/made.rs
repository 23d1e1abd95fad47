//! Which indices of events there are already: to make one takes the cluster long.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::Method;

use super::super::SinkError;
use super::layout::Place;
use super::server::Server;

/// Indices that are remembered. There are no more days and years that an event can be of, unless `past_days` is raised.
const KNOWN_INDICES: usize = 10_000;

/// The indices that are surely there, or were when they were last looked for.
pub(super) struct Made {
    prefix: String,
    places: Mutex<HashSet<Place>>,
}

impl Made {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), places: Mutex::default() }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These were written to.
    pub(super) fn add(&self, places: impl IntoIterator<Item = Place>) {
        let mut known = self.known();
        if known.len() >= KNOWN_INDICES {
            known.clear();
        }
        known.extend(places);
    }

    /// Asks the store which there are. If it does not say, which takes the right to look at indices, what is known stays: an
    /// index that is there and not known costs its first events a detour, nothing else.
    pub(super) async fn look(&self, server: &Server) {
        match names(&self.prefix, server).await {
            Ok(names) => *self.known() = names.iter().filter_map(|name| Place::named(&self.prefix, name)).collect(),
            Err(error) => tracing::info!(%error, "the store does not say which indices it has"),
        }
    }
}

async fn names(prefix: &str, server: &Server) -> Result<Vec<String>, SinkError> {
    let path = format!("/_resolve/index/{prefix}-ods-*?filter_path=indices.name");
    let value = server.value(Method::GET, &path, None).await?;
    let names = value["indices"].as_array().into_iter().flatten().filter_map(|index| index["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}
