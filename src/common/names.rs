//! The names of an enum's variants, as texts and metric labels have them.

/// Makes `as_str` and `Display` of an enum, by the names of its variants.
macro_rules! names {
    ($Enum:ident { $($Variant:ident: $name:literal),* $(,)? }) => {
        impl $Enum {
            /// Returns a short name without spaces, fit for metric labels.
            pub fn as_str(self) -> &'static str {
                match self {
                    $( Self::$Variant => $name, )*
                }
            }
        }

        impl std::fmt::Display for $Enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use names;
