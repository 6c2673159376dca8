//! Guests for `pvm run`: from a name, an image or a configuration to a configuration for `xl
//! create`.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::error::Error;

/// The directory of guests: `NAME`, and its configuration `NAME.cfg`.
pub const GUESTS: &str = "/opt/zooid/guests";
/// Memory of a guest without a configuration, in MiB.
const DEFAULT_MEMORY: u32 = 16;
/// Longest name, in octets: it must fit into xenconsoled's file names.
const MAX_NAME: usize = 200;

/// A guest that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name, if no other is chosen.
    pub name: String,
    /// Its configuration, in the language of xl.cfg(5).
    config: String,
}

/// The options of one start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// Its name.
    pub name: &'a str,
    /// Memory in MiB; `None` leaves the configuration's.
    pub memory: Option<u32>,
    /// Arguments for the application.
    pub args: &'a [String],
}

impl Guest {
    /// The guest that `spec` names: one below `guests`, or a file.
    ///
    /// # Errors
    /// There is no such file, or it is no image or configuration.
    pub fn find(spec: &str, guests: &Path) -> Result<Self, Error> {
        let path = path_of(spec, guests)?;
        let mut start = [0; 4];
        let is_image =
            File::open(&path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"\x7fELF";
        if is_image { Self::of_image(&path) } else { Self::of_config(&path) }
    }

    fn of_image(path: &Path) -> Result<Self, Error> {
        let path = fs::canonicalize(path).map_err(|error| Error::Io(format!("find {}", path.display()), error))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name =
            parse_name(&name).map_err(|why| Error::BadGuest(format!("{}: {why}: use --name", path.display())))?;
        let kernel = quoted(&path.to_string_lossy());
        Ok(Self { name, config: format!("kernel = {kernel}\nmemory = {DEFAULT_MEMORY}\n") })
    }

    fn of_config(path: &Path) -> Result<Self, Error> {
        let mut config =
            fs::read_to_string(path).map_err(|error| Error::Io(format!("read {}", path.display()), error))?;
        if !config.ends_with('\n') {
            config.push('\n');
        }
        let bad = |what: &str| Error::BadGuest(format!("{}: {what}", path.display()));
        if assigned(&config, "kernel").is_none() {
            return Err(bad("this is neither an image nor a configuration with a line `kernel = \"...\"`"));
        }
        let name = match assigned(&config, "name") {
            Some(raw) => parse_name(&unquoted(raw)).map_err(|why| bad(&why))?,
            None => parse_name(&path.file_stem().unwrap_or_default().to_string_lossy()).map_err(|why| bad(&why))?,
        };
        Ok(Self { name, config })
    }

    /// The text for `xl create`. If several lines set one key, xl takes the last.
    pub fn config(&self, choice: Choice<'_>) -> String {
        let mut config = format!("{}name = {}\n", self.config, quoted(choice.name));
        if let Some(memory) = choice.memory {
            config += &format!("memory = {memory}\n");
        }
        if !choice.args.is_empty() {
            let has_args = assigned(&self.config, "extra")
                .is_some_and(|raw| unquoted(raw).split_ascii_whitespace().any(|word| word == "--"));
            let begin = if has_args { "" } else { " --" };
            let words: String = choice.args.iter().map(|word| format!(" {}", guest_word(word))).collect();
            config += &format!("extra += {}\n", quoted(&format!("{begin}{words}")));
        }
        config
    }
}

/// Checks that a name is valid for xl, xenstore and xenconsoled.
pub fn parse_name(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.+:".contains(c);
    if text.len() > MAX_NAME {
        return Err(format!("a name of {} octets is too long for a pVM: use at most {MAX_NAME}", text.len()));
    }
    if text.is_empty() || !text.chars().all(fine) {
        return Err(format!("{text:?} is no name for a pVM: use letters, digits and - _ . + :"));
    }
    if text.starts_with('-') {
        return Err(format!("{text:?} is no name for a pVM: it would be taken for an option"));
    }
    if text.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("{text:?} is no name for a pVM: it would be taken for an id"));
    }
    Ok(text.to_owned())
}

/// The first name from `name` on, with a number appended, that is not `taken`.
pub fn free_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2_u64..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}

fn path_of(spec: &str, guests: &Path) -> Result<PathBuf, Error> {
    if !spec.contains('/') {
        let found = [guests.join(format!("{spec}.cfg")), guests.join(spec)].into_iter().find(|path| path.is_file());
        if let Some(path) = found {
            return Ok(path);
        }
    }
    let path = Path::new(spec);
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(path.to_owned()),
        Ok(_) => Err(Error::BadGuest(format!("{spec} is not a file: name a guest, an image or a configuration"))),
        Err(_) => {
            let mut names: Vec<String> = fs::read_dir(guests)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".cfg").map(str::to_owned))
                .collect();
            names.sort();
            let known = match names.len() {
                0 => format!("{} holds none", guests.display()),
                1..=12 => format!("{} holds {}", guests.display(), names.join(", ")),
                count => format!("{} holds {count} others", guests.display()),
            };
            Err(Error::NoGuest(format!("there is no guest and no file {spec}: {known}")))
        }
    }
}

/// The value in the last line that assigns to `key`, in its written form.
///
/// Of xl's language (`libxlu_cfg_l.l`) this supports lines that begin with a key. If one line has
/// several assignments, the first counts.
fn assigned<'a>(config: &'a str, key: &str) -> Option<&'a str> {
    config.lines().rev().find_map(|line| {
        let rest = line.trim_start().strip_prefix(key)?.trim_start();
        rest.strip_prefix("+=").or_else(|| rest.strip_prefix('=')).map(str::trim)
    })
}

/// The text of a string of xl's language, whose escapes are few in practice.
fn unquoted(raw: &str) -> String {
    let Some(quote) = raw.chars().next().filter(|c| *c == '"' || *c == '\'') else {
        return raw.split([' ', '\t', '#', ';']).next().unwrap_or_default().to_owned();
    };
    let mut text = String::new();
    let mut rest = raw.chars().skip(1);
    while let Some(c) = rest.next().filter(|c| *c != quote) {
        match c {
            '\\' => text.extend(rest.next()),
            _ => text.push(c),
        }
    }
    text
}

/// `text` as a string of xl's language (`xlu__cfgl_dequote`).
fn quoted(text: &str) -> String {
    let text = text.replace('\\', r"\\").replace('\'', r"\'").replace('\n', r"\n");
    format!("'{text}'")
}

/// `word` as one word of a guest's command line (docs/configuration.md).
fn guest_word(word: &str) -> String {
    let is_plain = !word.is_empty() && word.chars().all(|c| !c.is_ascii_whitespace() && c != '"');
    if is_plain {
        return word.to_owned();
    }
    let escaped = word.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n").replace('\t', r"\t");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TemporaryDirectory;
    use zooid_core::cmdline::CommandLine;

    fn guests() -> TemporaryDirectory {
        let directory = TemporaryDirectory::new("guests");
        let write = |name: &str, text: &[u8]| fs::write(directory.path().join(name), text).unwrap();
        write("httpd", b"\x7fELF...");
        write(
            "httpd.cfg",
            b"name = \"httpd\"\nkernel = \"/opt/zooid/guests/httpd\"\nmemory = 64\nextra = \"net=dhcp\"",
        );
        write("bare", b"\x7fELF...");
        write("shop.cfg", b"kernel='x' # a comment\nextra = 'A=\\'b\\' -- 80'\n");
        write("note.cfg", b"hello\n");
        directory
    }

    #[test]
    fn names_images_and_configurations_are_found() {
        let directory = guests();
        let find = |spec: &str| Guest::find(spec, directory.path());
        let httpd = find("httpd").unwrap();
        assert_eq!(httpd.name, "httpd");
        assert!(httpd.config.contains("memory = 64") && httpd.config.ends_with("extra = \"net=dhcp\"\n"));

        let bare = find("bare").unwrap();
        assert_eq!((&*bare.name, bare.config.contains("memory = 16")), ("bare", true));
        let path = directory.path().join("httpd");
        assert_eq!(find(path.to_str().unwrap()).unwrap().config.lines().count(), 2, "an image, not its configuration");
        assert_eq!(find(directory.path().join("shop.cfg").to_str().unwrap()).unwrap().name, "shop");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let directory = guests();
        let line = |spec: &str| Guest::find(spec, directory.path()).unwrap_err().to_string();
        let place = directory.path().display();
        assert_eq!(line("htpd"), format!("there is no guest and no file htpd: {place} holds httpd, note, shop"));
        assert!(line("note").contains("neither an image nor a configuration"));
        assert!(line("/tmp").contains("is not a file"));
        assert_eq!(Guest::find("htpd", directory.path()).unwrap_err().exit_code(), 120);
    }

    #[test]
    fn choices_go_behind_what_the_configuration_says() {
        let directory = guests();
        let args = ["--port".to_owned(), "8 0".to_owned()];
        let httpd = Guest::find("httpd", directory.path()).unwrap();
        assert!(
            httpd
                .config(Choice { name: "web", memory: Some(32), args: &args })
                .ends_with("extra = \"net=dhcp\"\nname = 'web'\nmemory = 32\nextra += ' -- --port \"8 0\"'\n")
        );
        let shop = Guest::find("shop", directory.path()).unwrap();
        assert!(
            shop.config(Choice { name: "x", memory: None, args: &args })
                .ends_with("\nname = 'x'\nextra += ' --port \"8 0\"'\n")
        );
        assert!(!shop.config(Choice { name: "x", memory: None, args: &[] }).contains("+="));
    }

    #[test]
    fn the_guest_gets_the_arguments_as_they_were_given() {
        let args = ["plain", "", "a b", "\"", "\\", "tab\tline\n", "a=b", "--", "é", "a\\b\"c", "'"].map(str::to_owned);
        let guest = Guest { name: "x".into(), config: "kernel = 'x'\n".into() };
        let config = guest.config(Choice { name: "x", memory: None, args: &args });
        let raw = assigned(&config, "extra").unwrap();
        // xl's own reading of the string, limited to the escapes that `quoted` makes.
        let inner = raw.strip_prefix('\'').unwrap().strip_suffix('\'').unwrap();
        let extra = inner.replace(r"\\", "\0").replace(r"\'", "'").replace(r"\n", "\n").replace('\0', "\\");
        assert_eq!(CommandLine::parse(extra.as_bytes(), &[]).unwrap().arguments(), args);
    }

    #[test]
    fn names_are_judged() {
        for name in ["a", "web-2", "A_b.c+d:e", "5a"] {
            assert_eq!(parse_name(name).as_deref(), Ok(name));
        }
        for name in ["", "5", "a b", "a/b", "a'b", "a\n", "é", "-x", "--", &"x".repeat(201)] {
            assert!(parse_name(name).is_err(), "{name}");
        }
        let long = parse_name(&"x".repeat(300)).unwrap_err();
        assert_eq!(long, "a name of 300 octets is too long for a pVM: use at most 200");
        assert!(parse_name("-x").unwrap_err().ends_with("it would be taken for an option"));
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let taken = ["web", "web-2", "web-4"];
        assert_eq!(free_name("web", |name| taken.contains(&name)), "web-3");
        assert_eq!(free_name("shop", |name| taken.contains(&name)), "shop");
    }
}
