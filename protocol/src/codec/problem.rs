//! The collector's refusal of a whole request, as far as the SDK reads it.

use crate::json::{JsonError, Reader};

/// What the `type` of every problem of the collector begins with; its code follows.
pub const TYPE_PREFIX: &str = "urn:subway:problem:";

/// Whether `body` is the collector's own problem with this status. Whoever is on the way to the collector (a proxy, a
/// firewall, a load balancer) can answer 400 or 413 as well, and knows nothing of the batch.
#[must_use]
pub fn is_from_collector(status: u16, body: &str) -> bool {
    matches!(read(body), Ok((true, Some(said))) if said == i64::from(status))
}

/// Whether the type is one of the collector's, and the status that the problem names.
fn read(body: &str) -> Result<(bool, Option<i64>), JsonError> {
    let (mut ours, mut status) = (false, None);
    let mut reader = Reader::new(body);
    reader.object(|name, reader| {
        match name {
            "type" => ours = reader.string()?.starts_with(TYPE_PREFIX),
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
    use super::is_from_collector;

    #[test]
    fn only_the_collectors_own_problem_with_this_status_counts() {
        let ours = r#"{"type":"urn:subway:problem:no_events","title":"t","status":400,"detail":"d","code":"no_events","got":{"x":[1]}}"#;
        assert!(is_from_collector(400, ours));
        assert!(is_from_collector(413, &ours.replace("400", "413")), "also one of a later version");
        assert!(!is_from_collector(413, ours), "somebody changed the status on the way");
        let others = [
            "",
            "<html>400 Bad Request</html>",
            "{}",
            "null",
            r#"{"status":400,"code":"no_events"}"#,
            r#"{"type":"about:blank","title":"Bad Request","status":400}"#,
            r#"{"type":400,"status":400}"#,
            r#"{"type":"urn:subway:problem:no_events"}"#,
            r#"{"type":"urn:subway:problem:no_events","status":"400"}"#,
            &ours[..ours.len() - 1],
            &format!("{ours}<html>"),
        ];
        for body in others {
            assert!(!is_from_collector(400, body), "{body}");
        }
    }
}
