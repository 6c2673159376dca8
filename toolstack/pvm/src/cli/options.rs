//! The command line of `pvm`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use zooid_manifest::Version;

use super::signal::Signal;
use crate::engine::Target;
use crate::library::{KEYS, STORE};
use crate::protocol::SOCKET;

/// The table of exit codes, which come from `error::Error::exit_code`.
const EXIT_STATUS: &str = "\
Exit status:
  0    done
  1    something else failed: the line says what
  2    the command line cannot be understood
  120  no pVM, or more than one, has that name; no such guest, object or library
  121  pvmd is not running, or does not answer
  122  no right to talk to pvmd
  123  refused: by a quota, for want of memory, by the pVM's state, by a library's rule, or by Xen
  124  out of time
`pvm wait` and `pvm run --attach` end with the code of the pVM: that of its exit, 128 and the signal's number, 139 for a crash, 137 when
it ran out of memory or was destroyed.";

/// Start, list, watch, fork and end pVMs
#[derive(Debug, Parser)]
#[command(
    name = "pvm",
    version,
    after_help = "A pVM is named by its id, its domid, or its name. `pvm help COMMAND` and the man pages have examples and the exit status.",
    after_long_help = EXIT_STATUS,
    disable_help_subcommand = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Options {
    /// Print JSON: one value a line; consoles as {"line": "..."}, errors on standard error as
    /// {"error": {...}}
    #[arg(long, global = true)]
    pub json: bool,
    /// The socket of pvmd
    #[arg(long, global = true, value_name = "FILE", default_value = SOCKET, hide = true)]
    pub socket: PathBuf,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `pvm`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a pVM and print its id
    #[command(after_help = "\
Examples:
  pvm run httpd                          /opt/zooid/guests/httpd, as httpd.cfg beside it says
  pvm run -a hello                       stream its console, end with its exit code
  pvm run --name web --memory 128 httpd
  pvm run ./target/x86_64-xen-pv/release/hello -- --verbose 3
  id=$(pvm run ./shop.cfg)
  pvm run --app libshop.so -- --verbose 3")]
    Run(Run),
    /// List the pVMs
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  pvm list
  pvm list --tree --all
  pvm list --json | jq -r '.[].name'"
    )]
    List {
        /// Show families as trees
        #[arg(long)]
        tree: bool,
        /// Also those that ended lately
        #[arg(short, long)]
        all: bool,
    },
    /// Show all facts about pVMs
    #[command(after_help = "Example:\n  pvm inspect httpd")]
    Inspect {
        /// The pVMs
        #[arg(required = true, value_name = "PVM")]
        pvms: Vec<Target>,
    },
    /// Show the output of a pVM
    #[command(after_help = "\
Examples:
  pvm logs httpd
  pvm logs -f -n 20 163845

It reads what xenconsoled records, which it does with --log=guest. Logs of pVMs that have ended are found by name. \
The output of a pVM that `pvm run` started begins with its own lines; the file has those of earlier ones of its name, too.")]
    Logs {
        /// Go on until the pVM ends
        #[arg(short, long)]
        follow: bool,
        /// Begin with the last LINES lines
        #[arg(short = 'n', long, value_name = "LINES")]
        tail: Option<usize>,
        /// The pVM
        pvm: Target,
    },
    /// Take over a pVM's console: `xl console`; Ctrl-] leaves it
    #[command(after_help = "Example:\n  pvm console httpd")]
    Console {
        /// The pVM
        pvm: Target,
    },
    /// Wait until a pVM ends, and end with its exit code
    #[command(after_help = "\
Examples:
  pvm wait httpd; echo $?
  pvm wait --timeout 10s 163845")]
    Wait {
        /// Longest to wait, such as 10s or 500ms
        #[arg(short, long, value_name = "TIME", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
        /// The pVM
        pvm: Target,
    },
    /// End pVMs, or send them a signal
    #[command(after_help = "\
Examples:
  pvm kill httpd
  pvm kill --family httpd            it and all that it has forked
  pvm kill -s USR1 163845

KILL destroys the domain. Other signals are handed to the application's handlers; an image without the fork component obeys TERM only.")]
    Kill {
        /// Name or number
        #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
        signal: Signal,
        /// All descendants too
        #[arg(long)]
        family: bool,
        /// The pVMs
        #[arg(required = true, value_name = "PVM")]
        pvms: Vec<Target>,
    },
    /// Ask pVMs to end, and wait until they have
    #[command(after_help = "\
Examples:
  pvm stop httpd
  pvm stop --timeout 60s httpd || pvm kill httpd")]
    Stop {
        /// Longest to wait for each
        #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
        timeout: Duration,
        /// The pVMs
        #[arg(required = true, value_name = "PVM")]
        pvms: Vec<Target>,
    },
    /// Fork a pVM at its next safe point, and print the ids of the children
    #[command(after_help = "\
Examples:
  pvm fork httpd
  pvm fork -n 3 163845

All its threads live on in the child.")]
    Fork {
        /// Number of children
        #[arg(short = 'n', long, value_name = "NUMBER", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=256))]
        count: u32,
        /// The pVM
        pvm: Target,
    },
    /// Show counters, and how long the steps of forks take
    #[command(after_help = "Example:\n  pvm stats --json | jq '.steps[] | {step, mean_ns}'")]
    Stats,
    /// Show events
    #[command(after_help = "\
Examples:
  pvm events
  pvm events -f --json")]
    Events {
        /// Go on with later events
        #[arg(short, long)]
        follow: bool,
    },
    /// Examine this host: what it offers and lacks, and what does not fit together between Xen,
    /// xenstore and pvmd
    #[command(after_help = "\
Examples:
  pvm doctor
  pvm doctor --repair                    also mend what nobody owns and nobody can miss
  pvm doctor --json | jq -r '.findings[] | select(.level == \"bad\") | .message'

Lines with `note` tell of something that works and that an operator should know; those with `BAD` make its status 1, or 121 if the only
trouble is that pvmd does not run, or 122 without the right to ask. It changes nothing without --repair, and needs root.")]
    Doctor(Doctor),
    /// Look at the prepared domains
    Pool {
        /// The command.
        #[command(subcommand)]
        command: Pool,
    },
    /// Look at memory that relatives share by a name, and clear it away
    Ipc {
        /// The command.
        #[command(subcommand)]
        command: Ipc,
    },
    /// Keep signed libraries
    Lib(LibOptions),
    /// Make keys, and choose those that the store trusts
    Key(KeyOptions),
    /// Write man pages or completions of pvm and pvmd to a directory
    #[command(hide = true)]
    Generate {
        /// The kind of output.
        #[command(subcommand)]
        what: Generate,
    },
}

/// The options of `pvm run`.
#[derive(Args, Debug)]
pub struct Run {
    /// Stream its console and end with its exit code; Ctrl-C leaves it running
    #[arg(short, long)]
    pub attach: bool,
    /// Name of the pVM [default: the guest's, with a number when that is taken]
    #[arg(long, value_parser = super::guest::parse_name)]
    pub name: Option<String>,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(4..))]
    pub memory: Option<u32>,
    /// Run a shared object of this name, in a child of an empty pVM; the guest is that one, which
    /// is started if it does not run
    #[arg(long, value_name = "LIBRARY", conflicts_with = "name")]
    pub app: Option<String>,
    /// A guest below /opt/zooid/guests, an image, or a configuration of xl
    #[arg(
        value_name = "NAME|IMAGE|CFG",
        default_value = "empty",
        required_unless_present = "app",
        hide_default_value = true
    )]
    pub guest: String,
    /// Arguments for the application
    #[arg(last = true)]
    pub args: Vec<String>,
}

/// The options of `pvm doctor`.
#[derive(Args, Clone, Copy, Debug)]
pub struct Doctor {
    /// Mend what is safe: remove homes of domains that do not exist, files that ended daemons left,
    /// and, while no pvmd runs, prepared domains
    #[arg(long)]
    pub repair: bool,
}

/// The commands of `pvm pool`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Pool {
    /// List the prepared domains
    #[command(visible_alias = "ls", after_help = "Example:\n  pvm pool list")]
    List,
}

/// The commands of `pvm ipc`.
#[derive(Debug, Subcommand)]
pub enum Ipc {
    /// List the named objects
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  pvm ipc list
  pvm ipc list --family httpd --json"
    )]
    List {
        /// Only those of this pVM's family
        #[arg(long, value_name = "PVM")]
        family: Option<Target>,
    },
    /// Remove a name from a pVM's family; existing mappings of the object stay
    #[command(after_help = "Example:\n  pvm ipc rm httpd queue")]
    Rm {
        /// A pVM of the family
        pvm: Target,
        /// The object's name, without the slash in front
        #[arg(value_parser = parse_object)]
        name: String,
    },
}

/// The options of `pvm lib`.
#[derive(Args, Debug)]
pub struct LibOptions {
    /// The directory of the libraries
    #[arg(long, global = true, value_name = "DIRECTORY", default_value = STORE, hide = true)]
    pub store: PathBuf,
    /// The directory of the keys
    #[arg(long, global = true, value_name = "DIRECTORY", default_value = KEYS, hide = true)]
    pub keys: PathBuf,
    /// The command.
    #[command(subcommand)]
    pub command: Lib,
}

/// The commands of `pvm lib`.
#[derive(Debug, Subcommand)]
pub enum Lib {
    /// Take a library into the store, beside its other versions, signed now or by the manifest
    /// beside it
    #[command(after_help = "\
Examples:
  pvm lib add ./libz.so.1                     with ./libz.so.1.manifest
  pvm lib add --version 1.3.1 --sign-with shop.key ./libz.so.1
  pvm lib add --version 1.3.1 --sign-with shop.key --image httpd --image shop ./libz.so.1
  pvm lib add --version 1.3.1 --sign-with shop.key --revoked ./libz.so.1")]
    Add(NewLibrary),
    /// List the libraries
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  pvm lib list
  pvm lib list --json | jq -r '.[].name'"
    )]
    List,
    /// Show a library's description and signer
    #[command(after_help = "Examples:\n  pvm lib inspect libz.so.1\n  pvm lib inspect libz.so.1@1.3.1")]
    Inspect {
        /// The library; without a version, its highest
        #[arg(value_name = "NAME[@VERSION]")]
        library: Which,
    },
    /// Replace a library of running pVMs by another version
    #[command(
        override_usage = "pvm lib update [OPTIONS] <NAME> <PVM>...\n       pvm lib update [OPTIONS] <NAME> --family <PVM> | --all",
        after_help = "\
Examples:
  pvm lib update libpage.so.1 shop              the newest version that shop may map
  pvm lib update libpage.so.1 --to 1.2.0 --family shop
  pvm lib update libpage.so.1 --all"
    )]
    Update {
        /// The library
        #[arg(value_name = "NAME")]
        library: String,
        /// The version [default: the newest]
        #[arg(long, value_name = "VERSION", value_parser = parse_version)]
        to: Option<Version>,
        /// Update all pVMs of this pVM's family that have it open
        #[arg(long, value_name = "PVM", conflicts_with = "pvms")]
        family: Option<Target>,
        /// Update all pVMs that have it open
        #[arg(long, conflicts_with_all = ["pvms", "family"])]
        all: bool,
        /// Longest time for each pVM until nobody uses the old version
        #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=600))]
        timeout: u32,
        /// The pVMs
        #[arg(value_name = "PVM", required_unless_present_any = ["family", "all"])]
        pvms: Vec<Target>,
    },
    /// Take a library out of the store
    #[command(
        visible_alias = "rm",
        after_help = "Examples:\n  pvm lib remove libz.so.1@1.3.0\n  pvm lib remove libz.so.1"
    )]
    Remove {
        /// The library; without a version, all of them
        #[arg(value_name = "NAME[@VERSION]")]
        library: Which,
    },
    /// Check signatures and files of libraries
    #[command(after_help = "\
Examples:
  pvm lib verify
  pvm lib verify libz.so.1 && echo good")]
    Verify {
        /// The libraries [default: all]
        #[arg(value_name = "NAME[@VERSION]")]
        libraries: Vec<Which>,
    },
}

/// A library: `NAME`, or `NAME@VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which {
    pub name: String,
    pub version: Option<Version>,
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(parse_version(version)?)),
            None => (text, None),
        };
        Ok(Self { name: name.to_owned(), version })
    }
}

/// A library to be added to the store.
#[derive(Args, Debug)]
pub struct NewLibrary {
    /// The name by which it is opened [default: the file's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Its version, such as 1.2.3
    #[arg(id = "lib-version", long = "version", value_name = "VERSION", value_parser = parse_version, requires = "sign-with")]
    pub lib_version: Option<Version>,
    /// Secret key to sign it with
    #[arg(id = "sign-with", long, value_name = "KEY", requires = "lib-version")]
    pub sign_with: Option<PathBuf>,
    /// Only this image may map it; may be given again [default: all]
    #[arg(long = "image", value_name = "IMAGE", requires = "sign-with")]
    pub images: Vec<String>,
    /// Only the family of this root pVM may map it; may be given again [default: all]
    #[arg(long = "family", value_name = "NAME", requires = "sign-with")]
    pub families: Vec<String>,
    /// No pVM may map this version any more; those that have it keep it
    #[arg(long, requires = "sign-with")]
    pub revoked: bool,
    /// The shared object
    pub file: PathBuf,
}

fn parse_version(text: &str) -> Result<Version, String> {
    Version::parse(text).map_err(|error| error.to_string())
}

/// The options of `pvm key`.
#[derive(Args, Debug)]
pub struct KeyOptions {
    /// The directory of the keys
    #[arg(long, global = true, value_name = "DIRECTORY", default_value = KEYS, hide = true)]
    pub keys: PathBuf,
    /// The command.
    #[command(subcommand)]
    pub command: Key,
}

/// The commands of `pvm key`.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a pair of keys: NAME.key, which signs and is to be kept secret, and NAME.pub
    #[command(after_help = "\
Example:
  pvm key generate shop

An image trusts it with `zooid::dl::trust!(include_bytes!(\"shop.pub\"))`, the store with `pvm key trust shop.pub`.")]
    Generate {
        /// Name of the files, without .key and .pub
        name: PathBuf,
    },
    /// Trust a key: the store takes libraries that it has signed
    #[command(after_help = "Example:\n  pvm key trust shop.pub")]
    Trust {
        /// The public key, NAME.pub
        file: PathBuf,
    },
    /// List the keys whose libraries the store takes
    #[command(visible_alias = "ls", after_help = "Example:\n  pvm key list")]
    List,
}

/// A name in the form of `pvm ipc list`. It may have the slash in front that the application uses.
fn parse_object(text: &str) -> Result<String, String> {
    match text.strip_prefix('/').unwrap_or(text) {
        "" => Err("a name is not empty".to_owned()),
        name if name.contains('/') => Err("a name has no slash in it".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// The files generated from the description of the command line.
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// Man pages
    Man {
        /// The directory
        directory: PathBuf,
    },
    /// Completions
    Completions {
        /// The directory
        directory: PathBuf,
        /// The shells [default: bash, fish, zsh]
        #[arg(long, value_delimiter = ',', default_value = "bash,fish,zsh", hide_default_value = true)]
        shells: Vec<Shell>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(words: &str) -> Options {
        Options::try_parse_from(words.split(' ')).unwrap_or_else(|error| panic!("{words}: {error}"))
    }

    #[test]
    fn the_description_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn commands_are_understood() {
        let Command::Run(run) = parse("pvm run -a --name web --memory 16 httpd -- -v --name x").command else {
            panic!()
        };
        assert!(run.attach);
        assert_eq!((run.name.as_deref(), run.memory, &*run.guest), (Some("web"), Some(16), "httpd"));
        assert_eq!(run.args, ["-v", "--name", "x"]);

        let options = parse("pvm kill -s usr1 --family 163845 web --json");
        assert!(options.json);
        let Command::Kill { signal, family: true, pvms } = options.command else { panic!() };
        assert_eq!((signal, pvms), (Signal(10), vec![Target::Id(163_845), Target::Name("web".into())]));

        assert!(matches!(parse("pvm --json ls -a").command, Command::List { tree: false, all: true }));
        assert!(matches!(parse("pvm doctor").command, Command::Doctor(Doctor { repair: false })));
        assert!(matches!(parse("pvm --json doctor --repair").command, Command::Doctor(Doctor { repair: true })));
        assert!(matches!(parse("pvm pool list").command, Command::Pool { command: Pool::List }));
        let Command::Ipc { command: Ipc::Rm { pvm, name } } = parse("pvm ipc rm web /queue").command else { panic!() };
        assert_eq!((pvm, &*name), (Target::Name("web".into()), "queue"));
        let Command::Ipc { command: Ipc::List { family } } = parse("pvm ipc ls --family 5").command else { panic!() };
        assert_eq!(family, Some(Target::Id(5)));
        let Command::Lib(lib) = parse("pvm lib add --version 1.2.3 --sign-with k.key --image a --image b x.so").command
        else {
            panic!()
        };
        assert_eq!(lib.store, PathBuf::from("/var/lib/zooid/lib"));
        let Lib::Add(new) = lib.command else { panic!() };
        assert_eq!((new.lib_version.unwrap().to_string(), new.images), ("1.2.3".into(), vec!["a".into(), "b".into()]));
        assert!(matches!(parse("pvm lib verify --store /x --json").command, Command::Lib(_)));
        assert!(matches!(parse("pvm key ls").command, Command::Key(KeyOptions { command: Key::List, .. })));
        assert!(matches!(parse("pvm fork -n 3 5").command, Command::Fork { count: 3, pvm: Target::Id(5) }));
        let Command::Wait { timeout, .. } = parse("pvm wait --timeout 500ms 5").command else { panic!() };
        assert_eq!(timeout, Some(Duration::from_millis(500)));
    }

    #[test]
    fn mistakes_are_refused_with_status_2() {
        for words in [
            "pvm",
            "pvm dance",
            "pvm kill",
            "pvm kill -s NOPE 5",
            "pvm kill -s 65 5",
            "pvm inspect",
            "pvm lib add --version 1.2.3 x.so",
            "pvm lib add --sign-with k.key x.so",
            "pvm lib add --version 1.2 --sign-with k.key x.so",
            "pvm lib add --image a x.so",
            "pvm key generate",
            "pvm fork -n 0 5",
            "pvm fork -n 257 5",
            "pvm run",
            "pvm run --memory 3 hello",
            "pvm run --name a/b hello",
            "pvm run --name=-x hello",
            "pvm wait -t soon 5",
            "pvm inspect a/b",
            "pvm list 5",
            "pvm ipc",
            "pvm ipc rm 5",
            "pvm ipc rm 5 /",
            "pvm ipc rm 5 a/b",
        ] {
            let error = Options::try_parse_from(words.split(' ')).expect_err(words);
            assert_eq!(error.exit_code(), 2, "{words}");
        }
    }

    #[test]
    fn every_command_has_examples() {
        for command in Options::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let examples = |command: &clap::Command| {
                command.get_after_help().is_some_and(|text| text.to_string().contains("Example"))
            };
            assert!(examples(command) || command.get_subcommands().all(examples), "{}", command.get_name());
        }
    }
}
