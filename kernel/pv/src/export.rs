//! The functions and variables of the image, by C names, for the shared objects that it loads.

use crate::entry::image;

/// A function or variable.
#[repr(C)]
pub struct Export {
    /// The name that objects use.
    pub name: &'static str,
    /// Its address.
    pub address: *const (),
}

// SAFETY: the pointer is only an address; nothing is read through it here.
unsafe impl Sync for Export {}

/// Exports the named items. It is used in a crate that an image links, which then holds all of
/// them.
#[macro_export]
macro_rules! export {
    ($($name:literal => $item:expr),* $(,)?) => {
        const _: () = {
            #[used]
            // SAFETY: the section is an array of `Export`.
            #[unsafe(link_section = ".zooid.exports")]
            static EXPORTS: [$crate::export::Export; [$($name),*].len()] =
                [$($crate::export::Export { name: $name, address: $item as *const () }),*];
        };
    };
}

/// All exported items.
pub fn exports() -> &'static [Export] {
    let (start, end) = (image::exports_start(), image::exports_end());
    // SAFETY: between them is the section `.zooid.exports`, which holds nothing but values of
    // `export!`.
    unsafe { core::slice::from_raw_parts(start as *const Export, (end - start) / size_of::<Export>()) }
}
