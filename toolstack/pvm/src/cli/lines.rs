//! The output of a guest, on its way to standard output: unchanged, or as an object for each line.

use std::io::Write;

use serde_json::json;

use super::error::Error;
use super::logs::put;
use super::print_json;

/// Longest line that is kept together; a guest may print without end.
const MAX_LINE: usize = 64 << 10;

/// Passes the output of a console on.
pub struct Lines<'a, W> {
    out: &'a mut W,
    json: bool,
    partial: Vec<u8>,
}

impl<'a, W: Write> Lines<'a, W> {
    /// Passes the output on to `out`.
    pub fn new(out: &'a mut W, json: bool) -> Self {
        Self { out, json, partial: Vec::new() }
    }

    /// Takes the next octets.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn put(&mut self, octets: &[u8]) -> Result<(), Error> {
        if !self.json {
            return put(self.out, octets);
        }
        for &octet in octets {
            if octet != b'\n' {
                self.partial.push(octet);
            }
            if octet == b'\n' || self.partial.len() == MAX_LINE {
                self.print()?;
            }
        }
        Ok(())
    }

    /// Takes the end of the output.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn finish(mut self) -> Result<(), Error> {
        if self.partial.is_empty() { Ok(()) } else { self.print() }
    }

    fn print(&mut self) -> Result<(), Error> {
        // A console is a terminal: its lines end in a carriage return, too.
        let line = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        print_json(self.out, &json!({ "line": String::from_utf8_lossy(line) }))?;
        self.partial.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(json: bool, pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out, json);
        pieces.iter().for_each(|piece| lines.put(piece).unwrap());
        lines.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_objects_however_they_come() {
        let pieces: [&[u8]; 4] = [b"one\r\nt", b"w\"o\xff\r", b"\n\n", b"end"];
        assert_eq!(
            pass(true, &pieces),
            "{\"line\":\"one\"}\n{\"line\":\"tw\\\"o\u{fffd}\"}\n{\"line\":\"\"}\n{\"line\":\"end\"}\n"
        );
        assert_eq!(pass(false, &[b"one\r\nt", b"wo"]), "one\r\ntwo");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        assert_eq!(pass(true, &[&[b'x'; 2 * MAX_LINE + 1]]).lines().count(), 3);
    }
}
