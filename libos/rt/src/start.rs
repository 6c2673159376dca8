//! The expansion of `main!`.

use zooid_kernel::boot::BEFORE_MAIN;

use crate::process;

pub use zooid_kernel::boot::Application;

/// Settings of the command line for components. They are accepted even if this image has no such
/// component, because a configuration may be shared.
const SETTINGS: &[&str] = &["net"];
/// As [`SETTINGS`], for an image that can run in either mode.
const SETTINGS_WITH_MODES: &[&str] = &["net", "mode"];

/// The application whose first thread runs `main`.
pub const fn application(main: fn()) -> Application {
    Application { main, settings: SETTINGS }
}

/// As [`application`], for an image that calls [`in_mode`].
pub const fn application_with_modes(main: fn()) -> Application {
    Application { main, settings: SETTINGS_WITH_MODES }
}

/// Runs `main` in the image's mode, once the objects that the image needs are loaded, and ends with
/// its exit code.
pub fn run(main: fn() -> i32) {
    if let Some(prepare) = BEFORE_MAIN.get() {
        prepare();
    }
    process::exit(main())
}

pub use zooid_kernel::user::start as in_mode;
