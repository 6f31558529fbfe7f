//! Event streams for tests, told in milliseconds since the window began.

use std::{net::SocketAddr, time::Duration};

use crate::event::{
    Actor, Attribution, BootInstant, Closed, ConnectFailure, Decider, Decision, Event, Exchange,
    Fact, Frame, Goroutine, Opened, Origin, Pid, Process, Relation, RequestHead, Role, SocketId,
    Source, SourceKind, StackId,
};

use super::Model;

mod asked;
mod resources;
mod scheduling;
mod transfer;

pub(crate) use asked::Asked;
pub(crate) use resources::goroutine;
pub(crate) use scheduling::thread;
pub(crate) use transfer::silence;

/// When the window begins on the boot clock.
const BEGAN: u64 = 1_000_000_000_000;

/// A moment of the story.
pub(crate) fn ms(at: f64) -> BootInstant {
    BootInstant(BEGAN + (at * 1e6) as u64)
}

/// A frame such as `main.(*store).save /srv/store.go:57`.
pub(crate) fn frame(text: &str) -> Frame {
    let (function, place) = text.split_once(' ').unwrap_or((text, ""));
    let (file, line) = place.rsplit_once(':').unwrap_or((place, ""));
    Frame {
        function: function.into(),
        file: (!file.is_empty()).then(|| file.into()),
        line: line.parse().ok(),
    }
}

pub(crate) fn frames(of: &[&str]) -> Vec<Frame> {
    of.iter().map(|text| frame(text)).collect()
}

pub(crate) fn actor(pid: Pid, goroutine: u64) -> Actor {
    Actor {
        pid,
        tid: pid,
        goroutine: Some(goroutine),
        attribution: Attribution::Direct,
    }
}

/// A stream of events being written.
pub(crate) struct Story {
    events: Vec<Event>,
    sockets: u64,
    stacks: u32,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self {
            events: Vec::new(),
            sockets: 0,
            stacks: 0,
        }
    }

    pub(crate) fn tell(&mut self, at: f64, fact: Fact) -> &mut Self {
        self.tell_at(ms(at), fact)
    }

    fn tell_at(&mut self, at: BootInstant, fact: Fact) -> &mut Self {
        self.events.push(Event { at, fact });
        self
    }

    /// A Go process.
    pub(crate) fn go(&mut self, pid: Pid, comm: &str) -> &mut Self {
        self.process(pid, comm, Some("go1.27.3"))
    }

    /// A process that is not Go.
    pub(crate) fn native(&mut self, pid: Pid, comm: &str) -> &mut Self {
        self.process(pid, comm, None)
    }

    pub(crate) fn process(&mut self, pid: Pid, comm: &str, go: Option<&str>) -> &mut Self {
        self.tell(
            0.0,
            Fact::Process(Process {
                pid,
                comm: comm.into(),
                exe: Some(format!("/srv/{comm}")),
                go_version: go.map(Into::into),
                pprof_url: None,
                container: None,
                relation: Relation::Target,
            }),
        )
    }

    pub(crate) fn exited(&mut self, at: f64, pid: Pid) -> &mut Self {
        self.tell(at, Fact::ProcessEnded { pid })
    }

    pub(crate) fn stack(&mut self, of: &[&str]) -> Option<StackId> {
        self.stacks += 1;
        let id = StackId(self.stacks);
        self.tell(
            0.0,
            Fact::Stack {
                id,
                frames: frames(of),
            },
        );
        Some(id)
    }

    fn open(&mut self, at: f64, opened: (Pid, Role, Origin), ends: (&str, &str)) -> SocketId {
        self.sockets += 1;
        let socket = SocketId(self.sockets);
        let (pid, role, origin) = opened;
        let (client, server): (SocketAddr, SocketAddr) =
            (ends.0.parse().unwrap(), ends.1.parse().unwrap());
        let (local, remote) = match role {
            Role::Client => (client, server),
            Role::Server => (server, client),
        };
        self.tell(
            at,
            Fact::Opened(Opened {
                socket,
                pid,
                role,
                origin,
                local,
                remote,
                actor: None,
                stack: None,
            }),
        );
        socket
    }

    /// A connect that nothing came of yet.
    pub(crate) fn connecting(&mut self, at: f64, pid: Pid, client: &str, server: &str) -> SocketId {
        self.open(at, (pid, Role::Client, Origin::Connected), (client, server))
    }

    /// A connect whose handshake is done at once.
    pub(crate) fn connected(&mut self, at: f64, pid: Pid, client: &str, server: &str) -> SocketId {
        let socket = self.connecting(at, pid, client, server);
        self.tell(at + 0.1, Fact::Established { socket });
        socket
    }

    pub(crate) fn accepted(&mut self, at: f64, pid: Pid, client: &str, server: &str) -> SocketId {
        self.open(at, (pid, Role::Server, Origin::Accepted), (client, server))
    }

    /// A client's connection that was there before the window.
    pub(crate) fn found(&mut self, pid: Pid, client: &str, server: &str) -> SocketId {
        self.open(0.0, (pid, Role::Client, Origin::Found), (client, server))
    }

    /// Request `number` with its head, and the exchange as it is told at its end.
    pub(crate) fn http(
        &mut self,
        socket: SocketId,
        number: u32,
        request: &str,
        asked: Asked,
    ) -> &mut Self {
        self.head(asked.started, socket, number, request)
            .exchange(socket, number, asked)
    }

    pub(crate) fn head(
        &mut self,
        at: f64,
        socket: SocketId,
        number: u32,
        request: &str,
    ) -> &mut Self {
        let mut words = request.split(' ');
        let mut word = || words.next().map(String::from);
        let head = RequestHead {
            method: word().unwrap(),
            path: word().unwrap(),
            traceparent: word(),
        };
        self.tell(
            at,
            Fact::Request {
                socket,
                number,
                head,
            },
        )
    }

    pub(crate) fn exchange(&mut self, socket: SocketId, number: u32, asked: Asked) -> &mut Self {
        let answered = asked.answer.map(|(at, _, _)| at);
        self.tell(
            asked.last.or(answered).unwrap_or(asked.sent),
            Fact::Exchange(Exchange {
                socket,
                number,
                started: ms(asked.started),
                request_ended: ms(asked.sent),
                first_byte: answered.map(ms),
                last_byte: ms(asked.last.or(answered).unwrap_or(asked.sent)),
                request_bytes: asked.bytes,
                response_bytes: asked.answer.map_or(0, |(_, _, bytes)| bytes),
                status: asked
                    .answer
                    .map(|(_, status, _)| status)
                    .filter(|status| *status != 0),
                actor: asked.actor,
                complete: asked.complete,
                arrived: asked.arrived.map(ms),
                round_trip: None,
            }),
        )
    }

    /// `goroutine` of `pid` decides; the connection is known unless `socket` is `None`.
    pub(crate) fn decision(
        &mut self,
        at: f64,
        (pid, goroutine): (Pid, u64),
        decider: Decider,
        error: Option<&str>,
        socket: Option<SocketId>,
    ) -> &mut Self {
        let stack = match decider {
            Decider::TransportClose => self.stack(&[
                "net/http.(*persistConn).closeLocked /go/src/net/http/transport.go:3173",
                "net/http.(*persistConn).close /go/src/net/http/transport.go:3170",
                "net/http.(*persistConn).roundTrip /go/src/net/http/transport.go:3126",
                "net/http.(*Transport).roundTrip /go/src/net/http/transport.go:700",
                "net/http/httputil.(*ReverseProxy).ServeHTTP /go/src/net/http/httputil/reverseproxy.go:520",
                "main.main.func1 /srv/gateway/main.go:31",
                "net/http.HandlerFunc.ServeHTTP /go/src/net/http/server.go:2322",
                "net/http.(*conn).serve /go/src/net/http/server.go:2100",
            ]),
            Decider::TransportCancel => self.stack(&[
                "net/http.(*persistConn).cancelRequest /go/src/net/http/transport.go:2332",
                "net/http.(*persistConn).roundTrip /go/src/net/http/transport.go:3139",
                "main.fetch /srv/client/main.go:12",
            ]),
            Decider::ClientTimeoutChecked
            | Decider::ReadDeadline
            | Decider::WriteDeadline
            | Decider::ServerShutdown
            | Decider::TransportDial => None,
        };
        self.tell(
            at,
            Fact::Decision(Decision {
                decider,
                socket,
                actor: actor(pid, goroutine),
                error: error.map(Into::into),
                stack,
            }),
        )
    }

    pub(crate) fn local_closed(&mut self, at: f64, socket: SocketId) -> &mut Self {
        self.closed_at(at, socket, None)
    }

    pub(crate) fn closed_at(
        &mut self,
        at: f64,
        socket: SocketId,
        stack: Option<StackId>,
    ) -> &mut Self {
        self.tell(
            at,
            Fact::LocalClosed {
                socket,
                abort: false,
                actor: None,
                stack,
            },
        )
    }

    /// Our close with a reset.
    pub(crate) fn aborted(
        &mut self,
        at: f64,
        socket: SocketId,
        stack: Option<StackId>,
    ) -> &mut Self {
        self.tell(
            at,
            Fact::LocalClosed {
                socket,
                abort: true,
                actor: None,
                stack,
            },
        )
    }

    /// Our RST, with the kernel's word for why.
    pub(crate) fn reset_sent(
        &mut self,
        at: f64,
        socket: SocketId,
        reason: Option<&str>,
    ) -> &mut Self {
        let reason = reason.map(Into::into);
        self.tell(at, Fact::ResetSent { socket, reason })
    }

    /// At `at` bytes of the peer lie unread in the socket since `since`.
    pub(crate) fn unread(
        &mut self,
        at: f64,
        socket: SocketId,
        since: f64,
        bytes: u64,
    ) -> &mut Self {
        let since = ms(since);
        let bytes = Some(bytes);
        self.tell(
            at,
            Fact::Unread {
                socket,
                since,
                bytes,
            },
        )
    }

    /// A deadline that `pid` had set on the connection passes.
    pub(crate) fn deadline(
        &mut self,
        at: f64,
        pid: Pid,
        socket: SocketId,
        of: Decider,
    ) -> &mut Self {
        self.decision(at, (pid, 0), of, None, Some(socket))
    }

    pub(crate) fn peer_closed(&mut self, at: f64, socket: SocketId) -> &mut Self {
        self.tell(at, Fact::PeerClosed { socket })
    }

    pub(crate) fn reset(&mut self, at: f64, socket: SocketId) -> &mut Self {
        self.tell(at, Fact::ResetReceived { socket })
    }

    pub(crate) fn connect_failed(
        &mut self,
        at: f64,
        socket: SocketId,
        why: ConnectFailure,
        stack: Option<StackId>,
    ) -> &mut Self {
        self.tell(
            at,
            Fact::ConnectFailed {
                socket,
                why,
                actor: None,
                stack,
            },
        )
        .gone(at, socket)
    }

    /// The kernel is done with a socket.
    pub(crate) fn gone(&mut self, at: f64, socket: SocketId) -> &mut Self {
        self.tell(
            at,
            Fact::Closed(Closed {
                socket,
                bytes_sent: 0,
                bytes_received: 0,
                srtt: Some(Duration::from_micros(50)),
                retransmits: 0,
            }),
        )
    }

    /// A look at the goroutine that serves `socket`.
    pub(crate) fn look(
        &mut self,
        at: f64,
        socket: SocketId,
        pid: Pid,
        goroutine: Goroutine,
    ) -> &mut Self {
        self.tell(
            at,
            Fact::Goroutine {
                pid,
                socket: Some(socket),
                goroutine,
            },
        )
    }

    /// Its events, in the order in which they happened.
    pub(crate) fn in_order(&mut self) -> &[Event] {
        self.events.sort_by_key(|event| event.at);
        &self.events
    }

    /// The model of it all at the end of the window.
    pub(crate) fn model(&mut self, end: f64) -> Model {
        self.model_in_order_of(end, |_| Duration::ZERO)
    }

    /// The same, with each event coming as much later than it happened as `delay` says.
    pub(crate) fn model_in_order_of(
        &mut self,
        end: f64,
        mut delay: impl FnMut(&Event) -> Duration,
    ) -> Model {
        let mut model = Model::new(source());
        self.events.sort_by_key(|event| event.at);
        let mut told: Vec<(BootInstant, &Event)> = self
            .events
            .iter()
            .map(|event| (event.at.plus(delay(event)), event))
            .collect();
        told.sort_by_key(|(comes, _)| *comes);
        for (_, event) in told {
            model.apply(event);
        }
        model.end(ms(end));
        model
    }
}

/// The window of every story.
pub(crate) fn source() -> Source {
    Source {
        kind: SourceKind::Live,
        host: "web-1".into(),
        kernel: "6.18.44".into(),
        started: BootInstant(BEGAN),
        started_wall: "2026-01-01T00:00:00Z".parse().unwrap(),
        hooks: Vec::new(),
    }
}
