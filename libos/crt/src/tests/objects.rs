//! C programs: compiled by gcc with the C library's headers, and run on this runtime as an object
//! would be. The expected output is that of the same program with the C library.
//!
//! The object is linked with a jump for every export, so that no other library answers, and the
//! linker reports a missing export.

use core::ffi::{CStr, c_char, c_int};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::string::String;
use std::sync::Mutex;
use std::vec::Vec;
use std::{env, ffi::CString, format, fs, process};

use super::{NOW, dlopen, dlsym, set_up, written};
use crate::{EXPORTS, find};

/// Exports that are no functions. An object has their first two words.
const VARIABLES: [&CStr; 15] = [
    c"stdin",
    c"stdout",
    c"stderr",
    c"environ",
    c"__environ",
    c"timezone",
    c"__timezone",
    c"daylight",
    c"__daylight",
    c"tzname",
    c"__tzname",
    c"_IO_2_1_stdin_",
    c"_IO_2_1_stdout_",
    c"_IO_2_1_stderr_",
    c"__libc_single_threaded",
];

/// The names that the loader exports itself.
const LOADER: [&CStr; 4] = [c"dlopen", c"dlsym", c"dlclose", c"dlerror"];

/// The standard streams' buffers are shared by all threads.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn jumps() -> String {
    let mut text = String::from(".text\n");
    let functions = EXPORTS.iter().map(|export| export.name).filter(|name| !VARIABLES.contains(name)).chain(LOADER);
    for (index, name) in functions.enumerate() {
        let name = name.to_str().unwrap();
        write!(text, ".globl {name}\n.hidden {name}\n.type {name}, @function\n{name}: jmp *places+8*{index}(%rip)\n")
            .unwrap();
    }
    text += ".data\n.balign 16\n";
    for name in VARIABLES.map(|name| name.to_str().unwrap()) {
        write!(text, ".globl {name}\n.protected {name}\n.type {name}, @object\n.size {name}, 16\n{name}: .quad 0, 0\n")
            .unwrap();
    }
    write!(
        text,
        ".globl places\n.protected places\nplaces: .skip 8*{}\n.section .note.GNU-stack\n",
        EXPORTS.len() + LOADER.len()
    )
    .unwrap();
    text
}

fn gcc(arguments: &[&str]) {
    let output = Command::new("gcc").args(arguments).output().expect("gcc is installed");
    assert!(output.status.success(), "gcc {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("zooid-crt-{}-{name}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().into()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the program on this runtime; returns its status and its output.
fn run(folder: &Folder, source: &str, options: &[&str]) -> (c_int, Vec<u8>) {
    set_up();
    let (assembly, object) = (folder.file("jumps.s"), folder.file("object.so"));
    fs::write(&assembly, jumps()).unwrap();
    let arguments = [
        options,
        &[
            "-O2",
            "-fPIC",
            "-mno-red-zone",
            "-shared",
            "-nostdlib",
            "-Wl,-Bsymbolic,-z,defs",
            "-o",
            &object,
            source,
            &assembly,
        ],
        &["-lgcc"],
    ];
    gcc(&arguments.concat());
    let path = CString::new(object).unwrap();
    let (places, main, loaded);
    unsafe {
        loaded = dlopen(path.as_ptr(), NOW);
        assert!(!loaded.is_null(), "the object does not load");
        places = dlsym(loaded, c"places".as_ptr()).cast_mut().cast::<*const ()>();
        main = core::mem::transmute::<*const (), unsafe extern "C" fn() -> c_int>(dlsym(loaded, c"main".as_ptr()));
        let functions = EXPORTS.iter().filter(|export| !VARIABLES.contains(&export.name)).map(|export| export.address);
        for (index, address) in functions.chain(LOADER.map(|_| crate::file::no_pointer as *const ())).enumerate() {
            places.add(index).write(address);
        }
        for name in VARIABLES {
            let value = find(name).unwrap().cast::<usize>().read_unaligned();
            dlsym(loaded, name.as_ptr()).cast_mut().cast::<usize>().write(value);
        }
        let _alone = ONE_AT_A_TIME.lock();
        written();
        let status = main();
        crate::stdio::flush_all();
        (status, written())
    }
}

fn compare(name: &str, options: &[&str]) {
    let folder = Folder::new(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/tests/programs/{name}.c"));
    let (source, program) = (source.to_str().unwrap(), folder.file("program"));
    gcc(&[options, &["-O2", "-o", &program, source, "-lm"]].concat());
    let expected = Command::new(&program).env_clear().env("ZOOID_TEST", "a value").env("TZ", "UTC").output().unwrap();
    let (status, text) = run(&folder, source, options);
    let (text, expected_text) = (String::from_utf8_lossy(&text), String::from_utf8_lossy(&expected.stdout));
    for (number, (line, wanted)) in text.lines().zip(expected_text.lines()).enumerate() {
        assert_eq!(line, wanted, "line {}", number + 1);
    }
    assert_eq!(text, expected_text);
    assert_eq!(Some(status), expected.status.code());
}

#[test]
fn a_program_prints_what_it_prints_with_the_c_library() {
    compare("program", &["-D_FORTIFY_SOURCE=2", "-fstack-protector-all"]);
    compare("program", &["-U_FORTIFY_SOURCE", "-fno-builtin"]);
}

#[test]
fn wide_characters_locales_and_threads_are_those_of_the_c_library() {
    compare("wide", &["-U_FORTIFY_SOURCE", "-fno-builtin", "-ftls-model=initial-exec"]);
}

#[test]
fn fortified_functions_end_the_program() {
    // The child runs this test alone, with the mistake in this variable.
    const MISTAKE: &str = "ZOOID_CRT_MISTAKE";
    type Checked = unsafe extern "C" fn(*mut u8, *const c_char, usize, usize);
    type Print = unsafe extern "C" fn(*mut u8, c_int, usize, *const c_char, ...);
    type Assert = unsafe extern "C" fn(*const c_char, *const c_char, c_int, *const c_char);
    if let Ok(mistake) = env::var(MISTAKE) {
        let mut room = [0_u8; 64];
        unsafe {
            match mistake.as_str() {
                "memcpy" => super::ours::<Checked>(c"__memcpy_chk")(room.as_mut_ptr(), c"12345".as_ptr(), 5, 4),
                "strcpy" => super::ours::<unsafe extern "C" fn(*mut u8, *const c_char, usize)>(c"__strcpy_chk")(
                    room.as_mut_ptr(),
                    c"12345".as_ptr(),
                    5,
                ),
                "sprintf" => {
                    super::ours::<Print>(c"__sprintf_chk")(room.as_mut_ptr(), 1, 5, c"%s".as_ptr(), c"12345".as_ptr())
                }
                "free" => super::ours::<unsafe extern "C" fn(*mut u8)>(c"free")(
                    room.as_mut_ptr().map_addr(|address| address.next_multiple_of(16) + 16),
                ),
                _ => {
                    super::ours::<Assert>(c"__assert_fail")(c"1 == 2".as_ptr(), c"file.c".as_ptr(), 1234, c"f".as_ptr())
                }
            }
        }
        return;
    }
    for (mistake, message) in [
        ("memcpy", "*** buffer overflow detected ***: terminated\n"),
        ("strcpy", "*** buffer overflow detected ***: terminated\n"),
        ("sprintf", "*** buffer overflow detected ***: terminated\n"),
        ("free", "free(): invalid pointer\n"),
        ("assert", "file.c:1234: f: Assertion `1 == 2' failed.\n"),
    ] {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "tests::objects::fortified_functions_end_the_program", "--nocapture"])
            .env(MISTAKE, mistake)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(6), "{mistake}: {text}");
        assert!(text.contains(message), "{mistake}: {text}");
    }
}
