//! The subject: the XDP program with virtual servers, nodes and tables as a balancer has them, written to the maps directly.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use aya::programs::{
    ProgramFd,
    xdp::{XdpLink, XdpMode},
};
use lb::dataplane::{
    load::{self, Program, Purpose, TableSizes},
    maps::Maps,
};
use lb_common::{
    conntrack::Timeouts,
    flow::{FAMILY_V4, FAMILY_V6, HashKeys},
    maglev::{self, CHUNK_SLOTS, Member, RING_CHUNKS, RING_SLOTS, RingChunk},
    maps::Meta,
    node::{Interface, Node, node_flag},
    packet::protocol,
    vip::{ServiceKey, VirtualServer, filter, scheduler, vs_flag},
};

use crate::tap::{self, Captured, Reader};

/// The interface that packets come in and leave by: what the program is told, no device is touched.
pub(crate) const IFINDEX: u32 = 4242;

pub(crate) const VIP4: [u8; 4] = [198, 51, 100, 1];
pub(crate) const NAT_VIP4: [u8; 4] = [198, 51, 100, 2];
pub(crate) const OTHER4: [u8; 4] = [198, 51, 100, 200];
pub(crate) const CLIENT4: [u8; 4] = [203, 0, 113, 7];
pub(crate) const NODE4: [u8; 4] = [10, 0, 0, 11];
pub(crate) const NODE_PORT: u16 = 8080;
pub(crate) const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

/// DSR nodes: slots 1 to this; the next slot is the NAT node.
const DSR_NODES: u16 = 8;

/// The loaded program and its maps, pinned in a folder that goes with it.
pub(crate) struct Subject {
    directory: PathBuf,
    program: Program,
    maps: Maps,
    _reader: Option<Reader>,
}

impl Subject {
    /// Loads the program into `directory` (on a BPF file system), with tables of these sizes; or the one that captures.
    pub(crate) fn new(directory: &Path, sizes: TableSizes, ifindex: u32, captured: Option<Captured>) -> Result<Self> {
        let pins = directory.join("maps");
        fs::create_dir_all(&pins).with_context(|| format!("{}: is a BPF file system mounted?", pins.display()))?;
        let meta: Meta = load::new_meta(sizes, load::random_keys()?);
        let purpose = Purpose { ifindex, slot: 0, explain: false };
        let (mut program, reader) = match captured {
            None => (load::load(&pins, &meta, purpose)?, None),
            Some(captured) => {
                let (program, reader) = tap::load(&pins, &meta, purpose, captured)?;
                (program, Some(reader))
            }
        };
        program.xdp()?.pin(directory.join("program"))?;
        let mut subject = Self { directory: directory.to_owned(), program, maps: Maps::open(&pins)?, _reader: reader };
        subject.configure(ifindex)?;
        Ok(subject)
    }

    /// For tail calls.
    pub(crate) fn fd(&mut self) -> Result<ProgramFd> {
        Ok(self.program.xdp()?.fd()?.try_clone()?)
    }

    /// Attaches the program to an interface, natively, until the link is dropped.
    pub(crate) fn attach(&mut self, interface: &str) -> Result<XdpLink> {
        let program = self.program.xdp()?;
        let link = program.attach(interface, XdpMode::Driver)?;
        Ok(program.take_link(link)?)
    }

    fn configure(&mut self, ifindex: u32) -> Result<()> {
        for slot in 1..=DSR_NODES + 1 {
            let nat = slot > DSR_NODES;
            let mut address = [0; 16];
            address[..4].copy_from_slice(&NODE4);
            let node = Node {
                mac: [2, 0, 0, 0, 1, slot as u8],
                flags: node_flag::USABLE | node_flag::RESOLVED,
                source_mac: [2, 0, 0, 0, 0, 0xa],
                mtu: 1500,
                ifindex,
                virtual_server: 1 + u16::from(nat),
                generation: 1,
                address,
                source_address: [0; 16],
                port: if nat { NODE_PORT.to_be() } else { 0 },
                vlan: 0,
                padding: [0; 4],
            };
            self.maps.nodes.write(u32::from(slot), &node);
        }
        let own = Interface::with_mac(ifindex, [2, 0, 0, 0, 0, 0xa]);
        self.maps.interfaces.set(0, own, 0)?;
        for id in 1..=2 {
            self.maps.timeouts.set(id, Timeouts::default(), 0)?;
        }
        let dsr: Vec<u16> = (1..=DSR_NODES).collect();
        self.virtual_server(1, 0, 1, &dsr)?;
        self.virtual_server(2, vs_flag::NAT, 1 + RING_CHUNKS, &[DSR_NODES + 1])?;
        for (config, vip) in [(1, VIP4), (2, NAT_VIP4)] {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&vip);
            self.publish(FAMILY_V4, address, config)?;
            self.filter(filter::DESTINATION, filter::position4(u32::from_ne_bytes(vip)))?;
        }
        self.publish(FAMILY_V6, VIP6, 1)?;
        let words = std::array::from_fn(|i| u32::from_ne_bytes(std::array::from_fn(|j| VIP6[4 * i + j])));
        self.filter(filter::DESTINATION, filter::position6(words))?;
        self.filter(filter::SOURCE, filter::position4(u32::from_ne_bytes(NODE4)))
    }

    fn virtual_server(&mut self, id: u16, flags: u16, ring: u32, nodes: &[u16]) -> Result<()> {
        let members: Vec<Member> =
            nodes.iter().map(|slot| Member { identity: maglev_identity(*slot), slot: *slot, weight: 1 }).collect();
        let mut slots = vec![0; RING_SLOTS as usize];
        maglev::fill(&mut slots, &members, 7, &mut vec![0; members.len()], &mut vec![0; members.len()]);
        for (i, chunk) in slots.chunks(CHUNK_SLOTS).enumerate() {
            let mut element = RingChunk::default();
            element.0[..chunk.len()].copy_from_slice(chunk);
            self.maps.rings.write(ring + i as u32, &element);
        }
        let record = VirtualServer {
            id,
            flags,
            scheduler: scheduler::RING_FLOW,
            ring,
            flood_limit: u32::MAX,
            nat_port_first: 1024,
            nat_port_count: 31744,
            ring_keys: HashKeys::from_seed(7).0,
            ..VirtualServer::default()
        };
        Ok(self.maps.virtual_servers.set(u32::from(id), record, 0)?)
    }

    fn publish(&mut self, family: u8, address: [u8; 16], config: u32) -> Result<()> {
        for (port, kind, value) in [(80, protocol::TCP, config), (80, protocol::UDP, config), (0, 0, 0)] {
            let key = ServiceKey { address, port, protocol: kind, family, padding: [0; 4] };
            self.maps.services.insert(key, value, 0)?;
        }
        Ok(())
    }

    fn filter(&mut self, base: u32, (word, bit): (u32, u32)) -> Result<()> {
        let old = self.maps.filter.get(&(base + word), 0)?;
        Ok(self.maps.filter.set(base + word, old | 1 << bit, 0)?)
    }

    /// Live records in `FLOWS`: what a fill has left.
    pub(crate) fn flows(&self) -> usize {
        (0..self.maps.flows.len()).filter(|i| self.maps.flows.control(*i).state > 1).count()
    }
}

fn maglev_identity(slot: u16) -> u64 {
    lb_common::flow::mix64(u64::from(slot))
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing_free_note(&self.directory, &error);
        }
    }
}

#[expect(clippy::print_stderr, reason = "the bench is a program of its own")]
fn tracing_free_note(directory: &Path, error: &std::io::Error) {
    eprintln!("{} was left behind: {error}", directory.display());
}
