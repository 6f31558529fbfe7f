//! What we are allowed to do.

use caps::{CapSet, Capability};

use super::HostError;

/// What each capability is needed for.
pub const NEEDED: [(Capability, &str); 5] = [
    (Capability::CAP_BPF, "load programs and maps"),
    (
        Capability::CAP_PERFMON,
        "attach to tracepoints and functions, read kernel memory",
    ),
    (Capability::CAP_NET_ADMIN, "see packets (cgroup_skb)"),
    (
        Capability::CAP_SYS_PTRACE,
        "read the memory and files of other users' processes",
    ),
    (
        Capability::CAP_SYS_ADMIN,
        "enter other network namespaces, attach to the root cgroup",
    ),
];

/// Which of [`NEEDED`] we have; `None` where we cannot tell.
#[must_use]
pub fn held(capability: Capability) -> Option<bool> {
    caps::has_cap(None, CapSet::Effective, capability).ok()
}

/// Says what is missing to load anything at all.
///
/// # Errors
/// Without `CAP_BPF` and `CAP_PERFMON` (or `CAP_SYS_ADMIN`, which holds both).
pub fn check() -> Result<(), HostError> {
    if held(Capability::CAP_SYS_ADMIN) == Some(true) {
        return Ok(());
    }
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(capability, _)| {
            !matches!(capability, Capability::CAP_SYS_ADMIN) && held(*capability) == Some(false)
        })
        .map(|(capability, _)| capability.to_string())
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(HostError::Privileges { missing })
    }
}
