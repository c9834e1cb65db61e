//! Which addresses are added, removed and announced, step by step.

use super::*;

const MAC: Mac = [2, 0, 0, 0, 0, 1];
const ETH0: Link = Link { index: 2, mac: Some(MAC), is_running: true, carrier_ups: 1 };
const ETH1: Link = Link { index: 3, mac: Some([2, 0, 0, 0, 0, 2]), is_running: true, carrier_ups: 1 };

fn vip(address: &str, interface: &str) -> RaisedVip {
    RaisedVip { address: address.parse().expect("an address"), interface: interface.into(), virtual_mac: None }
}

fn web() -> RaisedVip {
    vip("192.0.2.10", "eth0")
}

/// What is done before addresses are removed, and after.
fn halves(changes: LinkChanges) -> (LinkChanges, LinkChanges) {
    let first = LinkChanges { lower: changes.lower.clone(), ..LinkChanges::default() };
    (first, LinkChanges { lower: Vec::new(), ..changes })
}

/// A kernel that does what it is told, and what it was told.
struct Kernel {
    vips: Vips,
    has: Snapshot,
    refuses: bool,
    now: Instant,
    log: Vec<String>,
    record: BTreeSet<RaisedVip>,
}

impl Kernel {
    fn new(links: &[(&str, Link)], recorded: &[RaisedVip]) -> Self {
        let record: BTreeSet<RaisedVip> = recorded.iter().cloned().collect();
        let links = links.iter().map(|(name, link)| (name.to_string(), *link)).collect();
        let has = Snapshot { links, ..Snapshot::default() };
        let mut kernel = Self {
            vips: Vips::new(Own { raised: record.clone(), arp: BTreeMap::new() }),
            has,
            refuses: false,
            now: Instant::now(),
            log: Vec::new(),
            record,
        };
        kernel.look();
        assert_eq!(kernel.log(), "", "nothing is done before it is said what is wanted");
        kernel
    }

    fn with_address(mut self, index: u32, address: &str, prefix: u8) -> Self {
        self.has.addresses.insert((index, address.parse().expect("an address"), prefix));
        self
    }

    fn want(&mut self, vips: &[RaisedVip]) {
        self.event(Event::Wanted(Wanted::plain(vips.iter().cloned())));
    }

    fn look(&mut self) {
        self.event(Event::Observed(self.has.clone()));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.event(Event::Tick);
        self.look();
    }

    /// As the engine does: one event, what it asks for in order, then a look when that is asked for.
    fn event(&mut self, event: Event) {
        let changes = self.vips.apply(event, self.now);
        if let Some(own) = changes.record {
            self.record = own.raised;
        }
        let (first, then) = halves(changes.links);
        self.change_links(&first);
        for Place { vip, index } in changes.remove {
            self.log.push(format!("-{}", vip.address));
            let address = (index, vip.address, host_prefix(vip.address));
            assert!(self.refuses || self.has.addresses.remove(&address), "removes what is not there");
        }
        self.change_links(&then);
        for Place { vip, index } in changes.add {
            self.log.push(format!("+{}", vip.address));
            assert!(self.record.contains(&vip), "recorded before it is added");
            if !self.refuses {
                self.has.addresses.insert((index, vip.address, host_prefix(vip.address)));
            }
        }
        self.log.extend(changes.announce.into_iter().map(|Announce { vip, index, mac, .. }| {
            let link = self.has.links[&vip.interface];
            assert_eq!((index, Some(mac)), (link.index, vip.virtual_mac.or(link.mac)));
            format!("!{}", vip.address)
        }));
        if self.vips.is_blind() {
            self.look();
        }
    }

    /// What was done since the last call.
    fn log(&mut self) -> String {
        std::mem::take(&mut self.log).join(" ")
    }
}

#[test]
fn a_vip_is_raised_announced_five_times_a_second_apart_then_every_minute_and_taken_down() {
    let mut kernel = Kernel::new(&[("eth0", ETH0)], &[]);
    kernel.want(&[web()]);
    assert_eq!(kernel.log(), "+192.0.2.10 !192.0.2.10");
    for _ in 1..5 {
        kernel.pass(Duration::from_millis(999));
        assert_eq!(kernel.log(), "", "not yet a second");
        kernel.pass(Duration::from_millis(1));
        assert_eq!(kernel.log(), "!192.0.2.10");
    }
    for _ in 0..3 {
        kernel.pass(REFRESH - Duration::from_millis(1));
        assert_eq!(kernel.log(), "", "five were sent, and then one a minute");
        kernel.pass(Duration::from_millis(1));
        assert_eq!(kernel.log(), "!192.0.2.10");
    }
    kernel.want(&[web()]);
    assert_eq!(kernel.log(), "", "the same again changes nothing");
    kernel.want(&[]);
    assert_eq!(kernel.log(), "-192.0.2.10");
    assert_eq!(kernel.record, BTreeSet::new());
}

#[test]
fn an_address_that_was_there_is_announced_but_never_taken_down() {
    for prefix in [32, 24] {
        let mut kernel = Kernel::new(&[("eth0", ETH0)], &[]).with_address(2, "192.0.2.10", prefix);
        kernel.look();
        kernel.want(&[web()]);
        assert_eq!(kernel.log(), "!192.0.2.10", "/{prefix}");
        kernel.want(&[]);
        assert_eq!(kernel.log(), "", "/{prefix}");
    }
}

#[test]
fn an_address_that_came_in_between_is_not_ours() {
    let mut kernel = Kernel::new(&[("eth0", ETH0)], &[]);
    kernel.want(&[web()]);
    kernel.event(Event::WasThere(web()));
    assert_eq!(kernel.record, BTreeSet::new());
    kernel.log();
    kernel.want(&[]);
    assert_eq!(kernel.log(), "");
}

#[test]
fn the_next_lbd_knows_what_is_its_own() {
    let old = vip("192.0.2.11", "eth0");
    let gone = vip("192.0.2.12", "eth9");
    let recorded = [web(), old.clone(), gone];
    let kernel = Kernel::new(&[("eth0", ETH0)], &recorded);
    let mut kernel = kernel.with_address(2, "192.0.2.10", 32).with_address(2, "192.0.2.11", 32);
    kernel.look();
    assert_eq!(kernel.log(), "", "not before it is said what is wanted");
    kernel.want(&[web()]);
    assert_eq!(kernel.log(), "-192.0.2.11 !192.0.2.10", "the one that stays is not touched");
    assert_eq!(kernel.record, BTreeSet::from([web()]));
    kernel.want(&[]);
    assert_eq!(kernel.log(), "-192.0.2.10");
}

#[test]
fn an_interface_may_come_later_and_come_back() {
    let mut kernel = Kernel::new(&[], &[]);
    kernel.want(&[web()]);
    assert_eq!((kernel.log().as_str(), kernel.vips.wakeup()), ("", None), "waits without a timer");
    assert_eq!(kernel.vips.without_interface().collect::<Vec<_>>(), [&web()]);
    kernel.has.links.insert("eth0".into(), ETH0);
    kernel.look();
    assert_eq!(kernel.log(), "+192.0.2.10 !192.0.2.10");
    assert_eq!(kernel.vips.without_interface().count(), 0);

    kernel.has = Snapshot::default();
    kernel.now += SPACING;
    kernel.look();
    assert_eq!((kernel.log().as_str(), &kernel.record), ("", &BTreeSet::new()), "it went with its interface");
    kernel.has.links.insert("eth0".into(), Link { index: 7, ..ETH0 });
    kernel.look();
    assert_eq!(kernel.log(), "+192.0.2.10 !192.0.2.10");
}

#[test]
fn an_address_that_others_remove_comes_back_at_most_once_a_second() {
    let mut kernel = Kernel::new(&[("eth0", ETH0)], &[]);
    kernel.want(&[web()]);
    kernel.log();
    kernel.has.addresses.clear();
    kernel.look();
    assert_eq!(kernel.log(), "");
    kernel.pass(SPACING);
    assert_eq!(kernel.log(), "+192.0.2.10 !192.0.2.10");
}

#[test]
fn what_the_kernel_refuses_is_tried_once_a_second() {
    let mut kernel = Kernel::new(&[("eth0", ETH0)], &[]);
    kernel.refuses = true;
    kernel.want(&[web()]);
    kernel.look();
    assert_eq!(kernel.log(), "+192.0.2.10");
    assert_eq!(kernel.vips.is_settled(&web()), Some(false));
    assert_eq!(kernel.vips.wakeup(), Some(kernel.now + SPACING));
    kernel.pass(SPACING);
    assert_eq!(kernel.log(), "+192.0.2.10");
    kernel.refuses = false;
    kernel.pass(SPACING);
    assert_eq!(kernel.log(), "+192.0.2.10 !192.0.2.10");
    assert_eq!(kernel.vips.is_settled(&web()), Some(true));

    kernel.refuses = true;
    kernel.want(&[]);
    assert_eq!(kernel.log(), "-192.0.2.10");
    assert_eq!(kernel.vips.is_settled(&web()), Some(false));
    kernel.pass(SPACING);
    assert_eq!(kernel.log(), "-192.0.2.10");
}

#[test]
fn another_link_state_is_announced_anew() {
    let other_mac = [2, 0, 0, 0, 0, 9];
    let cases = [
        ("carrier lost", Link { is_running: false, ..ETH0 }, ""),
        ("carrier back", Link { carrier_ups: 2, ..ETH0 }, "!192.0.2.10"),
        ("carrier lost and back, unseen", Link { carrier_ups: 3, ..ETH0 }, "!192.0.2.10"),
        ("another hardware address", Link { carrier_ups: 3, mac: Some(other_mac), ..ETH0 }, "!192.0.2.10"),
        ("no Ethernet", Link { mac: None, ..ETH0 }, ""),
    ];
    let mut kernel = Kernel::new(&[("eth0", ETH0)], &[]);
    kernel.want(&[web()]);
    kernel.log();
    for (name, link, expected) in cases {
        kernel.has.links.insert("eth0".into(), link);
        kernel.look();
        assert_eq!(kernel.log(), expected, "{name}");
    }
    kernel.pass(SPACING);
    assert_eq!(kernel.log(), "", "nobody to announce to");
}

#[test]
fn a_vip_leaves_one_interface_before_it_comes_to_another() {
    let mut kernel = Kernel::new(&[("eth0", ETH0), ("eth1", ETH1)], &[]);
    kernel.want(&[vip("2001:db8::10", "eth0")]);
    kernel.log();
    kernel.want(&[vip("2001:db8::10", "eth1")]);
    assert_eq!(kernel.log(), "-2001:db8::10 +2001:db8::10 !2001:db8::10");
}

/// VRRP router 42's, and a VIP that is reached there.
const VIRTUAL: Mac = [0, 0, 0x5e, 0, 1, 42];

fn virtual_vip() -> RaisedVip {
    RaisedVip { virtual_mac: Some(VIRTUAL), ..web() }
}

impl Kernel {
    /// Wants the virtual MAC address, and these VIPs.
    fn want_virtual(&mut self, vips: &[RaisedVip]) {
        let virtual_macs = virtual_vip().virtual_mac().into_iter().collect();
        self.event(Event::Wanted(Wanted { vips: vips.iter().cloned().collect(), virtual_macs }));
    }

    /// Does what is asked for with macvlans, before addresses are added and after they are removed where that matters.
    fn change_links(&mut self, changes: &LinkChanges) {
        for index in &changes.lower {
            self.log.push(format!("v{index}"));
            self.link(*index).is_up = false;
        }
        for index in &changes.delete {
            self.log.push(format!("x{index}"));
            self.has.virtuals.retain(|_, link| link.index != *index);
            self.has.addresses.retain(|(on, ..)| on != index);
        }
        for (index, arp) in &changes.arp {
            self.log.push(format!("arp{index}={}/{}", arp.ignore, arp.announce));
            self.has.arp.insert("eth0".into(), *arp);
        }
        for new in &changes.create {
            self.log.push(format!("make {}", new.name));
            self.has.virtuals.insert((new.below, new.address.mac), VirtualLink { index: 9, is_up: false });
        }
        for index in &changes.raise {
            self.log.push(format!("^{index}"));
            self.link(*index).is_up = true;
        }
    }

    fn link(&mut self, index: u32) -> &mut VirtualLink {
        self.has.virtuals.values_mut().find(|link| link.index == index).expect("asked for what is not there")
    }
}

fn with_virtual(wanted: &[RaisedVip]) -> Kernel {
    let mut kernel = Kernel::new(&[("eth0", ETH0)], &[]);
    kernel.has.arp.insert("eth0".into(), Arp::default());
    kernel.look();
    kernel.want_virtual(wanted);
    kernel
}

#[test]
fn a_virtual_mac_address_is_ready_on_a_backup_and_up_on_the_owner() {
    let mut kernel = with_virtual(&[]);
    assert_eq!(kernel.log(), "arp2=1/2 make lbv4-2-42", "it is made, and stays down");
    kernel.want_virtual(&[virtual_vip()]);
    assert_eq!(kernel.log(), "^9 +192.0.2.10 !192.0.2.10", "announced where others can hear it");
    assert_eq!(kernel.has.addresses, BTreeSet::from([(9, virtual_vip().address, 32)]));
    kernel.want_virtual(&[]);
    assert_eq!(kernel.log(), "v9 -192.0.2.10", "silent first");
    kernel.pass(SPACING);
    assert_eq!(kernel.log(), "");
    kernel.want(&[]);
    assert_eq!(kernel.log(), "x9 arp2=0/0", "and it leaves nothing behind");
    assert_eq!(kernel.has.virtuals, BTreeMap::new());
}

#[test]
fn an_owner_from_the_start_has_it_at_once() {
    let mut kernel = with_virtual(&[virtual_vip()]);
    assert_eq!(kernel.log(), "arp2=1/2 make lbv4-2-42 ^9 +192.0.2.10 !192.0.2.10");
    kernel.link(9).is_up = false;
    kernel.has.addresses.clear();
    kernel.now += SPACING;
    kernel.look();
    assert_eq!(kernel.log(), "^9 +192.0.2.10 !192.0.2.10", "somebody has set it down");
    kernel.has.virtuals.clear();
    kernel.has.addresses.clear();
    kernel.now += SPACING;
    kernel.look();
    assert_eq!(kernel.log(), "make lbv4-2-42 ^9 +192.0.2.10 !192.0.2.10", "somebody has deleted it");
}

#[test]
fn what_a_crash_left_is_silenced_before_anything_else() {
    for (wanted, expected) in [
        (Some(&[][..]), "v9 -192.0.2.10"),
        (Some(&[virtual_vip()][..]), "!192.0.2.10"),
        (None, "-192.0.2.10 x9 arp2=0/0"),
    ] {
        let mut kernel = Kernel::new(&[("eth0", ETH0)], &[]);
        kernel.vips =
            Vips::new(Own { raised: [virtual_vip()].into(), arp: [("eth0".to_owned(), Arp::default())].into() });
        kernel.record = [virtual_vip()].into();
        kernel.has.arp.insert("eth0".into(), Arp { ignore: 1, announce: 2 });
        kernel.has.virtuals.insert((2, VIRTUAL), VirtualLink { index: 9, is_up: true });
        kernel.has.addresses.insert((9, virtual_vip().address, 32));
        kernel.look();
        assert_eq!(kernel.log(), "", "not before it is said what is wanted");
        match wanted {
            Some(vips) => kernel.want_virtual(vips),
            None => kernel.want(&[]),
        }
        assert_eq!(kernel.log(), expected);
    }
}

#[test]
fn macvlans_are_nobody_elses_business() {
    let mut has = Snapshot { links: [("eth0".to_owned(), ETH0)].into(), ..Snapshot::default() };
    has.virtuals.insert((2, VIRTUAL), VirtualLink { index: 9, is_up: false });
    let around = has.surroundings();
    assert_eq!(
        (around.silent, around.virtual_macs),
        (BTreeSet::new(), BTreeSet::new()),
        "one that is down is no fault"
    );
    has.virtuals.insert((2, VIRTUAL), VirtualLink { index: 9, is_up: true });
    assert_eq!(has.surroundings().virtual_macs, BTreeSet::from([VIRTUAL]));
}
