//! Prints, as one JSON object, all resources that a domain uses and must give back. A comparison of
//! the output before and after shows a leak.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::{Command, ExitCode};

use xen_abi::DomId;
use xenctl::{Hypervisor, Xen, grants_in_use};

fn main() -> ExitCode {
    match census() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("census: {error}");
            ExitCode::FAILURE
        }
    }
}

fn census() -> Result<String, Box<dyn Error>> {
    let xen = Xen::open()?;
    let domains = xen.domains()?;
    let dying = domains.iter().filter(|domain| domain.is_dying()).count();
    let log = xen.debug_key(b'g')?;
    let grants = grants_in_use(&String::from_utf8_lossy(&log)).ok_or("Xen's log has no report about grants")?;
    Ok(format!(
        "{{\"free_pages\":{},\"domains\":{},\"dying\":{dying},\"event_channels\":{},\"grants\":{grants},\"xenstore_nodes\":{}}}",
        xen.free_pages()?,
        domains.len(),
        xen.event_channels(DomId(0))?,
        xenstore_nodes()?,
    ))
}

/// Nodes in xenstore: `xenstore-ls -f` prints a line for each.
fn xenstore_nodes() -> Result<usize, Box<dyn Error>> {
    let listing = Command::new("xenstore-ls").arg("-f").output().map_err(|error| format!("xenstore-ls: {error}"))?;
    if !listing.status.success() {
        return Err(format!("xenstore-ls: {}", String::from_utf8_lossy(&listing.stderr)).into());
    }
    Ok(listing.stdout.iter().filter(|octet| **octet == b'\n').count())
}
