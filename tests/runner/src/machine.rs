//! The emulated machine: one QEMU process with Xen and dom0 inside. The runner talks to it through
//! its virtio port.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::layout;
use crate::options::{Clock, Cpu, Memory, Processors};

/// Size of the payload's and of the results' disk: part of the machine, so the same in every run.
pub const DISK_BYTES: u64 = 1 << 30;
/// Longest that dom0 takes from nothing to its wait, on a busy host.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// The time that dom0 has to answer before it is asked again.
const KNOCK_INTERVAL: Duration = Duration::from_millis(100);
/// dom0's last words on its console before it waits.
const WAITING: &str = "init: ready";
/// Longest that writing a snapshot takes.
const SAVE_LIMIT: Duration = Duration::from_secs(120);
/// The time that the machine has to unpack its payload.
const UNPACK_LIMIT: Duration = Duration::from_secs(240);

/// QEMU's arguments that are the same in every machine.
#[rustfmt::skip]
pub const FIXED_ARGUMENTS: [&str; 12] = [
    "-display", "none",
    "-nodefaults", "-no-reboot",
    "-kernel", "xen",
    "-initrd", "vmlinuz console=hvc0 quiet,initrd",
    // A PV dom0 pays 100 us for each octet on a serial port. `iommu_platform` keeps virtio to the
    // DMA interface, without which it would take dom0's pseudo-physical addresses for real ones.
    "-device", "virtio-serial-pci,disable-legacy=on,iommu_platform=on",
    "-device", "isa-debug-exit,iobase=0xf4,iosize=1", // dom0 ends the emulator by a write to this port
];

/// The parameters that distinguish one machine from another; a snapshot fits exactly one.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub clock: Clock,
    pub memory: Memory,
    pub processors: Processors,
    pub cpu: Cpu,
}

impl Model {
    /// QEMU's arguments that make up the machine, without those that may differ between a snapshot
    /// and its use.
    pub fn arguments(self) -> Vec<String> {
        let clock: &[&str] = match self.clock {
            Clock::Wall => &["-accel", "tcg,thread=multi"],
            Clock::Icount => &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"],
        };
        let memory = self.memory.mib().to_string();
        let dom0 = self.memory.dom0_mib();
        // A snapshot that is taken while Xen scrubs its free memory may crash Xen when it is
        // restored.
        let options = "bootscrub=off loglvl=all guest_loglvl=all";
        let processors = self.processors.count();
        // The default of a host: dom0 has as many virtual processors as there are
        // processors, and none is pinned, so that two threads of pvmd, a thread of it and a guest,
        // or two guests run at the same moment.
        let xen = format!(
            "console=com1 com1=115200,8n1 conring_size=512k dom0_mem={dom0}M,max:{dom0}M dom0_max_vcpus={processors} {options}"
        );
        let processors = processors.to_string();
        let chosen = ["-cpu", self.cpu.argument(), "-m", &memory, "-smp", &processors, "-append", &xen];
        clock.iter().chain(&chosen).chain(&FIXED_ARGUMENTS).map(|&word| word.into()).collect()
    }
}

/// The files of one run. All of them are made here and removed with the value.
pub struct RunFiles {
    dir: PathBuf,
}

impl RunFiles {
    /// Makes the two disks, sparse, in a directory of this process's own; clears away those of
    /// processes that were killed.
    pub fn create() -> Result<Self> {
        let parent = layout::top().join("target/dom0/runs");
        std::fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
        for entry in std::fs::read_dir(&parent)?.flatten() {
            let name = entry.file_name();
            let process = name.to_string_lossy().split('-').next().unwrap_or_default().to_owned();
            if !Path::new("/proc").join(process).exists() {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let files = RunFiles { dir };
        for disk in [files.payload(), files.results()] {
            File::create(&disk)
                .and_then(|file| file.set_len(DISK_BYTES))
                .with_context(|| format!("cannot make {}: is the disk full?", disk.display()))?;
        }
        Ok(files)
    }

    /// The disk that dom0 reads its payload from.
    pub fn payload(&self) -> PathBuf {
        self.dir.join("payload.img")
    }

    /// The disk that dom0 writes its results to.
    pub fn results(&self) -> PathBuf {
        self.dir.join("results.img")
    }

    /// The output of the first serial port, from Xen and dom0's kernel.
    pub fn serial(&self) -> PathBuf {
        self.dir.join("serial.log")
    }
}

impl Drop for RunFiles {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A running machine. Dropping it ends the emulator.
pub struct Machine {
    qemu: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    pending: Vec<u8>,
}

/// An event from the machine.
pub enum Event {
    /// Octets that dom0 wrote to its virtio port.
    Output(Vec<u8>),
    /// No output until the deadline.
    Silence,
    /// The emulator has ended.
    End,
}

impl Machine {
    /// Boots from nothing and waits until dom0 takes a payload.
    pub fn boot(model: Model, files: &RunFiles) -> Result<Self> {
        let mut machine = Machine::spawn(model, files, &["-chardev", "stdio,id=dom0,signal=off"])?;
        machine.wait_ready()?;
        Ok(machine)
    }

    /// Boots from nothing, writes the waiting machine to `snapshot` and ends.
    pub fn boot_and_save(model: Model, files: &RunFiles, snapshot: &Path) -> Result<()> {
        // Standard input leads to QEMU's monitor; dom0 says on its console that it waits.
        let mut machine = Machine::spawn(model, files, &["-chardev", "null,id=dom0", "-monitor", "stdio"])?;
        let deadline = Instant::now() + BOOT_LIMIT;
        while !String::from_utf8_lossy(&std::fs::read(files.serial()).unwrap_or_default()).contains(WAITING) {
            if let Event::End = machine.next(Instant::now() + KNOCK_INTERVAL) {
                bail!("the emulator ended before dom0 was ready");
            }
            if Instant::now() > deadline {
                bail!("dom0 is not up within {} s", BOOT_LIMIT.as_secs());
            }
        }
        let name = snapshot.display();
        machine.send(
            format!("migrate_set_parameter max-bandwidth 10G\nmigrate \"exec:cat > '{name}'\"\nquit\n").as_bytes(),
        )?;
        let deadline = Instant::now() + SAVE_LIMIT;
        let mut said = Vec::new();
        loop {
            match machine.next(deadline) {
                Event::Output(octets) => said.extend(octets),
                Event::End => break,
                Event::Silence => bail!("writing a snapshot took more than {} s", SAVE_LIMIT.as_secs()),
            }
        }
        let said = String::from_utf8_lossy(&said);
        if said.contains("Error") || snapshot.metadata().map_or(0, |file| file.len()) == 0 {
            bail!("QEMU cannot write the snapshot {name}: is the disk full?");
        }
        Ok(())
    }

    /// Goes on from `snapshot`, which [`Machine::boot_and_save`] wrote for the same `model`.
    pub fn restore(model: Model, files: &RunFiles, snapshot: &Path) -> Result<Self> {
        let incoming = format!("exec:cat '{}'", snapshot.display());
        let arguments = ["-chardev", "stdio,id=dom0,signal=off", "-incoming", &incoming];
        let mut machine = Machine::spawn(model, files, &arguments)?;
        machine.wait_ready()?;
        Ok(machine)
    }

    fn spawn(model: Model, files: &RunFiles, more: &[&str]) -> Result<Self> {
        layout::check_machine()?;
        // setpriv makes the kernel end QEMU when this process ends, for any reason.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        command.args(model.arguments());
        for (index, disk, snapshot) in [(0, files.payload(), "on"), (1, files.results(), "off")] {
            let file = layout::for_qemu(&disk);
            let drive = format!("if=ide,index={index},format=raw,cache=unsafe,snapshot={snapshot},file={file}");
            command.args(["-drive", &drive]);
        }
        command.args(["-chardev", &format!("file,id=xen,path={}", layout::for_qemu(&files.serial()))]);
        command.args(["-serial", "chardev:xen", "-device", "virtserialport,chardev=dom0"]);
        command.args(more);
        let mut qemu = command
            .current_dir(layout::machine())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start qemu-system-x86_64: run 'make setup'")?;
        let input = qemu.stdin.take();
        let mut stream = qemu.stdout.take().context("QEMU's output")?;
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Machine { qemu, input, output, pending: Vec::new() })
    }

    /// Hands the payload's first `length` octets over; returns once dom0 has unpacked them.
    pub fn start(&mut self, length: u64) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.send(format!("go {now} {length}\n").as_bytes())?;
        if self.wait_for(b"started\n", Instant::now() + UNPACK_LIMIT)? {
            return Ok(());
        }
        bail!("dom0 has not unpacked its payload within {} s", UNPACK_LIMIT.as_secs())
    }

    /// Writes to dom0's virtio port.
    pub fn send(&mut self, octets: &[u8]) -> Result<()> {
        let input = self.input.as_mut().context("the port has another writer")?;
        input.write_all(octets).and_then(|()| input.flush()).context("the emulator has ended")
    }

    /// Gives the port's writing end away, to a terminal; [`Machine::send`] fails from then on.
    pub fn take_input(&mut self) -> Result<ChildStdin> {
        self.input.take().context("the port has another writer")
    }

    /// The machine's next output, or its end, or [`Event::Silence`] at `deadline`.
    pub fn next(&mut self, deadline: Instant) -> Event {
        if !self.pending.is_empty() {
            return Event::Output(std::mem::take(&mut self.pending));
        }
        match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(octets) => Event::Output(octets),
            Err(RecvTimeoutError::Timeout) => Event::Silence,
            Err(RecvTimeoutError::Disconnected) => Event::End,
        }
    }

    /// Knocks until dom0 answers: octets written before it listens, or before a restore is
    /// complete, get lost.
    fn wait_ready(&mut self) -> Result<()> {
        let limit = Instant::now() + BOOT_LIMIT;
        while Instant::now() < limit {
            self.send(b"\n")?;
            if self.wait_for(b"ready\n", Instant::now() + KNOCK_INTERVAL)? {
                return Ok(());
            }
        }
        bail!("dom0 is not up within {} s", BOOT_LIMIT.as_secs())
    }

    /// Discards the machine's output up to and including `mark`; true if that came before
    /// `deadline`.
    fn wait_for(&mut self, mark: &[u8], deadline: Instant) -> Result<bool> {
        let mut said = Vec::new();
        loop {
            match self.next(deadline) {
                Event::Output(octets) => said.extend(octets),
                Event::Silence => return Ok(false),
                Event::End => bail!("the emulator ended before dom0 was ready"),
            }
            if let Some(at) = said.windows(mark.len()).position(|window| window == mark) {
                self.pending = said.split_off(at + mark.len());
                return Ok(true);
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
