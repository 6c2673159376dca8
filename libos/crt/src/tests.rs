//! Against the C library of the build machine.
