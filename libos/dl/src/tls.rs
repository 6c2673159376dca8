//! Thread-local variables of objects (psABI x86-64; "ELF Handling For Thread-Local Storage",
//! variant II).
//!
//! An object's variables lie in the reserve that every thread has below its thread pointer, if
//! there is room. Without room, each thread gets a block when it first uses a variable, and an
//! object that needs fixed places is refused.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use zooid_kernel::events::Masked;
use zooid_kernel::{thread, tls};
use zooid_loader::{TlsPlace, TlsSegment};

use crate::lazy::{restore, save};

/// The variables of one object.
struct Module {
    number: u64,
    /// The initial contents of a block: address and length.
    content: (usize, usize),
    size: usize,
    align: usize,
    /// The distance from the thread pointer down to them, if they have a fixed place.
    below: Option<u64>,
}

struct Modules {
    modules: Vec<Module>,
    next: u64,
    /// Blocks of modules without a fixed place, by thread pointer and module.
    blocks: BTreeMap<(u64, u64), Vec<u128>>,
}

static MODULES: Masked<Modules> = Masked::new(Modules { modules: Vec::new(), next: 1, blocks: BTreeMap::new() });

/// The argument that compiled code passes to [`get_address`].
#[repr(C)]
pub struct Index {
    pub module: u64,
    pub offset: u64,
}

/// A place for an object's variables. `base` is added to the addresses of the object, whose pages
/// are mapped until [`remove`].
pub fn add(segment: &TlsSegment, base: u64) -> TlsPlace {
    let mut modules = MODULES.lock();
    let reserve = tls::reserve();
    let below = place(&modules.modules, segment).filter(|below| *below <= reserve.end as u64);
    let number = modules.next;
    modules.next += 1;
    modules.modules.push(Module {
        number,
        content: (base.wrapping_add(segment.address) as usize, segment.file.len()),
        size: segment.size as usize,
        align: segment.align as usize,
        below,
    });
    TlsPlace { module: number, below }
}

/// A free distance below the thread pointer for a block: the smallest one, because removed objects
/// leave gaps.
fn place(modules: &[Module], segment: &TlsSegment) -> Option<u64> {
    let taken = |below: u64| {
        let overlaps =
            |module: &Module, other: u64| below - segment.size < other && other - (module.size as u64) < below;
        modules.iter().any(|module| module.below.is_some_and(|other| overlaps(module, other)))
    };
    let ends = modules.iter().filter_map(|module| module.below).chain([tls::reserve().start as u64]);
    ends.filter_map(|end| segment.below(end)).filter(|below| !taken(*below)).min()
}

/// Gives all threads the initial values of an object's variables, once the object has been
/// relocated.
pub fn begin(number: u64) {
    let modules = MODULES.lock();
    if let Some(module) = modules.modules.iter().find(|module| module.number == number) {
        thread::for_each_block(|pointer| fill(module, pointer));
    }
}

/// Removes an object's variables.
pub fn remove(number: u64) {
    let mut modules = MODULES.lock();
    modules.modules.retain(|module| module.number != number);
    modules.blocks.retain(|(_, module), _| *module != number);
}

/// Gives a new thread the variables of all objects. Those of an earlier thread at this address are
/// dropped.
fn begin_thread(pointer: u64) {
    let mut modules = MODULES.lock();
    modules.modules.iter().for_each(|module| fill(module, pointer));
    modules.blocks.retain(|(thread, _), _| *thread != pointer);
}

fn fill(module: &Module, pointer: u64) {
    let Some(below) = module.below else { return };
    let start = (pointer - below) as *mut u8;
    let (content, length) = module.content;
    // SAFETY: `add` chose a place inside the reserve, which is mapped in every thread and belongs
    // to this module alone; the content is in pages of the object.
    unsafe {
        ptr::copy_nonoverlapping(content as *const u8, start, length);
        start.add(length).write_bytes(0, module.size - length);
    }
}

/// The address of a variable of the calling thread, `offset` bytes into the block of `module`.
pub fn address(number: u64, offset: u64) -> u64 {
    let pointer = tls::thread_pointer();
    let mut modules = MODULES.lock();
    let Modules { modules, blocks, .. } = &mut *modules;
    let module = modules.iter().find(|module| module.number == number).expect("a variable of a loaded object");
    let start = match module.below {
        Some(below) => pointer - below,
        None => {
            let block = blocks.entry((pointer, number)).or_insert_with(|| new_block(module));
            (block.as_ptr() as u64).next_multiple_of(module.align as u64)
        }
    };
    start.wrapping_add(offset)
}

fn new_block(module: &Module) -> Vec<u128> {
    let mut block = alloc::vec![0_u128; (module.size + module.align).div_ceil(size_of::<u128>())];
    let start = (block.as_mut_ptr() as usize).next_multiple_of(module.align) as *mut u8;
    let (content, length) = module.content;
    // SAFETY: the block has room for size and alignment; the content is in pages of the object.
    unsafe { ptr::copy_nonoverlapping(content as *const u8, start, length) };
    block
}

/// `__tls_get_addr`.
///
/// # Safety
/// `index` was written by the loader.
pub unsafe extern "C" fn get_address(index: *const Index) -> u64 {
    // SAFETY: the caller's promise.
    let Index { module, offset } = unsafe { index.read() };
    address(module, offset)
}

/// The function of a descriptor for a variable at a fixed place (psABI x86-64, TLS descriptors).
/// The descriptor is at `%rax`; the result in `%rax` is a distance from the thread pointer. No
/// other register changes.
#[unsafe(naked)]
pub unsafe extern "C" fn fixed() {
    naked_asm!("mov rax, [rax + 8]", "ret");
}

/// The function of a descriptor for a weak variable without a definition. Its second word is the
/// address to yield.
#[unsafe(naked)]
pub unsafe extern "C" fn undefined() {
    naked_asm!("mov rax, [rax + 8]", "sub rax, fs:0", "ret");
}

/// The function that [`on_demand`] calls; a variable for the reason given in [`lazy`](crate::lazy).
static GET_ADDRESS: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Sets [`GET_ADDRESS`]. It is called before an object is loaded.
pub fn init() {
    GET_ADDRESS.store(get_address as *mut (), Ordering::Relaxed);
}

/// Gives new threads their variables, and lets the C runtime end those of a thread that has ended.
/// It is called when the runtime has its services.
pub fn observe_threads() {
    tls::OBSERVER.call_once(|| tls::Observer { begins: begin_thread, ends: zooid_crt::thread_ended });
}

/// The function of a descriptor for a variable without a fixed place. Its second word points to an
/// [`Index`].
#[unsafe(naked)]
pub unsafe extern "C" fn on_demand() {
    naked_asm!(
        save!(),
        "mov rdi, [rax + 8]",
        "call [rip + {get}]",
        "sub rax, fs:0",
        "mov [rbp - 8], rax",
        restore!(),
        "ret",
        get = sym GET_ADDRESS,
    );
}
