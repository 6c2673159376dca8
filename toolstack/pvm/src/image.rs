//! Recognition of Zooid's kernels by their ELF notes (Xen's `public/elfnote.h`).
//!
//! A pVM without the fork component does not announce itself. The notes tell it from other guests
//! that `xl` has started.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use xen_abi::elfnote::ElfNote;

/// Most program headers that are read; an image has about five.
const MAX_HEADERS: u16 = 64;
/// Most octets of notes that are read; an image has some hundreds.
const MAX_NOTES: u64 = 64 << 10;
/// `PT_NOTE` of the ELF specification.
const PT_NOTE: u32 = 4;
/// Size of `Elf64_Phdr`.
const HEADER_SIZE: u16 = 56;

/// True if the file is a kernel of a pVM. An unreadable file counts as none.
pub fn is_zooid(file: &Path) -> bool {
    File::open(file).and_then(|mut file| guest_os(&mut file)).is_ok_and(|name| name.as_deref() == Some(b"Zooid"))
}

/// The value of the note `XEN_ELFNOTE_GUEST_OS`, without its NUL.
fn guest_os(file: &mut (impl Read + Seek)) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; 64];
    file.read_exact(&mut header)?;
    // ELFCLASS64, ELFDATA2LSB
    if header[..6] != *b"\x7fELF\x02\x01" || u16_at(&header, 54) != HEADER_SIZE {
        return Ok(None);
    }
    let (offset, count) = (u64_at(&header, 32), u16_at(&header, 56).min(MAX_HEADERS));
    for number in 0..u64::from(count) {
        let mut header = [0; HEADER_SIZE as usize];
        file.seek(SeekFrom::Start(offset.saturating_add(number * u64::from(HEADER_SIZE))))?;
        file.read_exact(&mut header)?;
        if u32_at(&header, 0) == PT_NOTE {
            file.seek(SeekFrom::Start(u64_at(&header, 8)))?;
            let mut notes = Vec::new();
            file.by_ref().take(u64_at(&header, 32).min(MAX_NOTES)).read_to_end(&mut notes)?;
            if let Some(name) = find(&notes) {
                return Ok(Some(name.to_vec()));
            }
        }
    }
    Ok(None)
}

/// The value of that note among `notes`. A note is the sizes of name and value, a type, and both,
/// padded to 4 octets.
fn find(notes: &[u8]) -> Option<&[u8]> {
    let mut rest = notes;
    while let Some((head, body)) = rest.split_at_checked(12) {
        let (name_size, value_size) = (u32_at(head, 0) as usize, u32_at(head, 4) as usize);
        let (name, body) = body.split_at_checked(name_size.checked_next_multiple_of(4)?)?;
        let (value, body) = body.split_at_checked(value_size.checked_next_multiple_of(4)?)?;
        if name[..name_size] == *b"Xen\0" && u32_at(head, 8) == ElfNote::GUEST_OS.0 {
            let value = &value[..value_size];
            return Some(value.strip_suffix(b"\0").unwrap_or(value));
        }
        rest = body;
    }
    None
}

fn u16_at(octets: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([octets[at], octets[at + 1]])
}

fn u32_at(octets: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}

fn u64_at(octets: &[u8], at: usize) -> u64 {
    u64::from(u32_at(octets, at)) | u64::from(u32_at(octets, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn note(name: &[u8], kind: ElfNote, value: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        for number in [name.len() as u32, value.len() as u32, kind.0] {
            octets.extend(number.to_le_bytes());
        }
        for text in [name, value] {
            octets.extend(text);
            octets.resize(octets.len().next_multiple_of(4), 0);
        }
        octets
    }

    /// An ELF file with these notes only.
    fn image(notes: &[u8]) -> Vec<u8> {
        let mut octets = vec![0; 64 + 56];
        octets[..6].copy_from_slice(b"\x7fELF\x02\x01");
        octets[32] = 64;
        octets[54] = 56;
        octets[56] = 1;
        octets[64] = 4;
        octets[64 + 8] = 64 + 56;
        octets[64 + 32..64 + 36].copy_from_slice(&(notes.len() as u32).to_le_bytes());
        octets.extend(notes);
        octets
    }

    fn of(octets: &[u8]) -> Option<Vec<u8>> {
        guest_os(&mut Cursor::new(octets)).ok().flatten()
    }

    #[test]
    fn the_note_is_found_among_others() {
        let others =
            [note(b"GNU\0", ElfNote::GUEST_OS, b"no\0"), note(b"Xen\0", ElfNote::LOADER, b"generic\0")].concat();
        assert_eq!(of(&image(&others)), None);
        let all = [others, note(b"Xen\0", ElfNote::GUEST_OS, b"Zooid\0")].concat();
        assert_eq!(of(&image(&all)).as_deref(), Some(&b"Zooid"[..]));
        assert_eq!(of(&image(&note(b"Xen\0", ElfNote::GUEST_OS, b"linux"))).as_deref(), Some(&b"linux"[..]));
    }

    #[test]
    fn anything_else_is_no_image() {
        let whole = image(&note(b"Xen\0", ElfNote::GUEST_OS, b"Zooid\0"));
        for length in 0..whole.len() - 1 {
            assert_eq!(of(&whole[..length]), None, "{length}");
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            let _ = of(&broken);
        }
        assert!(!is_zooid(Path::new("/etc/passwd")) && !is_zooid(Path::new("/bin/sh")) && !is_zooid(Path::new("/")));
    }
}
