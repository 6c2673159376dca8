//! What the image offers to the shared objects that it loads, by C names.

use crate::entry::image;

/// A function or variable.
#[repr(C)]
pub struct Export {
    /// As objects call it.
    pub name: &'static str,
    /// Where it is.
    pub address: *const (),
}

// SAFETY: it is only said where something is.
unsafe impl Sync for Export {}

/// Offers what is named. In a crate that an image uses, which then holds all of it.
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

/// All that is offered.
pub fn exports() -> &'static [Export] {
    let (start, end) = (image::exports_start(), image::exports_end());
    // SAFETY: between them is the section `.zooid.exports`, which holds nothing but values of `export!`.
    unsafe { core::slice::from_raw_parts(start as *const Export, (end - start) / size_of::<Export>()) }
}
