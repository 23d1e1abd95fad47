//! What the server's answer to an insert means for the batch. Every error has a number, which the server says in a header:
//! <https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp>.

use crate::sinks::SinkError;
use crate::sinks::http::Answer;

/// The header with the number of the error.
const CODE: &str = "x-clickhouse-exception-code";
/// What the text of an error begins with, where there is no header.
const CODE_IN_TEXT: &[u8] = b"Code: ";
/// The request's body is larger than what stands between allows.
const PAYLOAD_TOO_LARGE: u16 = 413;

/// Errors that speak of a value in the rows that were sent. Whatever is not here may pass, or refuses everything.
/// In such an insert nothing is stored: rows are checked before the first part is written.
const OF_A_ROW: [u32; 25] = [
    6,   // CANNOT_PARSE_TEXT
    25,  // CANNOT_PARSE_ESCAPE_SEQUENCE
    26,  // CANNOT_PARSE_QUOTED_STRING
    27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
    38,  // CANNOT_PARSE_DATE
    41,  // CANNOT_PARSE_DATETIME
    53,  // TYPE_MISMATCH
    69,  // ARGUMENT_OUT_OF_BOUND
    70,  // CANNOT_CONVERT_TYPE
    72,  // CANNOT_PARSE_NUMBER
    117, // INCORRECT_DATA
    128, // TOO_LARGE_ARRAY_SIZE
    131, // TOO_LARGE_STRING_SIZE
    153, // ILLEGAL_DIVISION
    190, // SIZES_OF_ARRAYS_DONT_MATCH
    321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    376, // CANNOT_PARSE_UUID
    395, // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
    407, // DECIMAL_OVERFLOW
    467, // CANNOT_PARSE_BOOL
    469, // VIOLATED_CONSTRAINT
    675, // CANNOT_PARSE_IPV4
    676, // CANNOT_PARSE_IPV6
    691, // UNKNOWN_ELEMENT_OF_ENUM
];

/// The number of the error that an answer speaks of; `None` if the server did what it was asked.
pub(crate) fn code(answer: &Answer) -> Option<u32> {
    let header = answer.headers.get(CODE).and_then(|code| code.to_str().ok()).and_then(|code| code.parse().ok());
    // An error that comes after the status has been sent stands at the end of the body.
    let from_text = || {
        let at = memchr::memmem::find(&answer.body, CODE_IN_TEXT)? + CODE_IN_TEXT.len();
        let digits = answer.body[at..].iter().take_while(|byte| byte.is_ascii_digit());
        let code = digits.fold(0u32, |code, digit| code.wrapping_mul(10).wrapping_add(u32::from(digit - b'0')));
        (code > 0).then_some(code)
    };
    match header {
        Some(code) => Some(code),
        None if answer.is_ok() => None,
        None => Some(from_text().unwrap_or_default()),
    }
}

/// What an answer to an insert means, if it is not that the rows are stored.
///
/// # Errors
/// [`SinkError::Refused`] if a row is at fault, [`SinkError::TooLarge`] if the body is too large for what stands between,
/// otherwise [`SinkError::Retryable`].
pub(super) fn judge(answer: &Answer) -> Result<(), SinkError> {
    match code(answer) {
        None if answer.body.is_empty() => Ok(()),
        // An insert has nothing to say when it is done.
        None => Err(answer.retryable()),
        Some(code) if OF_A_ROW.contains(&code) => Err(SinkError::refused(answer.message())),
        Some(_) if answer.status == PAYLOAD_TOO_LARGE => Err(SinkError::TooLarge { message: answer.message() }),
        Some(_) => Err(answer.retryable()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderMap, HeaderValue};

    fn answer(status: u16, code: Option<&'static str>, body: &'static str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(code) = code {
            headers.insert(CODE, HeaderValue::from_static(code));
        }
        Answer { status, headers, body: bytes::Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn only_an_error_that_speaks_of_a_row_is_a_refusal() {
        assert_eq!(judge(&answer(200, None, "")), Ok(()));
        let refused = |found| matches!(found, Err(SinkError::Refused { .. }));
        assert!(refused(judge(&answer(500, Some("469"), "Code: 469. DB::Exception: no"))));
        assert!(refused(judge(&answer(400, None, "Code: 117. DB::Exception: no"))));
        assert!(refused(judge(&answer(200, Some("395"), ""))));
        let passing = |found| matches!(found, Err(SinkError::Retryable { .. }));
        for code in ["60", "81", "164", "192", "193", "194", "241", "242", "252", "319", "497", "516", "999"] {
            assert!(passing(judge(&answer(500, Some(code), "Code: 469 is what a row may say"))), "{code}");
        }
        assert!(passing(judge(&answer(502, None, "<html>Bad gateway</html>"))));
        assert!(passing(judge(&answer(401, None, ""))));
        assert!(passing(judge(&answer(200, None, "<html>Log in to this network</html>"))), "a captive portal");
        assert!(matches!(judge(&answer(413, None, "")), Err(SinkError::TooLarge { .. })));
    }
}
