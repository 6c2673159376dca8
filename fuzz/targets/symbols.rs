//! The name table: neither a broken table nor a strange address makes a crash report crash.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zooid_core::symbols::SymbolTable;

fuzz_target!(|input: (u64, &[u8])| {
    let (address, table) = input;
    if let Ok(table) = SymbolTable::parse(table)
        && let Some(symbol) = table.lookup(address)
    {
        assert_eq!(symbol.start + symbol.offset, address);
    }
});
