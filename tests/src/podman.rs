//! Containers of a real runtime: podman with runc, without images, with all that it keeps in a directory that
//! is removed with them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::Context as _;

use crate::{process::succeed, services};

/// Programs that it takes.
pub const PROGRAMS: &[&str] = &["podman", "conmon", "runc"];

/// More than these no process may have here, where podman's own limits are higher than the host's.
const LIMITS: [&str; 4] = [
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=1024:1024",
];

/// A podman that nobody else uses. Its containers are removed when it is dropped.
pub struct Podman {
    home: tempfile::TempDir,
    services: Vec<PathBuf>,
}

impl Podman {
    /// One whose containers have these services in `/bin`.
    ///
    /// # Errors
    ///
    /// The services do not build.
    pub fn new(names: &[&str]) -> anyhow::Result<Self> {
        let services: anyhow::Result<_> =
            names.iter().map(|name| services::program(name)).collect();
        Ok(Self {
            home: tempfile::tempdir()?,
            services: services?,
        })
    }

    /// The file system of its containers, with programs that are new files, which no process ran before.
    fn rootfs(&self) -> anyhow::Result<PathBuf> {
        let rootfs = self.home.path().join("rootfs");
        let programs = rootfs.join("bin");
        fs::create_dir_all(&programs)?;
        for service in &self.services {
            let program = programs.join(service.file_name().unwrap_or_default());
            let new = program.with_extension("new");
            fs::copy(service, &new)?;
            fs::rename(new, program)?;
        }
        Ok(rootfs)
    }

    /// A name that no other container has.
    pub fn name(label: &str) -> String {
        format!("gopulse-{}-{label}", process::id())
    }

    /// Runs a service in a new container of this name, with a network of its own that has nothing but a
    /// loopback device. Gives the container's id.
    ///
    /// # Errors
    ///
    /// podman cannot.
    pub fn start(&self, name: &str, service: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command("run");
        command
            .args(["--detach", "--name", name, "--network", "none"])
            .args(LIMITS)
            .arg("--rootfs")
            .arg(self.rootfs()?)
            .args(service);
        let id = succeed(&mut command).context("podman runs no container here")?;
        Ok(id.trim().to_owned())
    }

    /// A command that runs one more service in a container.
    pub fn exec(&self, name: &str, service: &[&str]) -> Command {
        let mut command = self.command("exec");
        command.arg(name).args(service);
        command
    }

    /// Runs one more service in a container, for as long as that runs.
    ///
    /// # Errors
    ///
    /// podman cannot.
    pub fn add(&self, name: &str, service: &[&str]) -> anyhow::Result<()> {
        succeed(self.command("exec").args(["--detach", name]).args(service))?;
        Ok(())
    }

    /// Ends a container and starts it again: it keeps its id.
    ///
    /// # Errors
    ///
    /// podman cannot.
    pub fn restart(&self, name: &str) -> anyhow::Result<()> {
        self.rootfs()?;
        succeed(self.command("restart").args(["--time", "0", name]))?;
        Ok(())
    }

    /// Ends a container and removes it.
    ///
    /// # Errors
    ///
    /// podman cannot.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        succeed(self.command("rm").args(["--force", "--time", "0", name]))?;
        Ok(())
    }

    fn command(&self, verb: &str) -> Command {
        let at = |name: &str| self.home.path().join(name);
        let mut command = Command::new("podman");
        command
            .args([Path::new("--root"), &at("storage")])
            .args([Path::new("--runroot"), &at("run")])
            .args([Path::new("--tmpdir"), &at("tmp")])
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .args(["--events-backend", "none", "--runtime", "runc"])
            .arg(verb);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if let Err(error) = succeed(self.command("rm").args(["--all", "--force", "--time", "0"])) {
            eprintln!("{error:#}");
        }
    }
}
