//! Dependencies: initialisation and finalisation in the order of this machine's dynamic linker,
//! scopes, and the objects that are unused once something was closed.

mod common;

use std::ffi::{CString, c_int, c_void};
use std::path::Path;

use common::{Bytes, Object, directory, gcc, parse, provider, read, run};
use zooid_loader::{Binding, Definition, Export, ExportTable, Id, Namespace, Origin, Refusal, Value, Write};

type World = Namespace<Bytes, ExportTable<'static>>;

const NO_ADDRESS: u64 = 0x4000_0000;

/// Graphs: for each object, from 1 up, the objects that it needs. Object 1 is opened.
const GRAPHS: [&[&[usize]]; 6] = [
    &[&[2, 3], &[4], &[4], &[]],
    &[&[2, 3, 4], &[], &[2], &[3]],
    &[&[3, 2], &[4, 5], &[5, 4], &[6], &[6], &[]],
    // Cycles: of two, through the root, and one behind another.
    &[&[2], &[3], &[2]],
    &[&[2, 3], &[3, 1], &[4], &[]],
    &[&[2, 5], &[3], &[4], &[2, 6], &[4], &[7], &[6]],
];

fn name(graph: usize, number: usize) -> String {
    format!("g{graph}n{number}")
}

/// Builds all objects of a graph twice, because a needed object must exist before it can be linked
/// to.
fn build(directory: &Path, graph: usize) {
    for needs in [false, true] {
        for (number, needed) in GRAPHS[graph].iter().enumerate() {
            let number = number + 1;
            let define = format!("-DNUMBER={number}");
            let mut arguments = vec![define.clone(), "-Wl,--no-as-needed".into(), "-L.".into()];
            arguments.push(format!("-Wl,-rpath,{}", directory.display()));
            arguments.push("-ltrace".into());
            arguments.extend(needed.iter().filter(|_| needs).map(|needed| format!("-l{}", name(graph, *needed))));
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            gcc(directory, &name(graph, number), "traced.c", &arguments);
        }
    }
}

fn open_on_linux(directory: &Path, name: &str, flags: c_int) -> *mut c_void {
    let path = CString::new(directory.join(format!("lib{name}.so")).to_str().expect("a path of ours"));
    // SAFETY: an object of ours, whose constructors only count.
    let handle = unsafe { libc::dlopen(path.expect("no zero").as_ptr(), flags) };
    assert!(!handle.is_null());
    handle
}

/// The behaviour of Linux when the objects of these numbers are opened one after the other, and
/// closed in the same order: the numbers of the objects that each opening initialises and each
/// closing finalises.
fn on_linux(directory: &Path, graph: usize, opened: &[usize]) -> Vec<Vec<usize>> {
    let open = |name: &str| open_on_linux(directory, name, libc::RTLD_NOW);
    let trace = open("trace");
    // SAFETY: the function's type is that in trace.c.
    let traced: extern "C" fn(c_int) -> c_int = unsafe {
        let traced: *mut c_void = libc::dlsym(trace, c"traced".as_ptr());
        std::mem::transmute(traced)
    };
    let mut place = (0..).find(|place| traced(*place) == 0).expect("an end");
    let mut happened = || {
        let new: Vec<c_int> = (place..).map(|place| traced(place)).take_while(|number| *number != 0).collect();
        place += new.len() as c_int;
        new.iter().map(|number| number.unsigned_abs() as usize).collect()
    };
    let (mut handles, mut steps) = (Vec::new(), Vec::new());
    for number in opened {
        handles.push(open(&name(graph, *number)));
        steps.push(happened());
    }
    for handle in handles {
        // SAFETY: opened above, and nothing of it is used.
        assert_eq!(unsafe { libc::dlclose(handle) }, 0);
        steps.push(happened());
    }
    steps
}

struct Built {
    world: World,
    next: u64,
}

impl Built {
    fn new() -> Self {
        let exports = [("puts", NO_ADDRESS), ("__cxa_finalize", NO_ADDRESS + 8)];
        Self { world: Namespace::new(ExportTable::new(exports, &["libc.so.6"])), next: 0x10_0000 }
    }

    fn add(&mut self, path: &Path) -> Id {
        let object = parse(path);
        let base = self.next;
        self.next += object.span().end;
        let name = path.file_name().and_then(|name| name.to_str()).expect("a path of ours");
        self.world.add(name, object, base, None).unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    /// Adds all needed objects, as a loader does.
    fn open(&mut self, directory: &Path, name: &str) -> (Id, Vec<Id>) {
        let root = self.world.find(name).unwrap_or_else(|| self.add(&directory.join(name)));
        while let Some(missing) = self.world.missing(root).first().map(|name| name.to_string()) {
            self.add(&directory.join(missing));
        }
        let new = self.world.link(root, false).unwrap_or_else(|refusal| panic!("{refusal}"));
        (root, new)
    }

    fn writes(&mut self, objects: &[Id], binding: Binding) -> Result<Vec<Write>, Refusal> {
        let mut writes = Vec::new();
        self.world.plan(objects, binding, |write| writes.push(write))?;
        Ok(writes)
    }
}

#[test]
fn initialisation_and_finalisation_are_as_on_linux() {
    let directory = directory("order");
    gcc(&directory, "trace", "trace.c", &[]);
    (0..GRAPHS.len()).for_each(|graph| build(&directory, graph));
    compare_orders(&directory, false);
    // Cycles are cut elsewhere as soon as any object is bound to one outside of its dependencies.
    gcc(&directory, "bound", "traced.c", &["-DNUMBER=99"]);
    open_on_linux(&directory, "trace", libc::RTLD_NOW | libc::RTLD_GLOBAL);
    open_on_linux(&directory, "bound", libc::RTLD_NOW);
    compare_orders(&directory, true);
}

/// Opens each object of each graph before the first one.
fn compare_orders(directory: &Path, bound: bool) {
    for (graph, objects) in GRAPHS.iter().enumerate() {
        assert_eq!(on_linux(directory, graph, &[1])[0].len(), objects.len());
        for first in 1..=objects.len() {
            let mut built = Built::new();
            let mut stays = Vec::new();
            if bound {
                let trace = built.add(&directory.join("libtrace.so"));
                built.world.link(trace, true).unwrap_or_else(|refusal| panic!("{refusal}"));
                let (bound, new) = built.open(directory, "libbound.so");
                built.writes(&new, Binding::Now).unwrap_or_else(|refusal| panic!("{refusal}"));
                stays.push(bound);
            }
            let numbers = |world: &World, ids: &[Id]| -> Vec<usize> {
                let number = |id: &Id| {
                    let name = world.name(*id).expect("added");
                    name.trim_end_matches(".so").rsplit_once('n').and_then(|(_, number)| number.parse().ok())
                };
                ids.iter().filter_map(number).collect()
            };
            let (opened, mut open, mut steps) = ([first, 1], Vec::new(), Vec::new());
            for number in opened {
                let (id, new) = built.open(directory, &format!("lib{}.so", name(graph, number)));
                built.writes(&new, Binding::Now).unwrap_or_else(|refusal| panic!("{refusal}"));
                steps.push(numbers(&built.world, &new));
                open.push(id);
            }
            while !open.is_empty() {
                open.remove(0);
                let unused = built.world.unused(&[&*open, &stays].concat());
                steps.push(numbers(&built.world, &unused));
                unused.into_iter().for_each(|id| drop(built.world.remove(id)));
            }
            assert_eq!(steps, on_linux(directory, graph, &opened), "graph {graph}, {first} first, bound: {bound}");
        }
    }
}

#[test]
fn what_is_still_needed_or_bound_to_stays() {
    let directory = directory("unused");
    let provider = gcc(&directory, "provider", "trace.c", &[]);
    // It has no DT_NEEDED and finds `trace` in the global scope.
    let user = gcc(&directory, "user", "traced.c", &["-DNUMBER=1"]);
    let mut built = Built::new();
    let user = built.add(&user);
    let alone = built.world.link(user, false).expect("nothing is needed");
    let refusal = built.writes(&alone, Binding::Now).expect_err("`trace` is missing");
    assert_eq!(refusal.to_string(), "libuser.so: needs the symbol `trace`, which nobody defines");

    let provider = built.add(&provider);
    let new = built.world.link(provider, true).expect("nothing is needed");
    built.writes(&new, Binding::Now).expect("nothing is missing");
    built.writes(&alone, Binding::Now).expect("now it is there");
    assert_eq!(built.world.unused(&[user]), [], "the provider is bound to");
    assert_eq!(built.world.unused(&[provider]), [user]);
    assert_eq!(built.world.unused(&[]), [user, provider], "as long as it runs, it may call the provider");
    assert!(built.world.remove(user).is_some());
    assert_eq!(built.world.unused(&[]), [provider]);
    assert!(built.world.remove(provider).is_some() && built.world.remove(provider).is_none());
    assert_eq!(built.world.plan(&[user], Binding::Now, |_| ()), Err(Refusal::Stale));
}

#[test]
fn symbols_are_found_in_the_order_of_the_scopes() {
    let directory = directory("scopes");
    let one = gcc(&directory, "one", "trace.c", &[]);
    let two = gcc(&directory, "two", "trace.c", &[]);
    let mut built = Built::new();
    let (one, two) = (built.add(&one), built.add(&two));
    let address = |built: &Built, handle, name: &str| {
        let found = built.world.symbol(handle, name, None)?;
        let Definition::Address(address) = found.definition else { panic!("{name} is a function") };
        assert_eq!(built.world.address(address).map(|holder| holder.object), found.object);
        found.object
    };
    built.world.link(one, false).expect("nothing is needed");
    assert_eq!(address(&built, None, "trace"), None, "local");
    built.world.link(two, true).expect("nothing is needed");
    assert_eq!(address(&built, None, "trace"), Some(two));
    assert_eq!(address(&built, Some(one), "trace"), Some(one));
    // The object is opened again, with global symbols, and comes behind the earlier ones.
    assert_eq!(built.world.link(one, true), Ok(vec![]));
    assert_eq!(address(&built, None, "trace"), Some(two));
    let found = built.world.symbol(None, "puts", None).expect("an export");
    assert_eq!((found.object, found.definition), (None, Definition::Address(NO_ADDRESS)));
}

#[test]
fn symbolic_objects_and_protected_symbols_are_bound_to_their_own() {
    let directory = directory("symbolic");
    std::fs::write(directory.join("own.c"), "void trace(int n) {} void (*pointer)(int) = trace;").expect("writable");
    run("gcc", &directory, &["-shared", "-fPIC", "-Wl,-z,now", "-o", "libown.so", "own.c"]);
    let file = read(&directory.join("libown.so"));
    // With the flag set by ld, nothing would be left to bind, so the test adds it beside
    // DF_BIND_NOW.
    let flags: Vec<u8> = [30_u64, 8].into_iter().flat_map(u64::to_le_bytes).collect();
    let place = file.windows(16).position(|entry| entry == flags).expect("DT_FLAGS");
    let mut symbolic = file.clone();
    symbolic[place + 8] |= 2;

    // A protected symbol would leave nothing either. The test finds its value and size in the
    // table; the octets to change are before them.
    let object = Object::parse(file.clone()).expect("as ld made it");
    let trace = object.symbol("trace", None).expect("defined");
    let numbers: Vec<u8> = [trace.address, trace.size].into_iter().flat_map(u64::to_le_bytes).collect();
    let place = file.windows(16).position(|entry| entry == numbers).expect("in the symbol table");
    let mut protected = file.clone();
    protected[place - 3] = 3;

    let mut built = Built::new();
    let first = built.add(&gcc(&directory, "first", "trace.c", &[]));
    built.world.link(first, true).expect("nothing is needed");
    let cases = [(0x8000_0000, file, false), (0x9000_0000, symbolic, true), (0xa000_0000, protected, true)];
    for (base, file, of_its_own) in cases {
        let object = Object::parse(file).expect("as ld made it");
        assert_eq!(object.flags().symbolic, base == 0x9000_0000);
        let pointer = base + object.symbol("pointer", None).expect("defined").address;
        let own = base + object.symbol("trace", None).expect("defined").address;
        let id = built.world.add("own", object, base, None).expect("there is room");
        let new = built.world.link(id, false).expect("nothing is needed");
        let writes = built.writes(&new, Binding::Now).expect("nothing is missing");
        let write = writes.iter().find(|write| write.address == pointer).expect("it is relocated");
        assert_eq!(write.value == Value::Word(own), of_its_own);
        assert_eq!(built.world.unused(&[id]).contains(&first), of_its_own);
    }
}

#[test]
fn an_object_outlives_the_one_it_was_loaded_for() {
    let directory = directory("outlives");
    std::fs::write(directory.join("own.c"), "void trace(int n) {} void call(void) { trace(1); }").expect("writable");
    let soname = "-Wl,-soname,libown.so";
    run("gcc", &directory, &["-shared", "-fPIC", "-O2", "-Wl,-z,lazy", soname, "-o", "libown.so", "own.c"]);
    gcc(&directory, "first", "traced.c", &["-DNUMBER=1", "-L.", "-lown"]);
    let mut built = Built::new();
    let (first, new) = built.open(&directory, "libfirst.so");
    built.writes(&new, Binding::Lazy).expect("nothing is missing");
    let own = built.world.find("libown.so").expect("it was needed");
    assert_eq!(new, [own, first]);
    built.world.remove(first);
    let found = built.world.symbol(Some(own), "trace", None).expect("defined");
    let Definition::Address(address) = found.definition else { panic!("a function") };
    let slots = (0..).map_while(|number| built.world.bind(own, number).ok()).map(|write| write.value);
    assert!(slots.collect::<Vec<_>>().contains(&Value::Word(address)));
}

#[test]
fn symbols_are_found_without_a_hash_table() {
    let directory = directory("no-hash");
    let path = provider(&directory, "hashed", &["-Wl,--hash-style=gnu"]);
    let (hashed, mut file) = (parse(&path), read(&path));
    let tag = file.windows(8).position(|tag| tag == 0x6fff_fef5_u64.to_le_bytes()).expect("DT_GNU_HASH");
    // DT_DEBUG has no meaning in a library.
    file[tag..tag + 8].copy_from_slice(&21_u64.to_le_bytes());
    let plain = Object::parse(file).unwrap_or_else(|refusal| panic!("{refusal}"));
    assert!(hashed.symbols().count() > 8);
    for symbol in hashed.symbols() {
        for version in [None, symbol.version, Some("VERS_1"), Some("VERS_9")] {
            let (here, there) = (plain.symbol(symbol.name, version), hashed.symbol(symbol.name, version));
            assert_eq!(here.map(|symbol| symbol.address), there.map(|symbol| symbol.address), "{}", symbol.name);
        }
    }
    assert!(plain.symbol("twice", Some("VERS_1")).is_some_and(|symbol| !symbol.default));
}

#[test]
fn lazy_slots_are_bound_one_by_one() {
    let directory = directory("lazy");
    let (lazy, now) = (["-DNUMBER=1", "-Wl,-z,lazy"], ["-DNUMBER=2", "-Wl,-z,now"]);
    let (lazy, now) = (gcc(&directory, "lazy", "traced.c", &lazy), gcc(&directory, "now", "traced.c", &now));
    let mut built = Built::new();
    let trace = built.add(&gcc(&directory, "trace", "trace.c", &[]));
    built.world.link(trace, true).expect("nothing is needed");
    let (lazy, now) = (built.add(&lazy), built.add(&now));
    let new = built.world.link(lazy, false).expect("nothing is needed");
    let eager = built.writes(&new, Binding::Now).expect("nothing is missing");
    let later = built.writes(&new, Binding::Lazy).expect("nothing is missing");
    let Some(Definition::Address(target)) = built.world.symbol(None, "trace", None).map(|found| found.definition)
    else {
        panic!("`trace` is a function")
    };
    let slots: Vec<_> = later.iter().filter(|write| matches!(write.value, Value::Lazy { .. })).collect();
    assert!(!slots.is_empty() && eager.len() == later.len());
    let object = parse(&directory.join("liblazy.so"));
    for slot in &slots {
        let Value::Lazy { stub } = slot.value else { unreachable!("filtered") };
        // The second half of an entry of the PLT: `push number`.
        let file = read(&directory.join("liblazy.so"));
        let stub = stub - built.world.base(lazy).expect("linked");
        let text = object.segments().iter().find(|segment| segment.memory.contains(&stub)).expect("in its text");
        let code = &file[text.file.start + (stub - text.memory.start) as usize..];
        let number = u32::from_le_bytes([code[1], code[2], code[3], code[4]]);
        assert_eq!(code[0], 0x68);
        let bound = built.world.bind(lazy, number as usize).expect("it is there");
        assert_eq!(bound.address, slot.address);
        assert!(eager.contains(&bound));
    }
    assert!(
        slots
            .iter()
            .any(|slot| eager.iter().any(|write| write.address == slot.address && write.value == Value::Word(target)))
    );
    assert_eq!(built.world.bind(lazy, 1000), Err(Refusal::Stale));

    let new = built.world.link(now, false).expect("nothing is needed");
    let eager = built.writes(&new, Binding::Lazy).expect("nothing is missing");
    assert!(eager.iter().all(|write| !matches!(write.value, Value::Lazy { .. })), "it wants it now");
}

#[test]
fn what_the_image_stands_in_for_comes_last() {
    let directory = directory("stand_in");
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).expect("writable");
    write("answer.c", "int answer(void) { return 1; }");
    write(
        "asks.c",
        "extern int answer(void); int (*pointer)(void) = answer;\n\
        extern __thread int number __attribute__((tls_model(\"initial-exec\"))); int get(void) { return number; }",
    );
    for name in ["answer", "asks"] {
        let (source, library) = (format!("{name}.c"), format!("lib{name}.so"));
        let soname = format!("-Wl,-soname,{library}");
        let needs: &[&str] = if name == "asks" { &["-L.", "-lanswer"] } else { &[] };
        let options = ["-shared", "-fPIC", "-nostdlib", &soname, "-o", &library, &source];
        run("gcc", &directory, &[&options, needs].concat());
    }
    let words = |origin: Origin, libraries: &'static [&'static str]| {
        let number = Export { origin: Origin::StandInThreadLocal, value: 0x20 };
        let exports = [("answer", Export { origin, value: NO_ADDRESS }), ("number", number)];
        let mut built = Built { world: Namespace::new(ExportTable::of(exports, libraries)), next: 0x10_0000 };
        let (root, new) = built.open(&directory, "libasks.so");
        let found = built.world.symbol(Some(root), "answer", None).map(|found| found.definition);
        let writes = built.writes(&new, Binding::Now).unwrap_or_else(|refusal| panic!("{refusal}"));
        let is = |value: u64| writes.iter().any(|write| write.value == Value::Word(value));
        assert!(is(0x20), "the distance from the thread pointer: {writes:x?}");
        match found {
            Some(Definition::Address(address)) => (is(NO_ADDRESS), is(address) && address != NO_ADDRESS),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(words(Origin::Own, &[]), (true, false));
    assert_eq!(words(Origin::StandIn, &[]), (false, true));
    assert_eq!(words(Origin::StandIn, &["libanswer.so"]), (true, false));
}
