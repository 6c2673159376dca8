//! The date of answers, made once a second.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use httpd_core::Date;
use zooid::sync::Mutex;
use zooid::time::recent_unix_time;

/// The present second, and its text.
static CURRENT: Mutex<(u64, String)> = Mutex::new((0, String::new()));

/// Appends the present date.
pub fn append(out: &mut Vec<u8>) {
    let now = recent_unix_time();
    let mut current = CURRENT.lock();
    if current.0 != now.as_secs() {
        *current = (now.as_secs(), Date(now).to_string());
    }
    out.extend_from_slice(current.1.as_bytes());
}
