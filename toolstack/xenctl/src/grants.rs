//! Grants in use, read from Xen's log. Xen writes them for the debug key `g`
//! (xen/common/grant_table.c, `gnttab_usage_print_all`), because no hypercall counts them.

/// The prefix of the report's first and last line.
const REPORT: &str = "gnttab_usage_print_all ";

/// The number of mapped grant entries in all domains, from the last report in Xen's log; `None`
/// without a complete report.
///
/// ```text
/// (XEN) gnttab_usage_print_all [ key 'g' pressed
/// (XEN) [0x008]      0 0x01f2cf 0x00000001          0 0x01f2cf 0x19
/// (XEN) gnttab_usage_print_all ] done
/// ```
pub fn in_use(log: &str) -> Option<usize> {
    let end = log.rfind(&format!("{REPORT}]"))?;
    let start = log[..end].rfind(&format!("{REPORT}["))?;
    Some(log[start..end].lines().filter(|line| line.contains("[0x")).count())
}

#[cfg(test)]
mod tests {
    use super::in_use;

    const EMPTY: &str = "(XEN) gnttab_usage_print_all [ key 'g' pressed\n\
        (XEN)       -------- active --------       -------- shared --------\n\
        (XEN) [ref] localdom mfn      pin          localdom gmfn     flags\n\
        (XEN) grant-table for remote d0 (v1)\n\
        (XEN)   1 frames (64 max), 0 maptrack frames (1024 max)\n\
        (XEN) no active grant table entries\n\
        (XEN) gnttab_usage_print_all ] done\n";

    #[test]
    fn entries_of_the_last_report_count() {
        let two = EMPTY.replace(
            "(XEN) no active grant table entries\n",
            "(XEN) [0x000]      0 0x07f2cf 0x00000001          0 0x07f2cf 0x19\n\
             (XEN) [0x001]      0 0x07f2ce 0x00000001          0 0x07f2ce 0x19\n",
        );
        assert_eq!(in_use(EMPTY), Some(0));
        assert_eq!(in_use(&two), Some(2));
        assert_eq!(in_use(&(two.clone() + EMPTY)), Some(0));
        assert_eq!(in_use(&(EMPTY.to_owned() + &two + "(XEN) [0xdead]\n")), Some(2));
    }

    #[test]
    fn half_a_report_is_none() {
        assert_eq!(in_use(""), None);
        assert_eq!(in_use(&EMPTY[..EMPTY.len() - 10].replace(']', "")), None);
    }
}
