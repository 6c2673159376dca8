//! Arguments, environment and settings, all from the guest's command line (`extra=` in its
//! configuration): `net=dhcp log=info NAME=value -- argument "argument with blanks"`.

use zooid_kernel::boot::command_line;

/// The arguments of the application: the words after `--`.
pub fn args() -> impl ExactSizeIterator<Item = &'static str> {
    command_line().arguments().iter().map(|word| word.as_str())
}

/// The value of an environment variable: a word `NAME=value` before `--`, with a name in upper
/// case.
pub fn var(name: &str) -> Option<&'static str> {
    command_line().variable(name)
}

/// All environment variables, in the order of the command line.
pub fn vars() -> impl Iterator<Item = (&'static str, &'static str)> {
    command_line().environment().iter().map(|(name, value)| (name.as_str(), value.as_str()))
}
