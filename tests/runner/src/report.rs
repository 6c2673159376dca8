//! The reports of dom0's boot tests (`tests/dom0/payload/main-boot-test`), parsed from one stream.

/// The report of one case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The output of its commands in dom0.
    pub output: String,
    /// The guest's console.
    pub console: String,
    /// Xen's log.
    pub dmesg: String,
    pub end: End,
}

/// The end of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// The case has not ended.
    #[default]
    None,
    /// The domain shut down with this reason code (public/sched.h, SHUTDOWN_*).
    Reason(u32),
    /// Its script, or `xl create`, ended with this status.
    Status(u32),
}

/// Cuts a stream that arrives in pieces.
#[derive(Default)]
pub struct Parser {
    pending: Vec<u8>,
    report: Report,
}

impl Parser {
    /// Takes the next piece, and returns the reports that it completes.
    pub fn push(&mut self, octets: &[u8]) -> Vec<Report> {
        self.pending.extend(octets);
        let mut complete = Vec::new();
        while let Some(length) = self.advance(&mut complete) {
            self.pending.drain(..length);
        }
        complete
    }

    /// The report so far of the case that is running.
    pub fn unfinished(self) -> Report {
        let Parser { pending, mut report } = self;
        report.output += &String::from_utf8_lossy(&pending);
        report
    }

    /// Reads one line and, if it announces one, the frame behind it. Returns the number of octets
    /// taken, or `None` if more must arrive first. Lines that are no announcement are passed over.
    fn advance(&mut self, complete: &mut Vec<Report>) -> Option<usize> {
        let end = self.pending.iter().position(|&octet| octet == b'\n')?;
        let line = String::from_utf8_lossy(&self.pending[..end]).into_owned();
        let rest = &self.pending[end + 1..];
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("@end"), Some(how), Some(number)) => {
                self.report.end = match (how, number.parse()) {
                    ("reason", Ok(number)) => End::Reason(number),
                    ("status", Ok(number)) => End::Status(number),
                    _ => End::None,
                };
                complete.push(std::mem::take(&mut self.report));
            }
            (Some(kind @ ("@output" | "@console" | "@dmesg")), Some(length), None) => {
                let length = length.parse().ok()?;
                let text = String::from_utf8_lossy(rest.get(..length)?).replace('\r', "");
                match kind {
                    "@output" => self.report.output = text,
                    "@console" => self.report.console = text,
                    _ => self.report.dmesg = text,
                }
                return Some(end + 1 + length);
            }
            _ => {}
        }
        Some(end + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"@output 0\n\n@console 9\n@end\nx\r\n\n\n@dmesg 2\nd\n\n@end reason 3\n@end status 1\n";

    #[test]
    fn a_stream_is_cut_wherever_its_pieces_end() {
        let expected = [
            Report { console: "@end\nx\n\n".into(), dmesg: "d\n".into(), end: End::Reason(3), ..Report::default() },
            Report { end: End::Status(1), ..Report::default() },
        ];
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let reports: Vec<Report> = STREAM.chunks(size).flat_map(|piece| parser.push(piece)).collect();
            assert_eq!(reports, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_unfinished_is_kept() {
        let mut parser = Parser::default();
        parser.push(b"@console 3\nabc\nhalf");
        let expected = Report { console: "abc".into(), output: "half".into(), ..Report::default() };
        assert_eq!(parser.unfinished(), expected);
    }
}
