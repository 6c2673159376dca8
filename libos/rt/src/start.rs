//! What `main!` expands to.

use zooid_kernel::boot::BEFORE_MAIN;

use crate::process;

pub use zooid_kernel::boot::Application;

/// Settings of the command line that components read, whether or not this image has them: a configuration may be shared.
const SETTINGS: &[&str] = &["net"];
/// As [`SETTINGS`], for an image that can run in either mode.
const SETTINGS_WITH_MODES: &[&str] = &["net", "mode"];

/// The application whose first thread runs `main`.
pub const fn application(main: fn()) -> Application {
    Application { main, settings: SETTINGS }
}

/// As [`application`], for one that calls [`in_mode`].
pub const fn application_with_modes(main: fn()) -> Application {
    Application { main, settings: SETTINGS_WITH_MODES }
}

/// Runs `main`, once the image has what it needs, in the image's mode, and ends with what it returns.
pub fn run(main: fn() -> i32) {
    if let Some(prepare) = BEFORE_MAIN.get() {
        prepare();
    }
    process::exit(main())
}

pub use zooid_kernel::user::start as in_mode;
