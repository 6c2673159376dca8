//! Libraries that are replaced: entries, rewritten words, and versions that do not fit the users of
//! the old one.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{Bytes, directory, gcc, parse};
use zooid_loader::{
    Binding, Definition, ENTRIES_PER_PAGE, ExportTable, Id, Mismatch, Namespace, PAGE_SIZE, Refusal, Search, TlsPlace,
    Value, entry_address, entry_number,
};

type World = Namespace<Bytes, ExportTable<'static>>;

const OLD: u64 = 0x10_0000;
const USER: u64 = 0x20_0000;
const NEW: u64 = 0x30_0000;
const ENTRIES: u64 = 0x40_0000;
const TLS: Option<TlsPlace> = Some(TlsPlace { module: 1, below: Some(64) });

struct Versions {
    world: World,
    old: Id,
    user: Id,
    /// The words written to relocate the user.
    words: BTreeMap<u64, u64>,
}

/// Builds a version in a directory of its own, because all have the same name.
fn version(directory: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let directory = directory.join(name);
    std::fs::create_dir_all(&directory).expect("below target/");
    gcc(&directory, "live", "live.c", &[&["-nostdlib"], arguments].concat())
}

/// Opens the first version and an object that uses it.
fn open(directory: &Path, pages: usize, arguments: &[&str]) -> Result<Versions, Refusal> {
    let mut world = Namespace::new(ExportTable::new([("__tls_get_addr", 0x1000)], &[]));
    let live = version(directory, "1", &[]);
    let arguments = [&["-nostdlib", "-L1", "-llive"], arguments].concat();
    let user = gcc(directory, "user", "live_user.c", &arguments);
    let old = world.add("liblive.so", parse(&live), OLD, TLS)?;
    world.make_live(old, ENTRIES, pages);
    let user = world.add("libuser.so", parse(&user), USER, None)?;
    let new = world.link(user, false)?;
    let mut words = BTreeMap::new();
    world.plan(&new, Binding::Now, |write| {
        if write.object == user
            && let Value::Word(word) = write.value
        {
            words.insert(write.address, word);
        }
    })?;
    Ok(Versions { world, old, user, words })
}

impl Versions {
    fn new(directory: &Path, test: &[&str]) -> Self {
        open(directory, 1, test).unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    /// Adds another version and links it.
    fn add(&mut self, path: &Path) -> Id {
        let new = self.world.add_beside(self.old, parse(path), NEW, TLS).expect("there is room");
        let order = self.world.link(new, true).unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(order, [new]);
        self.world.plan(&order, Binding::Now, |_| ()).unwrap_or_else(|refusal| panic!("{refusal}"));
        new
    }

    fn address(&self, id: Id, symbol: &str) -> u64 {
        let object = self.world.object(id).expect("it is there");
        self.world.base(id).expect("as above") + object.symbol(symbol, None).expect("defined").address
    }

    /// The user's word at `place` of its symbol.
    fn word(&self, symbol: &str, place: u64) -> u64 {
        self.words[&(self.address(self.user, symbol) + 8 * place)]
    }
}

#[test]
fn entries_have_their_places() {
    for number in [0, 1, ENTRIES_PER_PAGE - 1, ENTRIES_PER_PAGE, 3 * ENTRIES_PER_PAGE + 7] {
        let address = entry_address(ENTRIES, number);
        assert_eq!(entry_number(ENTRIES, address), Some(number));
        assert_eq!(entry_number(ENTRIES, address + 1), None);
        // The first entry of a page belongs to no function, and every other page is one of slots.
        assert_ne!(address % PAGE_SIZE, 0);
        assert_eq!((address - ENTRIES) / PAGE_SIZE % 2, 0);
    }
    assert_eq!(entry_address(ENTRIES, ENTRIES_PER_PAGE), ENTRIES + 2 * PAGE_SIZE + 16);
    for address in [ENTRIES, ENTRIES - 16, ENTRIES + PAGE_SIZE + 16, ENTRIES + 2 * PAGE_SIZE] {
        assert_eq!(entry_number(ENTRIES, address), None, "{address:#x}");
    }
}

#[test]
fn functions_are_reached_by_entries_from_outside_only() {
    let directory = directory("live_entries");
    let mut versions = Versions::new(&directory, &[]);
    let (call, chosen) = (versions.word("user_functions", 0), versions.word("user_functions", 1));
    assert!([call, chosen].iter().all(|entry| entry_number(ENTRIES, *entry).is_some()) && call != chosen);
    // A variable is at its own address.
    assert_eq!(versions.word("user_constant", 0), versions.address(versions.old, "live_numbers") + 8);
    let (old, user) = (versions.old, versions.user);
    // Every search for a function gets the same entry. A function without one gets a new one. The
    // library's own users get the function itself.
    let before = versions.world.entries(old);
    let mut look_up = |handle: Option<_>, name, own| {
        let search = handle.map_or(Search::Global, Search::Tree);
        versions.world.lasting_symbol(search, (name, None), own).expect("there is room").map(|found| found.definition)
    };
    assert_eq!(look_up(Some(user), "live_call", None), Some(Definition::Address(call)));
    assert_eq!(look_up(Some(old), "live_call", None), Some(Definition::Address(call)));
    let direct = look_up(Some(old), "live_call", Some(old));
    let number = look_up(Some(old), "live_numbers", None);
    assert_eq!(look_up(Some(old), "live_none", None), None);
    assert_eq!(direct, Some(Definition::Address(versions.address(old, "live_call"))));
    assert_eq!(number, Some(Definition::Address(versions.address(old, "live_numbers"))));
    assert_eq!(versions.world.entries(old), before);

    let targets = versions.world.targets(old, old, 0).expect("all are there");
    let of = |entry: u64| targets[entry_number(ENTRIES, entry).expect("an entry")];
    assert_eq!(of(call), Definition::Address(versions.address(old, "live_call")));
    assert_eq!(of(chosen), Definition::Resolver(versions.address(old, "live_chosen")));
    // live_call, live_chosen, live_turned, live_more
    assert_eq!(targets.len(), 4);
    versions.world.forget_entries(old, 3);
    assert_eq!(versions.world.entries(old), 3);
}

#[test]
fn a_version_takes_the_place_of_another() {
    let directory = directory("live_exchange");
    let mut versions = Versions::new(&directory, &[]);
    let (old, user) = (versions.old, versions.user);
    let path = version(&directory, "2", &["-DVERSION=2"]);
    let new = versions.add(&path);
    let (new_call, new_numbers) = (versions.address(new, "live_call"), versions.address(new, "live_numbers"));
    assert_ne!(new_numbers - NEW, versions.address(old, "live_numbers") - OLD);

    // Until then, the search does not find it.
    let world = &mut versions.world;
    assert_eq!(world.find("liblive.so"), Some(old));
    assert_eq!(world.symbol(None, "live_call", None), None);
    let replacement = world.replacement(old, new).expect("it fits");
    assert_eq!(replacement.targets, world.targets(old, new, 0).expect("as above"));
    assert!(replacement.targets.contains(&Definition::Address(new_call)));

    // Each word that referred to a variable is rewritten, and no other.
    let mut expected = BTreeMap::new();
    for (address, word) in &versions.words {
        for symbol in ["live_numbers", "live_other"] {
            let start = versions.address(old, symbol);
            if (start..start + 16).contains(word) && (symbol == "live_numbers" || *word == start) {
                expected.insert(*address, word - start + versions.address(new, symbol));
            }
        }
    }
    let writes: BTreeMap<u64, u64> = replacement
        .writes
        .iter()
        .map(|write| match write.value {
            Value::Word(word) if write.object == user => (write.address, word),
            other => panic!("{other:?} in {:?}", write.object),
        })
        .collect();
    assert_eq!(writes, expected);
    assert!(writes.len() >= 2);

    // From then on, all users of the old one have the new one.
    let world = &mut versions.world;
    world.exchange(old, new);
    assert_eq!((world.base(old), world.base(new)), (Some(NEW), Some(OLD)));
    assert_eq!(world.find("liblive.so"), Some(old));
    assert_eq!(world.tree(user), [user, old]);
    let found = world.symbol(Some(user), "live_numbers", None).map(|found| found.definition);
    assert_eq!(found, Some(Definition::Address(new_numbers)));
    assert_eq!(world.unused(&[user]), [new]);
    assert!(world.remove(new).is_some());
    assert_eq!(world.unused(&[user]), []);
    // The way back uses the same entries.
    let again = parse(&version(&directory, "1", &[]));
    let back = world.add_beside(old, again, OLD, TLS).expect("the addresses are free again");
    world.link(back, false).expect("all is there");
    let replacement = world.replacement(old, back).expect("it fits");
    assert_eq!((replacement.targets.len(), replacement.writes.len()), (4, writes.len()));
    // A failed replacement leaves no trace.
    world.remove(back);
    assert_eq!(world.objects().collect::<Vec<_>>(), [old, user]);
}

#[test]
fn a_version_that_does_not_fit_is_refused_by_name() {
    let directory = directory("live_refused");
    let cases: [(&str, &[&str], &str, Mismatch); 3] = [
        ("missing", &["-DMISSING"], "live_more", Mismatch::Missing),
        ("smaller", &["-DCOUNT=3"], "live_numbers", Mismatch::Smaller),
        ("kind", &["-DVARIABLE"], "live_turned", Mismatch::OtherKind),
    ];
    for (name, arguments, symbol, mismatch) in cases {
        let mut versions = Versions::new(&directory, &[]);
        let new = versions.add(&version(&directory, name, arguments));
        let refused = versions.world.replacement(versions.old, new);
        assert_eq!(refused, Err(Refusal::Mismatch { symbol: symbol.to_string(), mismatch }), "{name}");
    }
    // A larger one fits.
    let mut versions = Versions::new(&directory, &[]);
    let new = versions.add(&version(&directory, "larger", &["-DCOUNT=5"]));
    assert!(versions.world.replacement(versions.old, new).is_ok());
    // Threads have the variables of the old one already.
    let mut versions = Versions::new(&directory, &["-DMINE"]);
    let new = versions.add(&version(&directory, "same", &[]));
    let refused = versions.world.replacement(versions.old, new);
    let mismatch = Mismatch::ThreadLocal;
    assert_eq!(refused, Err(Refusal::Mismatch { symbol: "live_mine".to_string(), mismatch }));
    assert_eq!(
        refused.map_err(|refusal| refusal.to_string()),
        Err("others use the thread-local variable `live_mine`".into())
    );
}

#[test]
fn more_functions_than_there_is_room_for_are_refused() {
    let directory = directory("live_room");
    match open(&directory, 0, &[]).map(|_| ()) {
        Err(refusal) => assert_eq!(refusal, Refusal::Entries { object: "liblive.so".to_string(), room: 0 }),
        Ok(()) => panic!("it has no room"),
    }
}
