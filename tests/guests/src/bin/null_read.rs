//! A read through a null pointer is reported as what it is, and ends the domain with `crash`.

#![no_std]
#![no_main]

zooid::main!(main);

fn main() {
    let pointer = core::hint::black_box(core::ptr::null::<u64>());
    // SAFETY: none: the fault is the test.
    let value = unsafe { pointer.read_volatile() };
    test_guests::failure!("read {value} at address 0");
}
