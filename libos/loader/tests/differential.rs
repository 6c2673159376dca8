//! Compares the plan with the dynamic linker of this machine. The test opens objects with it. Every
//! relocated word must be the one in the plan for the same base addresses, and the two must find
//! the same symbols and addresses.

mod common;

use std::collections::HashSet;
use std::ffi::{CStr, CString, c_int, c_void};
use std::path::Path;
use std::sync::Mutex;

use common::{Bytes, Object, build, directory, parse, provider, provider_by, run, source};
use zooid_loader::{Binding, Definition, ExportTable, Id, Namespace, SymbolKind, TlsPlace, Value};

/// Held by the running test, because a process has one set of loaded objects.
static ALONE: Mutex<()> = Mutex::new(());

type World = Namespace<Bytes, ExportTable<'static>>;

/// glibc's `struct link_map`, its public part.
#[repr(C)]
struct LinkMap {
    base: u64,
    name: *const std::ffi::c_char,
    dynamic: *const c_void,
    next: *const LinkMap,
    previous: *const LinkMap,
}

const RTLD_DI_LINKMAP: c_int = 2;
const RTLD_DI_TLS_MODID: c_int = 9;

unsafe extern "C" {
    fn dlinfo(handle: *mut c_void, request: c_int, argument: *mut c_void) -> c_int;
    fn __tls_get_addr(variable: &[u64; 2]) -> u64;
    fn dlvsym(handle: *mut c_void, name: *const std::ffi::c_char, version: *const std::ffi::c_char) -> *mut c_void;
}

/// An object that the system's linker has opened for good.
#[derive(Clone, Copy)]
struct Opened(*mut c_void);

impl Opened {
    fn open(path: &str, flags: c_int) -> Self {
        let name = CString::new(path).expect("no zero");
        // SAFETY: the libraries opened here have harmless initialisers.
        let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
        // SAFETY: after a failure, dlerror gives a string.
        assert!(!handle.is_null(), "{:?}", unsafe { CStr::from_ptr(libc::dlerror()) });
        Self(handle)
    }

    fn ask<T: Copy>(self, request: c_int, mut answer: T) -> T {
        // SAFETY: each request stores a value of the size of a pointer, which T has in all calls
        // below.
        let status = unsafe { dlinfo(self.0, request, (&raw mut answer).cast()) };
        assert_eq!(status, 0);
        answer
    }

    fn link_map(self) -> &'static LinkMap {
        // SAFETY: the object is never closed, so that its entry stays.
        unsafe { &*self.ask(RTLD_DI_LINKMAP, std::ptr::null::<LinkMap>()) }
    }

    /// The address of this thread's block of the object's variables.
    fn tls_block(self) -> u64 {
        // SAFETY: the number of an open module, and the first octet of its block.
        unsafe { __tls_get_addr(&[self.ask(RTLD_DI_TLS_MODID, 0), 0]) }
    }

    fn tls(self, object: &Object) -> Option<TlsPlace> {
        object.tls()?;
        // SAFETY: no condition; on x86-64 glibc's pthread_t is the thread pointer.
        let pointer = unsafe { libc::pthread_self() };
        let below = pointer.checked_sub(self.tls_block());
        Some(TlsPlace { module: self.ask(RTLD_DI_TLS_MODID, 0), below })
    }
}

/// The objects of this process, at the addresses where they are.
struct Linux {
    world: World,
    opened: Vec<(Id, Opened)>,
}

impl Linux {
    /// The objects that the program itself was linked with, which are the global scope.
    fn new() -> Self {
        let mut linux = Self { world: Namespace::new(ExportTable::new([], &[])), opened: Vec::new() };
        // SAFETY: the program itself is open already: nothing is loaded, and no code is run.
        let program = Opened(unsafe { libc::dlopen(std::ptr::null(), libc::RTLD_NOW) });
        let mut map = program.link_map();
        // SAFETY: the list of objects that are never closed.
        while let Some(next) = unsafe { map.next.as_ref() } {
            map = next;
            // SAFETY: a name ends with a zero.
            let path = unsafe { CStr::from_ptr(map.name) }.to_str().expect("a path");
            // An object that appeared after the start belongs to another test.
            if Path::new(path).exists()
                && !path.contains("/target/")
                && ["libc.so", "libgcc_s", "ld-linux"].iter().any(|name| path.contains(name))
            {
                linux.take(path, Opened::open(path, libc::RTLD_NOW));
            }
        }
        for (id, _) in linux.opened.clone() {
            linux.world.link(id, true).unwrap_or_else(|refusal| panic!("{refusal}"));
        }
        linux
    }

    fn take(&mut self, path: &str, opened: Opened) -> Id {
        let object = parse(Path::new(path));
        let tls = opened.tls(&object);
        let added = self.world.add(path, object, opened.link_map().base, tls);
        let id = added.unwrap_or_else(|refusal| panic!("{refusal}"));
        self.opened.push((id, opened));
        id
    }

    /// Opens an object there and here, with the objects that it needs from `libraries`, and
    /// compares. Returns the types of its relocations.
    fn compare(&mut self, path: &str, libraries: &[&str], global: bool) -> Vec<u32> {
        let flags = libc::RTLD_NOW | if global { libc::RTLD_GLOBAL } else { 0 };
        let root = self.take(path, Opened::open(path, flags));
        for library in libraries {
            self.take(library, Opened::open(library, libc::RTLD_NOW));
        }
        assert_eq!(self.world.missing(root), Vec::<&str>::new(), "{path}");
        let new = self.world.link(root, global).unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(new.last(), Some(&root));
        self.words(&new);
        for id in new {
            self.lookups(id);
        }
        let object = self.world.object(root).expect("just added");
        object.verify(path).unwrap_or_else(|refusal| panic!("{refusal}"));
        let mut kinds: Vec<u32> = object.relocations().map(|relocation| relocation.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    fn words(&mut self, objects: &[Id]) {
        let mut writes = Vec::new();
        let planned = self.world.plan(objects, Binding::Now, |write| writes.push(write));
        planned.unwrap_or_else(|refusal| panic!("{refusal}"));
        let written: HashSet<u64> = writes.iter().map(|write| write.address).collect();
        for id in objects {
            let (object, base) = (self.world.object(*id).expect("linked"), self.world.base(*id).expect("linked"));
            // A weak thread-local variable without a definition gets no write.
            let must = object.relocations().filter(|one| one.length() > Some(0) && !(16..=18).contains(&one.kind));
            let mut missed = must.filter(|relocation| !written.contains(&(base + relocation.target)));
            assert_eq!(missed.next(), None);
        }
        assert!(writes.len() > 2, "there is something to compare");
        for write in writes {
            let name = self.world.name(write.object).expect("linked");
            let address = write.address;
            let is = word(address);
            match write.value {
                Value::Word(value) => assert_eq!(is, value, "{name}: {address:#x}"),
                Value::Half(value) => assert_eq!(is as u32, value, "{name}: {address:#x}"),
                Value::Call { resolver, addend } => {
                    assert_eq!(is, call(resolver).wrapping_add_signed(addend), "{name}: {address:#x}");
                }
                Value::Descriptor { module, below, offset } => {
                    let argument = word(address + 8);
                    let fixed = below.is_some_and(|below| argument == offset.wrapping_sub(below));
                    // Without a fixed place, the word points to module and offset.
                    assert!(fixed || (word(argument), word(argument + 8)) == (module, offset), "{name}: {address:#x}");
                }
                Value::NoDescriptor { address: to } => assert_eq!(word(address + 8), to, "{name}: {address:#x}"),
                Value::Lazy { .. } => panic!("{name}: {address:#x}: nothing lazy was asked for"),
            }
        }
    }

    /// Looks each symbol of an object up, by name, by name and version, and by its address.
    fn lookups(&self, id: Id) {
        let (_, opened) = self.opened.iter().find(|(opened, _)| *opened == id).expect("opened");
        let object = self.world.object(id).expect("linked");
        let mut found = 0;
        // For a thread-local variable that an object with DT_HASH only refers to, glibc's dlsym
        // finds the reference and returns the beginning of that object's own block. This is not
        // imitated.
        for symbol in object.symbols().filter(|symbol| symbol.defined || symbol.kind != SymbolKind::ThreadLocal) {
            let name = CString::new(symbol.name).expect("no zero");
            // SAFETY: a handle that is open and a string.
            let there = unsafe { libc::dlsym(opened.0, name.as_ptr()) } as u64;
            let here = self.world.symbol(Some(id), symbol.name, None);
            assert_eq!(here.map_or(0, |found| self.value(found.definition)), there, "{}", symbol.name);
            let Some(version) = symbol.version.filter(|_| symbol.defined) else { continue };
            let version_name = CString::new(version).expect("no zero");
            // SAFETY: as before.
            let there = unsafe { dlvsym(opened.0, name.as_ptr(), version_name.as_ptr()) } as u64;
            let here = self.world.symbol(Some(id), symbol.name, Some(version));
            assert_eq!(here.map_or(0, |found| self.value(found.definition)), there, "{}@{version}", symbol.name);
            found += usize::from(here.is_some());
        }
        let base = self.world.base(id).expect("linked");
        for symbol in object.symbols().filter(|symbol| symbol.defined && symbol.kind != SymbolKind::ThreadLocal) {
            for address in [symbol.address, symbol.address + symbol.size / 2, symbol.address + symbol.size] {
                self.holder(base + address);
                found += 1;
            }
        }
        assert!(found > 0, "there is something to compare");
        let outside = self.world.symbol(Some(id), "no_such_symbol_anywhere", None);
        assert_eq!(outside, None);
    }

    fn holder(&self, address: u64) {
        let mut info = libc::Dl_info {
            dli_fname: std::ptr::null(),
            dli_fbase: std::ptr::null_mut(),
            dli_sname: std::ptr::null(),
            dli_saddr: std::ptr::null_mut(),
        };
        // SAFETY: any address may be asked for.
        let known = unsafe { libc::dladdr(address as *const c_void, &raw mut info) } != 0;
        let here = self.world.address(address);
        // Linux has objects that this namespace does not have.
        let Some(holder) = here else { return };
        assert!(known);
        assert_eq!(holder.base, info.dli_fbase as u64);
        assert_eq!(holder.symbol.map_or(0, |(_, address)| address), info.dli_saddr as u64, "{address:#x}");
        if let Some((name, _)) = holder.symbol {
            // SAFETY: there is a symbol, and so a name.
            let there = unsafe { CStr::from_ptr(info.dli_sname) };
            assert_eq!(Ok(name), there.to_str());
        }
    }

    /// The value that `dlsym` returns for a definition.
    fn value(&self, definition: Definition) -> u64 {
        match definition {
            Definition::Address(address) => address,
            Definition::Resolver(address) => call(address),
            Definition::ThreadLocal { module, offset } => {
                let owner = self.opened.iter().find(|(id, opened)| {
                    let object = self.world.object(*id).expect("linked");
                    opened.tls(object).is_some_and(|tls| tls.module == module)
                });
                owner.expect("a module that is open").1.tls_block() + offset
            }
        }
    }
}

fn word(address: u64) -> u64 {
    // SAFETY: callers give addresses within objects that are open, where a relocation has written,
    // or glibc points to.
    unsafe { (address as *const u64).read_unaligned() }
}

fn call(resolver: u64) -> u64 {
    // SAFETY: the address of an IFUNC's resolver in an object that has been relocated.
    let resolver: extern "C" fn() -> u64 = unsafe { std::mem::transmute(resolver as *const ()) };
    resolver()
}

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[test]
fn plans_are_what_linux_does_with_the_distributions_libraries() {
    let _alone = alone();
    let mut linux = Linux::new();
    let mut seen = 0;
    let libraries: [(&str, &[&str]); 6] = [
        ("libm.so.6", &[]),
        ("libz.so.1", &[]),
        ("liblz4.so.1", &[]),
        ("libbrotlidec.so.1", &["libbrotlicommon.so.1"]),
        ("libsqlite3.so.0", &[]),
        ("libstdc++.so.6", &[]),
    ];
    for (library, needed) in libraries {
        let path = |name: &&str| format!("/lib/x86_64-linux-gnu/{name}");
        let usr = format!("/usr{}", path(&library));
        if Path::new(&usr).exists() {
            let needed: Vec<String> = needed.iter().map(|name| format!("/usr{}", path(name))).collect();
            let needed: Vec<&str> = needed.iter().map(String::as_str).collect();
            linux.compare(&usr, &needed, false);
            seen += 1;
        }
    }
    assert!(seen >= 1, "libm is on every machine");
}

/// The types of relocation, by their numbers, that the builds of `features.c` by a compiler must
/// cover together.
const EVERY_KIND: &[u32] = &[1, 6, 7, 8, 16, 17, 18, 33, 37];
const DESCRIPTOR: u32 = 36;

#[test]
fn plans_are_what_linux_does_with_every_feature() {
    let builds: &[(&str, &[&str])] = &[
        ("plain", &[]),
        ("now", &["-Wl,-z,now"]),
        ("gnu", &["-Wl,--hash-style=gnu"]),
        ("sysv", &["-Wl,--hash-style=sysv"]),
        ("both", &["-Wl,--hash-style=both", "-Wl,-z,lazy"]),
        ("relr", &["-Wl,-z,pack-relative-relocs"]),
        ("fixed", &["-DINITIAL_EXEC"]),
        ("symbolic", &["-Wl,-Bsymbolic"]),
        ("oneseg", &["-Wl,-z,noseparate-code", "-Wl,-z,norelro"]),
        ("lld", &["-fuse-ld=lld", "-Wl,-z,relro"]),
        ("lldsysv", &["-fuse-ld=lld", "-Wl,--hash-style=sysv"]),
        // These are built without glibc, which must be told of RELR, and Debian 12's lld does not
        // do so.
        ("lldrelr", &["-fuse-ld=lld", "-Wl,--pack-dyn-relocs=relr", "-Wl,-z,separate-code", "-nostdlib"]),
    ];
    let _alone = alone();
    let compare = |compiler: &str, builds, global, all_kinds| {
        let kinds = compare_builds(compiler, builds, global);
        for kind in all_kinds {
            assert!(kinds.contains(kind), "no build by {compiler} had a relocation of type {kind}: {kinds:?}");
        }
    };
    compare("gcc", builds, false, EVERY_KIND);
    compare("gcc", &[("descriptors", &["-mtls-dialect=gnu2"])], false, &[DESCRIPTOR]);
    compare("clang-14", builds, false, EVERY_KIND);
    // From here on, their symbols are global.
    compare("gcc", &[("everyone", &[])], true, &[]);
}

/// Returns the types of relocation in the builds.
fn compare_builds(compiler: &str, builds: &[(&str, &[&str])], global: bool) -> Vec<u32> {
    let directory = directory("features");
    let mut kinds = Vec::new();
    for (name, arguments) in builds {
        let linker = if name.starts_with("lld") { "-fuse-ld=lld" } else { "-Wl,-z,relro" };
        let name = format!("{compiler}_{name}");
        let provider = provider_by(compiler, &directory, &format!("{name}_provider"), &[linker]);
        let provider = provider.to_str().expect("a path of ours");
        let rpath = format!("-Wl,-rpath,{}", directory.display());
        let mut all = vec![provider, &rpath];
        all.extend(*arguments);
        let object = build(compiler, &directory, &name, "features.c", &all);
        let mut linux = Linux::new();
        kinds.extend(linux.compare(object.to_str().expect("a path of ours"), &[provider], global));
    }
    kinds
}

#[test]
fn a_reference_without_a_version_gets_the_oldest() {
    let _alone = alone();
    let directory = directory("unversioned");
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).expect("writable");
    write("before.c", "int twice(int x) { return x; }");
    write("user.c", "extern int twice(int); int (*pointer)(int) = twice; int call(int x) { return twice(x); }");
    // This one was linked when the library had no versions yet.
    run("gcc", &directory, &["-shared", "-fPIC", "-Wl,-soname,libolder.so", "-o", "libolder.so", "before.c"]);
    let rpath = format!("-Wl,-rpath,{}", directory.display());
    run("gcc", &directory, &["-shared", "-fPIC", &rpath, "-o", "libuser.so", "user.c", "libolder.so"]);
    let provider = provider(&directory, "older", &[]);
    let user = directory.join("libuser.so");
    let (user, provider) = (user.to_str().expect("a path of ours"), provider.to_str().expect("a path of ours"));
    Linux::new().compare(user, &[provider], false);
}

#[test]
fn plans_are_what_linux_does_with_a_library_of_rustc() {
    let _alone = alone();
    let directory = directory("rustc");
    let (source, rustc) = (source("library.rs"), std::env::var("RUSTC").unwrap_or("rustc".into()));
    let source = source.to_str().expect("a path of ours");
    run(&rustc, &directory, &["--edition=2024", "-Cpanic=abort", "-Copt-level=2", "-o", "librust.so", source]);
    let path = directory.join("librust.so");
    let mut linux = Linux::new();
    linux.compare(path.to_str().expect("a path of ours"), &[], false);
    let object = parse(&path);
    assert!(object.symbol("rust_area", None).is_some_and(|symbol| symbol.kind == SymbolKind::Function));
}
