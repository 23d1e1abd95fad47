//! Recognises the collector's refusal of a whole request, as far as the SDK needs it.

use crate::json::{JsonError, Reader};

/// Prefix of the `type` of every problem of the collector; the code follows it.
pub const TYPE_PREFIX: &str = "urn:subway:problem:";

/// Code of a body that was damaged on the way. The client wrote valid gzip, so no event of the batch is at fault.
const DAMAGED: &str = "malformed_gzip";

/// Returns whether `body` is a problem of the collector with this status that blames the batch.
///
/// An intermediary (a proxy, a firewall, a load balancer) can answer 400 or 413 as well, or damage the body. Neither
/// says anything about the batch.
#[must_use]
pub fn is_batch_problem(status: u16, body: &str) -> bool {
    matches!(read(body), Ok((true, Some(said))) if said == i64::from(status))
}

/// Reads whether the type is one of the collector's that blame the batch, and the status that the problem names.
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
    use super::is_batch_problem;

    #[test]
    fn only_the_collectors_own_problem_with_this_status_counts() {
        let ours = r#"{"type":"urn:subway:problem:no_events","title":"t","status":400,"detail":"d","code":"no_events","got":{"x":[1]}}"#;
        assert!(is_batch_problem(400, ours));
        assert!(is_batch_problem(413, &ours.replace("400", "413")), "also one of a later version");
        assert!(!is_batch_problem(413, ours), "somebody changed the status on the way");
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
            assert!(!is_batch_problem(400, body), "{body}");
        }
    }
}
