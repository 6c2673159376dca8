//! `public/errno.h`: the error numbers that hypercalls return, negated.

open_enum! {
    /// An error number from Xen, kept as it came. Its name is shown, as in `EINVAL`.
    ///
    /// The values are those of x86 Linux. `EWOULDBLOCK` and `EDEADLOCK` are further names of
    /// `EAGAIN` and `EDEADLK`.
    pub struct Errno: u32 {
        EPERM = 1;
        ENOENT = 2;
        ESRCH = 3;
        EIO = 5;
        ENXIO = 6;
        E2BIG = 7;
        ENOEXEC = 8;
        EBADF = 9;
        ECHILD = 10;
        EAGAIN = 11;
        ENOMEM = 12;
        EACCES = 13;
        EFAULT = 14;
        EBUSY = 16;
        EEXIST = 17;
        EXDEV = 18;
        ENODEV = 19;
        ENOTDIR = 20;
        EISDIR = 21;
        EINVAL = 22;
        ENFILE = 23;
        EMFILE = 24;
        ENOSPC = 28;
        EROFS = 30;
        EMLINK = 31;
        EDOM = 33;
        ERANGE = 34;
        EDEADLK = 35;
        ENAMETOOLONG = 36;
        ENOLCK = 37;
        ENOSYS = 38;
        ENOTEMPTY = 39;
        ENODATA = 61;
        ETIME = 62;
        EBADMSG = 74;
        EOVERFLOW = 75;
        EILSEQ = 84;
        ENOTSOCK = 88;
        EMSGSIZE = 90;
        EOPNOTSUPP = 95;
        EADDRINUSE = 98;
        EADDRNOTAVAIL = 99;
        ENOBUFS = 105;
        EISCONN = 106;
        ENOTCONN = 107;
        ETIMEDOUT = 110;
        ECONNREFUSED = 111;
    }
}

impl core::error::Error for Errno {}

impl Errno {
    /// Splits a hypercall's return value: a negative one is an error, any other is the operation's
    /// own result.
    ///
    /// # Errors
    /// The error number that `result` holds.
    pub const fn check(result: i64) -> Result<u64, Errno> {
        if result < 0 { Err(Errno(result.unsigned_abs() as u32)) } else { Ok(result as u64) }
    }

    /// The error of that name, as xenstore sends it.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Errno> {
        Self::NAMED.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, errno)| *errno)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn results_and_errors() {
        assert_eq!(Errno::check(0), Ok(0));
        assert_eq!(Errno::check(7), Ok(7));
        assert_eq!(Errno::check(-22), Err(Errno::EINVAL));
    }

    #[test]
    fn names() {
        assert_eq!(Errno::EINVAL.to_string(), "EINVAL");
        assert_eq!(Errno(4000).to_string(), "Errno(4000)");
        assert_eq!(Errno::from_name(b"ENOENT"), Some(Errno::ENOENT));
        assert_eq!(Errno::from_name(b"ENOEN"), None);
    }
}
