//! Our persistence cookie: a node's pseudonym and a MAC, in hexadecimal. It holds no address, is the same for all clients
//! of a node, and cannot be made without the plan's secret, so that nobody can go through pools node by node (H17).

use aws_lc_rs::{constant_time, hmac};

use super::{Known, Node, NodeId};
use crate::control::proxy::Secret;

/// Bytes of a node's pseudonym.
const NODE_BYTES: usize = 8;
/// Bytes of the MAC: HMAC-SHA-256, cut to 128 bits (RFC 2104 §5).
const MAC_BYTES: usize = 16;

/// The cookies of a pool, made once per plan: what a request sends is only looked up.
#[derive(Debug)]
pub(super) struct Cookies {
    /// The cookie's name.
    pub(super) name: String,
    signer: Signer,
    /// Value and node, sorted by value. That a search's time depends on the value gives nothing away: a node's cookie is
    /// the same for all, and given to all.
    values: Vec<(String, NodeId)>,
    /// `Set-Cookie` values, by node index.
    set: Vec<String>,
}

/// Makes and checks values.
struct Signer {
    key: hmac::Key,
    pool: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.pool)
    }
}

impl Cookies {
    pub(super) fn new(secret: &Secret, pool: &str, nodes: &[Node], (name, attributes): (&str, &str)) -> Self {
        let signer = Signer { key: hmac::Key::new(hmac::HMAC_SHA256, &secret.0), pool: pool.to_owned() };
        let mut values: Vec<_> = nodes.iter().map(|node| (signer.value(node.name()), node.id())).collect();
        let separator = if attributes.is_empty() { "" } else { "; " };
        let set = values.iter().map(|(value, _)| format!("{name}={value}{separator}{attributes}")).collect();
        values.sort_unstable();
        Self { name: name.to_owned(), signer, values, set }
    }

    /// Whose cookie it is. One that we did not make is nobody's.
    pub(super) fn find(&self, value: &str) -> Known {
        if let Ok(at) = self.values.binary_search_by(|(known, _)| known.as_str().cmp(value)) {
            return Known::Node(self.values[at].1);
        }
        if self.signer.is_ours(value) { Known::Gone } else { Known::Stranger }
    }

    pub(super) fn set_cookie(&self, node: NodeId) -> Option<&str> {
        self.set.get(node.index()).map(String::as_str)
    }
}

impl Signer {
    fn value(&self, node: &str) -> String {
        let name = self.mac(b"node", node.as_bytes());
        let id = &name[..NODE_BYTES];
        let mac = self.mac(b"cookie", id);
        id.iter().chain(&mac[..MAC_BYTES]).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether this pool made it, for a node that it has or had.
    fn is_ours(&self, value: &str) -> bool {
        let Some(bytes) = unhex(value) else { return false };
        let (id, mac) = bytes.split_at(NODE_BYTES);
        let expected = self.mac(b"cookie", id);
        constant_time::verify_slices_are_equal(&expected[..MAC_BYTES], mac).is_ok()
    }

    /// HMAC of purpose, pool and data. Lengths are put before texts, so that no two inputs read the same.
    fn mac(&self, purpose: &[u8], data: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [b"lb persistence", purpose, self.pool.as_bytes(), data] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }
}

/// The bytes of a value of the right length, in the case that we write.
fn unhex(value: &str) -> Option<[u8; NODE_BYTES + MAC_BYTES]> {
    let mut bytes = [0; NODE_BYTES + MAC_BYTES];
    if value.len() != 2 * bytes.len() {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in bytes.iter_mut().zip(value.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
