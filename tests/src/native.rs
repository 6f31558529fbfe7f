//! Servers of others, as the distribution ships them, each with a configuration of its own.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::Context as _;

use crate::{process::Process, wait};

/// A server in the foreground, with its directory.
pub struct Native {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    directory: tempfile::TempDir,
}

impl Native {
    /// Starts `command` on a configuration file of this name; `{listen}` and `{directory}` in it, and
    /// whatever else is given, stand for what differs. `{file}` in the
    /// command is its path.
    ///
    /// # Errors
    ///
    /// It does not start to listen.
    pub fn start(
        command: &[&str],
        (file, configuration): (&str, &str),
        differs: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let address = free_port()?;
        let name = directory
            .path()
            .to_str()
            .context("a path that is no text")?;
        let path = format!("{name}/{file}");
        let listen = address.to_string();
        let own = [
            ("{listen}", listen.as_str()),
            ("{directory}", name),
            ("{file}", &path),
        ];
        let fill = |text: &str| {
            let all = own.iter().chain(differs);
            all.fold(text.to_owned(), |text, (name, value)| {
                text.replace(name, value)
            })
        };
        fs::write(&path, fill(configuration))?;
        let mut words = command.iter().map(|word| fill(word));
        let mut command = Command::new(words.next().context("no program")?);
        let process = Process::start(command.args(words).env("HOME", name))?;
        let server = Self {
            process,
            address,
            directory,
        };
        server.wait("the server to listen", || {
            Ok(TcpStream::connect(address).is_ok())
        })?;
        Ok(server)
    }

    /// Waits until it is so far; an error has what the server said.
    ///
    /// # Errors
    ///
    /// It does not come to that.
    pub fn wait(
        &self,
        what: &str,
        mut so_far: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        wait::until(
            what,
            Duration::from_secs(30),
            || Ok(so_far()?.then_some(())),
        )
        .with_context(|| self.process.stderr())
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Its process id, as gopulse takes it.
    pub fn pid(&self) -> String {
        self.process.pid().to_string()
    }

    /// Its port, as gopulse takes it.
    pub fn port(&self) -> String {
        self.address.port().to_string()
    }
}

/// A port of 127.0.0.1 that was free a moment ago.
///
/// # Errors
///
/// There is none.
pub fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// nginx with these lines in its `http` block, and a block of `server` that has `{listen}` and these.
///
/// # Errors
///
/// It does not start to listen.
pub fn nginx(http: &str, server: &str, differs: &[(&str, &str)]) -> anyhow::Result<Native> {
    let configuration = format!(
        "user root; worker_processes 2; pid {{directory}}/pid; error_log stderr;
        events {{}}
        http {{
            access_log off; client_body_temp_path {{directory}}/body; proxy_temp_path {{directory}}/proxy;
            fastcgi_temp_path {{directory}}/f; uwsgi_temp_path {{directory}}/u;
            scgi_temp_path {{directory}}/s; client_max_body_size 10m; {http}
            server {{ listen {{listen}}; {server} }}
        }}"
    );
    let command = ["nginx", "-e", "stderr", "-g", "daemon off;", "-c", "{file}"];
    Native::start(&command, ("nginx.conf", &configuration), differs)
}

/// caddy with these lines for its one site.
///
/// # Errors
///
/// It does not start to listen.
pub fn caddy(site: &str, differs: &[(&str, &str)]) -> anyhow::Result<Native> {
    let configuration =
        format!("{{\n    admin off\n    auto_https off\n}}\nhttp://{{listen}} {{\n{site}\n}}\n");
    let command = [
        "caddy",
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        "{file}",
    ];
    Native::start(&command, ("Caddyfile", &configuration), differs)
}
