//! Byte streams, and the console as one of them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use zooid_kernel::console;

/// Prints a formatted text, not mixed with the output of other threads.
pub fn print(text: fmt::Arguments<'_>) {
    console::print(text);
}

/// A stream that bytes can be read from.
pub trait Read {
    /// The reason for a failure.
    type Error;

    /// Reads at least one byte unless `buffer` is empty or the stream has ended. Returns the number
    /// of bytes; 0 means the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error>;

    /// Reads to the end of the stream and appends to `all`.
    fn read_to_end(&mut self, all: &mut Vec<u8>) -> Result<usize, Self::Error> {
        let mut buffer = [0; 1024];
        let before = all.len();
        loop {
            match self.read(&mut buffer)? {
                0 => return Ok(all.len() - before),
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

/// A stream that bytes can be written to.
pub trait Write {
    /// The reason for a failure.
    type Error;

    /// Writes at least one byte unless `bytes` is empty, and returns the number of bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error>;

    /// Writes all bytes.
    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), Self::Error> {
        while !bytes.is_empty() {
            let count = self.write(bytes)?;
            bytes = &bytes[count..];
        }
        Ok(())
    }
}

/// Reads a line from the console, without its end. It shows the typed characters, and Backspace
/// removes the last one.
pub fn read_line() -> String {
    const BACKSPACE: u8 = 8;
    const DELETE: u8 = 0x7f;
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        console::read(&mut byte);
        match byte[0] {
            b'\r' | b'\n' => {
                console::write(b"\n");
                return String::from_utf8_lossy(&line).into_owned();
            }
            BACKSPACE | DELETE => {
                if line.pop().is_some() {
                    console::write(b"\x08 \x08");
                }
            }
            typed => {
                line.push(typed);
                console::write(&byte);
            }
        }
    }
}
