//! Text of others, on its way to a terminal.

use std::fmt::Write as _;

/// True if a terminal may take the character for a command, or may show what follows in another
/// order: control characters, line and paragraph separators, and the marks of Unicode's
/// bidirectional algorithm (UAX #9, section 2, and the deprecated U+206A to U+206F).
pub fn is_command(c: char) -> bool {
    let marks = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}');
    c.is_control() || marks
}

/// A text without such characters.
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| !is_command(*c)).collect()
}

/// A text in JSON, with these characters as escapes. It has the same meaning.
pub fn plain_json(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for c in json.chars() {
        if is_command(c) {
            // They stand within strings only, and none is above U+FFFF.
            let _ = write!(plain, "\\u{:04x}", c as u32);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "a\x1b[2J\u{9b}31m\u{202e}b\u{2066}\u{200f}\u{61c}\u{2028}\x7f\r\nc \u{e9}\u{2713}";

    #[test]
    fn no_name_commands_a_terminal_or_turns_its_lines_round() {
        assert_eq!(plain(EVIL), "a[2J31mbc \u{e9}\u{2713}");
    }

    #[test]
    fn json_has_the_same_meaning_without_them() {
        let json = serde_json::to_string(EVIL).unwrap();
        let plain = plain_json(&json);
        assert!(!plain.chars().any(is_command), "{plain:?}");
        assert_eq!(serde_json::from_str::<String>(&plain).unwrap(), EVIL);
    }
}
