//! What we must be allowed to do to begin; what is kept of it is in [`crate::capabilities`].

use caps::Capability;

use super::HostError;
use crate::capabilities::have;

/// What each capability is needed for. Root has them all; a program that has them as file capabilities runs
/// for anybody.
pub const NEEDED: [(Capability, &str); 8] = [
    (Capability::CAP_BPF, "load programs and maps"),
    (
        Capability::CAP_PERFMON,
        "attach to tracepoints and functions, read kernel memory",
    ),
    (Capability::CAP_NET_ADMIN, "see packets (cgroup_skb)"),
    (
        Capability::CAP_SYS_PTRACE,
        "read the memory of other users' processes",
    ),
    (
        Capability::CAP_DAC_READ_SEARCH,
        "find whose a socket is, read other users' programs",
    ),
    (
        Capability::CAP_SYS_ADMIN,
        "see Go's decisions (uprobes), look into other network namespaces",
    ),
    (
        Capability::CAP_CHECKPOINT_RESTORE,
        "name the functions of native libraries",
    ),
    (Capability::CAP_SYSLOG, "name the kernel's functions"),
];

/// Those without which nothing can be traced.
const INDISPENSABLE: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_PTRACE,
];

/// The command that lets everybody who may run the program trace with it.
#[must_use]
pub fn setcap() -> String {
    let names: Vec<String> = NEEDED
        .iter()
        .map(|(capability, _)| capability.to_string().to_lowercase())
        .collect();
    format!("setcap {}=ep gopulse", names.join(","))
}

/// Says what is missing to trace anything at all.
///
/// # Errors
/// Names the capabilities.
pub fn check() -> Result<(), HostError> {
    let missing: Vec<String> = INDISPENSABLE
        .iter()
        .filter(|capability| have(**capability) == Some(false))
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(HostError::Privileges { missing })
    }
}
