//! What rules know of pools.

/// A pool's place in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolId(u16);

impl PoolId {
    /// By its place.
    pub fn at(place: u16) -> Self {
        Self(place)
    }
}
