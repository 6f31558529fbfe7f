//! One event of every kind, for tests.

use std::{net::SocketAddr, time::Duration};

use crate::event::*;

pub(super) fn source() -> Source {
    Source {
        kind: SourceKind::Live,
        host: "web-1".to_owned(),
        kernel: "6.18.44".to_owned(),
        started: BootInstant(5_000_000_000),
        started_wall: "2026-01-02T03:04:05.000000007Z".parse().unwrap(),
        hooks: vec![Hook {
            wants: "bytes sent".to_owned(),
            by: "tp_btf/sock_send_length".to_owned(),
        }],
    }
}

pub(super) fn process() -> Process {
    Process {
        pid: 2585,
        comm: "gateway".to_owned(),
        exe: Some("/srv/gateway".to_owned()),
        go_version: Some("go1.27.3".to_owned()),
        pprof_url: None,
        container: None,
        relation: Relation::Target,
    }
}

fn actor() -> Actor {
    Actor {
        pid: 2585,
        tid: 2590,
        goroutine: Some(34),
        attribution: Attribution::Direct,
    }
}

fn frame() -> Frame {
    Frame {
        function: "net/http.(*persistConn).roundTrip".to_owned(),
        file: Some("/go/src/net/http/transport.go".to_owned()),
        line: Some(2861),
    }
}

fn goroutine() -> Goroutine {
    Goroutine {
        id: 34,
        state: "select".to_owned(),
        wait: Some(Duration::new(1, 500)),
        frames: vec![frame(), Frame::default()],
        created_by: Some(Creation {
            frame: frame(),
            goroutine: Some(1),
        }),
    }
}

pub(super) fn snapshot(goroutines: usize) -> Fact {
    Fact::Goroutines(Snapshot {
        pid: 2585,
        source: SnapshotSource::Memory,
        goroutines: vec![goroutine(); goroutines],
        total: goroutines as u64,
    })
}

fn blocking() -> Fact {
    Fact::Blocking(Blocking {
        pid: 2585,
        at_channels: vec![AtChannels {
            goroutine: 34,
            channels: vec![0x00c0_0001_20c0],
            timed: true,
        }],
        locks: vec![Lock {
            address: 0x00c0_0001_4004,
            held: Some(true),
            waiters: vec![35, 36],
            known_to: vec![37],
        }],
    })
}

fn labels() -> Fact {
    Fact::Labels(Labels {
        pid: 2585,
        sets: vec![Labelled {
            labels: vec![("tenant".to_owned(), "a".to_owned())],
            goroutines: vec![34],
        }],
        unread: 1,
    })
}

pub(super) fn exchange() -> Fact {
    Fact::Exchange(Exchange {
        socket: SocketId(3),
        number: 2,
        started: BootInstant(6_000_000_000),
        request_ended: BootInstant(6_000_100_000),
        first_byte: None,
        last_byte: BootInstant(6_000_100_000),
        request_bytes: 200_189,
        response_bytes: 0,
        status: Some(502),
        actor: Some(actor()),
        complete: true,
        arrived: Some(BootInstant(6_000_000_000)),
        round_trip: Some(Duration::from_micros(50)),
    })
}

fn thread() -> Thread {
    Thread {
        pid: 2585,
        tid: 2590,
        comm: "gateway".to_owned(),
        since: BootInstant(5_000_000_000),
        ended: false,
        on_cpu: Duration::from_millis(10),
        woken: Duration::from_millis(2),
        preempted: Duration::from_millis(1),
        throttled: Duration::ZERO,
        sleeping: Duration::from_millis(980),
        uninterruptible: Duration::from_millis(7),
        voluntary: 40,
        involuntary: 3,
        migrations: 2,
        slices: Histogram(vec![0, 40, 3]),
        waits: Histogram(vec![43]),
    }
}

fn host() -> Host {
    Host {
        cpus: 2,
        user: Duration::from_secs(60),
        system: Duration::from_secs(20),
        idle: Duration::from_secs(100),
        io_wait: Duration::from_secs(1),
        steal: Duration::ZERO,
        runnable: 3,
        blocked: 0,
        switches: 4_000,
        forks: 120,
        load: [0.5, 0.25, 0.125],
        memory: Memory {
            total: 8 << 30,
            available: 4 << 30,
            swap_total: 0,
            swap_free: 0,
        },
        swapped: (0, 0),
        pressure: Some(Pressures {
            cpu_some: Duration::from_millis(300),
            memory: (Duration::ZERO, Duration::ZERO),
            io: (Duration::from_millis(5), Duration::ZERO),
        }),
    }
}

/// In the order of [`Fact`]'s variants, a millisecond apart.
pub(super) fn events() -> Vec<Event> {
    let socket = SocketId(3);
    let stack = Some(StackId(1));
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let facts = [
        Fact::Process(process()),
        Fact::ProcessEnded { pid: 2585 },
        Fact::Stack {
            id: StackId(1),
            frames: vec![frame()],
        },
        Fact::Opened(Opened {
            socket,
            pid: 2585,
            role: Role::Client,
            origin: Origin::Connected,
            local: address("127.0.0.1:53122"),
            remote: address("[2001:db8::1]:9001"),
            actor: Some(actor()),
            stack,
        }),
        Fact::Established { socket },
        Fact::ConnectFailed {
            socket,
            why: ConnectFailure::Error(113),
            actor: None,
            stack,
        },
        Fact::PeerClosed { socket },
        Fact::LocalClosed {
            socket,
            abort: true,
            actor: Some(actor()),
            stack,
        },
        Fact::Closed(Closed {
            socket,
            bytes_sent: 200_189,
            bytes_received: 0,
            srtt: Some(Duration::from_micros(50)),
            retransmits: 1,
        }),
        Fact::ResetSent {
            socket,
            reason: Some("TCP_ABORT_ON_DATA".to_owned()),
        },
        Fact::ResetReceived { socket },
        Fact::Retransmitted { socket, syn: true },
        Fact::Dropped {
            socket,
            reason: "NETFILTER_DROP".to_owned(),
        },
        Fact::Request {
            socket,
            number: 2,
            head: RequestHead {
                method: "POST".to_owned(),
                path: "/upload".to_owned(),
                traceparent: None,
            },
        },
        exchange(),
        Fact::Stalled(Stall {
            socket,
            number: 2,
            message: Message::Response,
            from: BootInstant(6_000_200_000),
            until: BootInstant(6_500_200_000),
            resumed: true,
            bytes_before: 4_096,
            arrived: None,
            buffer_full: Some(BootInstant(6_000_300_000)),
            window_limited: Duration::from_millis(400),
            retransmits: 0,
        }),
        Fact::Unread {
            socket,
            since: BootInstant(6_000_200_000),
            bytes: Some(180),
        },
        Fact::Listening(Listening {
            pid: 2585,
            address: address("0.0.0.0:9000"),
            queued: 129,
            backlog: 128,
            dropped: 12,
        }),
        Fact::Descriptors(Descriptors {
            pid: 2585,
            open: 1_000,
            limit: 1_024,
            refused: Some(3),
            held: vec![("pipe".to_owned(), 2)],
        }),
        Fact::Decision(Decision {
            decider: Decider::TransportClose,
            socket: Some(socket),
            actor: actor(),
            error: Some("net/http: timeout awaiting response headers".to_owned()),
            stack,
        }),
        snapshot(1),
        Fact::Goroutine {
            pid: 2585,
            socket: Some(socket),
            goroutine: goroutine(),
        },
        Fact::Lost {
            probe: "exchanges".to_owned(),
            count: 12,
        },
        Fact::Unseen(Unseen {
            what: "goroutines".to_owned(),
            why: "not a Go program".to_owned(),
            remedy: String::new(),
        }),
        Fact::Thread(thread()),
        Fact::Waited(Waited {
            pid: 2585,
            tid: 2590,
            goroutine: Some(34),
            from: BootInstant(6_000_200_000),
            why: Waiting::Preempted,
            by: Some(Running {
                pid: 77,
                tid: 78,
                comm: "ffmpeg".to_owned(),
            }),
        }),
        Fact::Switched(Switch {
            cpu: 1,
            from: Some((2585, 2590)),
            left: Left::Sleeping,
            goroutine: None,
            to: None,
        }),
        Fact::Sampled(Sample {
            pid: 2585,
            tid: 2590,
            goroutine: Some(34),
            stack,
            kernel: None,
        }),
        Fact::Host(host()),
        Fact::Neighbours(Neighbours {
            busiest: vec![(77, "ffmpeg".to_owned(), Duration::from_millis(900))],
        }),
        Fact::Quota(Quota {
            pid: 2585,
            cgroup: "/system.slice/gateway.service".to_owned(),
            quota: Some(Duration::from_millis(50)),
            period: Duration::from_millis(100),
            periods: 12,
            throttled_periods: 3,
            throttled: Duration::from_millis(120),
        }),
        Fact::Runtime(Runtime {
            pid: 2585,
            max_procs: Some(16),
            max_procs_set: true,
            adapts: false,
            timers: Some(9),
            collections: Some(4),
            live_bytes: Some(4 << 20),
            gc_percent: Some(100),
            memory_limit: None,
        }),
        blocking(),
        Fact::Gap {
            from: BootInstant(source().started.0 + 5_000_000),
            until: Some(BootInstant(source().started.0 + 9_000_000)),
        },
        Fact::Vanished {
            socket: SocketId(7),
        },
        Fact::Shed {
            shed: Shed::Connections { one_in: 8 },
            spent: 0.25,
            budget: 0.125,
        },
        Fact::MemoryLimit(MemoryLimit {
            pid: 2585,
            cgroup: "/system.slice/gateway.service".to_owned(),
            limit: 256 << 20,
            used: 90 << 20,
        }),
        labels(),
        Fact::Network(Network {
            pid: 2585,
            namespace: 4_026_531_840,
        }),
    ];
    let start = source().started.0;
    (1..)
        .zip(facts)
        .map(|(milliseconds, fact)| Event {
            at: BootInstant(start + milliseconds * 1_000_000),
            fact,
        })
        .collect()
}
