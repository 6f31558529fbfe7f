//! A client that speaks HTTP by hand, as slowly as it likes.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread::sleep,
    time::Duration,
};

use anyhow::Context as _;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct Speaker {
    connection: TcpStream,
    server: SocketAddr,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The status of an answer.
    Status(u16),
    /// The connection ended without a byte.
    Nothing,
    /// It was reset.
    Reset,
}

impl Speaker {
    /// Connects.
    ///
    /// # Errors
    ///
    /// Nobody listens.
    pub fn to(server: SocketAddr) -> anyhow::Result<Self> {
        let connection = TcpStream::connect(server).with_context(|| format!("no {server}"))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_nodelay(true)?;
        Ok(Self { connection, server })
    }

    /// Sends a request with a body of `body` bytes that is yet to come.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn ask(&mut self, method: &str, path: &str, body: usize) -> anyhow::Result<()> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {body}\r\n\r\n",
            self.server
        );
        self.say(head.as_bytes())
    }

    /// Sends these bytes.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn say(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.connection.write_all(bytes)?)
    }

    /// Sends `bytes` piece by piece, with a pause after each, until all are sent or the connection ends.
    pub fn dribble(&mut self, bytes: &[u8], piece: usize, pause: Duration) {
        for piece in bytes.chunks(piece) {
            if self.connection.write_all(piece).is_err() {
                return;
            }
            sleep(pause);
        }
    }

    /// Reads an answer piece by piece, with a pause after each, until it ends; how many bytes came.
    pub fn sip(&mut self, piece: usize, pause: Duration) -> usize {
        let mut piece = vec![0; piece];
        let mut all = 0;
        while let Ok(length @ 1..) = self.connection.read(&mut piece) {
            all += length;
            sleep(pause);
        }
        all
    }

    /// Waits for the answer.
    ///
    /// # Errors
    ///
    /// None comes in twenty seconds.
    pub fn hear(&mut self) -> anyhow::Result<Heard> {
        let mut answer = [0; 4096];
        match self.connection.read(&mut answer) {
            Ok(0) => Ok(Heard::Nothing),
            Ok(length) => {
                let text = String::from_utf8_lossy(answer.get(..length).unwrap_or_default());
                let status = text
                    .split(' ')
                    .nth(1)
                    .and_then(|status| status.parse().ok());
                Ok(Heard::Status(status.context("an answer without a status")?))
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Heard::Reset),
            Err(error) => Err(error).context("no answer"),
        }
    }
}
