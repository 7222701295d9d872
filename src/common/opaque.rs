//! `Debug` of types that hold what has none, such as functions.

/// Makes a `Debug` that shows some fields, and says that there are others.
macro_rules! opaque {
    ($Type:ident { $($field:ident),* $(,)? }) => {
        impl std::fmt::Debug for $Type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut out = f.debug_struct(stringify!($Type));
                $( out.field(stringify!($field), &self.$field); )*
                out.finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use opaque;
