//! Enums whose variants have names: on the wire, in metrics, in a database.

/// Declares an enum with a name for each variant, so that variant and name are one line.
///
/// The enum gets `ALL`, every variant in the order of declaration, `as_str`, and `parse`, which is case-sensitive.
///
/// ```
/// subway_protocol::named_enum! {
///     /// Side of a coin.
///     #[derive(Clone, Copy, Debug, PartialEq)]
///     pub enum Side {
///         /// The side with the head.
///         Heads = "heads",
///         /// The other one.
///         Tails = "tails",
///     }
/// }
/// assert_eq!(Side::ALL, [Side::Heads, Side::Tails]);
/// assert_eq!(Side::Tails.as_str(), "tails");
/// assert_eq!(Side::parse("heads"), Some(Side::Heads));
/// assert_eq!(Side::parse("Heads"), None);
/// ```
#[macro_export]
macro_rules! named_enum {
    ($(#[$attribute:meta])* $visibility:vis enum $type:ident {
        $($(#[$of_variant:meta])* $variant:ident = $name:literal,)+
    }) => {
        $(#[$attribute])*
        $visibility enum $type {
            $($(#[$of_variant])* $variant,)+
        }

        impl $type {
            /// Every variant, in the order of declaration.
            $visibility const ALL: [$type; [$($name),+].len()] = [$($type::$variant),+];

            /// Returns the name.
            #[must_use]
            $visibility fn as_str(self) -> &'static str {
                match self {
                    $($type::$variant => $name,)+
                }
            }

            /// Returns the variant of this name. Case-sensitive.
            #[must_use]
            #[allow(dead_code, reason = "not every such enum is read")]
            $visibility fn parse(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|variant| variant.as_str() == name)
            }
        }
    };
}
