//! Finds functions that keep data below the stack pointer, in the "red zone" of the psABI (x86-64,
//! 3.2.2).
//!
//! Xen writes the frame of an event or exception there when it interrupts code in guest kernel
//! mode, so such an object must not run in that mode. The search is for an instruction that
//! addresses memory below `rsp`: directly, through `rbp` if the distance from `rsp` to it is known,
//! or by `lea`. All code is read in order; jumps are not followed. Data in the middle of code may
//! be taken for an access, but cannot hide one.
//!
//! With an index the place is not known: `array[i - 1]`, of an array at the bottom of the frame,
//! looks like an access below it. It counts as one only in a function that calls no other, because
//! only such functions have a red zone.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use goblin::elf::section_header::SHF_EXECINSTR;
use goblin::elf64::header::Header;
use goblin::elf64::section_header::{SIZEOF_SHDR, SectionHeader};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::bytes;
use crate::object::{Object, View, owned};
use crate::segment::Rights;

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
    let found = code(view)
        .into_iter()
        .flat_map(move |(address, file)| Reader::new(view.bytes.get(file).unwrap_or_default(), address));
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

/// Reads code and yields the accesses: the place, and the octets below `rsp`.
struct Reader<'a> {
    decoder: Decoder<'a>,
    /// Octets from `rsp` up to `rbp`, if known.
    frame: Option<i64>,
    /// The same for the targets of jumps.
    later: BTreeMap<u64, i64>,
    /// The first access with an index in this function, as long as the function has called nothing.
    held: Option<(u64, u64)>,
    calls: bool,
}

impl<'a> Reader<'a> {
    /// The held access, if the function that ends here has called nothing.
    fn end_function(&mut self) -> Option<(u64, u64)> {
        let calls = core::mem::take(&mut self.calls);
        self.held.take().filter(|_| !calls)
    }

    fn new(code: &'a [u8], address: u64) -> Self {
        let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
        Self { decoder, frame: None, later: BTreeMap::new(), held: None, calls: false }
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
        while self.decoder.can_decode() {
            let instruction = self.decoder.decode();
            if let Some(frame) = self.later.remove(&instruction.ip()) {
                self.frame.get_or_insert(frame);
            }
            let begins = instruction.mnemonic() == Mnemonic::Mov
                && (instruction.op0_register(), instruction.op1_register()) == (Register::RBP, Register::RSP);
            let of_last = if begins { self.end_function() } else { None };
            let access = self.access(&instruction);
            self.follow(&instruction);
            self.calls |= matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
            if of_last.is_some() {
                return of_last;
            }
            match access.map(|below| (instruction.ip(), below as u64)) {
                Some(place)
                    if instruction.memory_base() == Register::RBP && instruction.memory_index() != Register::None =>
                {
                    self.held.get_or_insert(place);
                }
                Some(place) => return Some(place),
                None => {}
            }
        }
        self.end_function()
    }
}
