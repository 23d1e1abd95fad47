//! The collector's refusal of a whole request, as far as the SDK reads it.

use crate::json::{JsonError, Reader};

/// What the `type` of every problem of the collector begins with; its code follows.
pub const TYPE_PREFIX: &str = "urn:subway:problem:";

/// The code that speaks of what came over the network and not of what was sent: the client made the gzip, and no event is to
/// blame for what became of it on the way.
const DAMAGED: &str = "malformed_gzip";

/// Whether `body` is the collector's own problem with this status, and blames the batch. Whoever is on the way to the
/// collector (a proxy, a firewall, a load balancer) can answer 400 or 413 as well, and knows nothing of the batch; or
/// damages it.
#[must_use]
pub fn blames_batch(status: u16, body: &str) -> bool {
    matches!(read(body), Ok((true, Some(said))) if said == i64::from(status))
}

/// Whether the type is one of the collector's that blame the batch, and the status that the problem names.
fn read(body: &str) -> Result<(bool, Option<i64>), JsonError> {
    let (mut ours, mut status) = (false, None);
    let mut reader = Reader::new(body);
    reader.object(|name, reader| {
        match name {
            "type" => ours = reader.string()?.strip_prefix(TYPE_PREFIX).is_some_and(|code| code != DAMAGED),
            "status" => status = Some(reader.integer()?),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    reader.end()?;
    Ok((ours, status))
}

#[cfg(test)]
mod tests {
    use super::blames_batch;

    #[test]
    fn only_the_collectors_own_problem_with_this_status_counts() {
        let ours = r#"{"type":"urn:subway:problem:no_events","title":"t","status":400,"detail":"d","code":"no_events","got":{"x":[1]}}"#;
        assert!(blames_batch(400, ours));
        assert!(blames_batch(413, &ours.replace("400", "413")), "also one of a later version");
        assert!(!blames_batch(413, ours), "somebody changed the status on the way");
        let others = [
            "",
            "<html>400 Bad Request</html>",
            "{}",
            "null",
            r#"{"status":400,"code":"no_events"}"#,
            r#"{"type":"urn:subway:problem:malformed_gzip","status":400,"code":"malformed_gzip"}"#,
            r#"{"type":"about:blank","title":"Bad Request","status":400}"#,
            r#"{"type":400,"status":400}"#,
            r#"{"type":"urn:subway:problem:no_events"}"#,
            r#"{"type":"urn:subway:problem:no_events","status":"400"}"#,
            &ours[..ours.len() - 1],
            &format!("{ours}<html>"),
        ];
        for body in others {
            assert!(!blames_batch(400, body), "{body}");
        }
    }
}
