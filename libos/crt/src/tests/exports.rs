//! The table of exports, and its page.

use std::fmt::Write;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{fs, path::Path};

use crate::{EXPORTS, HEADERS, find};

#[test]
fn every_export_is_found_by_its_name() {
    assert!(EXPORTS.is_sorted_by(|one, other| one.name < other.name), "a name is there twice, or out of order");
    assert_eq!(EXPORTS.len(), HEADERS.iter().map(|(_, exports)| exports.len()).sum::<usize>());
    for export in EXPORTS {
        assert!(!export.address.is_null());
        assert_eq!(find(export.name), Some(export.address));
    }
    assert_eq!(find(c"no_such_function"), None);
}

/// `UPDATE=1 cargo test -p zooid-crt` rewrites the table.
#[test]
fn the_page_lists_the_exports() {
    const BEGIN: &str = "| header | names |\n|---|---|\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runtime.md");
    let page = fs::read_to_string(&path).unwrap();
    let start = page.find(BEGIN).expect("the page has the table") + BEGIN.len();
    let end = page[start..].find("\n\n").map_or(page.len(), |end| start + end + 1);
    let mut table = String::new();
    for (header, exports) in HEADERS {
        let mut names: Vec<String> = exports.iter().map(|export| export.name.to_str().unwrap().to_string()).collect();
        names.sort();
        writeln!(table, "| {header} | {} |", names.join(", ").replace("__", "\\_\\_")).unwrap();
    }
    if page[start..end] != table {
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, std::format!("{}{table}{}", &page[..start], &page[end..])).unwrap();
        } else {
            panic!("docs/runtime.md does not list what is exported");
        }
    }
}
