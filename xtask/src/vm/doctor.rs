//! What `gopulse doctor` must say on each kernel: by which hook it learns each thing, from which kernel on,
//! and what it says against the better ways before.
//!
//! Both sides of each beginning are held: a hook that is told on a kernel that does not have it is as wrong
//! as one that is missing where it is there.

use super::kernels::{OLDEST, number};

/// From a kernel on, this is how one thing is learnt.
struct Era {
    from: &'static str,
    /// The hook; `None` where it cannot be learnt.
    by: Option<&'static str>,
    /// How many better ways are refused, each with a reason.
    refused: usize,
}

const fn era(from: &'static str, by: &'static str, refused: usize) -> Era {
    Era {
        from,
        by: Some(by),
        refused,
    }
}

const fn unseen(from: &'static str, refused: usize) -> Era {
    Era {
        from,
        by: None,
        refused,
    }
}

/// Each want of `tracer-user/src/host/plan.rs`, and its eras, oldest first.
const WANTS: [(&str, &[Era]); 16] = [
    (
        "connections",
        &[era(OLDEST, "tp_btf/inet_sock_set_state", 0)],
    ),
    // The tracepoints came in 6.3.
    (
        "bytes sent",
        &[
            era(OLDEST, "fexit/tcp_sendmsg", 1),
            era("6.12", "tp_btf/sock_send_length", 0),
        ],
    ),
    (
        "bytes received",
        &[
            era(OLDEST, "fentry/tcp_cleanup_rbuf", 1),
            era("6.12", "tp_btf/sock_recv_length", 0),
        ],
    ),
    // The reason is its third argument since 6.10.
    (
        "resets sent",
        &[
            era(OLDEST, "tp_btf/tcp_send_reset", 1),
            era("6.12", "tp_btf/tcp_send_reset", 0),
        ],
    ),
    (
        "resets received",
        &[era(OLDEST, "tp_btf/tcp_receive_reset", 0)],
    ),
    (
        "retransmissions",
        &[era(OLDEST, "tp_btf/tcp_retransmit_skb", 0)],
    ),
    // The reason is its third argument since 5.17.
    (
        "dropped packets",
        &[unseen(OLDEST, 1), era("6.1", "tp_btf/kfree_skb", 0)],
    ),
    ("packets sent", &[era(OLDEST, "cgroup_skb/egress", 0)]),
    ("packets received", &[era(OLDEST, "cgroup_skb/ingress", 0)]),
    ("children", &[era(OLDEST, "tp_btf/sched_process_fork", 0)]),
    (
        "programs started",
        &[era(OLDEST, "tp_btf/sched_process_exec", 0)],
    ),
    (
        "processes ended",
        &[era(OLDEST, "tp_btf/sched_process_exit", 0)],
    ),
    // The state is its fourth argument since 5.18.
    (
        "threads on CPUs",
        &[
            era(OLDEST, "tp_btf/sched_switch", 1),
            era("6.1", "tp_btf/sched_switch", 0),
        ],
    ),
    (
        "wake-ups",
        &[era(
            OLDEST,
            "tp_btf/sched_wakeup + tp_btf/sched_wakeup_new",
            0,
        )],
    ),
    ("CPU samples", &[era(OLDEST, "perf_event/cpu-clock", 0)]),
    ("sockets from before", &[era(OLDEST, "iter/task_file", 0)]),
];

/// What doctor said of one want.
#[derive(Debug, PartialEq, Eq)]
struct Said<'a> {
    want: &'a str,
    by: Option<&'a str>,
    refused: Vec<&'a str>,
}

/// Where doctor says something else on the kernel of this version.
pub(super) fn complaints(version: &str, text: &str) -> Vec<String> {
    let said = parse(text);
    let mut complaints = Vec::new();
    for (want, eras) in WANTS {
        let applies = |era: &&Era| number(era.from) <= number(version);
        let Some(era) = eras.iter().rfind(applies) else {
            continue;
        };
        match said.iter().find(|said| said.want == want) {
            Some(said) if said.by == era.by && said.refused.len() == era.refused => {}
            Some(said) => complaints.push(format!(
                "doctor says {want} by {}{}; expected {} and {} refused",
                said.by.unwrap_or("nothing"),
                said.refused.concat(),
                era.by.unwrap_or("nothing"),
                era.refused
            )),
            None => complaints.push(format!("doctor says nothing of {want}")),
        }
    }
    for said in said {
        if !WANTS.iter().any(|(want, _)| *want == said.want) {
            complaints.push(format!("{} is not expected of doctor", said.want));
        }
    }
    complaints
}

/// How many of the wants are seen, of how many.
pub(super) fn seen(text: &str) -> String {
    let said = parse(text);
    let seen = said.iter().filter(|said| said.by.is_some()).count();
    format!("{seen} of {}", said.len())
}

fn parse(text: &str) -> Vec<Said<'_>> {
    let (_, hooks) = text.split_once("What can be seen").unwrap_or_default();
    let mut said: Vec<Said<'_>> = Vec::new();
    for line in hooks.lines().skip(1) {
        let words = line.trim_start();
        let (mark, rest) = words.split_once(' ').unwrap_or((words, ""));
        match mark {
            "yes" | "no" => {
                let rest = rest.trim_start();
                let (want, found) = rest.split_once("  ").unwrap_or((rest, ""));
                said.push(Said {
                    want,
                    by: (mark == "yes").then_some(found.trim_start()),
                    refused: Vec::new(),
                });
            }
            "not" => {
                if let Some(last) = said.last_mut() {
                    last.refused.push(rest);
                }
            }
            _ => {}
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
Host
  yes  lockdown               not in force

What can be seen, and by what
  yes  bytes sent             fexit/tcp_sendmsg
                              not by tp_btf/sock_send_length: this kernel has no such tracepoint
  no   dropped packets        who dropped a packet is not told
                              not by tp_btf/kfree_skb: it passes 2 arguments here, 3 are needed
";

    #[test]
    fn doctor_is_read() {
        let said = parse(SAID);
        let brief: Vec<_> = said
            .iter()
            .map(|said| (said.want, said.by, said.refused.len()))
            .collect();
        let expected = [
            ("bytes sent", Some("fexit/tcp_sendmsg"), 1),
            ("dropped packets", None, 1),
        ];
        assert_eq!(brief, expected);
        assert_eq!(seen(SAID), "1 of 2");
    }

    #[test]
    fn a_hook_before_its_time_is_as_wrong_as_one_that_is_missing() {
        let of = |version, want| {
            let complaints = complaints(version, SAID);
            complaints.iter().any(|complaint| complaint.contains(want))
        };
        assert!(!of("5.10", "dropped packets") && of("6.1", "dropped packets"));
        assert!(!of("6.1", "bytes sent") && of("6.12", "bytes sent"));
        assert!(of("6.1", "doctor says nothing of connections"));
    }
}
