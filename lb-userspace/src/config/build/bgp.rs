//! BGP: from what is written to its meaning.

use super::{Building, each};
use crate::config::bgp::{Bgp, Neighbor};

pub(super) fn bgp(building: &Building<'_>) -> Option<Bgp> {
    let raw = building.document.bgp.as_ref()?;
    Some(Bgp {
        asn: raw.asn.as_ref()?.value,
        router_id: raw.router_id.as_ref().map(|id| id.value),
        hold_time: raw.hold_time.value.0,
        communities: raw.communities.iter().map(|community| community.value.0).collect(),
        med: raw.med.as_ref().map(|med| med.value),
        prepend: raw.prepend.value,
        neighbors: each(&raw.neighbor, |raw| {
            Some(Neighbor {
                address: raw.address.as_ref()?.value,
                port: raw.port.value,
                asn: raw.asn.as_ref()?.value,
                password: raw.password_file.as_ref().map(|path| building.file(path)),
                source_address: raw.source_address.as_ref().map(|address| address.value),
                next_hop: raw.next_hop.as_ref().map(|address| address.value),
                next_hop6: raw.next_hop6.as_ref().map(|address| address.value),
                ttl_security: raw.ttl_security.value,
            })
        }),
    })
}
