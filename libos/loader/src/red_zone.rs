//! Finds functions that keep data below the stack pointer, in the "red zone" of the psABI (x86-64,
//! 3.2.2).
//!
//! Xen writes the frame of an event or exception there when it interrupts code in guest kernel
//! mode, so such an object must not run in that mode. The search is for an instruction that
//! addresses memory below `rsp`: directly, through `rbp` if the distance from `rsp` to it is known,
//! or by `lea`. All code is read in order; jumps are not followed. Data in the middle of code may
//! be taken for an access, but cannot hide one.
//!
//! Two forms of correct code look alike. `array[i - 1]`, of an array at the bottom of the frame, is
//! an access with an index whose place is not known: it counts only in a function that calls no
//! other, because only such functions have a red zone. A variadic function that reads vector
//! registers alone takes the address of a save area whose first part, for the general registers,
//! does not exist and would lie below the frame: that address does not count, because the same
//! function stores vector registers where the area has their places.
//!
//! A function begins where the unwind table (`.eh_frame_hdr`) says so, and without one where a frame
//! is set up.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use goblin::elf::section_header::SHF_EXECINSTR;
use goblin::elf64::header::Header;
use goblin::elf64::program_header::{PT_GNU_EH_FRAME, ProgramHeader, SIZEOF_PHDR};
use goblin::elf64::section_header::{SIZEOF_SHDR, SectionHeader};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::bytes;
use crate::object::{Object, View, owned};
use crate::segment::{Rights, Segment};

/// The red zone's size in octets. An access farther below is a probe of the stack, which keeps no
/// data there.
const SIZE: i64 = 128;

/// An instruction that uses the red zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Relative to the base.
    pub address: u64,
    /// Octets below the stack pointer.
    pub below: u64,
    /// The exported function that contains the instruction, if there is one.
    pub function: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the code at {:#x}", self.address)?;
        if let Some(function) = &self.function {
            write!(f, ", in `{}`,", function.escape_debug())?;
        }
        write!(f, " uses the red zone {} octets below the stack pointer; build it with -mno-red-zone", self.below)
    }
}

/// One use of the red zone, if there is one.
pub fn find<B: AsRef<[u8]>>(object: &Object<B>) -> Option<Place> {
    places(object).next()
}

/// All uses of the red zone.
pub fn places<B: AsRef<[u8]>>(object: &Object<B>) -> impl Iterator<Item = Place> {
    let view = object.view();
    let starts = function_starts(view);
    let found = code(view).into_iter().flat_map(move |(address, file)| {
        let code = view.bytes.get(file).unwrap_or_default();
        let end = address + code.len() as u64;
        let starts = starts.iter().copied().filter(|start| (address..end).contains(start)).collect();
        Reader::new(code, address, starts)
    });
    found.map(move |(address, below)| {
        let function = view.covering(address).map(|(_, symbol)| owned(view.name(&symbol)).to_string());
        Place { address, below, function }
    })
}

/// The ranges of code: the sections marked as code, or, without sections, the executable segments.
fn code(view: View) -> Vec<(u64, Range<usize>)> {
    let executable = || view.info.segments.iter().filter(|segment| segment.rights == Rights::ReadExecute);
    let header: Header = bytes::record(view.bytes, 0).unwrap_or_default();
    let sections = (0..usize::from(header.e_shnum)).map_while(|number| {
        let at = usize::try_from(header.e_shoff).ok()?.checked_add(number * SIZEOF_SHDR)?;
        bytes::record::<SectionHeader>(view.bytes, at)
    });
    let mut code: Vec<(u64, Range<usize>)> = sections
        .filter(|section| section.sh_flags & u64::from(SHF_EXECINSTR) != 0)
        .filter_map(|section| {
            let file = executable().find_map(|segment| segment.file_range(section.sh_addr, section.sh_size))?;
            Some((section.sh_addr, file))
        })
        .collect();
    code.sort_unstable_by_key(|(address, _)| *address);
    if code.is_empty() {
        code.extend(executable().map(|segment| (segment.memory.start, segment.file.clone())));
    }
    code
}

/// The sorted beginnings of functions in the table for unwinding (LSB Core 5.0, 10.6.2), in the one
/// encoding that linkers write; none in any other.
fn function_starts(view: View) -> Vec<u64> {
    /// Version; a pointer relative to its own place, a number, and pointers relative to the table,
    /// all of four octets.
    const HEAD: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
    let header: Header = bytes::record(view.bytes, 0).unwrap_or_default();
    let table = (0..usize::from(header.e_phnum)).find_map(|number| {
        let at = usize::try_from(header.e_phoff).ok()?.checked_add(number * SIZEOF_PHDR)?;
        bytes::record::<ProgramHeader>(view.bytes, at).filter(|header| header.p_type == PT_GNU_EH_FRAME)
    });
    let content = table.and_then(|table| {
        let range = |segment: &Segment| segment.file_range(table.p_vaddr, table.p_filesz);
        Some((table.p_vaddr, view.bytes.get(view.info.segments.iter().find_map(range)?)?))
    });
    let Some((address, content)) = content.filter(|(_, content)| content.starts_with(&HEAD)) else {
        return Vec::new();
    };
    let entries = content.get(12..).unwrap_or_default().as_chunks::<8>().0;
    let distances = entries.iter().map(|[a, b, c, d, ..]| i32::from_le_bytes([*a, *b, *c, *d]));
    let mut starts: Vec<u64> = distances.map(|distance| address.wrapping_add_signed(distance.into())).collect();
    starts.sort_unstable();
    starts
}

/// The reason for which an access may be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// It has an index.
    Index,
    /// It is the address of a register save area, if that is in use.
    Area,
}

/// Offset of the vector registers in a register save area, and the size of each (psABI x86-64,
/// 3.5.7).
const VECTORS: i64 = 48;
const VECTOR: i64 = 16;

/// Reads code and yields the accesses: the place, and the octets below `rsp`.
struct Reader<'a> {
    decoder: Decoder<'a>,
    /// Octets from `rsp` up to `rbp`, if known.
    frame: Option<i64>,
    /// The same for the targets of jumps.
    later: BTreeMap<u64, i64>,
    /// The beginnings of functions, if they are known.
    starts: Vec<u64>,
    /// Accesses in doubt, of the function at hand: its end decides.
    held: Vec<(u64, u64, Doubt)>,
    /// The places of `xmm0`, from `rsp` up, in areas in which this function saves vector registers.
    saves: Vec<i64>,
    calls: bool,
    /// Accesses of functions that have ended.
    decided: Vec<(u64, u64)>,
}

impl<'a> Reader<'a> {
    fn new(code: &'a [u8], address: u64, starts: Vec<u64>) -> Self {
        let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
        Self {
            decoder,
            frame: None,
            later: BTreeMap::new(),
            starts,
            held: Vec::new(),
            saves: Vec::new(),
            calls: false,
            decided: Vec::new(),
        }
    }

    /// A function begins with the instruction.
    fn begins(&self, instruction: &Instruction) -> bool {
        match self.starts.is_empty() {
            true => {
                instruction.mnemonic() == Mnemonic::Mov
                    && (instruction.op0_register(), instruction.op1_register()) == (Register::RBP, Register::RSP)
            }
            false => self.starts.binary_search(&instruction.ip()).is_ok(),
        }
    }

    /// Decides what is held. The places are taken from the end of `decided`.
    fn end_function(&mut self) {
        let is_access = |below: u64, doubt| match doubt {
            Doubt::Index => !self.calls,
            Doubt::Area => !self.saves.contains(&(VECTORS - below as i64)),
        };
        let accesses = self.held.iter().rev().filter(|(_, below, doubt)| is_access(*below, *doubt));
        self.decided.extend(accesses.map(|(address, below, _)| (*address, *below)));
        self.held.clear();
        self.saves.clear();
        self.calls = false;
    }

    /// The doubt about an access by the instruction.
    fn doubt(&self, instruction: &Instruction) -> Option<Doubt> {
        let is_indexed = instruction.memory_index() != Register::None;
        // Without the functions' beginnings, one that calls nothing may stand among others.
        if is_indexed && (instruction.memory_base() == Register::RBP || !self.starts.is_empty()) {
            return Some(Doubt::Index);
        }
        (instruction.mnemonic() == Mnemonic::Lea && !is_indexed).then_some(Doubt::Area)
    }

    fn note_save(&mut self, instruction: &Instruction) {
        let stores = matches!(instruction.mnemonic(), Mnemonic::Movaps | Mnemonic::Movups)
            && instruction.op0_kind() == OpKind::Memory
            && instruction.memory_base() == Register::RSP
            && instruction.memory_index() == Register::None;
        let register = instruction.op1_register();
        if stores && register.is_xmm() {
            self.saves.push(instruction.memory_displacement64() as i64 - register.number() as i64 * VECTOR);
        }
    }

    /// The distance below `rsp` at which the instruction addresses memory, if it does.
    fn access(&self, instruction: &Instruction) -> Option<i64> {
        let memory = (0..instruction.op_count()).any(|number| instruction.op_kind(number) == OpKind::Memory);
        // An address without an access is enough, except when it sets the stack pointer or belongs
        // to a `nop`.
        let names = instruction.mnemonic() != Mnemonic::Nop && instruction.op0_register() != Register::RSP;
        if !memory || !names {
            return None;
        }
        let displacement = instruction.memory_displacement64() as i64;
        let below = match instruction.memory_base() {
            Register::RSP => -displacement,
            // `lea` may compute any number, because `rbp` is a general register in code without
            // frames.
            Register::RBP if instruction.mnemonic() != Mnemonic::Lea => -displacement - self.frame?,
            _ => return None,
        };
        (1..=SIZE).contains(&below).then_some(below)
    }

    fn follow(&mut self, instruction: &Instruction) {
        let (op0, op1) = (instruction.op0_register(), instruction.op1_register());
        let constant = || matches!(instruction.op1_kind(), OpKind::Immediate8to64 | OpKind::Immediate32to64);
        let amount = || instruction.immediate(1) as i64;
        let frame = match instruction.mnemonic() {
            Mnemonic::Mov if op0 == Register::RBP && op1 == Register::RSP => Some(0),
            Mnemonic::Pop if op0 == Register::RBP => None,
            Mnemonic::Push => self.frame.map(|frame| frame + 8),
            Mnemonic::Pop => self.frame.map(|frame| frame - 8),
            Mnemonic::Sub if op0 == Register::RSP && constant() => self.frame.map(|frame| frame + amount()),
            Mnemonic::Add if op0 == Register::RSP && constant() => self.frame.map(|frame| frame - amount()),
            // `and` can only move it down.
            Mnemonic::And if op0 == Register::RSP => self.frame,
            Mnemonic::Cmp | Mnemonic::Test => self.frame,
            Mnemonic::Leave => None,
            _ if matches!(op0, Register::RSP | Register::RBP | Register::EBP) => None,
            _ => self.frame,
        };
        let known = |target: u64| frame.map(|frame| (target, frame));
        self.frame = match instruction.flow_control() {
            FlowControl::ConditionalBranch => {
                self.later.extend(known(instruction.near_branch_target()));
                frame
            }
            FlowControl::UnconditionalBranch => {
                self.later.extend(known(instruction.near_branch_target()));
                None
            }
            FlowControl::Return | FlowControl::IndirectBranch | FlowControl::Exception => None,
            _ => frame,
        };
    }
}

impl Iterator for Reader<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        while self.decided.is_empty() && self.decoder.can_decode() {
            let instruction = self.decoder.decode();
            if let Some(frame) = self.later.remove(&instruction.ip()) {
                self.frame.get_or_insert(frame);
            }
            if self.begins(&instruction) {
                self.end_function();
            }
            let access = self.access(&instruction);
            self.follow(&instruction);
            self.note_save(&instruction);
            self.calls |= matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
            if let Some(below) = access {
                let (address, below) = (instruction.ip(), below as u64);
                match self.doubt(&instruction) {
                    Some(doubt) => self.held.push((address, below, doubt)),
                    None => self.decided.insert(0, (address, below)),
                }
            }
        }
        if self.decided.is_empty() {
            self.end_function();
        }
        self.decided.pop()
    }
}
