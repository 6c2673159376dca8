//! A web server whose pages a library renders, `page` of tests/libraries, which is replaced while
//! the server serves.
//!
//! `GET /` followed by a number is a page; `GET /update?COUNT` replaces the library so many times,
//! from one version to the other and back. `GET /state` shows the number of updates, the number of
//! pages, and the memory in use.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::{c_int, c_ulong};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use test_guests::{error, expect, failure};
use zooid::dl::{self, Flags, Library};
use zooid::net::{TcpListener, TcpStream};
use zooid::time::Duration;
use zooid::{memory, println, thread};

zooid::main!(main, mode = kernel);

dl::trust!(include_bytes!("../../../libraries/test-only.pub"));
dl::live!("libpage.so.1");

/// A connection's thread needs little: its buffers lie in the heap.
const STACK_SIZE: usize = 32 << 10;
/// The time that an update may wait for requests that are being answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time between two updates.
const PAUSE: Duration = Duration::from_millis(20);
/// The most octets of a part of a page.
const MAX_PART: usize = 1 << 10;

type Part = extern "C" fn(*mut u8, c_ulong, c_ulong) -> c_int;

/// The library, and the functions that render the parts of a page. They are looked up once,
/// for all versions.
struct Pages {
    library: Library,
    parts: [Part; 3],
    rendered: extern "C" fn() -> c_ulong,
}

/// The number of updates.
static UPDATES: AtomicU32 = AtomicU32::new(0);
/// Set while somebody is about to replace it.
static BUSY: AtomicBool = AtomicBool::new(false);

fn main() {
    let library = expect!(dl::open("libpage.so.1", Flags::default()));
    // SAFETY: tests/libraries says that the functions are of these types.
    let parts = ["page_header", "page_body", "page_footer"].map(|name| expect!(unsafe { library.function(name) }));
    // SAFETY: as above.
    let rendered = expect!(unsafe { library.function("page_rendered") });
    // The server ends with its pVM.
    let pages: &'static Pages = alloc::boxed::Box::leak(alloc::boxed::Box::new(Pages { library, parts, rendered }));
    let listener = expect!(TcpListener::bind(80));
    println!("pages on port 80");
    for stream in listener.incoming() {
        let stream = expect!(stream);
        let server = thread::Builder::new().name("connection").stack_size(STACK_SIZE);
        expect!(server.spawn(move || serve(&stream, pages)));
    }
}

/// Answers requests until the client closes.
fn serve(stream: &TcpStream, pages: &'static Pages) {
    let mut input = Vec::new();
    let mut buffer = [0; 1 << 10];
    loop {
        while let Some(end) = input.windows(4).position(|octets| octets == b"\r\n\r\n") {
            let request = String::from_utf8_lossy(&input[..end]).into_owned();
            input.drain(..end + 4);
            let body = answer(request.split(' ').nth(1).unwrap_or_default(), pages);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
                return;
            }
        }
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => input.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
}

fn answer(path: &str, pages: &'static Pages) -> Vec<u8> {
    if let Some(count) = path.strip_prefix("/update?") {
        let count = count.parse().unwrap_or_else(|_| error!("{path}: how often?"));
        if !BUSY.swap(true, Ordering::Relaxed) {
            thread::spawn(move || update_often(count, pages));
        }
        return b"as you wish\n".to_vec();
    }
    if path == "/state" {
        let memory = memory::statistics();
        let busy = u8::from(BUSY.load(Ordering::Relaxed));
        return format!(
            "updates {} busy {busy} rendered {} free {} heap {}\n",
            UPDATES.load(Ordering::Relaxed),
            (pages.rendered)(),
            memory.free,
            memory.heap_used
        )
        .into_bytes();
    }
    render(path.trim_start_matches('/').parse().unwrap_or(0), pages)
}

/// A page, all of one version. Other threads run between its parts.
fn render(number: c_ulong, pages: &Pages) -> Vec<u8> {
    let mut page = Vec::new();
    let section = pages.library.enter();
    for part in &pages.parts {
        let start = page.len();
        page.resize(start + MAX_PART, 0);
        let length = part(page[start..].as_mut_ptr(), MAX_PART as c_ulong, number);
        page.truncate(start + length as usize);
        thread::yield_now();
    }
    drop(section);
    page
}

/// Replaces the library `count` times; each version renders a page before the next one comes.
fn update_often(count: u32, pages: &Pages) {
    for _ in 0..count {
        let version = if UPDATES.load(Ordering::Relaxed).is_multiple_of(2) { "2.0.0" } else { "1.0.0" };
        if let Err(error) = dl::update("libpage.so.1", Some(version), PATIENCE) {
            failure!("{version}: {error}");
        }
        let before = (pages.rendered)();
        thread::sleep(PAUSE);
        while (pages.rendered)() == before {
            thread::sleep(PAUSE);
        }
        UPDATES.fetch_add(1, Ordering::Relaxed);
    }
    BUSY.store(false, Ordering::Relaxed);
}
