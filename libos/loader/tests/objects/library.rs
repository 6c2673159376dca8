//! A library without the standard one, for rustc.
#![no_std]
#![crate_type = "cdylib"]

use core::sync::atomic::{AtomicU32, Ordering};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

trait Shape {
    fn area(&self) -> u32;
}

struct Square(u32);
struct Circle(u32);

impl Shape for Square {
    fn area(&self) -> u32 {
        self.0 * self.0
    }
}

impl Shape for Circle {
    fn area(&self) -> u32 {
        3 * self.0 * self.0
    }
}

static SHAPES: [&(dyn Shape + Sync); 2] = [&Square(3), &Circle(4)];

#[unsafe(no_mangle)]
pub static COUNTER: AtomicU32 = AtomicU32::new(1);

#[unsafe(no_mangle)]
pub extern "C" fn rust_area(shape: usize) -> u32 {
    COUNTER.fetch_add(1, Ordering::Relaxed);
    SHAPES[shape % 2].area()
}
