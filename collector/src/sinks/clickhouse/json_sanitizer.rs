//! Properties as a text that ClickHouse can read. PURE.
//!
//! JSON allows half a surrogate (`"\\ud800"`) and numbers beyond every type (`1e999`, 2^64 and more), and events keep what was
//! sent. The server's JSON functions read nothing of such a text, and its type JSON refuses it. So what they are given is the
//! text itself if it can be read, else its tokens with these mended: half a surrogate is left out, a number beyond is a text.

/// One token: a text, a number, or what stands between them.
const TOKEN: &str = r#""(?:[^"\\]|\\.)*"|-?[0-9][-+.0-9eE]*|[^-"0-9]+"#;
/// A number that may be beyond: with an exponent of three digits, or with 19 digits in front of the point.
const OUT_OF_RANGE_NUMBER: &str = r"^-?(?:[0-9]+(?:\.[0-9]+)?[eE]\+?[0-9]{3,}|[0-9]{19,}.*)$";
/// What a text may be made of, taken as a whole so that it stays, or half a surrogate.
const LONE_SURROGATE: &str = concat!(
    r"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u]|\\u[0-9a-cA-CefEF][0-9a-fA-F]{3}|\\u[dD][0-7][0-9a-fA-F]{2})",
    r"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
);

/// A text of SQL.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

/// The expression for the column `column`.
pub(super) fn sanitized(column: &str) -> String {
    let [token, out_of_range, lone_surrogate, group] = [TOKEN, OUT_OF_RANGE_NUMBER, LONE_SURROGATE, r"\1"].map(quoted);
    format!(
        "if(isValidJSON({column}), {column}, arrayStringConcat(arrayMap(token -> multiIf(startsWith(token, '\"'), \
         replaceRegexpAll(token, {lone_surrogate}, {group}), match(token, {out_of_range}), concat('\"', token, '\"'), token), \
         extractAll({column}, {token}))))"
    )
}
