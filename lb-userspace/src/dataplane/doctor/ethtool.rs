//! What a network driver does with packets before the XDP program sees them: the features that `ethtool -k` shows, asked by
//! the same ioctl. Used by `interfaces`.

use std::{collections::BTreeMap, io, os::fd::AsRawFd};

use socket2::{Domain, Socket, Type};

/// `linux/sockios.h`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// `linux/ethtool.h`.
const GET_STRINGS: u32 = 0x1b;
const GET_STRING_COUNTS: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
/// The set of strings that names the features.
const FEATURE_NAMES: u32 = 4;
const NAME_BYTES: usize = 32;
/// Linux has fewer than 128; a driver that claims more is not believed.
const MAX_FEATURES: u32 = 1024;

/// Features by the kernel's names (`rx-lro`, `rx-gro-hw`, …), and whether each is on.
///
/// # Errors
/// When there is no such interface, or its driver does not say.
pub(super) fn features(interface: &str) -> io::Result<BTreeMap<String, bool>> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let names = names(&socket, interface)?;
    // struct ethtool_gfeatures: command, number of blocks, blocks of 32 features (available, requested, active, fixed).
    let blocks = names.len().div_ceil(32);
    let mut words = vec![0; 2 + 4 * blocks];
    words[0] = GET_FEATURES;
    words[1] = blocks as u32;
    ask(&socket, interface, &mut words)?;
    let active = |index: usize| words[2 + index / 32 * 4 + 2] >> (index % 32) & 1 != 0;
    Ok(names.into_iter().enumerate().map(|(index, name)| (name, active(index))).collect())
}

fn names(socket: &Socket, interface: &str) -> io::Result<Vec<String>> {
    // struct ethtool_sset_info: command, reserved, mask of sets (64 bits), a count for each.
    let mut counts = vec![GET_STRING_COUNTS, 0, 1 << FEATURE_NAMES, 0, 0];
    ask(socket, interface, &mut counts)?;
    let count = counts[4];
    if count > MAX_FEATURES {
        return Err(io::Error::other(format!("{count} features")));
    }
    // struct ethtool_gstrings: command, set, count, strings.
    let mut words = vec![0; 3 + count as usize * NAME_BYTES / 4];
    words[..3].copy_from_slice(&[GET_STRINGS, FEATURE_NAMES, count]);
    ask(socket, interface, &mut words)?;
    let bytes: Vec<u8> = words[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    Ok(bytes.chunks_exact(NAME_BYTES).map(name).collect())
}

/// A string padded with zeros.
fn name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// One ethtool command: `words` begins with it and has room for the answer that its own counts allow.
fn ask(socket: &Socket, interface: &str, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: an ifreq of zeros is a valid one: an empty name and a null pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: `request` and `words` live during the call, and the kernel writes as much of `words` as the counts at its
    // beginning say, for which the callers above have made room.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_features() {
        let features = features("lo").unwrap();
        assert_eq!(features.get("rx-gro"), Some(&true), "{features:?}");
        assert_eq!(features.get("rx-gro-hw"), Some(&false), "{features:?}");
        assert!(features.contains_key("rx-lro"), "{features:?}");
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert_eq!(super::features("lb-not-there").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(super::features("a-name-that-is-far-too-long").is_err());
    }

    #[test]
    fn names_end_at_their_padding() {
        assert_eq!(name(b"rx-lro\0\0"), "rx-lro");
        assert_eq!(name(b"full"), "full");
    }
}
