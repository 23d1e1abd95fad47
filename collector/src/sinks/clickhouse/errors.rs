//! Maps the server's response to an insert to an error of the batch. Every error has a number, which the server sends
//! in a header: <https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp>.

use crate::sinks::SinkError;
use crate::sinks::http::Response;

/// Header with the number of the error.
const CODE_HEADER: &str = "x-clickhouse-exception-code";
/// Prefix of an error's text, used where the header is missing.
const CODE_PREFIX: &[u8] = b"Code: ";
/// HTTP status of a proxy that limits the size of a body.
const PAYLOAD_TOO_LARGE: u16 = 413;

/// Errors that name a value in the rows that were sent. Any other error may pass, or refuses everything. Such an insert
/// stores nothing: the server checks rows before it writes the first part.
const ROW_ERRORS: [u32; 25] = [
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

/// Returns the number of the error in a response; `None` if the statement succeeded.
pub(crate) fn error_code(answer: &Response) -> Option<u32> {
    let header = answer.headers.get(CODE_HEADER).and_then(|code| code.to_str().ok()).and_then(|code| code.parse().ok());
    // An error after the status was sent stands at the end of the body.
    let from_text = || {
        let at = memchr::memmem::find(&answer.body, CODE_PREFIX)? + CODE_PREFIX.len();
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

/// Class of an error of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErrorClass {
    /// A row is at fault; the server never takes it.
    Permanent,
    /// The body is too large for a proxy; a part of it may pass.
    TooLarge,
    /// Anything else: a later attempt may succeed.
    Retryable,
}

/// Classifies the error `code` of a response with the HTTP status `status`.
fn classify(code: u32, status: u16) -> ErrorClass {
    match status {
        _ if ROW_ERRORS.contains(&code) => ErrorClass::Permanent,
        PAYLOAD_TOO_LARGE => ErrorClass::TooLarge,
        _ => ErrorClass::Retryable,
    }
}

/// Checks the response to an insert: `Ok` if the rows are stored.
///
/// # Errors
/// [`SinkError::Permanent`], [`SinkError::TooLarge`] or [`SinkError::Retryable`], as [`ErrorClass`] says.
pub(super) fn check_insert(response: &Response) -> Result<(), SinkError> {
    let Some(code) = error_code(response) else {
        // A successful insert has an empty body, so any text comes from something else, such as a captive portal.
        return if response.body.is_empty() { Ok(()) } else { Err(response.retryable()) };
    };
    Err(match classify(code, response.status) {
        ErrorClass::Permanent => SinkError::permanent(response.message()),
        ErrorClass::TooLarge => SinkError::TooLarge { message: response.message() },
        ErrorClass::Retryable => response.retryable(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderMap, HeaderValue};

    fn answer(status: u16, code: Option<&'static str>, body: &'static str) -> Response {
        let mut headers = HeaderMap::new();
        if let Some(code) = code {
            headers.insert(CODE_HEADER, HeaderValue::from_static(code));
        }
        Response { status, headers, body: bytes::Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn only_an_error_that_speaks_of_a_row_is_a_refusal() {
        assert_eq!(check_insert(&answer(200, None, "")), Ok(()));
        let refused = |found| matches!(found, Err(SinkError::Permanent { .. }));
        assert!(refused(check_insert(&answer(500, Some("469"), "Code: 469. DB::Exception: no"))));
        assert!(refused(check_insert(&answer(400, None, "Code: 117. DB::Exception: no"))));
        assert!(refused(check_insert(&answer(200, Some("395"), ""))));
        let passing = |found| matches!(found, Err(SinkError::Retryable { .. }));
        for code in ["60", "81", "164", "192", "193", "194", "241", "242", "252", "319", "497", "516", "999"] {
            assert!(passing(check_insert(&answer(500, Some(code), "Code: 469 is what a row may say"))), "{code}");
        }
        assert!(passing(check_insert(&answer(502, None, "<html>Bad gateway</html>"))));
        assert!(passing(check_insert(&answer(401, None, ""))));
        assert!(passing(check_insert(&answer(200, None, "<html>Log in to this network</html>"))), "a captive portal");
        assert!(matches!(check_insert(&answer(413, None, "")), Err(SinkError::TooLarge { .. })));
    }
}
