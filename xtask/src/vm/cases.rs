//! What is tried on each kernel: live scenarios as they run natively, with the same assertions.

use anyhow::Context as _;

use super::kernels::{OLDEST, number};

/// A live scenario.
#[derive(Debug)]
pub(super) struct Case {
    /// As users of `--scenarios` know it.
    pub(super) name: &'static str,
    /// The file in `tests/tests/`.
    pub(super) program: &'static str,
    /// The test in it.
    pub(super) test: &'static str,
    /// The Go services that it starts.
    pub(super) services: &'static [&'static str],
    /// The oldest kernel that lets it be told.
    pub(super) from: &'static str,
    /// The first kernel that has a better way than the one this is for.
    pub(super) before: Option<&'static str>,
    /// Kernel functions that are left without room for fentry and fexit, so that kprobes have to do.
    pub(super) crowded: &'static [&'static str],
    /// The rule that one of its findings must be of.
    pub(super) rule: &'static str,
}

/// The functions that kernels without tracepoints for bytes are asked at.
const BYTES: [&str; 2] = ["tcp_sendmsg", "tcp_cleanup_rbuf"];

/// One for each family of hooks, two that only a kernel with netem can play, and some again by kprobes.
pub(super) const CASES: [Case; 15] = [
    Case {
        name: "N1",
        program: "live_proxy_timeout",
        test: "a_gateway_found_by_its_port_is_named_with_its_setting",
        services: &["upload", "gateway", "client"],
        from: OLDEST,
        before: None,
        crowded: &[],
        rule: "proxy-timeout",
    },
    Case {
        name: "N4",
        program: "live_connect",
        test: "a_syn_dropped_by_the_peers_firewall_names_netfilter",
        services: &["client"],
        from: "6.1",
        before: None,
        crowded: &[],
        rule: "connect-timeout",
    },
    Case {
        name: "N4-nobody",
        program: "live_connect",
        test: "a_syn_to_nobody_accuses_nobody",
        services: &["client"],
        from: OLDEST,
        before: None,
        crowded: &[],
        rule: "connect-timeout",
    },
    Case {
        name: "N5",
        program: "live_connect",
        test: "a_syn_answered_by_rst_is_a_refusal",
        services: &["client"],
        from: OLDEST,
        before: None,
        crowded: &[],
        rule: "connect-refused",
    },
    Case {
        name: "N13-linger",
        program: "live_reset",
        test: "a_close_with_linger_0_names_the_line",
        services: &["shop"],
        from: OLDEST,
        before: None,
        crowded: &[],
        rule: "connection-reset",
    },
    Case {
        name: "N13-unread",
        program: "live_reset",
        test: "a_close_with_data_unread_names_the_line",
        services: &["shop"],
        from: OLDEST,
        before: None,
        crowded: &[],
        rule: "connection-reset",
    },
    Case {
        name: "S2",
        program: "live_cpu",
        test: "a_neighbour_that_takes_the_cpus_is_named",
        services: &["mill", "pace"],
        from: OLDEST,
        before: None,
        crowded: &[],
        rule: "run-queue-delay",
    },
    Case {
        name: "S3",
        program: "live_cpu",
        test: "a_quota_far_below_gomaxprocs_is_named_with_both_and_with_the_requests_it_delayed",
        services: &["mill", "pace"],
        from: OLDEST,
        before: None,
        crowded: &[],
        rule: "cpu-throttled",
    },
    Case {
        name: "G1",
        program: "live_leaks",
        test: "a_result_that_nobody_receives_leaks_its_goroutine",
        services: &["leaky", "hello"],
        from: OLDEST,
        before: None,
        crowded: &[],
        rule: "goroutine-leak",
    },
    Case {
        name: "loss",
        program: "live_netem",
        test: "a_line_that_loses_packets_is_the_cause_of_the_gap",
        services: &["files", "reader"],
        from: OLDEST,
        before: None,
        crowded: &[],
        rule: "packet-loss",
    },
    Case {
        name: "delay",
        program: "live_netem",
        test: "a_slow_line_is_no_slow_service",
        services: &["files", "reader"],
        from: OLDEST,
        before: None,
        crowded: &[],
        rule: "stalled-transfer",
    },
    Case {
        name: "N1-kprobe",
        program: "live_proxy_timeout",
        test: "a_gateway_found_by_its_port_is_named_with_its_setting",
        services: &["upload", "gateway", "client"],
        from: OLDEST,
        before: Some("6.3"),
        crowded: &BYTES,
        rule: "proxy-timeout",
    },
    Case {
        name: "N4-kprobe",
        program: "live_connect",
        test: "a_syn_dropped_by_the_peers_firewall_names_netfilter",
        services: &["client"],
        from: "6.1",
        before: Some("6.3"),
        crowded: &BYTES,
        rule: "connect-timeout",
    },
    Case {
        name: "N5-kprobe",
        program: "live_connect",
        test: "a_syn_answered_by_rst_is_a_refusal",
        services: &["client"],
        from: OLDEST,
        before: Some("6.3"),
        crowded: &BYTES,
        rule: "connect-refused",
    },
    Case {
        name: "N13-kprobe",
        program: "live_reset",
        test: "a_close_with_data_unread_names_the_line",
        services: &["shop"],
        from: OLDEST,
        before: Some("6.3"),
        crowded: &BYTES,
        rule: "connection-reset",
    },
];

impl Case {
    /// Whether the kernel of this version has the hooks for it.
    pub(super) fn is_for(&self, version: &str) -> bool {
        let better = |before| number(version) >= number(before);
        number(version) >= number(self.from) && !self.before.is_some_and(better)
    }

    /// The kprobe by which a report that comes of this must say that it was told.
    pub(super) fn kprobes(&self) -> impl Iterator<Item = String> {
        self.crowded
            .iter()
            .map(|function| format!("kprobe/{function}"))
    }

    pub(super) fn named(name: &str) -> anyhow::Result<&'static Self> {
        let known = || CASES.map(|case| case.name).join(", ");
        CASES
            .iter()
            .find(|case| case.name.eq_ignore_ascii_case(name))
            .with_context(|| format!("there is no case {name} here, but {}", known()))
    }
}
