//! Themes: the eleven kinds of event, which routing and metrics go by.

crate::named_enum! {
    /// Kind of an event. The wire form is the lower-case name.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Theme {
        /// A page was shown.
        View = "view",
        /// Something was tapped.
        Click = "click",
        /// Something became visible.
        Exposure = "exposure",
        /// A step of an order.
        Order = "order",
        /// The app started, was shown, was hidden.
        Lifecycle = "lifecycle",
        /// A page was shared.
        Share = "share",
        /// Something failed.
        Error = "error",
        /// Duration of an operation.
        Performance = "performance",
        /// A request to a server.
        Network = "network",
        /// An attribute of the user.
        Profile = "profile",
        /// Anything else that the developer records.
        Custom = "custom",
    }
}

/// Returns whether `code` is a valid event name: 1 to 128 bytes without control characters (U+0000 to U+001F, U+007F to
/// U+009F).
#[must_use]
pub fn is_code(code: &str) -> bool {
    (1..=crate::limits::CODE_BYTES).contains(&code.len()) && !code.chars().any(char::is_control)
}

/// Returns whether `code` has the form `[A-Za-z_][A-Za-z0-9_.:-]{0,127}`, which needs no quoting in any query, file or
/// address. The SDK warns about others.
#[must_use]
pub fn is_usual_code(code: &str) -> bool {
    let bytes = code.as_bytes();
    bytes.len() <= crate::limits::CODE_BYTES
        && bytes.first().is_some_and(|c| c.is_ascii_alphabetic() || *c == b'_')
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_theme_is_read_from_its_own_name() {
        for theme in Theme::ALL {
            assert_eq!(Theme::parse(theme.as_str()), Some(theme));
        }
        assert_eq!(Theme::parse("View"), None);
    }

    #[test]
    fn a_code_is_any_text_without_control_characters() {
        for good in [
            "a",
            "1a",
            "-a",
            "Order Completed",
            "下单",
            "a\"b\\c{}",
            " ",
            "\u{1f600}",
            &"a".repeat(128),
            &"页".repeat(42),
        ] {
            assert!(is_code(good), "{good}");
        }
        for bad in ["", "a\nb", "\0", "\u{7f}", "\u{85}", &"a".repeat(129), &"页".repeat(43)] {
            assert!(!is_code(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_usual_code_needs_no_quoting_anywhere() {
        for good in ["a", "_", "page_view", "a.b:c-d", &"a".repeat(128)] {
            assert!(is_usual_code(good) && is_code(good), "{good}");
        }
        for bad in ["", "1a", "-a", "a b", "页", &"a".repeat(129)] {
            assert!(!is_usual_code(bad), "{bad}");
        }
    }
}
