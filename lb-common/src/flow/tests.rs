//! Tests of flow keys, records and their clocks.

use super::*;

const KEY4: FlowKey = FlowKey([
    u64::from_ne_bytes([0x9c, 0x40, 0, 80, 6, 4, 0, 0]),
    u64::from_ne_bytes([203, 0, 113, 7, 198, 51, 100, 1]),
    0,
    0,
    0,
]);

#[test]
fn a_v4_key_has_the_documented_layout() {
    let key = FlowKey::v4([203, 0, 113, 7], [198, 51, 100, 1], 40000, 80, 6);
    assert_eq!(key, KEY4);
    assert_eq!((key.source_port(), key.destination_port()), (40000, 80));
    assert_eq!(key.source()[..4], [203, 0, 113, 7]);
    assert_eq!(key.destination()[..4], [198, 51, 100, 1]);
}

#[test]
fn reversing_twice_is_the_same_key() {
    let v6 = FlowKey::v6([1; 16], [2; 16], 1, 2, 17);
    for key in [KEY4, v6] {
        assert_ne!(key.reversed(), key);
        assert_eq!(key.reversed().reversed(), key);
        assert_eq!(key.reversed().source(), key.destination());
    }
}

#[test]
fn the_control_word_is_its_memory_image() {
    let control = Control { seen: 0x0102_0304, state: 5, flags: 6, generation: 0x0708 };
    let image = u64::from_ne_bytes([4, 3, 2, 1, 5, 6, 8, 7]);
    assert_eq!(control.to_word(), image);
    assert_eq!(Control::from_word(image), control);
}

#[test]
fn a_client_hop_is_a_mac_address_a_slot_and_a_vlan() {
    let mac = [2, 0, 0, 0, 0, 0xc1];
    let word = u64::from_ne_bytes([2, 0, 0, 0, 0, 0xc1, 0xee, 0xee]);
    for (slot, vlan) in [(0, 0), (15, 4094), (1, 1)] {
        let hop = ClientHop::new(word, slot, vlan);
        assert_eq!((hop.mac(), hop.slot(), hop.vlan()), (mac, slot, vlan));
    }
}

#[test]
fn the_hash_spreads_consecutive_flows_evenly_and_depends_on_the_keys() {
    let keys = HashKeys::from_seed(1);
    let mut load = [0u32; 256];
    for port in 0..65535u16 {
        let key = FlowKey::v4([10, 0, 0, 1], [10, 0, 0, 2], port, 80, 6);
        let (first, second, way) = candidates(hash(key.words(), FAMILY_V4, &keys), 255);
        assert_ne!(first, second);
        assert!(way < 4);
        load[first as usize] += 1;
    }
    // Mean 256, standard deviation 16: six of them is a one in 10⁸ event per bucket.
    assert!(load.iter().all(|n| (160..=352).contains(n)), "{load:?}");
    let other = HashKeys::from_seed(2);
    assert_ne!(hash(KEY4.words(), FAMILY_V4, &keys), hash(KEY4.words(), FAMILY_V4, &other));
}

#[test]
fn a_record_dies_one_tick_after_timeout_and_grace_and_never_from_a_clock_that_lags() {
    assert!(!expired(100, 64, 168));
    assert!(expired(100, 64, 169));
    assert_eq!([grace(15), grace(16), grace(300), grace(7200), grace(u16::MAX)], [0, 1, 18, 63, 63]);
    assert!(!expired(100, 5, 105));
    assert!(expired(100, 5, 106));
    assert!(!expired(100, 5, 99));
}
