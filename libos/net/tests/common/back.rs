//! The backend's half of the rings, and its view of the frontend's memory.

use super::PAGE;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// A page of 32-bit words.
pub struct Words(pub RefCell<Vec<u32>>);

/// The memory that a frontend has granted.
pub struct Memory {
    /// Grant references: tx ring, rx ring, then from +1000 the transmit pages, from +2000 the
    /// receive pages.
    pub base: u32,
    pub tx_ring: Words,
    pub rx_ring: Words,
    pub tx: RefCell<Vec<u8>>,
    pub rx: RefCell<Vec<u8>>,
    /// The frontend has ended the grants.
    pub ended: Cell<bool>,
}

impl Memory {
    pub fn new(base: u32, tx_pages: usize, rx_pages: usize) -> Self {
        Self {
            base,
            tx_ring: Words(RefCell::new(vec![0xaaaa_aaaa; PAGE / 4])),
            rx_ring: Words(RefCell::new(vec![0xaaaa_aaaa; PAGE / 4])),
            tx: RefCell::new(vec![0; tx_pages * PAGE]),
            rx: RefCell::new(vec![0xee; rx_pages * PAGE]),
            ended: Cell::new(false),
        }
    }
}

/// A packet on the backend's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub csum_blank: bool,
    pub validated: bool,
    pub gso: Option<u16>,
}

impl Packet {
    /// A packet from a network card: its checksum flags are clear.
    pub fn plain(bytes: Vec<u8>) -> Self {
        Self { bytes, csum_blank: false, validated: false, gso: None }
    }
}

/// The backend's misbehaviour or slowness.
#[derive(Default)]
pub struct Habits {
    /// Transmit responses are kept back until [`Back::answer`].
    pub hold_answers: bool,
    /// Held answers are given in the reverse order.
    pub reverse: bool,
    /// Refuse packets with this status.
    pub refuse: Option<i16>,
}

pub struct Back {
    pub memory: Rc<Memory>,
    pub gso: bool,
    pub habits: Habits,
    event: Rc<Cell<bool>>,
    tx_cons: u32,
    tx_rsp: u32,
    rx_cons: u32,
    rx_rsp: u32,
    held: VecDeque<Vec<(u16, i16)>>,
    /// Packets that found no receive slots yet.
    pub backlog: VecDeque<Packet>,
    pub events_sent: usize,
    pub packets_in: usize,
}

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 1;
const RSP_PROD: usize = 2;
const RSP_EVENT: usize = 3;

impl Back {
    pub fn new(memory: Rc<Memory>, gso: bool, event: Rc<Cell<bool>>) -> Self {
        assert!(!memory.ended.get(), "mapping a grant that was ended");
        Self {
            memory,
            gso,
            habits: Habits::default(),
            event,
            tx_cons: 0,
            tx_rsp: 0,
            rx_cons: 0,
            rx_rsp: 0,
            held: VecDeque::new(),
            backlog: VecDeque::new(),
            events_sent: 0,
            packets_in: 0,
        }
    }

    fn tx_octets(&self, index: u32) -> [u8; 12] {
        let ring = self.memory.tx_ring.0.borrow();
        let at = 16 + (index % 256) as usize * 3;
        let mut octets = [0; 12];
        for (i, octet) in octets.iter_mut().enumerate() {
            *octet = ring[at + i / 4].to_le_bytes()[i % 4];
        }
        octets
    }

    /// Takes all packets that the frontend has queued (`xenvif_tx_build_gops`).
    pub fn take(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        loop {
            let prod = self.memory.tx_ring.0.borrow()[REQ_PROD];
            if self.tx_cons == prod {
                // RING_FINAL_CHECK_FOR_REQUESTS
                self.memory.tx_ring.0.borrow_mut()[REQ_EVENT] = self.tx_cons + 1;
                break;
            }
            packets.push(self.take_one(prod));
        }
        if !self.habits.hold_answers {
            self.answer(usize::MAX);
        }
        packets
    }

    fn take_one(&mut self, prod: u32) -> Packet {
        let mut answers = Vec::new();
        let next = |this: &mut Self| {
            assert_ne!(this.tx_cons, prod, "packet without its end");
            let octets = this.tx_octets(this.tx_cons);
            this.tx_cons = this.tx_cons.wrapping_add(1);
            octets
        };
        let u16_at = |o: &[u8; 12], at: usize| u16::from_le_bytes([o[at], o[at + 1]]);
        let gref = |o: &[u8; 12]| u32::from_le_bytes([o[0], o[1], o[2], o[3]]);

        let first = next(self);
        let (mut flags, total) = (u16_at(&first, 6), usize::from(u16_at(&first, 10)));
        assert!(total >= 14, "shorter than an Ethernet header");
        let status = self.habits.refuse.unwrap_or(0);
        answers.push((u16_at(&first, 8), status));
        let mut packet = Packet { bytes: Vec::new(), csum_blank: flags & 1 != 0, validated: flags & 2 != 0, gso: None };
        if flags & 8 != 0 {
            let extra = next(self);
            assert_eq!((extra[0], extra[1]), (1, 0), "one extra, of type GSO");
            assert_eq!(extra[4], 1, "TCPV4");
            assert!(self.gso, "GSO was not agreed");
            packet.gso = Some(u16_at(&extra, 2));
            // NETIF_RSP_NULL; netback leaves the id as it lies in the slot.
            answers.push((u16_at(&extra, 0), 1));
        }
        let mut pieces = vec![first];
        while flags & 4 != 0 {
            let piece = next(self);
            flags = u16_at(&piece, 6);
            assert_eq!(flags & !4, 0, "only the first slot has flags");
            answers.push((u16_at(&piece, 8), status));
            pieces.push(piece);
        }
        assert!(pieces.len() <= 18, "XEN_NETIF_NR_SLOTS_MIN");
        assert!(pieces.len() == 1 || self.gso, "scatter-gather was not agreed");
        let later: usize = pieces[1..].iter().map(|p| usize::from(u16_at(p, 10))).sum();
        for (index, piece) in pieces.iter().enumerate() {
            let size = if index == 0 { total - later } else { usize::from(u16_at(piece, 10)) };
            let offset = usize::from(u16_at(piece, 4));
            assert!(offset + size <= PAGE, "piece crosses its page");
            let page = (gref(piece) - self.memory.base - 1000) as usize;
            let tx = self.memory.tx.borrow();
            packet.bytes.extend_from_slice(&tx[page * PAGE + offset..][..size]);
        }
        assert_eq!(packet.bytes.len(), total);
        self.packets_in += 1;
        self.held.push_back(answers);
        packet
    }

    /// Answers up to `count` of the taken packets.
    pub fn answer(&mut self, count: usize) {
        for _ in 0..count {
            let answers = match self.habits.reverse {
                true => self.held.pop_back(),
                false => self.held.pop_front(),
            };
            let Some(answers) = answers else { break };
            for (id, status) in answers {
                self.put_tx(id, status);
            }
        }
    }

    /// Puts one transmit response with any contents, and announces it.
    pub fn put_tx(&mut self, id: u16, status: i16) {
        let word = u32::from(id) | u32::from(status as u16) << 16;
        let old = self.tx_rsp;
        self.tx_rsp = old.wrapping_add(1);
        let mut ring = self.memory.tx_ring.0.borrow_mut();
        ring[16 + (old % 256) as usize * 3] = word;
        ring[RSP_PROD] = self.tx_rsp;
        let event = ring[RSP_EVENT];
        drop(ring);
        self.announce(old, self.tx_rsp, event);
    }

    fn announce(&mut self, old: u32, new: u32, event: u32) {
        if new.wrapping_sub(event) < new.wrapping_sub(old) {
            self.events_sent += 1;
            self.event.set(true);
        }
    }

    /// Receive slots that the frontend has posted and that are free.
    pub fn rx_free(&self) -> u32 {
        self.memory.rx_ring.0.borrow()[REQ_PROD].wrapping_sub(self.rx_cons)
    }

    fn rx_request(&mut self) -> (u16, u32, u32) {
        let index = self.rx_cons;
        let at = 16 + (index % 256) as usize * 2;
        let ring = self.memory.rx_ring.0.borrow();
        let (id, gref) = (ring[at] as u16, ring[at + 1]);
        drop(ring);
        self.rx_cons = index.wrapping_add(1);
        (id, gref, index)
    }

    /// Writes a receive slot without announcing it.
    pub fn put_rx_slot(&mut self, octets: [u8; 8]) {
        let at = 16 + (self.rx_rsp % 256) as usize * 2;
        let mut ring = self.memory.rx_ring.0.borrow_mut();
        ring[at] = u32::from_le_bytes(octets[..4].try_into().unwrap());
        ring[at + 1] = u32::from_le_bytes(octets[4..].try_into().unwrap());
        drop(ring);
        self.rx_rsp = self.rx_rsp.wrapping_add(1);
    }

    pub fn announce_rx(&mut self, old: u32) {
        let mut ring = self.memory.rx_ring.0.borrow_mut();
        ring[RSP_PROD] = self.rx_rsp;
        let event = ring[RSP_EVENT];
        drop(ring);
        self.announce(old, self.rx_rsp, event);
    }

    /// Takes a receive request and answers it with `id` (its own when `None`), without an
    /// announcement.
    pub fn put_rx(&mut self, id: Option<u16>, offset: u16, flags: u16, status: i16) {
        let (own, _, _) = self.rx_request();
        let mut octets = [0; 8];
        octets[..2].copy_from_slice(&id.unwrap_or(own).to_le_bytes());
        octets[2..4].copy_from_slice(&offset.to_le_bytes());
        octets[4..6].copy_from_slice(&flags.to_le_bytes());
        octets[6..].copy_from_slice(&status.to_le_bytes());
        self.put_rx_slot(octets);
    }

    /// Takes a receive request and answers it with an extra info.
    pub fn put_rx_extra(&mut self, octets: [u8; 8]) {
        self.rx_request();
        self.put_rx_slot(octets);
    }

    pub fn rx_rsp(&self) -> u32 {
        self.rx_rsp
    }

    /// Queues a packet for the frontend and delivers as far as slots are posted.
    pub fn give(&mut self, packet: Packet) {
        assert!(packet.gso.is_none() || self.gso);
        self.backlog.push_back(packet);
        self.deliver();
    }

    /// Delivers queued packets (`xenvif_rx_action`).
    pub fn deliver(&mut self) {
        while let Some(packet) = self.backlog.front() {
            let slots = packet.bytes.len().div_ceil(PAGE) as u32 + u32::from(packet.gso.is_some());
            if self.rx_free() < slots {
                // The frontend is asked for an event when there are more.
                self.memory.rx_ring.0.borrow_mut()[REQ_EVENT] = self.rx_cons + slots;
                if self.rx_free() < slots {
                    return;
                }
            }
            let Some(packet) = self.backlog.pop_front() else { return };
            let old = self.rx_rsp;
            let pieces: Vec<&[u8]> = packet.bytes.chunks(PAGE).collect();
            for (index, piece) in pieces.iter().enumerate() {
                let (id, gref, at) = self.rx_request();
                assert_eq!(u32::from(id), at % 256, "the id is the slot's number");
                let page = (gref - self.memory.base - 2000) as usize;
                self.memory.rx.borrow_mut()[page * PAGE..][..piece.len()].copy_from_slice(piece);
                let mut flags = 0u16;
                if index == 0 {
                    flags |= u16::from(packet.validated || packet.csum_blank);
                    flags |= u16::from(packet.csum_blank) << 1;
                    flags |= u16::from(packet.gso.is_some()) << 3;
                }
                flags |= u16::from(index + 1 < pieces.len()) << 2;
                let mut octets = [0; 8];
                octets[..2].copy_from_slice(&id.to_le_bytes());
                octets[4..6].copy_from_slice(&flags.to_le_bytes());
                octets[6..].copy_from_slice(&(piece.len() as u16).to_le_bytes());
                self.put_rx_slot(octets);
                if index == 0
                    && let Some(size) = packet.gso
                {
                    let [low, high] = size.to_le_bytes();
                    self.put_rx_extra([1, 0, low, high, 1, 0, 0, 0]);
                }
            }
            self.announce_rx(old);
        }
    }
}
