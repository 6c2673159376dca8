//! `make run`: the main job, shown end to end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::dom0::{self, Job};
use crate::guests;
use crate::layout;
use crate::machine::Model;

/// Longest that dom0's part may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Boots Xen, lets dom0 start `httpd` and talk to it. Returns status 0 if all of that went well.
pub fn run(model: Model) -> Result<u8> {
    let began = Instant::now();
    let Some(httpd) = guests::built()?.into_iter().find(|guest| guest.name == "httpd") else {
        bail!("the httpd image is missing: run 'make build'");
    };
    println!("run: httpd's image has {} bytes", httpd.image.metadata()?.len());
    println!("run: boot Xen and a Linux dom0 in QEMU ...");
    let out = layout::top().join("target/run");
    let job = Job {
        model,
        script: layout::top().join("tests/dom0/run-httpd.sh"),
        files: vec![layout::boot_tests().join("page_client.py")],
        out: out.clone(),
        limit: LIMIT,
        cold: false,
    };
    let status = dom0::run_announced(&job, |took| {
        println!("run: boot Xen and a Linux dom0 in QEMU: done in {:.1} s", took.as_secs_f64());
    })?;
    let seconds = began.elapsed().as_secs_f64();
    match status {
        0 => println!("run: all is well: httpd ran as a Xen guest and served its pages ({seconds:.1} s in all)"),
        _ => println!("run: FAILED after {seconds:.1} s: see {}", out.display()),
    }
    Ok(status)
}
