//! Events that contradict each other: few processes, threads and sockets, and any times.

use std::{net::SocketAddr, time::Duration};

use proptest::prelude::*;

use crate::event::*;

pub(super) fn event() -> impl Strategy<Value = Event> {
    (at(), fact()).prop_map(|(at, fact)| Event { at, fact })
}

fn at() -> impl Strategy<Value = BootInstant> {
    // The window of stories begins here.
    prop_oneof![
        20 => 1_000_000_000_000_u64..1_000_000_100_000,
        1 => any::<u64>(),
    ]
    .prop_map(BootInstant)
}

fn small() -> impl Strategy<Value = u32> + Clone {
    prop_oneof![8 => 1_u32..4, 1 => any::<u32>()]
}

fn socket() -> impl Strategy<Value = SocketId> {
    small().prop_map(|id| SocketId(id.into()))
}

fn stack() -> impl Strategy<Value = Option<StackId>> {
    prop::option::of(small().prop_map(StackId))
}

fn goroutine() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(small().prop_map(u64::from))
}

fn actor() -> impl Strategy<Value = Actor> {
    (small(), small(), goroutine()).prop_map(|(pid, tid, goroutine)| Actor {
        pid,
        tid,
        goroutine,
        attribution: Attribution::Direct,
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z;\n ]{1,8}", any::<String>()]
}

fn frame() -> impl Strategy<Value = Frame> {
    (
        name(),
        prop::option::of(name()),
        prop::option::of(any::<u32>()),
    )
        .prop_map(|(function, file, line)| Frame {
            function,
            file,
            line,
        })
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (1_u16..4).prop_map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![of_processes(), of_sockets(), of_exchanges(), of_threads()]
}

fn of_processes() -> impl Strategy<Value = Fact> {
    let frames = || prop::collection::vec(frame(), 0..4);
    prop_oneof![
        (small(), name(), prop::option::of(name())).prop_map(|(pid, comm, exe)| {
            Fact::Process(Process {
                pid,
                comm,
                exe,
                go_version: None,
                pprof_url: None,
                container: None,
                relation: Relation::Target,
            })
        }),
        small().prop_map(|pid| Fact::ProcessEnded { pid }),
        (small(), frames()).prop_map(|(id, frames)| Fact::Stack {
            id: StackId(id),
            frames
        }),
        (
            small(),
            prop::option::of(socket()),
            small(),
            name(),
            frames()
        )
            .prop_map(|(pid, socket, id, state, frames)| Fact::Goroutine {
                pid,
                socket,
                goroutine: Goroutine {
                    id: id.into(),
                    state,
                    wait: None,
                    frames,
                    created_by: None,
                },
            }),
    ]
}

fn of_sockets() -> impl Strategy<Value = Fact> {
    let role = prop_oneof![Just(Role::Client), Just(Role::Server)];
    prop_oneof![
        4 => (socket(), small(), role, address(), address()).prop_map(
            |(socket, pid, role, local, remote)| Fact::Opened(Opened {
                socket,
                pid,
                role,
                origin: Origin::Connected,
                local,
                remote,
                actor: None,
                stack: None,
            })
        ),
        1 => socket().prop_map(|socket| Fact::PeerClosed { socket }),
        1 => (socket(), any::<bool>(), stack()).prop_map(|(socket, abort, stack)| {
            Fact::LocalClosed { socket, abort, actor: None, stack }
        }),
        1 => socket().prop_map(|socket| Fact::Closed(Closed {
            socket,
            bytes_sent: 1,
            bytes_received: u64::MAX,
            srtt: None,
            retransmits: 0,
        })),
        1 => (socket(), actor(), stack()).prop_map(|(socket, actor, stack)| {
            Fact::Decision(Decision {
                decider: Decider::TransportClose,
                socket: Some(socket),
                actor,
                error: None,
                stack,
            })
        }),
    ]
}

fn of_exchanges() -> impl Strategy<Value = Fact> {
    let times = (at(), at(), prop::option::of(at()), at());
    prop_oneof![
        4 => (socket(), small(), times, prop::option::of(actor()), any::<bool>()).prop_map(
            |(socket, number, (started, request_ended, first_byte, last_byte), actor, complete)| {
                Fact::Exchange(Exchange {
                    socket,
                    number,
                    started,
                    request_ended,
                    first_byte,
                    last_byte,
                    request_bytes: 1,
                    response_bytes: u64::from(first_byte.is_some()),
                    status: Some(502),
                    actor,
                    complete,
                    arrived: Some(request_ended),
                    round_trip: None,
                })
            }
        ),
        1 => (socket(), small(), name(), name()).prop_map(|(socket, number, method, path)| {
            Fact::Request {
                socket,
                number,
                head: RequestHead { method, path, traceparent: None },
            }
        }),
        1 => (socket(), small(), at(), at()).prop_map(|(socket, number, from, until)| {
            Fact::Stalled(Stall {
                socket,
                number,
                message: Message::Response,
                from,
                until,
                resumed: true,
                bytes_before: 0,
                arrived: None,
                buffer_full: None,
                window_limited: Duration::ZERO,
                retransmits: 0,
            })
        }),
    ]
}

fn of_threads() -> impl Strategy<Value = Fact> {
    let thread = prop::option::of((small(), small()));
    prop_oneof![
        2 => (small(), small(), goroutine(), at(), prop::option::of(name())).prop_map(
            |(pid, tid, goroutine, from, by)| Fact::Waited(Waited {
                pid,
                tid,
                goroutine,
                from,
                why: Waiting::Preempted,
                by: by.map(|comm| Running { pid, tid, comm }),
            })
        ),
        1 => (small(), thread.clone(), goroutine(), thread).prop_map(
            |(cpu, from, goroutine, to)| Fact::Switched(Switch {
                cpu,
                from,
                left: Left::Sleeping,
                goroutine,
                to,
            })
        ),
        2 => (small(), small(), goroutine(), stack(), stack()).prop_map(
            |(pid, tid, goroutine, stack, kernel)| Fact::Sampled(Sample {
                pid,
                tid,
                goroutine,
                stack,
                kernel,
            })
        ),
    ]
}
