//! The guest's command line (`extra=` of an xl configuration; `cmd_line` of `struct start_info`).
//!
//! Words are separated by blanks. Double quotes group: inside them blanks are ordinary and `\"`,
//! `\\`, `\n` and `\t` are the escapes. A word of the form `key=value` is a *setting* of Zooid if
//! the key is made of lower-case letters, and an *environment variable* of the application if the
//! key is made of capitals, digits and `_`. Everything after a word `--` is an *argument* of the
//! application and is taken as it is.
//!
//! ```text
//! net=10.0.0.2/24,gw=10.0.0.1 log=debug GREETING="hello, world" -- --port 80
//! ```
//!
//! `root=...`, which xl itself may put in front, is accepted and ignored.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use xen_abi::xen::MAX_GUEST_CMDLINE;

/// A parsed command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
}

/// The reason for which a command line was refused. The configuration is to blame in every case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The buffer is full to its last byte, so Xen's builder may have cut off the end.
    Truncated,
    /// The byte at this offset is not UTF-8.
    NotUtf8 {
        /// In octets from the begin.
        offset: usize,
    },
    /// The quote opened at this offset is never closed.
    OpenQuote {
        /// In octets from the begin.
        offset: usize,
    },
    /// A backslash inside quotes is followed by a character that is no escape.
    BadEscape {
        /// The character.
        escape: char,
    },
    /// A word before `--` is neither a setting nor an environment variable.
    NotASetting {
        /// The word.
        word: String,
    },
    /// No part of this image knows the setting.
    UnknownSetting {
        /// Its name.
        key: String,
        /// A known one that is spelled much like it.
        nearest: Option<String>,
    },
    /// A setting is given twice.
    Repeated {
        /// Its name.
        key: String,
    },
}

impl CommandLine {
    /// Parses the contents of `start_info.cmd_line`. `buffer` is that array as a whole, or any part
    /// of it that ends before or behind the first NUL. `known` lists the settings that this image
    /// understands.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(buffer: &[u8], known: &[&str]) -> Result<Self, Error> {
        let len = buffer.iter().position(|&b| b == 0).unwrap_or(buffer.len());
        if len >= MAX_GUEST_CMDLINE - 1 {
            return Err(Error::Truncated);
        }
        let text = core::str::from_utf8(&buffer[..len]).map_err(|e| Error::NotUtf8 { offset: e.valid_up_to() })?;

        let mut line = Self::default();
        let mut words = Words { text, offset: 0 };
        while let Some(word) = words.next()? {
            if word.text == "--" && !word.quoted {
                break;
            }
            line.add(word.text, known)?;
        }
        while let Some(word) = words.next()? {
            line.arguments.push(word.text);
        }
        Ok(line)
    }

    /// The value of a setting.
    pub fn setting(&self, key: &str) -> Option<&str> {
        find(&self.settings, key)
    }

    /// The value of an environment variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        find(&self.environment, name)
    }

    /// All environment variables, in the order of their first appearance.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The application's arguments: the words after `--`.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    fn add(&mut self, word: String, known: &[&str]) -> Result<(), Error> {
        let Some((key, value)) = word.split_once('=') else {
            return Err(Error::NotASetting { word });
        };
        if is_variable_name(key) {
            match self.environment.iter_mut().find(|(name, _)| name == key) {
                Some((_, old)) => *old = value.to_string(),
                None => self.environment.push((key.to_string(), value.to_string())),
            }
        } else if known.contains(&key) {
            if self.setting(key).is_some() {
                return Err(Error::Repeated { key: key.to_string() });
            }
            self.settings.push((key.to_string(), value.to_string()));
        } else if key != "root" {
            let nearest = nearest(key, known).map(str::to_string);
            return Err(Error::UnknownSetting { key: key.to_string(), nearest });
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(
                f,
                "the command line fills all {} bytes that Xen gives it and may have lost its end: shorten `extra=`",
                MAX_GUEST_CMDLINE - 1
            ),
            Self::NotUtf8 { offset } => {
                write!(f, "the command line is not UTF-8 at byte {offset}: write plain text in `extra=`")
            }
            Self::OpenQuote { offset } => {
                write!(f, "the quote opened at byte {offset} of the command line is not closed: add a `\"`")
            }
            Self::BadEscape { escape } => {
                write!(
                    f,
                    "backslash {escape:?} on the command line is no escape: use \\\" \\\\ \\n or \\t inside quotes"
                )
            }
            Self::NotASetting { word } => {
                write!(f, "{word:?} on the command line is neither key=value nor NAME=value: put arguments behind `--`")
            }
            Self::UnknownSetting { key, nearest: Some(nearest) } => {
                write!(f, "unknown setting {key:?} on the command line: did you mean `{nearest}`?")
            }
            Self::UnknownSetting { key, nearest: None } => {
                write!(f, "unknown setting {key:?} on the command line: this image does not know it, remove it")
            }
            Self::Repeated { key } => {
                write!(f, "the setting {key:?} is given twice on the command line: keep one")
            }
        }
    }
}

impl core::error::Error for Error {}

fn find<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// True for names such as `PATH` or `HTTP_2`, the form that POSIX gives environment variables of
/// applications.
fn is_variable_name(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && key.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// The known key that `key` is most likely a misspelling of, if one is close enough.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let key = key.to_ascii_lowercase();
    let (distance, candidate) = known.iter().map(|&k| (distance(&key, k), k)).min()?;
    (distance <= 1 + candidate.len() / 3).then_some(candidate)
}

/// The Levenshtein distance of two words.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[row.len() - 1]
}

struct Word {
    text: String,
    /// A part of the word stood in quotes, so the word is no separator.
    quoted: bool,
}

/// Splits a line at blanks, undoing quotes and escapes.
struct Words<'a> {
    text: &'a str,
    offset: usize,
}

impl Words<'_> {
    fn next(&mut self) -> Result<Option<Word>, Error> {
        while self.peek().is_some_and(is_blank) {
            self.take();
        }
        if self.peek().is_none() {
            return Ok(None);
        }
        let mut word = Word { text: String::new(), quoted: false };
        while let Some(c) = self.peek().filter(|&c| !is_blank(c)) {
            if c == '"' {
                word.quoted = true;
                self.quoted(&mut word.text)?;
            } else {
                word.text.extend(self.take());
            }
        }
        Ok(Some(word))
    }

    /// Appends the text between this quote and the closing one.
    fn quoted(&mut self, text: &mut String) -> Result<(), Error> {
        let open = Error::OpenQuote { offset: self.offset };
        self.take();
        loop {
            match self.take() {
                None => return Err(open),
                Some('"') => return Ok(()),
                Some('\\') => text.push(match self.take() {
                    None => return Err(open),
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some(c @ ('"' | '\\')) => c,
                    Some(escape) => return Err(Error::BadEscape { escape }),
                }),
                Some(c) => text.push(c),
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.offset..].chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.offset += c.len_utf8();
        Some(c)
    }
}

fn is_blank(c: char) -> bool {
    c.is_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use std::format;
    use std::vec;

    const KNOWN: &[&str] = &["net", "log", "fork.pool"];

    fn parse(text: &str) -> Result<CommandLine, Error> {
        CommandLine::parse(text.as_bytes(), KNOWN)
    }

    #[test]
    fn settings_variables_and_arguments() {
        let line = parse("root=/dev/xvda  net=dhcp\tlog=debug PATH=/bin A_1= -- run log=x -- \"\"").unwrap();
        assert_eq!(line.setting("net"), Some("dhcp"));
        assert_eq!(line.setting("log"), Some("debug"));
        assert_eq!(line.setting("fork.pool"), None);
        assert_eq!(line.setting("root"), None);
        assert_eq!(line.variable("PATH"), Some("/bin"));
        assert_eq!(line.variable("A_1"), Some(""));
        assert_eq!(line.environment().len(), 2);
        assert_eq!(line.arguments(), ["run", "log=x", "--", ""]);
    }

    #[test]
    fn an_empty_line_is_fine() {
        assert_eq!(parse("").unwrap(), CommandLine::default());
        assert_eq!(parse("  \n ").unwrap(), CommandLine::default());
        assert_eq!(parse("--").unwrap(), CommandLine::default());
    }

    #[test]
    fn quotes_group_and_escape() {
        let line = parse(r#"X="a b"c"\"\\" -- "one two" "tab\tnewline\n" plain\n grün"#).unwrap();
        assert_eq!(line.variable("X"), Some("a bc\"\\"));
        assert_eq!(line.arguments(), ["one two", "tab\tnewline\n", "plain\\n", "grün"]);
        assert_eq!(parse("X=1 \"--\""), Err(Error::NotASetting { word: "--".into() }));
    }

    #[test]
    fn a_later_variable_replaces_an_earlier_one_and_a_setting_does_not() {
        assert_eq!(parse("A=1 A=2").unwrap().environment(), [("A".into(), "2".into())]);
        assert_eq!(parse("log=a log=b"), Err(Error::Repeated { key: "log".into() }));
    }

    #[test]
    fn errors_name_what_is_wrong() {
        assert_eq!(
            parse("log=debug nett=dhcp").unwrap_err().to_string(),
            "unknown setting \"nett\" on the command line: did you mean `net`?"
        );
        assert_eq!(parse("LOg=x"), Err(Error::UnknownSetting { key: "LOg".into(), nearest: Some("log".into()) }));
        assert_eq!(
            parse("forkpool=3"),
            Err(Error::UnknownSetting { key: "forkpool".into(), nearest: Some("fork.pool".into()) })
        );
        assert_eq!(parse("color=x"), Err(Error::UnknownSetting { key: "color".into(), nearest: None }));
        assert_eq!(parse("=x"), Err(Error::UnknownSetting { key: "".into(), nearest: None }));
        assert_eq!(parse("dhcp"), Err(Error::NotASetting { word: "dhcp".into() }));
        assert_eq!(parse("a \"b"), Err(Error::NotASetting { word: "a".into() }));
        assert_eq!(parse("log=\"b\\"), Err(Error::OpenQuote { offset: 4 }));
        assert_eq!(parse("-- \"\\x\""), Err(Error::BadEscape { escape: 'x' }));
        assert_eq!(CommandLine::parse(b"log=\xff", KNOWN), Err(Error::NotUtf8 { offset: 4 }));
    }

    #[test]
    fn every_error_is_one_line() {
        let errors = [
            Error::Truncated,
            Error::NotUtf8 { offset: 3 },
            Error::OpenQuote { offset: 3 },
            Error::BadEscape { escape: 'x' },
            Error::NotASetting { word: "w\nx".into() },
            Error::UnknownSetting { key: "k".into(), nearest: None },
            Error::Repeated { key: "k".into() },
        ];
        for error in errors {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.contains(": "), "{text}");
        }
    }

    #[test]
    fn a_full_buffer_is_an_error() {
        let mut buffer = vec![b' '; MAX_GUEST_CMDLINE];
        assert_eq!(CommandLine::parse(&buffer, KNOWN), Err(Error::Truncated));
        buffer[MAX_GUEST_CMDLINE - 1] = 0;
        assert_eq!(CommandLine::parse(&buffer, KNOWN), Err(Error::Truncated));
        buffer[MAX_GUEST_CMDLINE - 2] = 0;
        assert_eq!(CommandLine::parse(&buffer, KNOWN), Ok(CommandLine::default()));
    }

    #[test]
    fn quoting_any_text_gives_it_back() {
        let mut random = Random::new(3);
        for _ in 0..500 {
            let text: String = (0..random.below(12))
                .map(|_| ['a', ' ', '"', '\\', '\n', '\t', '=', '-', 'é'][random.below(9) as usize])
                .collect();
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let line = parse(&format!("-- x \"{quoted}\" y")).unwrap();
            assert_eq!(line.arguments(), ["x", &text, "y"]);
        }
    }

    #[test]
    fn garbage_never_panics() {
        let mut random = Random::new(4);
        for _ in 0..2000 {
            let bytes: Vec<u8> =
                (0..random.below(40)).map(|_| b"a=\"\\ -A\xc3\xa9\t"[random.below(10) as usize]).collect();
            let _ = CommandLine::parse(&bytes, KNOWN);
        }
    }
}
