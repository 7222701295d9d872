//! Setters: one row each, for the config's builder and for the override.

/// Makes the setters of rows: a setter calls a method of [`Patch`](crate::config::policy::Patch).
macro_rules! setters {
    ($(
        $(#[$meta:meta])*
        fn $name:ident $(<$V:ident: $Bound:path>)? ($($arg:ident: $Type:ty),*)
            => $method:ident($value:expr);
    )*) => {
        /// Settings; see [`ResilientConfig`](crate::ResilientConfig) for the defaults.
        impl ResilientConfigBuilder {
            $( $(#[$meta])* pub fn $name $(<$V: $Bound>)? (mut self $(, $arg: $Type)*) -> Self {
                self.patch().$method($value);
                self
            } )*
        }

        /// Settings; see [`ResilientConfig`](crate::ResilientConfig) for the defaults.
        impl RetryOverride {
            $( $(#[$meta])* pub fn $name $(<$V: $Bound>)? (mut self $(, $arg: $Type)*) -> Self {
                self.patch().$method($value);
                self
            } )*
        }
    };
}

mod hosts;
mod limits;
mod listeners;
mod retries;
