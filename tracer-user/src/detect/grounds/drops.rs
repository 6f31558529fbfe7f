//! Packets that this kernel says it dropped, in numbers and in words.

use std::collections::BTreeMap;

use crate::model::Connection;

/// The drops on these connections, by the kernel's reason.
pub(crate) fn drops<'c>(
    connections: impl Iterator<Item = &'c Connection>,
) -> BTreeMap<String, u64> {
    let mut sum: BTreeMap<String, u64> = BTreeMap::new();
    for (reason, times) in connections.flat_map(|c| &c.drops) {
        *sum.entry(reason.clone()).or_default() += times;
    }
    sum
}

/// A drop reason (`enum skb_drop_reason`, include/net/dropreason-core.h) in words.
pub(crate) fn dropper(reason: &str) -> String {
    let words = match reason {
        "NETFILTER_DROP" => "by a firewall rule",
        "BPF_CGROUP_EGRESS" => "by a BPF program of the cgroup",
        "NEIGH_FAILED" | "NEIGH_CREATEFAIL" | "NEIGH_QUEUEFULL" => {
            "because nobody answered to ARP or neighbour discovery"
        }
        "IP_OUTNOROUTES" => "because there is no route",
        "QDISC_DROP" | "TC_EGRESS" | "TC_INGRESS" => "by traffic control",
        "SOCKET_FILTER" => "by a socket filter",
        _ => "by the kernel",
    };
    format!("{words} ({reason})")
}
