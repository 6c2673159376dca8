//! `stdio.h`: three streams, and text in memory. There are no files.

use core::ffi::{c_int, c_long, c_void};
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

use crate::error::{self, EBADF, ENOMEM};
use crate::exit;
use crate::export::Export;
use crate::file;
use crate::format::{Cut, Sink, format};
use crate::lock::{Lock, Locked};
use crate::memory::malloc;
use crate::raw::{self, text};
use crate::system::system;
use crate::variadic::VaList;

pub(crate) const EOF: c_int = -1;

pub(crate) const STDIO: &[Export] = exports![
    stdin = &raw const STDIN,
    stdout = &raw const STDOUT,
    stderr = &raw const STDERR,
    _IO_2_1_stdin_ = &raw const INPUT,
    _IO_2_1_stdout_ = &raw const OUTPUT,
    _IO_2_1_stderr_ = &raw const ERRORS,
    printf,
    fprintf,
    dprintf,
    sprintf,
    snprintf,
    asprintf,
    vprintf,
    vfprintf,
    vdprintf,
    vsprintf,
    vsnprintf,
    vasprintf,
    __printf_chk,
    __fprintf_chk,
    __dprintf_chk,
    __sprintf_chk,
    __snprintf_chk,
    __asprintf_chk,
    __vprintf_chk,
    __vfprintf_chk,
    __vdprintf_chk,
    __vsprintf_chk,
    __vsnprintf_chk,
    __vasprintf_chk,
    puts,
    fputs,
    fputs_unlocked = fputs,
    putchar,
    putchar_unlocked = putchar,
    fputc,
    putc = fputc,
    _IO_putc = fputc,
    fputc_unlocked = fputc,
    putc_unlocked = fputc,
    __overflow,
    fwrite,
    fwrite_unlocked = fwrite,
    perror,
    fflush,
    fflush_unlocked = fflush,
    setvbuf,
    setbuf,
    setbuffer = setbuf,
    setlinebuf,
    fgetc,
    getc = fgetc,
    _IO_getc = fgetc,
    fgetc_unlocked = fgetc,
    getc_unlocked = fgetc,
    __uflow = fgetc,
    getchar,
    getchar_unlocked = getchar,
    fgets,
    fgets_unlocked = fgets,
    __fgets_chk,
    fread,
    fread_unlocked = fread,
    __fread_chk,
    ungetc,
    getline,
    getdelim = getline,
    __getdelim = getline,
    feof,
    feof_unlocked = feof,
    ferror,
    ferror_unlocked = ferror,
    clearerr,
    clearerr_unlocked = clearerr,
    fileno,
    fileno_unlocked = fileno,
    fclose,
    flockfile = nothing,
    funlockfile = nothing,
    ftrylockfile = nothing,
    fopen = file::no_such_pointer,
    fopen64 = file::no_such_pointer,
    freopen = file::no_such_pointer,
    freopen64 = file::no_such_pointer,
    fdopen = file::no_pointer,
    popen = file::no_pointer,
    tmpfile = file::no_pointer,
    tmpfile64 = file::no_pointer,
    tmpnam = file::no_pointer,
    fmemopen = file::no_pointer,
    open_memstream = file::no_pointer,
    pclose = file::no,
    fseek = file::no_seek,
    fseeko = file::no_seek,
    fseeko64 = file::no_seek,
    ftell = file::no_seek,
    ftello = file::no_seek,
    ftello64 = file::no_seek,
    fgetpos = file::no_seek,
    fgetpos64 = file::no_seek,
    fsetpos = file::no_seek,
    fsetpos64 = file::no_seek,
    rewind = clearerr,
    remove = file::no_such,
    rename = file::no_such,
];

/// A `FILE` of the size of glibc's (bits/types/struct_FILE.h). Macros of its header read its flags
/// and pairs of pointers; null pointers make them call the function.
#[repr(C)]
pub(crate) struct File {
    flags: AtomicI32,
    glibc: [usize; 26],
    number: c_int,
    mode: AtomicI32,
    buffer: Lock<Buffer>,
}

/// `_IO_EOF_SEEN`, `_IO_ERR_SEEN`.
const AT_END: i32 = 0x10;
const FAILED: i32 = 0x20;

/// `_IOFBF`, `_IOLBF`, `_IONBF`.
const FULL: c_int = 0;
const LINE: c_int = 1;
const NONE: c_int = 2;

struct Buffer {
    octets: [u8; 1024],
    used: usize,
}

static INPUT: File = File::new(0, LINE);
static OUTPUT: File = File::new(1, LINE);
static ERRORS: File = File::new(2, NONE);

// The variables themselves, because C may assign to them.
static STDIN: AtomicPtr<File> = AtomicPtr::new((&raw const INPUT).cast_mut());
static STDOUT: AtomicPtr<File> = AtomicPtr::new((&raw const OUTPUT).cast_mut());
static STDERR: AtomicPtr<File> = AtomicPtr::new((&raw const ERRORS).cast_mut());

impl File {
    const fn new(number: c_int, mode: c_int) -> Self {
        Self {
            flags: AtomicI32::new(0),
            glibc: [0; 26],
            number,
            mode: AtomicI32::new(mode),
            buffer: Lock::new(Buffer { octets: [0; 1024], used: 0 }),
        }
    }

    /// The stream at this address. Only the three exist: any other pointer is a mistake of the
    /// caller's.
    fn of(stream: *const File) -> Option<&'static File> {
        [&INPUT, &OUTPUT, &ERRORS].into_iter().find(|file| ptr::eq(*file, stream))
    }

    fn writer(stream: *const File) -> Option<Writer> {
        match Self::of(stream) {
            Some(file) if file.number != 0 => Some(Writer { file, buffer: file.buffer.lock() }),
            other => {
                if let Some(file) = other {
                    file.flags.fetch_or(FAILED, Ordering::Relaxed);
                }
                error::set(EBADF);
                None
            }
        }
    }

    /// Sets the end of the stream: there is never any input.
    fn read(stream: *const File) {
        if let Some(file) = Self::of(stream) {
            file.flags.fetch_or(if file.number == 0 { AT_END } else { FAILED }, Ordering::Relaxed);
        }
    }
}

/// A stream locked by this thread. Dropping it writes the text that must not wait.
struct Writer {
    file: &'static File,
    buffer: Locked<'static, Buffer>,
}

impl Writer {
    fn flush(&mut self) {
        if self.buffer.used > 0 {
            (system().write)(self.file.number, &self.buffer.octets[..self.buffer.used]);
            self.buffer.used = 0;
        }
    }
}

impl Sink for Writer {
    fn put(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            let used = self.buffer.used;
            let now = rest.len().min(self.buffer.octets.len() - used);
            self.buffer.octets[used..used + now].copy_from_slice(&rest[..now]);
            self.buffer.used += now;
            rest = &rest[now..];
            if self.buffer.used == self.buffer.octets.len() {
                self.flush();
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        match self.file.mode.load(Ordering::Relaxed) {
            FULL => {}
            LINE => {
                let Some(last) = self.buffer.octets[..self.buffer.used].iter().rposition(|octet| *octet == b'\n')
                else {
                    return;
                };
                (system().write)(self.file.number, &self.buffer.octets[..=last]);
                let used = self.buffer.used;
                self.buffer.octets.copy_within(last + 1..used, 0);
                self.buffer.used -= last + 1;
            }
            _ => self.flush(),
        }
    }
}

/// Writes the buffered text of the streams.
pub fn flush_all() {
    for file in [&OUTPUT, &ERRORS] {
        Writer { file, buffer: file.buffer.lock() }.flush();
    }
}

/// A descriptor, without a further buffer.
struct Descriptor {
    number: c_int,
}

impl Sink for Descriptor {
    fn put(&mut self, octets: &[u8]) {
        if !octets.is_empty() {
            (system().write)(self.number, octets);
        }
    }
}

/// Counts only.
struct Nowhere;

impl Sink for Nowhere {
    fn put(&mut self, _octets: &[u8]) {}
}

variadic! {
    printf(1) => vprintf,
    fprintf(2) => vfprintf,
    dprintf(2) => vdprintf,
    sprintf(2) => vsprintf,
    snprintf(3) => vsnprintf,
    asprintf(2) => vasprintf,
    __printf_chk(2) => __vprintf_chk,
    __fprintf_chk(3) => __vfprintf_chk,
    __dprintf_chk(3) => __vdprintf_chk,
    __sprintf_chk(4) => __vsprintf_chk,
    __snprintf_chk(5) => __vsnprintf_chk,
    __asprintf_chk(3) => __vasprintf_chk,
}

pub(crate) unsafe extern "C" fn vfprintf(stream: *mut File, text: *const u8, arguments: *mut VaList) -> c_int {
    let Some(mut writer) = File::writer(stream) else {
        return -1;
    };
    // SAFETY: as C demands.
    unsafe { format(&mut writer, text, &mut *arguments) }
}

pub(crate) unsafe extern "C" fn vprintf(text: *const u8, arguments: *mut VaList) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { vfprintf(STDOUT.load(Ordering::Relaxed), text, arguments) }
}

pub(crate) unsafe extern "C" fn vdprintf(number: c_int, text: *const u8, arguments: *mut VaList) -> c_int {
    if !matches!(number, 1 | 2) {
        error::set(EBADF);
        return -1;
    }
    // SAFETY: as C demands.
    unsafe { format(&mut Descriptor { number }, text, &mut *arguments) }
}

pub(crate) unsafe extern "C" fn vsnprintf(to: *mut u8, size: usize, text: *const u8, arguments: *mut VaList) -> c_int {
    if size == 0 {
        // SAFETY: as C demands.
        return unsafe { format(&mut Nowhere, text, &mut *arguments) };
    }
    // Some callers pass the largest size when they know that the text is short.
    let size = size.min(isize::MAX as usize).min(usize::MAX - to.addr());
    // SAFETY: as C demands: there is room.
    let mut cut = Cut { room: unsafe { raw::slice_mut(to, size - 1) }, used: 0 };
    // SAFETY: as C demands.
    let length = unsafe { format(&mut cut, text, &mut *arguments) };
    let end = to.wrapping_add(cut.used);
    // SAFETY: at most the last octet of the room.
    unsafe { end.write(0) };
    length
}

pub(crate) unsafe extern "C" fn vsprintf(to: *mut u8, text: *const u8, arguments: *mut VaList) -> c_int {
    // SAFETY: passed on to the caller; unused room is not touched.
    unsafe { vsnprintf(to, usize::MAX, text, arguments) }
}

pub(crate) unsafe extern "C" fn vasprintf(place: *mut *mut u8, text: *const u8, arguments: *mut VaList) -> c_int {
    // SAFETY: as C demands.
    let arguments = unsafe { &mut *arguments };
    // The arguments are read twice.
    // SAFETY: a list is plain values.
    let mut again = unsafe { ptr::read(arguments) };
    // SAFETY: as C demands.
    let length = unsafe { format(&mut Nowhere, text, &mut again) };
    let Ok(size) = usize::try_from(length) else {
        return -1;
    };
    // SAFETY: any size will do.
    let made = unsafe { malloc(size + 1) };
    if made.is_null() {
        error::set(ENOMEM);
        return -1;
    }
    // SAFETY: as C demands.
    unsafe { place.write(made) };
    // SAFETY: there is room for as much as was counted.
    unsafe { vsnprintf(made, size + 1, text, arguments) }
}

// `flag` asks glibc to check for `%n` in writable formats; here `%n` never writes.

pub(crate) unsafe extern "C" fn __vprintf_chk(_flag: c_int, text: *const u8, arguments: *mut VaList) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { vprintf(text, arguments) }
}

pub(crate) unsafe extern "C" fn __vfprintf_chk(
    stream: *mut File,
    _flag: c_int,
    text: *const u8,
    arguments: *mut VaList,
) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { vfprintf(stream, text, arguments) }
}

pub(crate) unsafe extern "C" fn __vdprintf_chk(
    number: c_int,
    _flag: c_int,
    text: *const u8,
    arguments: *mut VaList,
) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { vdprintf(number, text, arguments) }
}

pub(crate) unsafe extern "C" fn __vasprintf_chk(
    place: *mut *mut u8,
    _flag: c_int,
    text: *const u8,
    arguments: *mut VaList,
) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { vasprintf(place, text, arguments) }
}

pub(crate) unsafe extern "C" fn __vsprintf_chk(
    to: *mut u8,
    _flag: c_int,
    room: usize,
    text: *const u8,
    arguments: *mut VaList,
) -> c_int {
    // SAFETY: passed on to the caller.
    let length = unsafe { vsnprintf(to, room, text, arguments) };
    if usize::try_from(length).is_ok_and(|length| length >= room) {
        exit::overflow();
    }
    length
}

pub(crate) unsafe extern "C" fn __vsnprintf_chk(
    to: *mut u8,
    size: usize,
    _flag: c_int,
    room: usize,
    text: *const u8,
    arguments: *mut VaList,
) -> c_int {
    if room < size {
        exit::overflow();
    }
    // SAFETY: passed on to the caller.
    unsafe { vsnprintf(to, size, text, arguments) }
}

pub(crate) unsafe extern "C" fn fwrite(from: *const u8, size: usize, count: usize, stream: *mut File) -> usize {
    let octets = size.saturating_mul(count);
    match File::writer(stream) {
        // SAFETY: as C demands.
        Some(mut writer) if octets > 0 => writer.put(unsafe { raw::slice(from, octets) }),
        _ => return 0,
    }
    count
}

pub(crate) unsafe extern "C" fn fputs(start: *const u8, stream: *mut File) -> c_int {
    let Some(mut writer) = File::writer(stream) else {
        return EOF;
    };
    // SAFETY: as C demands.
    writer.put(unsafe { raw::string(start) });
    1
}

pub(crate) unsafe extern "C" fn puts(start: *const u8) -> c_int {
    let Some(mut writer) = File::writer(STDOUT.load(Ordering::Relaxed)) else {
        return EOF;
    };
    // SAFETY: as C demands.
    writer.put(unsafe { raw::string(start) });
    writer.put(b"\n");
    1
}

pub(crate) unsafe extern "C" fn fputc(octet: c_int, stream: *mut File) -> c_int {
    let Some(mut writer) = File::writer(stream) else {
        return EOF;
    };
    writer.put(&[octet as u8]);
    c_int::from(octet as u8)
}

/// The function that the macro `putc_unlocked` calls.
pub(crate) unsafe extern "C" fn __overflow(stream: *mut File, octet: c_int) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { fputc(octet, stream) }
}

pub(crate) unsafe extern "C" fn putchar(octet: c_int) -> c_int {
    // SAFETY: the stream is one.
    unsafe { fputc(octet, STDOUT.load(Ordering::Relaxed)) }
}

pub(crate) unsafe extern "C" fn perror(what: *const u8) {
    let message = error::message(error::get()).to_bytes();
    let Some(mut writer) = File::writer(&raw const ERRORS) else {
        return;
    };
    // SAFETY: as C demands: null or a string.
    if !what.is_null() && unsafe { text(what) }.next().is_some() {
        // SAFETY: as above.
        writer.put(unsafe { raw::string(what) });
        writer.put(b": ");
    }
    writer.put(message);
    writer.put(b"\n");
}

pub(crate) unsafe extern "C" fn fflush(stream: *mut File) -> c_int {
    if stream.is_null() {
        flush_all();
    } else if let Some(file) = File::of(stream).filter(|file| file.number != 0) {
        Writer { file, buffer: file.buffer.lock() }.flush();
    }
    0
}

pub(crate) unsafe extern "C" fn setvbuf(stream: *mut File, _buffer: *mut u8, mode: c_int, _size: usize) -> c_int {
    match File::of(stream) {
        Some(file) if (FULL..=NONE).contains(&mode) => file.mode.store(mode, Ordering::Relaxed),
        _ => return -1,
    }
    // SAFETY: passed on to the caller.
    unsafe { fflush(stream) }
}

pub(crate) unsafe extern "C" fn setbuf(stream: *mut File, buffer: *mut u8) {
    // SAFETY: passed on to the caller.
    unsafe { setvbuf(stream, buffer, if buffer.is_null() { NONE } else { FULL }, 0) };
}

pub(crate) unsafe extern "C" fn setlinebuf(stream: *mut File) {
    // SAFETY: passed on to the caller.
    unsafe { setvbuf(stream, ptr::null_mut(), LINE, 0) };
}

pub(crate) unsafe extern "C" fn fgetc(stream: *mut File) -> c_int {
    File::read(stream);
    EOF
}

pub(crate) unsafe extern "C" fn getchar() -> c_int {
    File::read(&raw const INPUT);
    EOF
}

pub(crate) unsafe extern "C" fn fgets(_to: *mut u8, _size: c_int, stream: *mut File) -> *mut u8 {
    File::read(stream);
    ptr::null_mut()
}

pub(crate) unsafe extern "C" fn __fgets_chk(_to: *mut u8, _room: usize, _size: c_int, stream: *mut File) -> *mut u8 {
    File::read(stream);
    ptr::null_mut()
}

pub(crate) unsafe extern "C" fn fread(_to: *mut u8, _size: usize, _count: usize, stream: *mut File) -> usize {
    File::read(stream);
    0
}

pub(crate) unsafe extern "C" fn __fread_chk(
    _to: *mut u8,
    _room: usize,
    _size: usize,
    _count: usize,
    stream: *mut File,
) -> usize {
    File::read(stream);
    0
}

pub(crate) unsafe extern "C" fn ungetc(_octet: c_int, _stream: *mut File) -> c_int {
    EOF
}

pub(crate) unsafe extern "C" fn getline() -> c_long {
    File::read(&raw const INPUT);
    -1
}

fn flags(stream: *const File) -> i32 {
    File::of(stream).map_or(0, |file| file.flags.load(Ordering::Relaxed))
}

pub(crate) unsafe extern "C" fn feof(stream: *mut File) -> c_int {
    flags(stream) & AT_END
}

pub(crate) unsafe extern "C" fn ferror(stream: *mut File) -> c_int {
    flags(stream) & FAILED
}

pub(crate) unsafe extern "C" fn clearerr(stream: *mut File) {
    if let Some(file) = File::of(stream) {
        file.flags.fetch_and(!(AT_END | FAILED), Ordering::Relaxed);
    }
}

pub(crate) unsafe extern "C" fn fileno(stream: *mut File) -> c_int {
    File::of(stream).map_or(-1, |file| file.number)
}

/// Flushes the stream, which stays open, because the image uses it further.
pub(crate) unsafe extern "C" fn fclose(stream: *mut File) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { fflush(stream) }
}

pub(crate) unsafe extern "C" fn nothing(_: *mut c_void) -> c_int {
    0
}
