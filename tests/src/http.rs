//! A client for the scenarios, in the test's own process, which nobody traces.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context as _;

/// What an answer may take, where one is due.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection on which a request was sent.
pub struct Asked(TcpStream);

impl Asked {
    /// Connects and asks for `path`.
    ///
    /// # Errors
    ///
    /// Nobody listens there.
    pub fn get(server: SocketAddr, path: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        let mut asked = Self(stream);
        asked.again(path)?;
        Ok(asked)
    }

    /// Asks for `path` on the same connection.
    ///
    /// # Errors
    ///
    /// It is closed.
    pub fn again(&mut self, path: &str) -> anyhow::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: scenario\r\n\r\n");
        Ok(self.0.write_all(request.as_bytes())?)
    }

    /// Waits for the answer, and keeps the connection.
    ///
    /// # Errors
    ///
    /// None comes.
    pub fn answer(&mut self) -> anyhow::Result<String> {
        self.0.set_read_timeout(Some(PATIENCE))?;
        let mut answer = vec![0; 4096];
        let length = self.0.read(&mut answer).context("no answer")?;
        answer.truncate(length);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
