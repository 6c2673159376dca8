//! The releases of Xen that are known. The toolstack's interfaces, sysctl and domctl, have version
//! numbers, and Xen refuses every other one than its own; a pair of them tells the release.

use std::fmt;

use xen_abi::{DomId, Errno};

use crate::control::Request;
use crate::domain::{CreateDomain, DomainInfo};
use crate::domctl::{self, command};
use crate::error::Error;
use crate::privcmd::CallError;
use crate::sysctl;

/// A release, or several between which neither interface has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its number, as Xen names it.
    pub name: &'static str,
    /// `XEN_SYSCTL_INTERFACE_VERSION`.
    pub sysctl: u32,
    /// `XEN_DOMCTL_INTERFACE_VERSION`.
    pub domctl: u32,
}

/// The known ones. `docs/real-host.md` says what differs between them.
pub const RELEASES: [Release; 5] = [
    Release { name: "4.17", sysctl: 0x15, domctl: 0x15 },
    Release { name: "4.18", sysctl: 0x15, domctl: 0x16 },
    Release { name: "4.19 or 4.20", sysctl: 0x15, domctl: 0x17 },
    Release { name: "4.21", sysctl: 0x16, domctl: 0x17 },
    Release { name: "4.22", sysctl: 0x16, domctl: 0x18 },
];
/// The same for people.
pub const SUPPORTED: &str = "4.17 to 4.22";

/// A number of a release, such as 4.17.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct XenVersion {
    /// The first part.
    pub major: u16,
    /// The second part.
    pub minor: u16,
}

impl fmt::Display for XenVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

/// The way to Xen for sysctls and domctls.
pub(crate) trait Caller {
    /// Makes a request of interface `version`, which then has Xen's answer.
    fn control(&self, version: u32, request: &mut Request) -> Result<(), CallError>;

    /// `XENVER_version`; none if Xen does not tell.
    fn xen_version(&self) -> Option<XenVersion>;
}

/// The sysctls and domctls of a Xen whose release is known, and what differs between releases.
#[derive(Debug)]
pub(crate) struct Control<C> {
    pub caller: C,
    pub release: &'static Release,
}

impl<C: Caller> Control<C> {
    /// Finds the release.
    ///
    /// # Errors
    /// It is unknown, or Xen refused the question for another reason.
    pub fn find(caller: C) -> Result<Self, Error> {
        let unknown = |caller: &C, interface| Error::UnknownInterface { interface, xen: caller.xen_version() };
        let sysctl = answered(&caller, "physinfo", &sysctl::physinfo(), RELEASES.iter().map(|it| it.sysctl))?;
        let sysctl = sysctl.ok_or_else(|| unknown(&caller, "sysctl"))?;
        let candidates = || RELEASES.iter().filter(|it| it.sysctl == sysctl);
        let question = domctl::plain(command::GETDOMAININFO, DomId::DOM0);
        let domctl = answered(&caller, "getdomaininfo", &question, candidates().map(|it| it.domctl))?;
        let release = candidates().find(|it| Some(it.domctl) == domctl);
        let release = release.ok_or_else(|| unknown(&caller, "domctl"))?;
        Ok(Self { caller, release })
    }

    /// The answered `request`; `name` is for the error.
    pub fn sysctl(&self, name: &'static str, mut request: Request) -> Result<Request, Error> {
        self.caller.control(self.release.sysctl, &mut request).map_err(|error| error.of(name))?;
        Ok(request)
    }

    /// The answered `request`; `name` is for the error.
    pub fn domctl(&self, name: &'static str, mut request: Request) -> Result<Request, Error> {
        self.caller.control(self.release.domctl, &mut request).map_err(|error| error.of(name))?;
        Ok(request)
    }

    /// Makes a command whose only argument and answer is the domain.
    pub fn command(&self, name: &'static str, command: u32, domain: DomId) -> Result<(), Error> {
        self.domctl(name, domctl::plain(command, domain)).map(drop)
    }

    /// `XEN_DOMCTL_createdomain`, with a number that Xen chooses.
    pub fn create_domain(&self, config: &CreateDomain) -> Result<DomId, Error> {
        match self.domctl("createdomain", domctl::create(self.release.domctl, config)) {
            Ok(answer) => Ok(domctl::domain(&answer)),
            // No number was asked for, so none is left: ENOMEM before 4.21.
            Err(Error::Refused(name, Errno::EEXIST)) => Err(Error::Refused(name, Errno::ENOMEM)),
            Err(error) => Err(error),
        }
    }

    /// `XEN_DOMCTL_getdomaininfo`; `None` if there is no such domain.
    pub fn domain_info(&self, domain: DomId) -> Result<Option<DomainInfo>, Error> {
        match self.domctl("getdomaininfo", domctl::plain(command::GETDOMAININFO, domain)) {
            // 4.17 answers with the next domain if there is none of this number.
            Ok(answer) => Ok(Some(domctl::info(&answer)).filter(|info| info.id == domain)),
            Err(Error::Refused(_, Errno::ESRCH)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The first of `versions` in which Xen answers `question`, which the error calls `name`.
fn answered(
    caller: &impl Caller,
    name: &'static str,
    question: &Request,
    versions: impl Iterator<Item = u32>,
) -> Result<Option<u32>, Error> {
    let mut refused = None;
    for version in versions.filter(|version| refused.replace(*version) != Some(*version)) {
        match caller.control(version, &mut question.clone()) {
            Ok(()) => return Ok(Some(version)),
            // Xen's error for another version than its own (xen/common/sysctl.c,
            // xen/common/domctl.c).
            Err(CallError::Refused(Errno::EACCES)) => {}
            Err(error) => return Err(error.of(name)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;
    use crate::control::{u16_at, u32_at};

    /// `XEN_DOMCTL_*` and `XEN_SYSCTL_*` that it knows.
    const CREATEDOMAIN: u32 = 1;
    const GETDOMAININFO: u32 = 5;
    const PHYSINFO: u32 = 3;
    /// Offset of the union in a domctl.
    const U: usize = 16;
    const CPUPOOL: u32 = 9;

    /// Plays the domctls of one release, from the octets that reach it: xen/common/domctl.c and
    /// xen/common/domid.c of the release's branch.
    struct Played {
        minor: u16,
        /// Interface versions.
        sysctl: u32,
        domctl: u32,
        /// Numbers in use, and the highest one.
        domains: RefCell<BTreeSet<u16>>,
        highest: u16,
        /// Versions that it was asked in.
        asked: RefCell<Vec<u32>>,
    }

    impl Played {
        fn new(minor: u16) -> Self {
            let (sysctl, domctl) = match minor {
                17 => (0x15, 0x15),
                18 => (0x15, 0x16),
                19 | 20 => (0x15, 0x17),
                21 => (0x16, 0x17),
                _ => (0x16, 0x18),
            };
            let domains = RefCell::new(BTreeSet::from([0]));
            Self { minor, sysctl, domctl, domains, highest: 0x7fef, asked: RefCell::default() }
        }

        fn choose(&self) -> Result<u16, Errno> {
            let none_left = if self.minor < 21 { Errno::ENOMEM } else { Errno::EEXIST };
            (1..=self.highest).find(|number| !self.domains.borrow().contains(number)).ok_or(none_left)
        }

        fn create(&self, request: &mut Request) -> Result<(), Errno> {
            let wanted = u16_at(request.octets(), 8);
            let first_reserved = DomId::FIRST_RESERVED.0;
            let id = match (self.minor, wanted) {
                // 0 is dom0's own number since 4.22.
                (22.., 0x7ff5) => self.choose()?,
                (22.., wanted) if wanted >= first_reserved => return Err(Errno::EEXIST),
                (..22, wanted) if wanted == 0 || wanted >= first_reserved => self.choose()?,
                (_, wanted) if self.domains.borrow().contains(&wanted) => return Err(Errno::EEXIST),
                (_, wanted) => wanted,
            };
            // The field behind `grant_opts` and `vmtrace_size`; from interface 0x17 on there is
            // `altp2m` before it, which must be 0 for a PV domain.
            let pool = U + if self.domctl < 0x17 { 52 } else { 56 };
            assert_eq!(u32_at(request.octets(), pool), CPUPOOL);
            assert_eq!(u32_at(request.octets(), U + 48), 0, "altp2m or vmtrace_size");
            self.domains.borrow_mut().insert(id);
            request.put(8, &id.to_le_bytes());
            Ok(())
        }

        fn info(&self, request: &mut Request) -> Result<(), Errno> {
            let wanted = u16_at(request.octets(), 8);
            let found = match self.minor {
                17 => self.domains.borrow().range(wanted..).next().copied(),
                _ => self.domains.borrow().get(&wanted).copied(),
            };
            let found = found.ok_or(Errno::ESRCH)?;
            request.put(8, &found.to_le_bytes());
            request.put(U, &found.to_le_bytes());
            Ok(())
        }
    }

    impl Caller for Played {
        fn control(&self, version: u32, request: &mut Request) -> Result<(), CallError> {
            self.asked.borrow_mut().push(version);
            let is_domctl = request.octets().len() == domctl::SIZE;
            if version != if is_domctl { self.domctl } else { self.sysctl } {
                return Err(Errno::EACCES.into());
            }
            match (is_domctl, u32_at(request.octets(), 0)) {
                (true, CREATEDOMAIN) => self.create(request)?,
                (true, GETDOMAININFO) => self.info(request)?,
                (false, PHYSINFO) => {}
                _ => return Err(Errno::ENOSYS.into()),
            }
            Ok(())
        }

        fn xen_version(&self) -> Option<XenVersion> {
            Some(XenVersion { major: 4, minor: self.minor })
        }
    }

    const CONFIG: CreateDomain = CreateDomain {
        flags: 0,
        max_vcpus: 1,
        max_evtchn_port: 1023,
        max_grant_frames: -1,
        max_maptrack_frames: -1,
        handle: [7; 16],
        cpupool: CPUPOOL,
    };

    /// The known releases, one for each number.
    fn all() -> impl Iterator<Item = u16> {
        17..=22
    }

    #[test]
    fn each_release_is_told_by_its_interfaces() {
        for minor in all() {
            let control = Control::find(Played::new(minor)).unwrap();
            assert!(control.release.name.contains(&minor.to_string()), "4.{minor}: {}", control.release.name);
            let asked = control.caller.asked.borrow();
            let distinct: BTreeSet<_> = asked.iter().enumerate().map(|(at, version)| (at > 1, *version)).collect();
            assert!(asked.len() <= distinct.len() + 1, "no version twice: {asked:x?}");
        }
        let pairs: BTreeSet<_> = RELEASES.iter().map(|release| (release.sysctl, release.domctl)).collect();
        assert_eq!(pairs.len(), RELEASES.len());
    }

    #[test]
    fn another_release_is_one_line_with_those_that_are_supported() {
        let newer = Played { minor: 23, sysctl: 0x17, ..Played::new(22) };
        let mixed = Played { minor: 23, domctl: 0x19, ..Played::new(22) };
        let older = Played { minor: 16, sysctl: 0x14, domctl: 0x14, ..Played::new(17) };
        // No release has this pair.
        let odd = Played { sysctl: 0x16, domctl: 0x15, ..Played::new(21) };
        for (xen, line) in [
            (newer, "this is Xen 4.23, whose sysctl interface is unknown: Xen 4.17 to 4.22 is supported"),
            (mixed, "this is Xen 4.23, whose domctl interface is unknown: Xen 4.17 to 4.22 is supported"),
            (older, "this is Xen 4.16, whose sysctl interface is unknown: Xen 4.17 to 4.22 is supported"),
            (odd, "this is Xen 4.21, whose domctl interface is unknown: Xen 4.17 to 4.22 is supported"),
        ] {
            assert_eq!(Control::find(xen).err().unwrap().to_string(), line);
        }
    }

    #[test]
    fn every_release_chooses_a_number_for_a_new_domain() {
        for minor in all() {
            let control = Control::find(Played::new(minor)).unwrap();
            assert_eq!(control.create_domain(&CONFIG).unwrap(), DomId(1), "4.{minor}");
            assert_eq!(control.create_domain(&CONFIG).unwrap(), DomId(2), "4.{minor}");
        }
    }

    #[test]
    fn no_number_left_is_no_memory_in_every_release() {
        for minor in all() {
            let control = Control::find(Played { highest: 1, ..Played::new(minor) }).unwrap();
            control.create_domain(&CONFIG).unwrap();
            let error = control.create_domain(&CONFIG).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::ENOMEM), "4.{minor}");
        }
    }

    #[test]
    fn a_domain_that_is_missing_is_none_in_every_release() {
        for minor in all() {
            let control = Control::find(Played::new(minor)).unwrap();
            control.caller.domains.borrow_mut().insert(5);
            assert_eq!(control.domain_info(DomId(5)).unwrap().map(|info| info.id), Some(DomId(5)), "4.{minor}");
            assert_eq!(control.domain_info(DomId(4)).unwrap(), None, "4.{minor}");
            assert_eq!(control.domain_info(DomId(6)).unwrap(), None, "4.{minor}");
        }
    }
}
