//! Packages of the distribution, by apt where there is one.

use std::{path::Path, process::Command};

use anyhow::{Context as _, bail};

use gopulse_tests::turn::is_root;

use crate::run::{find, run_quietly};

/// A program, its package, and what is skipped without it.
pub(super) type Tool = (&'static str, &'static str, &'static str);

/// What tests and benchmarks use.
pub(super) const TESTING: [Tool; 20] = [
    ("tshark", "tshark", "reading captures as Wireshark does"),
    ("tcpdump", "tcpdump", "comparing captures, bench"),
    ("wrk", "wrk", "load, bench"),
    ("tcptrace", "tcptrace", "bench pcap"),
    ("ip", "iproute2", "scenarios with network namespaces"),
    ("nft", "nftables", "scenarios with dropped packets"),
    ("iptables", "iptables", "scenarios with dropped packets"),
    ("curl", "curl", "asking the services by hand"),
    ("setpriv", "util-linux", "runs without privileges"),
    ("setcap", "libcap2-bin", "runs with few privileges"),
    ("node", "nodejs", "traces in Perfetto"),
    ("python3", "python3", "Go for the test services"),
    ("nginx", "nginx", "scenarios with proxies"),
    ("haproxy", "haproxy", "scenarios with proxies"),
    ("caddy", "caddy", "scenarios with proxies"),
    ("prometheus", "prometheus", "healthy services of others"),
    ("etcd", "etcd-server", "healthy services of others"),
    ("etcdctl", "etcd-client", "healthy services of others"),
    ("podman", "podman", "scenarios in real containers"),
    ("runc", "runc", "scenarios in real containers"),
];

/// What packages and images are tried with.
pub(super) const PACKAGING: [Tool; 3] = [
    ("dpkg-deb", "dpkg", "the Debian package"),
    ("lintian", "lintian", "checking the Debian package"),
    ("skopeo", "skopeo", "reading the container image back"),
];

/// A program that other kernels are booted with, and its package.
const GUESTS: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("tc", "iproute2"),
    ("xz", "xz-utils"),
];

/// `apt-get install` of its arguments, while a policy (invoke-rc.d(8)) forbids packages to start what they
/// bring: tests start their own.
const INSTALL: &str = "set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\\nexit 101\\n' > $policy
    chmod 755 $policy
fi
apt-get install -y -qq --no-install-recommends \"$@\"";

/// Installs the programs that are missing; `false` where some still are.
pub(super) fn install_tools(tools: &[Tool]) -> bool {
    let missing: Vec<_> = tools
        .iter()
        .filter(|(program, ..)| find(program).is_none())
        .collect();
    if missing.is_empty() {
        return true;
    }
    let packages: Vec<_> = missing.iter().map(|(_, package, _)| *package).collect();
    if let Err(why) = install(&packages) {
        println!("setup: {why:#}");
    }
    let still: Vec<_> = missing
        .iter()
        .filter(|(program, ..)| find(program).is_none())
        .collect();
    for (program, _, without) in &still {
        println!("setup: without {program} these are skipped: {without}");
    }
    still.is_empty()
}

/// Installs what boots other kernels.
pub(super) fn install_for_guests() -> anyhow::Result<()> {
    let missing: Vec<_> = GUESTS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

/// Installs packages by name.
pub(super) fn install(packages: &[&str]) -> anyhow::Result<()> {
    can_install().with_context(|| format!("cannot install {}", packages.join(" ")))?;
    println!("setup: installing {} (apt)", packages.join(" "));
    // A mirror that cannot be reached need not matter: the lists may be fresh enough.
    if let Err(why) = update() {
        println!("setup: {why:#}");
    }
    run_quietly(as_root("sh").args(["-c", INSTALL, "sh"]).args(packages))
}

/// The distribution has a package of this name, as far as the lists on disk know.
pub(super) fn offers(package: &str) -> bool {
    let known = Command::new("apt-cache").args(["show", package]).output();
    known.is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
}

/// Brings the lists up to date, so that [`offers`] can tell.
pub(super) fn update() -> anyhow::Result<()> {
    can_install()?;
    run_quietly(as_root("apt-get").args(["update", "-qq"]))
}

fn can_install() -> anyhow::Result<()> {
    if find("apt-get").is_none() {
        bail!("this system has no apt-get");
    }
    if !is_root() && sudo().is_none() {
        bail!("this needs root, and sudo asks for a password (sudo cargo xtask setup)");
    }
    Ok(())
}

/// A program as root, where nobody answers questions.
fn as_root(program: &str) -> Command {
    let mut command = match sudo() {
        Some(sudo) if !is_root() => {
            let mut command = Command::new(sudo);
            command.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", program]);
            command
        }
        _ => Command::new(program),
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// A sudo that asks for no password.
fn sudo() -> Option<impl AsRef<std::ffi::OsStr> + AsRef<Path>> {
    let sudo = find("sudo")?;
    let allowed = Command::new(&sudo).args(["-n", "true"]).output().ok()?;
    allowed.status.success().then_some(sudo)
}
