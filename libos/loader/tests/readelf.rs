//! Compares an object's contents, as read here, with the output of binutils' `readelf`.

mod common;

use std::path::Path;
use std::process::Command;

use common::{directory, gcc, parse, provider};
use zooid_loader::{Rights, Table};

fn readelf(options: &str, path: &Path) -> String {
    let output = Command::new("readelf").args(["-W", options]).arg(path).env("LC_ALL", "C").output();
    String::from_utf8(output.expect("binutils is there").stdout).expect("text")
}

/// The words in brackets behind a word.
fn bracketed<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let lines = text.lines().filter(|line| line.contains(word));
    lines.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0)).collect()
}

fn hexadecimal(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a number")
}

#[test]
fn an_object_is_what_readelf_says() {
    let directory = directory("readelf");
    let provided = provider(&directory, "provider", &[]);
    let provided = provided.to_str().expect("a path of ours");
    let mut paths = vec![gcc(&directory, "user", "features.c", &[provided, "-Wl,-z,now", "-Wl,--build-id"])];
    paths.push(gcc(&directory, "lld", "features.c", &[provided, "-fuse-ld=lld", "-Wl,-z,nodelete"]));
    paths.push(gcc(&directory, "packed", "features.c", &[provided, "-Wl,-z,pack-relative-relocs"]));
    paths.push(provided.into());
    let distribution = ["libm.so.6", "libz.so.1", "libsqlite3.so.0", "libc.so.6"]
        .map(|name| Path::new("/lib/x86_64-linux-gnu").join(name));
    paths.extend(distribution.into_iter().filter(|path| path.exists()));
    for path in paths {
        let object = parse(&path);
        let dynamic = readelf("-d", &path);
        assert_eq!(object.soname().into_iter().collect::<Vec<_>>(), bracketed(&dynamic, "(SONAME)"));
        assert_eq!(object.needed().collect::<Vec<_>>(), bracketed(&dynamic, "(NEEDED)"));
        let flags = object.flags();
        assert_eq!(flags.bind_now, dynamic.contains("NOW"));
        assert_eq!(flags.no_delete, dynamic.contains("NODELETE"));
        assert_eq!(flags.static_tls, dynamic.contains("STATIC_TLS"));

        let notes = readelf("-n", &path);
        let build_id = notes.split("Build ID: ").nth(1).and_then(|rest| rest.lines().next());
        let octets = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        assert_eq!(object.build_id().map(octets).as_deref(), build_id);

        let headers = readelf("-l", &path);
        let fields = |kind: &'static str| {
            let lines = headers.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines.filter(move |fields| fields.first() == Some(&kind)).collect::<Vec<_>>()
        };
        let segments = fields("LOAD");
        assert_eq!(object.segments().len(), segments.len());
        for (segment, fields) in object.segments().iter().zip(segments) {
            let start = hexadecimal(fields[2]);
            assert_eq!(segment.memory, start..start + hexadecimal(fields[5]));
            let start = hexadecimal(fields[1]) as usize;
            assert_eq!(segment.file, start..start + hexadecimal(fields[4]) as usize);
            let rights = match (fields[6], fields[7]) {
                ("R", "E") => Rights::ReadExecute,
                ("R", _) => Rights::Read,
                ("RW", _) => Rights::ReadWrite,
                other => panic!("{other:?}"),
            };
            assert_eq!(segment.rights, rights);
        }
        let tls = object.tls().map(|tls| (tls.address, tls.size));
        assert_eq!(tls, fields("TLS").first().map(|fields| (hexadecimal(fields[2]), hexadecimal(fields[5]))));
        let relro = fields("GNU_RELRO").first().map(|fields| {
            (hexadecimal(fields[2]) & !0xfff)..((hexadecimal(fields[2]) + hexadecimal(fields[5])) & !0xfff)
        });
        assert_eq!(object.relro(), relro);

        // Packed ones are listed as addresses.
        let relocations = readelf("-r", &path);
        let listed = |word| relocations.lines().filter(|line| line.contains(word)).count();
        let (packed, others): (Vec<_>, Vec<_>) = object.relocations().partition(|one| one.table == Table::Relr);
        assert_eq!(others.len(), listed(" R_X86_64_"));
        let addresses =
            relocations.split("' at offset").find(|section| section.contains(" offsets")).unwrap_or_default();
        let addresses = addresses.lines().filter(|line| line.len() == 16).map(hexadecimal);
        assert_eq!(packed.iter().map(|one| one.target).collect::<Vec<_>>(), addresses.collect::<Vec<_>>());
        let symbols = readelf("--dyn-syms", &path);
        // A default version is behind `@@`, another one, or one that is needed, behind `@`.
        let named =
            symbols.lines().filter(|line| line.split_whitespace().next().is_some_and(|word| word.ends_with(':')));
        // The names behind the heading and the reserved first symbol.
        let names =
            named.skip(2).map(|line| line.split_whitespace().rfind(|word| !word.starts_with('(')).unwrap_or_default());
        let names: Vec<String> = names.map(|name| name.replace("@@", "@")).collect();
        // readelf does not show the version of a symbol that stands for a version.
        let own = object.symbols().map(|symbol| match symbol.version {
            Some(version) if version != symbol.name => format!("{}@{version}", symbol.name),
            _ => symbol.name.to_string(),
        });
        assert_eq!(own.collect::<Vec<_>>(), names);
    }
}
