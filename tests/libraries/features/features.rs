//! A library of rustc's output for statics, function tables, thread-local variables and IFUNCs, and
//! for calls to C and back. It prints its findings by C's `printf`.
#![no_std]
#![feature(linkage, thread_local)]
#![allow(internal_features)]

use core::cell::Cell;
use core::ffi::{c_char, c_int};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicI32, Ordering};

// provider.c, scope.c and trace.c.
unsafe extern "C" {
    static provided_data: [c_int; 4];
    #[thread_local]
    static mut provided_tls: c_int;
    safe fn twice(x: c_int) -> c_int;
    safe fn chosen() -> c_int;
    safe fn guarded() -> c_int;
    safe fn calls_hidden() -> c_int;
    fn summed(count: c_int, ...) -> f64;
    safe fn trace(number: c_int);
    #[linkage = "extern_weak"]
    static sought: Option<extern "C" fn() -> c_int>;
}

// C's own, and the program's.
unsafe extern "C" {
    fn printf(format: *const c_char, ...) -> c_int;
    fn qsort(base: *mut c_int, count: usize, size: usize, order: extern "C" fn(&c_int, &c_int) -> c_int);
    safe fn in_thread(act: extern "C" fn());
    safe fn abort() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    abort()
}

fn say(what: &core::ffi::CStr, numbers: [i32; 4]) {
    let [a, b, c, d] = numbers;
    // SAFETY: what the format asks for.
    unsafe { printf(c"  %s: %d %d %d %d\n".as_ptr(), what.as_ptr(), a, b, c, d) };
}

trait Shape: Sync {
    fn area(&self) -> i32;
}

struct Square(i32);
struct Circle(&'static AtomicI32);

impl Shape for Square {
    fn area(&self) -> i32 {
        self.0 * self.0
    }
}

impl Shape for Circle {
    fn area(&self) -> i32 {
        3 * self.0.load(Ordering::Relaxed)
    }
}

static RADIUS: AtomicI32 = AtomicI32::new(4);

// Relative, in constants that are relocated: vtables, and words that lead to other statics.
#[unsafe(no_mangle)]
static SHAPES: [&dyn Shape; 3] = [&Square(3), &Circle(&RADIUS), &Square(5)];
static NAMES: &[(&str, fn(i32) -> i32)] = &[("one", |x| x + 1), ("ten", |x| x * 10)];
// Functions by name, of another object and of this one.
static IMPORTED: [extern "C" fn(c_int) -> c_int; 2] = [call_twice, rust_callback];

extern "C" fn call_twice(x: c_int) -> c_int {
    twice(x)
}

#[unsafe(no_mangle)]
extern "C" fn rust_callback(x: c_int) -> c_int {
    x - 1
}

/// Stands before provider.c's, unless this object, or that one, is symbolic.
#[unsafe(no_mangle)]
extern "C" fn overridden() -> c_int {
    50
}

#[thread_local]
static COUNT: Cell<i32> = Cell::new(7);
#[thread_local]
static ZERO: Cell<[i32; 8]> = Cell::new([0; 8]);
#[unsafe(no_mangle)]
#[thread_local]
static mut VISIBLE: i32 = 9;

fn thread_local_variables() -> [i32; 4] {
    COUNT.set(COUNT.get() + 1);
    let mut zero = ZERO.get();
    zero[7] += 1;
    ZERO.set(zero);
    // SAFETY: this thread's own.
    unsafe {
        VISIBLE += 1;
        provided_tls += 1;
        [COUNT.get(), zero[7], VISIBLE, provided_tls]
    }
}

extern "C" fn in_this_thread() {
    thread_local_variables();
    say(c"thread-local", thread_local_variables());
}

extern "C" fn order(a: &c_int, b: &c_int) -> c_int {
    (*a > *b) as c_int - (*a < *b) as c_int
}

extern "C" fn begin() {
    RADIUS.fetch_add(12, Ordering::Relaxed);
    trace(RADIUS.load(Ordering::Relaxed));
}

extern "C" fn end() {
    trace(-RADIUS.load(Ordering::Relaxed));
}

#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;
#[used]
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = end;

/// `place` says where a value is that the compiler cannot know.
#[unsafe(no_mangle)]
extern "C" fn rust_main(place: usize) {
    let [a, b, c] = SHAPES.map(Shape::area);
    say(c"shapes", [a, b, c, SHAPES[place % 3].area()]);
    let (name, function) = NAMES[place % 2];
    say(c"table", [name.len() as i32, i32::from(name.as_bytes()[0]), function(4), NAMES[1].1(4)]);
    // SAFETY: constant there.
    let data = unsafe { provided_data };
    say(c"C", [data[place], twice(21), chosen(), guarded()]);
    say(c"interposed", [calls_hidden(), IMPORTED[place % 2](8), IMPORTED[0](8), 0]);
    // SAFETY: pairs of such a type.
    let sum = unsafe { summed(3, 1_i32, 2.0_f64, 3_i32, 4.0_f64, 5_i32, 6.0_f64) };
    // SAFETY: nobody writes it.
    let found = unsafe { sought };
    say(c"sum", [sum as i32, found.map_or(0, |found| found()), 0, 0]);
    let mut numbers = [3, 1, 4, 1];
    // SAFETY: so many numbers of such a size.
    unsafe { qsort(numbers.as_mut_ptr(), 4, 4, order) };
    say(c"back", numbers);
    in_this_thread();
    in_thread(in_this_thread);
    in_thread(in_this_thread);
    in_this_thread();
}
