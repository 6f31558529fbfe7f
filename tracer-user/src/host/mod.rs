//! What this kernel offers, and how each thing we want to know will be learnt on it.
//!
//! In: the kernel's BTF, its mounts, our capabilities. Out: the offsets the programs need, and a plan
//! that names for each want the ways to try, best first. Nothing here loads a program. And what the host
//! does while we look.

pub mod btf;
pub mod load;
pub mod offsets;
pub mod plan;
pub mod privileges;
pub mod sparse;

use std::path::PathBuf;

/// Why this host cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No BTF.
    #[error(
        "cannot read the kernel's types from {}: {why}\n  gopulse needs them to find its way in the kernel's structures\n  a kernel built with CONFIG_DEBUG_INFO_BTF=y has them (every distribution's since 2021; ls /sys/kernel/btf)",
        path.display()
    )]
    Btf {
        /// Where they were looked for.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// A struct is not as expected.
    #[error(
        "this kernel's BTF has no {structure}.{member}\n  gopulse needs it to tell sockets apart\n  please report it with the output of: uname -r"
    )]
    Offset {
        /// The struct.
        structure: &'static str,
        /// The member's path.
        member: &'static str,
    },
    /// Capabilities are missing.
    #[error(
        "missing {}\n  loading kernel probes and reading other processes needs them\n  run it as root: sudo gopulse …",
        missing.join(", ")
    )]
    Privileges {
        /// By name.
        missing: Vec<String>,
    },
}
