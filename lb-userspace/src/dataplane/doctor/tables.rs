//! How full the table of tracked connections is. Pure. (The other tables evict their oldest, and may be full.)

use std::collections::BTreeMap;

use super::{fine, problem, unchecked, warning};
use crate::control::view::{Finding, TableUse};

/// The table that never evicts.
const FLOWS: &str = "FLOWS";
/// Per cent of the places at which an operator should think about more room, and at which connections are refused soon.
const WARN: u64 = 70;
const FULL: u64 = 90;

/// `tables`: as the collector found them.
pub(super) fn check(tables: &BTreeMap<String, TableUse>) -> Vec<Finding> {
    let Some(TableUse { used, capacity }) = tables.get(FLOWS).copied().filter(|table| table.capacity > 0) else {
        let advice = "run lbctl doctor again in a few seconds";
        return vec![unchecked("flow_table", FLOWS, "its records have not been counted yet", advice)];
    };
    let percent = used.saturating_mul(100) / capacity;
    let found = format!("{used} of {capacity} places in use ({percent} %)");
    let advice = "raise dataplane.max_flows (in force when the data path is made anew), or shorten the virtual servers' \
                  timeouts";
    vec![match percent {
        FULL.. => problem("flow_table", FLOWS, format!("{found}: new NAT connections are refused"), advice),
        WARN.. => warning("flow_table", FLOWS, found, advice),
        _ => fine("flow_table", FLOWS, found),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::Severity;

    #[test]
    fn thresholds() {
        let rows = [
            (0, Severity::Ok),
            (699, Severity::Ok),
            (700, Severity::Warning),
            (899, Severity::Warning),
            (900, Severity::Problem),
            (1000, Severity::Problem),
        ];
        for (used, expected) in rows {
            let tables = BTreeMap::from([(FLOWS.to_owned(), TableUse { used, capacity: 1000 })]);
            assert_eq!(check(&tables)[0].severity, expected, "{used}");
        }
        assert_eq!(check(&BTreeMap::new())[0].severity, Severity::Warning, "not counted is said");
    }
}
