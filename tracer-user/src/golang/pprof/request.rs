//! One GET request over HTTP/1.1, to a TCP port or to a Unix socket, with a limit to time and size.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use ureq::{
    Agent, Error,
    unversioned::{
        resolver::DefaultResolver,
        transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport},
    },
};

use super::socket::Socket;

/// The runtime cuts its dumps at 64 MiB; nothing larger is read.
const LARGEST_ANSWER: u64 = 80 << 20;

/// The answer's body, or what came instead. Over a `socket` the URL's host is not looked at.
pub(super) fn get(
    url: &str,
    socket: Option<&Socket>,
    patience: Duration,
) -> Result<Vec<u8>, String> {
    let config = Agent::config_builder()
        .timeout_global(Some(patience))
        .max_redirects(0)
        .proxy(None)
        .user_agent("gopulse")
        .build();
    let agent = match socket {
        None => config.new_agent(),
        Some(socket) => Agent::with_parts(config, Over(socket.clone()), DefaultResolver::default()),
    };
    let mut request = agent.get(url);
    if socket.is_some() {
        // No host is asked there, which is said so (RFC 9112, 3.2); caddy answers nothing else.
        request = request.header("Host", "");
    }
    request
        .call()
        .and_then(|mut answer| {
            let body = answer.body_mut().with_config().limit(LARGEST_ANSWER);
            body.read_to_vec()
        })
        .map_err(|error| error.to_string())
}

/// Connects to a Unix socket, whatever is asked for.
#[derive(Debug)]
struct Over(Socket);

/// A connection over it, for one request.
#[derive(Debug)]
struct Stream {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl Connector for Over {
    type Out = Stream;

    fn connect(&self, to: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Stream>, Error> {
        let stream = self.0.connect(left(to.timeout)).map_err(late(to.timeout))?;
        let (input, output) = (
            to.config.input_buffer_size(),
            to.config.output_buffer_size(),
        );
        let buffers = LazyBuffers::new(input, output);
        Ok(Some(Stream { stream, buffers }))
    }
}

impl Transport for Stream {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.set_write_timeout(left(timeout))?;
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output).map_err(late(timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_timeout(left(timeout))?;
        let read = self.stream.read(self.buffers.input_append_buf());
        let amount = read.map_err(late(timeout))?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        false // not used twice
    }
}

fn left(timeout: NextTimeout) -> Option<Duration> {
    timeout.not_zero().map(|left| *left)
}

/// The kernel's word for a time that has passed (`SO_RCVTIMEO`, socket(7)) is `EAGAIN`.
fn late(timeout: NextTimeout) -> impl Fn(io::Error) -> Error {
    move |error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}
