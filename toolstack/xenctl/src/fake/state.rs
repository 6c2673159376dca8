//! The state of the machine, and the rules for it.

use std::collections::BTreeMap;

use xen_abi::grant_table::{GrantEntryV1, GrantFlags};
use xen_abi::sched::ShutdownReason;
use xen_abi::{DomId, Errno, GrantRef, Mfn, PAGE_SIZE, Pfn};

use super::frames::Frames;
use super::ports::Ports;
use super::{Census, Fault, Plan};
use crate::domain::{CpuPolicy, CreateDomain, DomainInfo, SchedParams, Scheduler, TscInfo};
use crate::vcpu::VcpuGuestContext;

/// Xen's default for the frames of a grant table, and its limit.
pub(super) const GRANT_FRAMES: u32 = 64;
const GRANTS_PER_FRAME: usize = PAGE_SIZE / size_of::<GrantEntryV1>();

#[derive(Debug)]
pub(super) struct State {
    pages: u64,
    pub frames: Frames,
    pub domains: BTreeMap<DomId, Domain>,
    pub ports: Ports,
    /// The number that was given to a domain last.
    pub last_domain: u16,
    /// The highest number that a domain may have.
    pub highest_domain: u16,
    /// Mappings of the process.
    pub mappings: BTreeMap<u64, Mapped>,
    /// The last number that was given to a mapping or to a set of ports; no one has 0.
    pub last_number: u64,
    pub operations: Vec<&'static str>,
    pub fault: Option<(usize, Fault)>,
    pub plan: Plan,
    /// Granted pages that dom0 can map at once.
    pub maptrack: usize,
    pub killed: bool,
}

#[derive(Debug)]
pub(super) struct Domain {
    pub config: CreateDomain,
    pub vcpus: u32,
    pub max_pages: u64,
    /// Pages that are reserved for it.
    pub claim: u64,
    pub pauses: u32,
    /// It was unpaused once.
    pub started: bool,
    pub dying: bool,
    pub shutdown: Option<ShutdownReason>,
    pub shared_info: Mfn,
    pub grant_frames: Vec<Mfn>,
    pub contexts: BTreeMap<u32, VcpuGuestContext>,
    pub tsc: TscInfo,
    pub policy: CpuPolicy,
    pub sched: SchedParams,
}

/// A mapping of the process.
#[derive(Debug)]
pub(super) struct Mapped {
    pub frames: Vec<Mfn>,
    pub writable: bool,
    /// The grants of its pages; empty for a foreign mapping.
    pub grants: Vec<(DomId, GrantRef)>,
}

impl State {
    pub fn new(pages: u64) -> Self {
        let mut state = State {
            pages,
            frames: Frames::default(),
            domains: BTreeMap::new(),
            ports: Ports::default(),
            last_domain: 0,
            highest_domain: DomId::FIRST_RESERVED.0 - 1,
            mappings: BTreeMap::new(),
            last_number: 0,
            operations: Vec::new(),
            fault: None,
            plan: Plan::default(),
            maptrack: usize::MAX,
            killed: false,
        };
        let dom0 = CreateDomain {
            flags: 0,
            max_vcpus: 1,
            max_evtchn_port: 4095,
            max_grant_frames: 0,
            max_maptrack_frames: -1,
            handle: [0; 16],
            cpupool: 0,
        };
        state.add_domain(DomId::DOM0, &dom0);
        state
    }

    pub fn census(&self) -> Census {
        Census {
            domains: self.domains.len() - 1,
            dying: self.domains.values().filter(|domain| domain.dying).count(),
            free_pages: self.free_pages(),
            references: self.frames.references(),
            ports: self.ports.count(),
            mappings: self.mappings.len(),
        }
    }

    pub fn free_pages(&self) -> u64 {
        self.pages.saturating_sub(self.frames.used())
    }

    pub fn domain(&mut self, id: DomId) -> Result<&mut Domain, Errno> {
        self.domains.get_mut(&id).ok_or(Errno::ESRCH)
    }

    pub fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub fn create_domain(&mut self, config: &CreateDomain) -> Result<DomId, Errno> {
        if config.max_vcpus == 0 || config.max_grant_frames == 0 || config.max_grant_frames > GRANT_FRAMES as i32 {
            return Err(Errno::EINVAL);
        }
        let id = self.free_number().ok_or(Errno::ENOMEM)?;
        self.last_domain = id.0;
        self.add_domain(id, config);
        self.grow_grant_table(id, 1);
        Ok(id)
    }

    /// The first free number behind the last one; dying domains still have theirs. Behind the
    /// highest comes 1.
    fn free_number(&self) -> Option<DomId> {
        let all = (self.last_domain + 1..=self.highest_domain).chain(1..=self.last_domain);
        all.map(DomId).find(|id| !self.domains.contains_key(id))
    }

    fn add_domain(&mut self, id: DomId, config: &CreateDomain) {
        let shared_info = self.frames.add(id, Pfn(!0), true);
        let domain = Domain {
            config: *config,
            vcpus: 0,
            max_pages: 0,
            claim: 0,
            pauses: 1,
            started: false,
            dying: false,
            shutdown: None,
            shared_info,
            grant_frames: Vec::new(),
            contexts: BTreeMap::new(),
            tsc: TscInfo { mode: TscInfo::DEFAULT, khz: 2_000_000, incarnation: 1, elapsed_ns: 0 },
            policy: CpuPolicy { leaves: vec![7; 24], msrs: vec![7; 16] },
            sched: SchedParams { scheduler: Scheduler::CREDIT2, weight: 256, cap: 0 },
        };
        self.domains.insert(id, domain);
    }

    pub fn info(&self, id: DomId) -> Option<DomainInfo> {
        let domain = self.domains.get(&id)?;
        let mut flags = 0;
        for (bit, set) in [
            (DomainInfo::DYING, domain.dying),
            (DomainInfo::SHUTDOWN, domain.shutdown.is_some()),
            (DomainInfo::PAUSED, domain.pauses > 0),
            (DomainInfo::BLOCKED, domain.pauses == 0 && domain.shutdown.is_none()),
        ] {
            flags |= if set { bit } else { 0 };
        }
        Some(DomainInfo {
            id,
            flags: flags | domain.shutdown.map_or(0, |reason| reason.0 << DomainInfo::SHUTDOWN_SHIFT),
            pages: self.frames.pages(id),
            max_pages: domain.max_pages,
            shared_info_frame: domain.shared_info,
            cpu_time: 0,
            nr_online_vcpus: domain.contexts.len() as u32,
            max_vcpu_id: domain.vcpus.checked_sub(1),
            handle: domain.config.handle,
            cpupool: domain.config.cpupool,
        })
    }

    /// Ends a domain. Referenced frames stay, see [`reap`](Self::reap).
    pub fn destroy(&mut self, id: DomId) -> Result<(), Errno> {
        let domain = self.domain(id)?;
        if id == DomId::DOM0 {
            return Err(Errno::EINVAL);
        }
        if std::mem::replace(&mut domain.dying, true) {
            return Ok(());
        }
        domain.claim = 0;
        let contexts = std::mem::take(&mut domain.contexts);
        self.ports.close_all(id, None);
        for mfn in contexts.values().flat_map(tables) {
            self.frames.leave_table(mfn);
        }
        for mfn in self.frames.of(id).map(|(mfn, _)| mfn).collect::<Vec<_>>() {
            // Most frames are no tables, and some tables go with those before them.
            let _ = self.frames.unpin(mfn, id);
            let _ = self.frames.give_up(mfn, id);
        }
        Ok(())
    }

    /// Removes the dying domains that have nothing left.
    pub fn reap(&mut self) {
        let frames = &self.frames;
        self.domains.retain(|id, domain| !domain.dying || frames.has_any(*id));
    }

    /// Populates as many of the extents as there is memory for.
    pub fn populate(&mut self, id: DomId, order: u32, pfns: &[Pfn]) -> Result<Vec<Mfn>, Errno> {
        let claimed: u64 = self.domains.iter().filter(|(other, _)| **other != id).map(|(_, domain)| domain.claim).sum();
        let mut frames = Vec::new();
        for pfn in pfns {
            let (pages, has, free) = (1 << order, self.frames.pages(id), self.free_pages());
            let domain = self.domain(id).map_err(|_| Errno::ENOMEM)?;
            if domain.dying || has + pages > domain.max_pages || claimed + pages > free {
                return Err(Errno::ENOMEM);
            }
            domain.claim = domain.claim.saturating_sub(pages);
            let added: Vec<_> = (0..pages).map(|page| self.frames.add(id, Pfn(pfn.0 + page), false)).collect();
            frames.push(added[0]);
        }
        Ok(frames)
    }

    pub fn decrease(&mut self, id: DomId, frames: &[Mfn]) -> Result<usize, Errno> {
        Ok(frames.iter().take_while(|mfn| self.frames.give_up(**mfn, id).is_ok()).count())
    }

    pub fn claim(&mut self, id: DomId, pages: u64) -> Result<(), Errno> {
        let claimed: u64 = self.domains.values().map(|domain| domain.claim).sum();
        let (has, free) = (self.frames.pages(id), self.free_pages());
        let domain = self.domain(id).map_err(|_| Errno::EINVAL)?;
        domain.claim = match pages.checked_sub(has) {
            _ if pages == 0 => 0,
            Some(more) if pages <= domain.max_pages && domain.claim == 0 => {
                if more + claimed > free {
                    return Err(Errno::ENOMEM);
                }
                more
            }
            _ => return Err(Errno::EINVAL),
        };
        Ok(())
    }

    pub fn set_context(&mut self, id: DomId, vcpu: u32, context: &VcpuGuestContext) -> Result<(), Errno> {
        let domain = self.domain(id)?;
        // Xen 4.17 takes any dr6 and dr7, all later releases only those of 32 bits.
        let wide = context.debugreg[6..].iter().any(|value| u32::try_from(*value).is_err());
        if vcpu >= domain.vcpus || wide {
            return Err(Errno::EINVAL);
        }
        match domain.contexts.get(&vcpu) {
            Some(old) if old.ctrlreg[3] != context.ctrlreg[3] => return Err(Errno::EOPNOTSUPP),
            Some(_) => {}
            None => {
                let mut used: Vec<Mfn> = Vec::new();
                for mfn in tables(context) {
                    if let Err(errno) = self.frames.use_table(mfn, id, 4) {
                        used.into_iter().for_each(|mfn| self.frames.leave_table(mfn));
                        return Err(errno);
                    }
                    used.push(mfn);
                }
            }
        }
        self.domain(id)?.contexts.insert(vcpu, context.clone());
        Ok(())
    }

    pub fn grow_grant_table(&mut self, id: DomId, frames: u32) {
        let has = self.domains[&id].grant_frames.len();
        let added: Vec<_> = (has..frames as usize).map(|_| self.frames.add(id, Pfn(!0), true)).collect();
        self.domains.get_mut(&id).expect("found before").grant_frames.extend(added);
    }

    /// The frame and the offset of a grant's entry.
    pub fn grant_entry(&self, id: DomId, gref: GrantRef) -> Option<(Mfn, usize)> {
        let index = gref.0 as usize;
        let frame = *self.domains.get(&id)?.grant_frames.get(index / GRANTS_PER_FRAME)?;
        let offset = index % GRANTS_PER_FRAME * size_of::<GrantEntryV1>();
        self.frames.get(frame).map(|_| (frame, offset))
    }

    pub fn read_grant(&self, (frame, offset): (Mfn, usize)) -> GrantEntryV1 {
        let mut octets = [0; size_of::<GrantEntryV1>()];
        self.frames.read(frame, offset, &mut octets);
        let word = u64::from_le_bytes(octets);
        GrantEntryV1 {
            flags: GrantFlags::from_bits_retain(word as u16),
            domid: DomId((word >> 16) as u16),
            frame: (word >> 32) as u32,
        }
    }

    pub fn write_grant(&mut self, (frame, offset): (Mfn, usize), entry: GrantEntryV1) {
        let word = u64::from(entry.flags.bits()) | u64::from(entry.domid.0) << 16 | u64::from(entry.frame) << 32;
        self.frames.write(frame, offset, &word.to_le_bytes());
    }

    /// Maps the listed frames of `owner`: all of them or none.
    pub fn map(&mut self, owner: DomId, mapped: Mapped) -> Result<u64, Errno> {
        let granted: usize = self.mappings.values().map(|mapped| mapped.grants.len()).sum();
        if granted + mapped.grants.len() > self.maptrack {
            return Err(Errno::ENOSPC);
        }
        for (index, mfn) in mapped.frames.iter().enumerate() {
            if let Err(errno) = self.frames.refer(*mfn, owner, mapped.writable) {
                mapped.frames[..index].iter().for_each(|mfn| self.frames.release(*mfn, mapped.writable));
                return Err(errno);
            }
        }
        let number = self.number();
        let grants = mapped.grants.clone();
        self.mappings.insert(number, mapped);
        grants.iter().for_each(|grant| self.mark_grant(*grant));
        Ok(number)
    }

    pub fn unmap(&mut self, number: u64) {
        let Some(mapped) = self.mappings.remove(&number) else { return };
        mapped.frames.iter().for_each(|mfn| self.frames.release(*mfn, mapped.writable));
        mapped.grants.iter().for_each(|grant| self.mark_grant(*grant));
    }

    /// Writes the use of a grant into its entry.
    fn mark_grant(&mut self, grant: (DomId, GrantRef)) {
        let Some(at) = self.grant_entry(grant.0, grant.1) else { return };
        let uses = self.mappings.values().filter(|mapped| mapped.grants.contains(&grant));
        let flags = uses.fold(GrantFlags::empty(), |flags, mapped| {
            let writing = if mapped.writable { GrantFlags::WRITING } else { GrantFlags::empty() };
            flags | GrantFlags::READING | writing
        });
        let mut entry = self.read_grant(at);
        entry.flags = entry.flags.difference(GrantFlags::READING | GrantFlags::WRITING) | flags;
        self.write_grant(at, entry);
    }

    /// Ends the process: Linux takes back its resources.
    pub fn kill(&mut self) {
        self.killed = true;
        for number in self.mappings.keys().copied().collect::<Vec<_>>() {
            self.unmap(number);
        }
        self.ports.close_all(DomId::DOM0, None);
    }
}

/// The top tables that a vcpu names.
fn tables(context: &VcpuGuestContext) -> impl Iterator<Item = Mfn> {
    let user = Some(context.ctrlreg[1]).filter(|cr3| *cr3 != 0);
    std::iter::once(context.ctrlreg[3]).chain(user).map(Mfn::containing)
}
