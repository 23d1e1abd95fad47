//! SQL expression that turns properties into a text that ClickHouse can read. PURE.
//!
//! JSON allows lone surrogates (`"\\ud800"`) and numbers out of range (`1e999`, 2^64 and more), and events keep what
//! was sent. The server's JSON functions read nothing of such a text, and its type JSON refuses it. The expression
//! returns the text itself if it is readable. Otherwise it drops lone surrogates and turns numbers out of range into
//! texts.

/// Regular expression of one token: a text, a number, or what stands between them.
const TOKEN: &str = r#""(?:[^"\\]|\\.)*"|-?[0-9][-+.0-9eE]*|[^-"0-9]+"#;
/// Regular expression of a number that may be out of range: an exponent of three digits, or 19 digits before the point.
const OUT_OF_RANGE_NUMBER: &str = r"^-?(?:[0-9]+(?:\.[0-9]+)?[eE]\+?[0-9]{3,}|[0-9]{19,}.*)$";
/// Regular expression of the characters of a text, each kept as a group, or a lone surrogate, which is outside of the
/// group.
const LONE_SURROGATE: &str = concat!(
    r"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u]|\\u[0-9a-cA-CefEF][0-9a-fA-F]{3}|\\u[dD][0-7][0-9a-fA-F]{2})",
    r"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
);

/// Quotes a text for SQL.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

/// Returns the expression for the column `column`.
pub(super) fn sanitized(column: &str) -> String {
    let [token, out_of_range, lone_surrogate, group] = [TOKEN, OUT_OF_RANGE_NUMBER, LONE_SURROGATE, r"\1"].map(quoted);
    format!(
        "if(isValidJSON({column}), {column}, arrayStringConcat(arrayMap(token -> multiIf(startsWith(token, '\"'), \
         replaceRegexpAll(token, {lone_surrogate}, {group}), match(token, {out_of_range}), concat('\"', token, '\"'), token), \
         extractAll({column}, {token}))))"
    )
}
