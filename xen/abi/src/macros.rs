//! Macros for numbers with known names and for layouts that are checked when compiled.

/// Declares an open enum: a newtype over the ABI's integer with a constant per known value. Any
/// other value is kept.
macro_rules! open_enum {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident: $int:ty {
            $($(#[$value_attribute:meta])* $value_name:ident = $value:expr;)*
        }
    ) => {
        $(#[$attribute])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl $name {
            $(
                $(#[$value_attribute])*
                ///
                #[doc = concat!("Number ", stringify!($value), ".")]
                pub const $value_name: Self = Self($value);
            )*

            /// Every named value, with its name.
            pub const NAMED: &'static [(&'static str, Self)] = &[$((stringify!($value_name), Self::$value_name)),*];

            /// The value's name, if it has one.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                Self::NAMED.iter().find(|(_, value)| *value == self).map(|(name, _)| *name)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({})", stringify!($name), self.0),
                }
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        }
    };
}

/// Refuses to compile when a structure's size, or the offset of a field, is not the ABI's.
macro_rules! assert_layout {
    ($type:ty, $size:expr $(, $field:ident: $offset:expr)* $(,)?) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}
