//! Classifies errors of Kafka.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Class of the error of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorClass {
    /// The topic refuses the message, or the request that contained it, for good.
    Suspect,
    /// The error does not come from the message, or its cause is unknown: credentials, a missing topic, too few copies,
    /// time.
    Retryable,
}

/// Classifies the error of a message by its code.
pub(super) fn classify(code: RDKafkaErrorCode) -> ErrorClass {
    match code {
        RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidRecord => ErrorClass::Suspect,
        _ => ErrorClass::Retryable,
    }
}

/// Returns the text of an error without the name of its type, which the library's `Display` puts first.
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
