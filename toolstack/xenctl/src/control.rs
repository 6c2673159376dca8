//! The common part of `sysctl` and `domctl`: a structure that begins with a command and the
//! interface's version, and the memory that its guest handles name.

use xen_abi::Mfn;
use xen_abi::xen::Hypercall;

/// A sysctl or domctl, with the memory that its guest handles name.
///
/// The maker of a request writes into the octets the length of the data that Xen may use, which is
/// never more than there is. The module that makes the call relies on it.
#[derive(Clone, Debug)]
pub struct Request {
    hypercall: Hypercall,
    octets: Vec<u8>,
    data: Vec<u8>,
    /// Pairs of a handle's offset and the offset in `data` that it points to.
    handles: Vec<(usize, usize)>,
}

impl Request {
    /// A structure of `size` octets with this command and zeros.
    pub(crate) fn new(hypercall: Hypercall, size: usize, command: u32) -> Self {
        let mut request = Request { hypercall, octets: vec![0; size], data: Vec::new(), handles: Vec::new() };
        request.put(0, &command.to_le_bytes());
        request
    }

    /// Puts `data` behind the guest handle at `handle`. The caller writes its length into the
    /// octets.
    pub(crate) fn add_data(&mut self, handle: usize, data: &[u8]) {
        self.handles.push((handle, self.data.len()));
        self.data.extend_from_slice(data);
    }

    pub(crate) fn put(&mut self, at: usize, value: &[u8]) {
        self.octets[at..at + value.len()].copy_from_slice(value);
    }

    pub(crate) fn put_u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    /// The structure as it was made, or as Xen returned it.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The data of all handles, in a row.
    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    pub(crate) fn hypercall(&self) -> Hypercall {
        self.hypercall
    }

    /// Octets of memory that the call needs, for the structure and the data behind it.
    pub(crate) fn length(&self) -> usize {
        self.octets.len() + self.data.len()
    }

    /// Writes structure and data to `memory`, which Xen sees at `address`.
    pub(crate) fn write_to(&self, version: u32, memory: &mut [u8], address: u64) {
        let size = self.octets.len();
        memory[..size].copy_from_slice(&self.octets);
        memory[4..8].copy_from_slice(&version.to_le_bytes());
        for (handle, offset) in &self.handles {
            memory[*handle..handle + 8].copy_from_slice(&(address + (size + offset) as u64).to_le_bytes());
        }
        memory[size..self.length()].copy_from_slice(&self.data);
    }

    /// Takes structure and data back after Xen's changes.
    pub(crate) fn read_from(&mut self, memory: &[u8]) {
        let (octets, data) = memory.split_at(self.octets.len());
        self.octets.copy_from_slice(octets);
        let length = self.data.len();
        self.data.copy_from_slice(&data[..length]);
    }
}

pub(crate) fn u16_at(octets: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(octets[at..at + 2].try_into().expect("two octets"))
}

pub(crate) fn u32_at(octets: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(octets[at..at + 4].try_into().expect("four octets"))
}

pub(crate) fn u64_at(octets: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(octets[at..at + 8].try_into().expect("eight octets"))
}

pub(crate) fn mfn_at(octets: &[u8], at: usize) -> Mfn {
    Mfn(u64_at(octets, at))
}
