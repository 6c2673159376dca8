//! The loader's functions for C (`<dlfcn.h>`, `<link.h>`), as glibc has them. `dlmopen`, `dlinfo` and
//! `dladdr1` are missing.

use alloc::borrow::Cow;
use alloc::ffi::CString;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int, c_ulonglong, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use zooid_kernel::events::Masked;

use crate::load::{self, Key, Place};
use crate::{Error, Flags, Library, live};

/// The functions, by their names.
pub const FUNCTIONS: [(&str, *const ()); 10] = [
    ("dlopen", dlopen as *const ()),
    ("dlsym", dlsym as *const ()),
    ("dlvsym", dlvsym as *const ()),
    ("dlclose", dlclose as *const ()),
    ("dlerror", dlerror as *const ()),
    ("dladdr", dladdr as *const ()),
    ("dl_iterate_phdr", dl_iterate_phdr as *const ()),
    ("_dl_find_object", dl_find_object as *const ()),
    ("zooid_library_enter", library_enter as *const ()),
    ("zooid_library_leave", library_leave as *const ()),
];

const RTLD_LAZY: c_int = 1;
const RTLD_NOW: c_int = 2;
const RTLD_NOLOAD: c_int = 4;
const RTLD_DEEPBIND: c_int = 8;
const RTLD_GLOBAL: c_int = 0x100;
const RTLD_NODELETE: c_int = 0x1000;
const RTLD_ALL: c_int = RTLD_LAZY | RTLD_NOW | RTLD_NOLOAD | RTLD_DEEPBIND | RTLD_GLOBAL | RTLD_NODELETE;

/// Handles of no object: the global symbols; those behind the caller's object; the program.
const RTLD_DEFAULT: usize = 0;
const RTLD_NEXT: usize = usize::MAX;
/// No object has this base.
const PROGRAM: usize = 1;

/// The next answer of `dlerror`.
static LAST_ERROR: Masked<Option<Cow<'static, CStr>>> = Masked::new(None);

fn note(error: Error) {
    let text = match error {
        // There is no room for a text that is made now.
        Error::OutOfMemory => Some(Cow::Borrowed(c"not enough memory for a library")),
        other => CString::new(other.to_string()).ok().map(Cow::Owned),
    };
    *LAST_ERROR.lock() = text;
}

/// Forgets the error of an earlier call, as each call does that can have one itself.
fn begin() {
    *LAST_ERROR.lock() = None;
}

/// # Safety
/// `name` is null or ends with a zero.
unsafe extern "C" fn dlopen(name: *const c_char, mode: c_int) -> *mut c_void {
    begin();
    if mode & (RTLD_LAZY | RTLD_NOW) == 0 || mode & !RTLD_ALL != 0 {
        *LAST_ERROR.lock() = Some(Cow::Borrowed(c"invalid mode for dlopen()"));
        return ptr::null_mut();
    }
    // SAFETY: the caller's promise.
    let name = if name.is_null() { c"" } else { unsafe { CStr::from_ptr(name) } }.to_string_lossy();
    if name.is_empty() {
        return ptr::without_provenance_mut(PROGRAM);
    }
    let has = |flag| mode & flag != 0;
    let flags = Flags {
        lazy: has(RTLD_LAZY) && !has(RTLD_NOW),
        global: has(RTLD_GLOBAL),
        loaded: has(RTLD_NOLOAD),
        deep: has(RTLD_DEEPBIND),
        stays: has(RTLD_NODELETE),
    };
    match crate::open(&name, flags) {
        Ok(library) => ptr::without_provenance_mut(library.into_raw()),
        // That it is not loaded is an answer, and no error.
        Err(Error::NotOpen) if flags.loaded => ptr::null_mut(),
        Err(error) => {
            note(error);
            ptr::null_mut()
        }
    }
}

/// The function that [`dlsym`] and [`dlvsym`] call; a variable for the reason given in
/// [`lazy`](crate::lazy).
static FIND: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Sets [`FIND`]. It is called before an object is loaded.
pub fn init() {
    FIND.store(find as *mut (), Ordering::Relaxed);
}

/// `void *dlsym(void *handle, const char *name)`. The return address tells the object of the caller.
///
/// # Safety
/// `name` ends with a zero.
#[unsafe(naked)]
unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    naked_asm!("mov rcx, [rsp]", "xor edx, edx", "jmp [rip + {find}]", find = sym FIND)
}

/// `void *dlvsym(void *handle, const char *name, const char *version)`.
///
/// # Safety
/// `name` and `version` end with a zero.
#[unsafe(naked)]
unsafe extern "C" fn dlvsym(handle: *mut c_void, name: *const c_char, version: *const c_char) -> *mut c_void {
    naked_asm!("mov rcx, [rsp]", "jmp [rip + {find}]", find = sym FIND)
}

/// # Safety
/// `name`, and `version` if it is not null, end with a zero.
unsafe extern "C" fn find(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    caller: u64,
) -> *mut c_void {
    begin();
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    // SAFETY: as above.
    let version = (!version.is_null()).then(|| unsafe { CStr::from_ptr(version) }.to_string_lossy());
    let place = match handle.addr() {
        RTLD_DEFAULT | PROGRAM => Ok(Place::Global),
        RTLD_NEXT => Ok(Place::Behind(caller)),
        number => match Key(number as u64) {
            key if load::is_open(key) => Ok(Place::Library(key)),
            _ => Err(Error::NotOpen),
        },
    };
    match place.and_then(|place| load::symbol(place, &name, version.as_deref())) {
        Ok(address) => address.cast_mut().cast(),
        Err(error) => {
            note(error);
            ptr::null_mut()
        }
    }
}

extern "C" fn dlclose(handle: *mut c_void) -> c_int {
    begin();
    if handle.addr() == PROGRAM {
        return 0;
    }
    match Library::from_raw(handle.addr()) {
        Ok(library) => {
            drop(library);
            0
        }
        Err(error) => {
            note(error);
            -1
        }
    }
}

extern "C" fn dlerror() -> *const c_char {
    /// The last answer, which stays until the next call.
    static SAID: Masked<Option<Cow<'static, CStr>>> = Masked::new(None);
    let error = LAST_ERROR.lock().take();
    let mut said = SAID.lock();
    *said = error;
    said.as_ref().map_or(ptr::null(), |text| text.as_ptr())
}

/// `Dl_info`.
#[repr(C)]
struct Info {
    file: *const c_char,
    base: *const c_void,
    symbol: *const c_char,
    address: *const c_void,
}

/// # Safety
/// `info` is valid.
unsafe extern "C" fn dladdr(address: *const c_void, info: *mut Info) -> c_int {
    let found = load::with(|loader| {
        let holder = loader.namespace.address(address.addr() as u64)?;
        let pointer = |address: u64| ptr::without_provenance(address as usize);
        let (symbol, start) = match holder.symbol {
            // The name lies in the object's table of strings, where a zero ends it.
            Some((name, start)) if !name.is_empty() => (name.as_ptr().cast(), pointer(start)),
            _ => (ptr::null(), ptr::null()),
        };
        let file = loader.file_name(holder.object)?;
        Some(Info { file, base: pointer(holder.base), symbol, address: start })
    });
    match found {
        Some(found) => {
            // SAFETY: the caller's promise.
            unsafe { info.write(found) };
            1
        }
        None => 0,
    }
}

/// `struct dl_phdr_info`.
#[repr(C)]
struct HeaderInfo {
    base: u64,
    name: *const c_char,
    headers: *const c_void,
    count: u16,
    /// Numbers of objects that have come and gone, by which callers know if something has changed.
    adds: c_ulonglong,
    subs: c_ulonglong,
    tls_module: usize,
    tls_block: *const c_void,
}

/// Calls `each` with the program, of which no headers are known, and with each object, until it
/// returns another number than 0.
///
/// # Safety
/// `each` takes these arguments.
unsafe extern "C" fn dl_iterate_phdr(
    each: unsafe extern "C" fn(*mut HeaderInfo, usize, *mut c_void) -> c_int,
    argument: *mut c_void,
) -> c_int {
    // No object goes meanwhile.
    let _turn = load::TURNS.take();
    let mut all: Vec<HeaderInfo> = load::with(|loader| {
        let (adds, subs) = loader.changes;
        let info = |base, name, headers, count, tls_module| HeaderInfo {
            base,
            name,
            headers: ptr::without_provenance(headers as usize),
            count,
            adds,
            subs,
            tls_module,
            tls_block: ptr::null(),
        };
        let object = |id| {
            let (base, object) = (loader.namespace.base(id)?, loader.namespace.object(id)?);
            let (headers, count) =
                object.program_headers().map_or((0, 0), |(at, count)| (base.wrapping_add(at), count));
            Some(info(base, loader.file_name(id)?, headers, count, loader.module(id)))
        };
        let objects = loader.namespace.objects().filter_map(object);
        core::iter::once(info(0, c"".as_ptr(), 0, 0, 0)).chain(objects).collect()
    });
    for info in &mut all {
        // SAFETY: the caller's promise.
        let result = unsafe { each(info, size_of::<HeaderInfo>(), argument) };
        if result != 0 {
            return result;
        }
    }
    0
}

/// `struct dl_find_object` (glibc 2.35).
#[repr(C)]
struct FoundObject {
    flags: c_ulonglong,
    start: *const c_void,
    end: *const c_void,
    /// A `struct link_map`, of which there is none.
    map: *const c_void,
    unwind_table: *const c_void,
    reserved: [c_ulonglong; 7],
}

/// # Safety
/// `result` is valid.
unsafe extern "C" fn dl_find_object(address: *const c_void, result: *mut FoundObject) -> c_int {
    let found = load::with(|loader| {
        let holder = loader.namespace.holder(address.addr() as u64)?;
        let (base, object) = (loader.namespace.base(holder)?, loader.namespace.object(holder)?);
        let pointer = |address: u64| ptr::without_provenance(base.wrapping_add(address) as usize);
        Some(FoundObject {
            flags: 0,
            start: pointer(object.span().start),
            end: pointer(object.span().end),
            map: ptr::null(),
            unwind_table: object.unwind_table().map_or(ptr::null(), pointer),
            reserved: [0; 7],
        })
    });
    match found {
        Some(found) => {
            // SAFETY: the caller's promise.
            unsafe { result.write(found) };
            0
        }
        None => -1,
    }
}

extern "C" fn library_enter(handle: *mut c_void) {
    live::enter(Key(handle.addr() as u64));
}

extern "C" fn library_leave(handle: *mut c_void) {
    live::leave(Key(handle.addr() as u64));
}
