//! What an error of Kafka means for a batch. PURE.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What became of one message that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorClass {
    /// The message itself, or the request that it travelled in, is one that the topic never takes.
    Suspect,
    /// It has nothing to do with the message, or nothing is known: credentials, a missing topic, too few copies, time.
    Retryable,
}

/// What the code says about the message that it was given for.
pub(super) fn classify(code: RDKafkaErrorCode) -> ErrorClass {
    match code {
        RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidRecord => ErrorClass::Suspect,
        _ => ErrorClass::Retryable,
    }
}

/// The error in words. The library's `Display` names its own type first.
pub(super) fn error_text(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_speaks_of_a_message_makes_it_suspect() {
        use RDKafkaErrorCode as Code;
        for code in [Code::MessageSizeTooLarge, Code::InvalidRecord] {
            assert_eq!(classify(code), ErrorClass::Suspect);
        }
        for code in [
            Code::UnknownTopicOrPartition,
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::NotEnoughReplicas,
            Code::NotEnoughReplicasAfterAppend,
            Code::InvalidTimestamp,
            Code::MessageTimedOut,
            Code::Authentication,
            Code::InvalidRequiredAcks,
            Code::Unknown,
        ] {
            assert_eq!(classify(code), ErrorClass::Retryable, "{code:?}");
        }
    }
}
