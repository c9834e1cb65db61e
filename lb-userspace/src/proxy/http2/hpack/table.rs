//! The tables of RFC 7541 §2.3: the static one, and the dynamic one that a connection's direction builds up.

use std::collections::VecDeque;

/// Appendix A, from index 1 on.
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// What an entry counts beside its text, RFC 7541 §4.1.
const OVERHEAD: usize = 32;

/// Fields that both ends remember: the newest first.
#[derive(Debug)]
pub(super) struct Dynamic {
    entries: VecDeque<Entry>,
    size: usize,
    most: usize,
}

/// A field of the dynamic table.
#[derive(Debug)]
pub(super) struct Entry {
    /// See [`hash`].
    pub(super) hash: u64,
    name: usize,
    text: Box<[u8]>,
}

impl Entry {
    pub(super) fn name(&self) -> &[u8] {
        &self.text[..self.name]
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.text[self.name..]
    }
}

impl Dynamic {
    /// An empty one of at most `most` bytes as RFC 7541 §4.1 counts them.
    pub(super) fn new(most: usize) -> Self {
        Self { entries: VecDeque::new(), size: 0, most }
    }

    /// The most bytes it may have.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Changes that, and puts out what is too much.
    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most;
        self.shrink_to(most);
    }

    /// The entry at `index`, from 0 on.
    pub(super) fn entry(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// Where an entry of this hash is that `is_it`.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(&Entry) -> bool) -> Option<usize> {
        self.entries.iter().position(|entry| entry.hash == hash && is_it(entry))
    }

    /// Adds an entry, for which others may have to go; one that is larger than the table empties it (§4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], hash: u64) {
        let size = name.len() + value.len() + OVERHEAD;
        // Made before others are put out: the name may be one of theirs.
        let text = [name, value].concat().into_boxed_slice();
        self.shrink_to(self.most.saturating_sub(size));
        if size <= self.most {
            self.entries.push_front(Entry { hash, name: name.len(), text });
            self.size += size;
        }
    }

    fn shrink_to(&mut self, most: usize) {
        while self.size > most {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.text.len() + OVERHEAD;
        }
    }
}
