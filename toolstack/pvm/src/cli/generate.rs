//! Man pages and completions, from the description of the command lines.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Options;
use super::error::Error;
use crate::server;

/// Writes pvm(1), one page for each of its commands, and pvmd(8).
///
/// # Errors
/// The directory cannot be written.
pub fn man(directory: &Path) -> Result<(), Error> {
    write(directory, |directory| {
        page(Options::command(), "1", directory)?;
        page(server::Options::command(), "8", directory)
    })
}

/// Writes completions of both programs.
///
/// # Errors
/// The directory cannot be written.
pub fn completions(directory: &Path, shells: &[Shell]) -> Result<(), Error> {
    write(directory, |directory| {
        for shell in shells {
            clap_complete::generate_to(*shell, &mut Options::command(), "pvm", directory)?;
            clap_complete::generate_to(*shell, &mut server::Options::command(), "pvmd", directory)?;
        }
        Ok(())
    })
}

fn write(directory: &Path, all: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Error> {
    let done = fs::create_dir_all(directory).and_then(|()| all(directory));
    done.map_err(|error| Error::Io(format!("write to {}", directory.display()), error))
}

/// Writes the page of a command, and of its subcommands, named in the manner of `git-commit(1)`.
fn page(command: clap::Command, section: &str, directory: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pending = vec![(command.get_name().to_owned(), command)];
    while let Some((name, command)) = pending.pop() {
        let below = command.get_subcommands().filter(|below| !below.is_hide_set());
        pending.extend(below.map(|below| (format!("{name}-{}", below.get_name()), below.clone())));
        let notes = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
        let has_commands = command.get_subcommands().next().is_some();
        let title: &'static str = name.clone().leak();
        let man = Man::new(command.name(title)).section(section);
        let page = &mut File::create(directory.join(format!("{name}.{section}")))?;
        man.render_title(page)?;
        man.render_name_section(page)?;
        man.render_synopsis_section(page)?;
        man.render_description_section(page)?;
        man.render_options_section(page)?;
        if has_commands {
            man.render_subcommands_section(page)?;
        }
        page.write_all(sections(&notes.unwrap_or_default()).as_bytes())?;
    }
    Ok(())
}

/// Formats the text below the options. A line that ends in a colon begins a section, indented lines
/// stay as they are, others are filled.
fn sections(notes: &str) -> String {
    let mut text = String::new();
    for line in notes.lines() {
        // A line that begins with a dot or a quote would be a request to roff (groff(7)).
        let escaped = format!("\\&{}", line.replace('\\', "\\e").replace('-', "\\-"));
        text += &match line {
            "" => ".PP\n".to_owned(),
            _ if line.starts_with(' ') => format!(".nf\n{escaped}\n.fi\n"),
            _ if line.ends_with(':') => format!(".SH {}\n", line.trim_end_matches(':').to_uppercase()),
            _ => format!("{escaped}\n"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TemporaryDirectory;

    #[test]
    fn every_command_has_a_page() {
        let directory = TemporaryDirectory::new("man");
        man(directory.path()).unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).expect(name);
        let pvm = read("pvm.1");
        assert!(pvm.contains("\n.SH EXIT STATUS\n.nf\n\\&  0    done\n.fi\n") && pvm.contains("pvm\\-run(1)"), "{pvm}");
        assert!(!pvm.contains("pvm\\-help"), "{pvm}");
        assert!(!pvm.contains("generate"));
        assert!(
            read("pvm-run.1").contains("\n.SH EXAMPLES\n") && read("pvm-run.1").contains("\n\\&  pvm run \\-a hello ")
        );
        assert!(read("pvm-pool-list.1").contains("prepared domains"));
        assert!(read("pvmd.8").contains("family\\-memory"));
        assert!(!directory.path().join("pvm-generate.1").exists());
    }

    #[test]
    fn completions_know_the_commands() {
        let directory = TemporaryDirectory::new("completions");
        completions(directory.path(), &[Shell::Bash, Shell::Fish, Shell::Zsh]).unwrap();
        for name in ["pvm.bash", "pvm.fish", "_pvm"] {
            assert!(fs::read_to_string(directory.path().join(name)).unwrap().contains("inspect"), "{name}");
        }
        assert!(directory.path().join("pvmd.bash").exists());
    }
}
