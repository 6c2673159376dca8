//! What `main!` expands to.

pub use zooid_kernel::boot::Application;

/// Settings of the command line that bricks read, whether or not this image has them: a configuration may be shared.
const SETTINGS: &[&str] = &["net"];

/// The application whose first thread runs `main`.
pub const fn application(main: fn()) -> Application {
    Application { main, settings: SETTINGS }
}
