//! The attach plan: for each thing we want to know, the ways to learn it, best first.
//!
//! Tracepoints come first: they are stable, cheap, and the only ones on hardened kernels. To add a
//! way is to add a program to the kernel half and a line to [`WANTS`]. BTF rules out what this kernel
//! lacks; the rest is decided by trying, since a kernel may have a hook and forbid it.

use super::btf::{Btf, kind};

/// One thing we want to know.
#[derive(Debug)]
pub struct Want {
    /// In the words of `doctor` and of the report's coverage.
    pub name: &'static str,
    /// What is not seen without it; `None` where nothing works without it.
    pub without: Option<&'static str>,
    /// Best first; each is all programs that it takes.
    pub ways: &'static [&'static [Hook]],
}

/// A program and where it goes.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// A tracepoint with typed arguments.
    Tracepoint {
        /// The program's name.
        program: &'static str,
        /// The tracepoint's.
        name: &'static str,
        /// How many arguments it must have: reading one that is not there fails verification.
        arguments: usize,
    },
    /// The return of a kernel function.
    Fexit {
        /// The program's name.
        program: &'static str,
        /// The function's.
        function: &'static str,
    },
    /// The entry of a kernel function.
    Fentry {
        /// The program's name.
        program: &'static str,
        /// The function's.
        function: &'static str,
    },
    /// The entry of a kernel function, by breakpoint.
    Kprobe {
        /// The program's name.
        program: &'static str,
        /// The function's.
        function: &'static str,
    },
    /// The return of a kernel function, by breakpoint.
    Kretprobe {
        /// The program's name.
        program: &'static str,
        /// The function's.
        function: &'static str,
    },
    /// Packets at the root of cgroup v2.
    CgroupSkb {
        /// The program's name.
        program: &'static str,
        /// Which way.
        egress: bool,
    },
    /// The profiler's clock, on each CPU.
    CpuClock {
        /// The program's name.
        program: &'static str,
    },
    /// An iterator.
    Iterator {
        /// The program's name.
        program: &'static str,
        /// Over what.
        over: &'static str,
    },
}

impl Want {
    /// The first way that BTF does not rule out.
    #[must_use]
    pub fn first_way(&self, btf: &Btf) -> Option<&'static [Hook]> {
        let open = |way: &&[Hook]| way.iter().all(|hook| hook.ruled_out(btf).is_none());
        self.ways.iter().copied().find(open)
    }
}

impl Hook {
    /// The program's name in the object.
    #[must_use]
    pub fn program(&self) -> &'static str {
        match self {
            Self::Tracepoint { program, .. }
            | Self::Fexit { program, .. }
            | Self::Fentry { program, .. }
            | Self::Kprobe { program, .. }
            | Self::Kretprobe { program, .. }
            | Self::CgroupSkb { program, .. }
            | Self::CpuClock { program }
            | Self::Iterator { program, .. } => program,
        }
    }

    /// As users know it: `tp_btf/sock_send_length`.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Tracepoint { name, .. } => format!("tp_btf/{name}"),
            Self::Fexit { function, .. } => format!("fexit/{function}"),
            Self::Fentry { function, .. } => format!("fentry/{function}"),
            Self::Kprobe { function, .. } => format!("kprobe/{function}"),
            Self::Kretprobe { function, .. } => format!("kretprobe/{function}"),
            Self::CgroupSkb { egress: true, .. } => "cgroup_skb/egress".to_owned(),
            Self::CgroupSkb { egress: false, .. } => "cgroup_skb/ingress".to_owned(),
            Self::CpuClock { .. } => "perf_event/cpu-clock".to_owned(),
            Self::Iterator { over, .. } => format!("iter/{over}"),
        }
    }

    /// The kind and the name of the kernel's type by whose id the program is attached; `None` where it is
    /// attached otherwise.
    pub(super) fn kernel_type(&self) -> Option<(u32, String)> {
        match self {
            Self::Tracepoint { name, .. } => Some((kind::TYPEDEF, format!("btf_trace_{name}"))),
            Self::Fexit { function, .. } | Self::Fentry { function, .. } => {
                Some((kind::FUNC, (*function).to_owned()))
            }
            Self::Iterator { over, .. } => Some((kind::FUNC, format!("bpf_iter_{over}"))),
            Self::Kprobe { .. }
            | Self::Kretprobe { .. }
            | Self::CgroupSkb { .. }
            | Self::CpuClock { .. } => None,
        }
    }

    /// Why BTF rules it out on this kernel; `None` where it is worth a try.
    #[must_use]
    pub fn ruled_out(&self, btf: &Btf) -> Option<String> {
        match self {
            Self::Tracepoint {
                name, arguments, ..
            } => match btf.tracepoint_arguments(name) {
                None => Some("this kernel has no such tracepoint".to_owned()),
                Some(has) if has < *arguments => Some(format!(
                    "it passes {has} arguments here, {arguments} are needed"
                )),
                Some(_) => None,
            },
            Self::Fexit { function, .. }
            | Self::Fentry { function, .. }
            | Self::Kprobe { function, .. }
            | Self::Kretprobe { function, .. } => (!btf.has_function(function))
                .then(|| "this kernel has no such function to attach to".to_owned()),
            Self::CgroupSkb { .. } | Self::CpuClock { .. } | Self::Iterator { .. } => None,
        }
    }
}

const fn tracepoint(program: &'static str, name: &'static str, arguments: usize) -> Hook {
    Hook::Tracepoint {
        program,
        name,
        arguments,
    }
}

/// Everything we want to know of the kernel.
pub const WANTS: &[Want] = &[
    Want {
        name: "connections",
        without: None,
        ways: &[&[tracepoint("socket_state", "inet_sock_set_state", 3)]],
    },
    Want {
        name: "bytes sent",
        without: Some("requests and responses are not told apart"),
        ways: &[
            &[tracepoint("sent", "sock_send_length", 3)],
            &[Hook::Fexit {
                program: "sent_fexit",
                function: "tcp_sendmsg",
            }],
            &[
                Hook::Kprobe {
                    program: "sent_kprobe",
                    function: "tcp_sendmsg",
                },
                Hook::Kretprobe {
                    program: "sent_kretprobe",
                    function: "tcp_sendmsg",
                },
            ],
        ],
    },
    Want {
        name: "bytes received",
        without: Some("requests and responses are not told apart"),
        ways: &[
            &[tracepoint("received", "sock_recv_length", 3)],
            &[Hook::Fentry {
                program: "received_fentry",
                function: "tcp_cleanup_rbuf",
            }],
            &[Hook::Kprobe {
                program: "received_kprobe",
                function: "tcp_cleanup_rbuf",
            }],
        ],
    },
    Want {
        name: "resets sent",
        without: Some("who sent a reset is concluded from the connection's end"),
        ways: &[
            &[tracepoint("reset_sent_with_reason", "tcp_send_reset", 3)],
            &[tracepoint("reset_sent", "tcp_send_reset", 2)],
        ],
    },
    Want {
        name: "resets received",
        without: Some("a reset looks like an ordinary end"),
        ways: &[&[tracepoint("reset_received", "tcp_receive_reset", 1)]],
    },
    Want {
        name: "retransmissions",
        without: Some("an unanswered SYN is only known by its time"),
        ways: &[&[tracepoint("retransmitted", "tcp_retransmit_skb", 2)]],
    },
    Want {
        name: "dropped packets",
        without: Some("who dropped a packet is not told"),
        ways: &[&[tracepoint("dropped", "kfree_skb", 3)]],
    },
    Want {
        name: "packets sent",
        without: Some("no capture, and no HTTP method, path and status"),
        ways: &[&[Hook::CgroupSkb {
            program: "packet_out",
            egress: true,
        }]],
    },
    Want {
        name: "packets received",
        without: Some("no capture, and no HTTP method, path and status"),
        ways: &[&[Hook::CgroupSkb {
            program: "packet_in",
            egress: false,
        }]],
    },
    Want {
        name: "children",
        without: Some("children of the targets are not followed"),
        ways: &[&[tracepoint("process_forked", "sched_process_fork", 2)]],
    },
    Want {
        name: "programs started",
        without: Some("a target that calls exec is taken for its old program"),
        ways: &[&[tracepoint("process_execed", "sched_process_exec", 3)]],
    },
    Want {
        name: "processes ended",
        without: Some("the end of a process is noticed late"),
        ways: &[&[tracepoint("process_exited", "sched_process_exit", 1)]],
    },
    Want {
        name: "threads on CPUs",
        without: Some("for how long threads ran, waited for a CPU and were blocked is not known"),
        ways: &[
            &[tracepoint("switched_with_state", "sched_switch", 4)],
            &[tracepoint("switched", "sched_switch", 3)],
        ],
    },
    Want {
        name: "wake-ups",
        without: Some("what a woken thread waits for a CPU is taken for sleep"),
        ways: &[&[
            tracepoint("woken", "sched_wakeup", 1),
            tracepoint("woken_first", "sched_wakeup_new", 1),
        ]],
    },
    Want {
        name: "CPU samples",
        without: Some("where the CPU time goes, and who else takes it, is not told"),
        ways: &[&[Hook::CpuClock { program: "sampled" }]],
    },
    Want {
        name: "sockets from before",
        without: Some("connections that were open already are seen from their next use on"),
        ways: &[&[Hook::Iterator {
            program: "found_sockets",
            over: "task_file",
        }]],
    },
];

/// What became of a want on this kernel.
#[derive(Debug)]
pub struct Choice {
    /// Which.
    pub want: &'static Want,
    /// The way that works, joined by ` + ` where it takes several programs; `None` where none does.
    pub by: Option<String>,
    /// The ways tried before, each with what was said against it.
    pub refused: Vec<(String, String)>,
}
