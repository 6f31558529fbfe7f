//! Network namespaces: hosts of their own, where packets can be lost without harm to anyone.

use std::{
    path::Path,
    process::{self, Command},
};

use crate::process::succeed;

/// A namespace. Dropping it deletes it with its devices and rules.
pub struct Netns {
    name: String,
}

impl Netns {
    /// A namespace with its loopback up.
    ///
    /// # Errors
    ///
    /// `ip netns` fails: no root, or an old namespace of this name.
    pub fn new(label: &str) -> anyhow::Result<Self> {
        let netns = Self {
            name: format!("gopulse-{}-{label}", process::id()),
        };
        ip(&["netns", "add", &netns.name])?;
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// A command that runs in the namespace. It becomes the program itself: the process id is the same.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]);
        command.arg(program.as_ref());
        command
    }

    /// `ip` within the namespace.
    ///
    /// # Errors
    ///
    /// It fails.
    pub fn ip(&self, arguments: &[&str]) -> anyhow::Result<()> {
        succeed(Command::new("ip").args(["-n", &self.name]).args(arguments))?;
        Ok(())
    }

    /// Drops TCP packets to a port, in the chain of this hook (`input` or `output`).
    ///
    /// # Errors
    ///
    /// `nft` fails.
    pub fn drop_tcp_to(&self, port: u16, hook: &str) -> anyhow::Result<()> {
        let rules = format!(
            "add table inet gopulse; \
             add chain inet gopulse {hook} {{ type filter hook {hook} priority 0; }}; \
             add rule inet gopulse {hook} tcp dport {port} drop"
        );
        succeed(self.command("nft").arg(rules))?;
        Ok(())
    }

    /// Loses every TCP packet that comes from a port, until [`Netns::let_pass`].
    ///
    /// # Errors
    ///
    /// `nft` fails.
    pub fn lose_tcp_from(&self, port: u16) -> anyhow::Result<()> {
        let rules = format!(
            "add table inet losing; \
             add chain inet losing input {{ type filter hook input priority 0; }}; \
             add rule inet losing input tcp sport {port} drop"
        );
        succeed(self.command("nft").arg(rules))?;
        Ok(())
    }

    /// Ends [`Netns::lose_tcp_from`].
    ///
    /// # Errors
    ///
    /// `nft` fails.
    pub fn let_pass(&self) -> anyhow::Result<()> {
        succeed(self.command("nft").arg("delete table inet losing"))?;
        Ok(())
    }
}

impl Netns {
    /// Drops some of the TCP packets that come in, at random.
    ///
    /// # Errors
    ///
    /// `nft` fails.
    pub fn lose_tcp(&self, percent: u64) -> anyhow::Result<()> {
        let rules = format!(
            "add table inet gopulse; \
             add chain inet gopulse losing {{ type filter hook input priority 0; }}; \
             add rule inet gopulse losing meta l4proto tcp numgen random mod 100 < {percent} drop"
        );
        succeed(self.command("nft").arg(rules))?;
        Ok(())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            eprintln!("{error:#}");
        }
    }
}

/// Two namespaces joined by a cable.
pub struct Pair {
    /// Has the address [`Pair::NEAR`].
    pub near: Netns,
    /// Has the address [`Pair::FAR`].
    pub far: Netns,
}

impl Pair {
    /// The near end's address.
    pub const NEAR: &'static str = "10.77.0.1";
    /// The far end's address.
    pub const FAR: &'static str = "10.77.0.2";
    /// An address on the same network that nobody has.
    pub const NOBODY: &'static str = "10.77.0.3";

    /// Makes both ends and the cable.
    ///
    /// # Errors
    ///
    /// `ip` fails.
    pub fn new() -> anyhow::Result<Self> {
        let near = Netns::new("near")?;
        let far = Netns::new("far")?;
        near.ip(&[
            "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", &far.name,
        ])?;
        for (end, address) in [(&near, Self::NEAR), (&far, Self::FAR)] {
            end.ip(&["addr", "add", &format!("{address}/24"), "dev", "cable"])?;
            end.ip(&["link", "set", "cable", "up"])?;
        }
        Ok(Self { near, far })
    }

    /// Lets the near end believe it knows where [`Pair::NOBODY`] is, so that packets to it go out and
    /// are never answered, not even by "no such host".
    ///
    /// # Errors
    ///
    /// `ip` fails.
    pub fn pretend_nobody_is_there(&self) -> anyhow::Result<()> {
        self.near.ip(&[
            "neigh",
            "add",
            Self::NOBODY,
            "lladdr",
            "02:00:00:00:00:99",
            "dev",
            "cable",
            "nud",
            "permanent",
        ])
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    succeed(Command::new("ip").args(arguments))?;
    Ok(())
}
