//! `pvm run`: makes a domain with `xl create` and stays with it until it runs, or ends.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{MemfdFlags, memfd_create};
use xen_abi::Errno;

use super::client::{Answer, Client, understand};
use super::error::Error;
use super::guest::{Choice, GUESTS, Guest, free_name};
use super::interrupt::Deferred;
use super::lines::Lines;
use super::logs::{self, Console, Woken, put};
use super::progress::Progress;
use super::{options, print_json, say, xl};
use crate::engine::{EndStatus, Ended, Kind, PvmInfo, State, Target};
use crate::plain::plain;
use crate::protocol::{Fault, FaultKind, Request};

/// Time without output after which a guest is taken to have started.
const SILENCE: Duration = Duration::from_secs(10);
/// Interval of looks at a silent guest.
const LOOK: Duration = Duration::from_millis(100);
/// The line that the libOS prints when `main` returns another code than 0 (docs/configuration.md).
const EXIT_CODE_LINE: &str = "zooid: exit code ";

/// Starts a pVM; the exit code of `pvm`.
///
/// # Errors
/// No daemon, no such guest, or what `xl` said.
pub fn run(socket: &Path, json: bool, options: &options::Run, out: &mut impl Write) -> Result<u8, Error> {
    // Before any domain is made: without a daemon it would get no name. The client may be idle for
    // as long as others make their domains; it connects again if need be.
    let mut client = Client::connect(socket)?;
    let guest = Guest::find(&options.guest, Path::new(GUESTS))?;
    let (info, mut end, console) = match &options.app {
        Some(app) => run_app(&mut client, socket, &guest, app, options)?,
        None => {
            let lock = RunLock::wait(socket)?;
            create(&mut client, &lock, &guest, options, &options.args)?
        }
    };
    if options.attach {
        drop(client);
        return attach(end, &info, console, json, out);
    }
    let progress = Progress::new(format!("starting {}", info.name));
    first_sign(&mut client, &mut end, &info, console)?;
    drop(progress);
    if json {
        // Its present state. A pVM that has ended is remembered for a while.
        let now = client.ask_value(Request::Inspect { pvm: Target::Id(info.id) })?;
        print_json(out, &now)?;
    } else {
        put(out, format!("{}\n", info.id).as_bytes())?;
    }
    Ok(0)
}

/// Has an empty pVM, which is started if there is none, make a child for an application. Returns
/// the child, the connection that reports its end, and its console.
fn run_app(
    client: &mut Client,
    socket: &Path,
    guest: &Guest,
    app: &str,
    options: &options::Run,
) -> Result<(PvmInfo, Client, Console), Error> {
    let lock = RunLock::wait(socket)?;
    let pvms: Vec<PvmInfo> = client.ask(Request::List { all: false })?;
    let empty = match pvms.into_iter().find(|pvm| pvm.name == guest.name && pvm.kind == Kind::Root) {
        Some(pvm) => pvm,
        None => {
            let (info, mut end, console) = create(client, &lock, guest, options, &[])?;
            let _progress = Progress::new(format!("starting {}", info.name));
            first_sign(client, &mut end, &info, console)?;
            info
        }
    };
    drop(lock);
    let application = [app].into_iter().map(str::to_owned).chain(options.args.iter().cloned()).collect();
    let fork = Request::Fork { pvm: Target::Id(empty.id), count: 1, application };
    let is_young = age(&empty) < SILENCE;
    let deadline = Instant::now() + SILENCE;
    let children: Vec<u32> = loop {
        let waits = |fault: &Fault| match fault.kind {
            // It boots.
            FaultKind::CannotFork | FaultKind::TakesNoApplication => is_young,
            // Another client runs an application.
            FaultKind::Refused => fault.errno == Some(Errno::EBUSY.0),
            _ => false,
        };
        match client.ask(fork.clone()) {
            Err(Error::Fault(fault)) if waits(&fault) && Instant::now() < deadline => std::thread::sleep(LOOK),
            other => break other?,
        }
    };
    let id = children.first().ok_or_else(|| Error::NotUnderstood("a fork without a child".to_owned()))?;
    let info = client.inspect(&Target::Id(*id))?;
    let mut end = Client::connect(socket)?;
    end.send(Request::Wait { pvm: Target::Id(info.id) })?;
    let console = Console::open(logs::path(&info.name), 0)?;
    Ok((info, end, console))
}

fn age(pvm: &PvmInfo) -> Duration {
    let since = SystemTime::UNIX_EPOCH + Duration::from_micros(pvm.since_us);
    SystemTime::now().duration_since(since).unwrap_or_default()
}

/// The lock on choosing a name and making the domain that has it. Without it, several `pvm run` at
/// a time would choose one name, and see that only when `xl create` is done.
struct RunLock<'a> {
    socket: &'a Path,
    _lock: File,
}

impl<'a> RunLock<'a> {
    /// Waits for the lock, of which each daemon has one. It is released with the value or the
    /// program.
    fn wait(socket: &'a Path) -> Result<Self, Error> {
        let path = socket.with_file_name("run.lock");
        let _progress = Progress::new("waiting for others to make their domains");
        let locked = File::options().create(true).append(true).open(&path).and_then(|file| file.lock().map(|()| file));
        let lock = locked.map_err(|error| Error::Io(format!("lock {}", path.display()), error))?;
        Ok(Self { socket, _lock: lock })
    }
}

/// Makes the domain and has it run. Returns the pVM, the connection that reports its end, and its
/// console from here on. A domain that does not come to run is removed.
fn create(
    client: &mut Client,
    lock: &RunLock<'_>,
    guest: &Guest,
    options: &options::Run,
    args: &[String],
) -> Result<(PvmInfo, Client, Console), Error> {
    let pvms: Vec<PvmInfo> = client.ask(Request::List { all: false })?;
    let mut taken: Vec<String> = pvms.into_iter().map(|pvm| pvm.name).collect();
    let _progress = Progress::new(format!("creating a domain for {}", guest.name));
    let deferred = Deferred::begin()?;
    loop {
        deferred.check()?;
        let name = match &options.name {
            Some(name) => name.clone(),
            None => free_name(&guest.name, |name| taken.iter().any(|other| other == name)),
        };
        let config = config_file(&guest.config(Choice { name: &name, memory: options.memory, args }))?;
        let path = logs::path(&name);
        let length = fs::metadata(&path).map_or(0, |file| file.len());
        match xl::run_with("create", &["-q", "-p", "/proc/self/fd/0"], config) {
            // A domain that is no pVM has the name.
            Err(Error::Xl(_, said)) if said.contains("already exists") && options.name.is_none() => {
                taken.push(name);
                continue;
            }
            Err(Error::Xl(_, said)) if said.contains("already exists") => {
                return Err(Error::BadGuest(format!("a domain is named {name} already: choose another --name")));
            }
            other => other?,
        };
        let started = Console::open(path.clone(), length)
            .and_then(|console| start(client, lock.socket, &name, &deferred).map(|(info, end)| (info, end, console)));
        if let Ok((info, ..)) = &started {
            logs::mark(&path, info.id, length);
        }
        if started.is_err() {
            // Without a client, no one would know of it.
            let _ = xl::run("destroy", &[&name]);
        }
        return started;
    }
}

/// Has a new domain run. Returns the pVM, and the connection that reports its end.
fn start(client: &mut Client, socket: &Path, name: &str, deferred: &Deferred) -> Result<(PvmInfo, Client), Error> {
    let info = match client.inspect(&Target::Name(name.to_owned())) {
        Ok(info) if info.ended.is_none() => info,
        // The daemon has not noticed it yet, or does not take its kernel for one of ours.
        _ => {
            let domid = xl::run("domid", &[name])?;
            let domain = domid.trim().parse().map_err(|_| Error::Xl("domid", domid.clone()))?;
            client.ask(Request::Adopt { domain })?
        }
    };
    // This request precedes the start, so that an early end is not missed.
    let mut end = Client::connect(socket)?;
    end.send(Request::Wait { pvm: Target::Id(info.id) })?;
    deferred.check()?;
    xl::run("unpause", &[&info.domid.to_string()])?;
    Ok((info, end))
}

/// Returns when the guest prints, says that it runs, has ended, or has been silent for long.
fn first_sign(client: &mut Client, end: &mut Client, info: &PvmInfo, mut console: Console) -> Result<(), Error> {
    let deadline = Instant::now() + SILENCE;
    while Instant::now() < deadline {
        match console.wait(Some(end.stream().as_fd()), Some(LOOK))? {
            _ if !console.read()?.is_empty() => return Ok(()),
            Woken::Other => {
                let ended = ended(end)?;
                return match ended.status {
                    EndStatus::Exit { .. } | EndStatus::Signal { .. } => Ok(()),
                    status => Err(Error::Died(info.name.clone(), status)),
                };
            }
            Woken::Changed => {}
            Woken::TimedOut => {
                let now = client.inspect(&Target::Id(info.id))?;
                if now.can_fork && now.state == State::Running {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Streams the console until the guest has ended; its exit code.
fn attach(
    mut end: Client,
    info: &PvmInfo,
    mut console: Console,
    json: bool,
    out: &mut impl Write,
) -> Result<u8, Error> {
    let mut lines = Lines::new(out, json);
    let mut tail = Vec::new();
    loop {
        let woken = console.wait(Some(end.stream().as_fd()), None)?;
        let octets = if woken == Woken::Other { console.read_last()? } else { console.read()? };
        lines.put(&octets)?;
        tail.extend(octets);
        tail.drain(..tail.len().saturating_sub(EXIT_CODE_LINE.len() + 16));
        if woken == Woken::Other {
            break;
        }
    }
    lines.finish()?;
    let mut ended = ended(&mut end)?;
    // A guest without the fork component tells its code in this way only.
    if let (EndStatus::Exit { code: 0 }, false, Some(code)) = (ended.status, info.can_fork, printed_code(&tail)) {
        ended.status = EndStatus::Exit { code };
        ended.exit_code = code;
    }
    if json {
        print_json(out, &ended)?;
    } else if !matches!(ended.status, EndStatus::Exit { .. }) {
        say(&format!("pvm: {} ended: {}", plain(&info.name), ended.status));
    }
    if !console.exists() {
        say(&format!("pvm: {}", plain(&logs::no_log(&info.name).to_string())));
    }
    Ok(ended.exit_code)
}

fn ended(end: &mut Client) -> Result<Ended, Error> {
    match end.next(None)? {
        Some(Answer::Final(value)) => understand(value),
        _ => Err(Error::NotUnderstood("an event that was not asked for".to_owned())),
    }
}

/// The code in the console's last line.
fn printed_code(tail: &[u8]) -> Option<u8> {
    let text = String::from_utf8_lossy(tail);
    text.lines().last()?.trim().strip_prefix(EXIT_CODE_LINE)?.parse::<i64>().ok().map(|code| code as u8)
}

/// A configuration for `xl create`: a file without a name, which is gone once it is closed
/// everywhere.
fn config_file(config: &str) -> Result<File, Error> {
    let written = memfd_create(c"pvm.cfg", MemfdFlags::CLOEXEC)
        .map_err(std::io::Error::from)
        .map(File::from)
        .and_then(|mut file| file.write_all(config.as_bytes()).map(|()| file));
    written.map_err(|error| Error::Io("write a configuration".to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TemporaryDirectory;

    #[test]
    fn one_at_a_time_chooses_a_name_and_makes_its_domain() {
        let directory = TemporaryDirectory::new("run-lock");
        let socket = directory.path().join("pvmd.sock");
        let lock = || File::open(directory.path().join("run.lock")).unwrap();
        let held = RunLock::wait(&socket).unwrap();
        assert!(lock().try_lock().is_err());
        drop(held);
        assert!(lock().try_lock().is_ok());
    }

    #[test]
    fn a_code_is_read_from_the_last_line() {
        for (text, code) in [
            ("hello\r\nzooid: exit code 3\r\n", Some(3)),
            ("zooid: exit code 255\n", Some(255)),
            ("zooid: exit code 3\nmore\n", None),
            ("exit code 3\n", None),
            ("", None),
        ] {
            assert_eq!(printed_code(text.as_bytes()), code, "{text}");
        }
    }
}
