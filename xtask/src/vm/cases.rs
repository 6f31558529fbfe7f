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
    /// The rule that one of its findings must be of.
    pub(super) rule: &'static str,
}

/// One for each family of hooks, and two that only a kernel with netem can play.
pub(super) const CASES: [Case; 11] = [
    Case {
        name: "N1",
        program: "live_proxy_timeout",
        test: "a_gateway_found_by_its_port_is_named_with_its_setting",
        services: &["upload", "gateway", "client"],
        from: OLDEST,
        rule: "proxy-timeout",
    },
    Case {
        name: "N4",
        program: "live_connect",
        test: "a_syn_dropped_by_the_peers_firewall_names_netfilter",
        services: &["client"],
        from: "6.1",
        rule: "connect-timeout",
    },
    Case {
        name: "N4-nobody",
        program: "live_connect",
        test: "a_syn_to_nobody_accuses_nobody",
        services: &["client"],
        from: OLDEST,
        rule: "connect-timeout",
    },
    Case {
        name: "N5",
        program: "live_connect",
        test: "a_syn_answered_by_rst_is_a_refusal",
        services: &["client"],
        from: OLDEST,
        rule: "connect-refused",
    },
    Case {
        name: "N13-linger",
        program: "live_reset",
        test: "a_close_with_linger_0_names_the_line",
        services: &["shop"],
        from: OLDEST,
        rule: "connection-reset",
    },
    Case {
        name: "N13-unread",
        program: "live_reset",
        test: "a_close_with_data_unread_names_the_line",
        services: &["shop"],
        from: OLDEST,
        rule: "connection-reset",
    },
    Case {
        name: "S2",
        program: "live_cpu",
        test: "a_neighbour_that_takes_the_cpus_is_named",
        services: &["mill", "pace"],
        from: OLDEST,
        rule: "run-queue-delay",
    },
    Case {
        name: "S3",
        program: "live_cpu",
        test: "a_quota_far_below_gomaxprocs_is_named_with_both_and_with_the_requests_it_delayed",
        services: &["mill", "pace"],
        from: OLDEST,
        rule: "cpu-throttled",
    },
    Case {
        name: "G1",
        program: "live_leaks",
        test: "a_result_that_nobody_receives_leaks_its_goroutine",
        services: &["leaky", "hello"],
        from: OLDEST,
        rule: "goroutine-leak",
    },
    Case {
        name: "loss",
        program: "live_netem",
        test: "a_line_that_loses_packets_is_the_cause_of_the_gap",
        services: &["files", "reader"],
        from: OLDEST,
        rule: "packet-loss",
    },
    Case {
        name: "delay",
        program: "live_netem",
        test: "a_slow_line_is_no_slow_service",
        services: &["files", "reader"],
        from: OLDEST,
        rule: "stalled-transfer",
    },
];

impl Case {
    /// Whether the kernel of this version has the hooks for it.
    pub(super) fn is_for(&self, version: &str) -> bool {
        number(version) >= number(self.from)
    }

    pub(super) fn named(name: &str) -> anyhow::Result<&'static Self> {
        let known = || CASES.map(|case| case.name).join(", ");
        CASES
            .iter()
            .find(|case| case.name.eq_ignore_ascii_case(name))
            .with_context(|| format!("there is no case {name} here, but {}", known()))
    }
}
