//! The architectures, each under the names that others give it.

use std::fmt;

/// An architecture that gopulse can be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Rust's name of it.
    pub(crate) rust: &'static str,
    /// Debian's, for packages (dpkg-architecture(1)).
    pub(crate) debian: &'static str,
    /// Go's, which container images use.
    pub(crate) oci: &'static str,
}

const MACHINES: [Machine; 2] = [
    Machine {
        rust: "x86_64",
        debian: "amd64",
        oci: "amd64",
    },
    Machine {
        rust: "aarch64",
        debian: "arm64",
        oci: "arm64",
    },
];

impl Machine {
    /// By Rust's name.
    pub(crate) fn named(rust: &str) -> Option<Self> {
        MACHINES.into_iter().find(|machine| machine.rust == rust)
    }

    /// Rust's name of the target, with the C library that is linked in.
    pub(crate) fn target(&self) -> String {
        format!("{}-unknown-linux-gnu", self.rust)
    }

    /// Debian's name of the directory in `/usr/lib` (multiarch).
    pub(crate) fn multiarch(&self) -> String {
        format!("{}-linux-gnu", self.rust)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.oci)
    }
}
