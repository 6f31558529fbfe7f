//! The cases that must be told apart, each with the live test that reproduces it and the rules that it
//! expects, for `cargo xtask scenarios`. What else a finding must say is asserted by the test.

/// One way in which a case happens.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The case; several scenes may show the same. `H…` are the healthy ones.
    pub id: &'static str,
    /// What happens.
    pub what: &'static str,
    /// The rules of all findings at warning or above that no other finding explains; none where it is
    /// healthy.
    pub expected: &'static [&'static str],
    /// The test, as `FILE::FUNCTION`.
    pub test: &'static str,
}

const fn case(
    id: &'static str,
    what: &'static str,
    expected: &'static [&'static str],
    test: &'static str,
) -> Case {
    Case {
        id,
        what,
        expected,
        test,
    }
}

/// A case of which nothing is told, since nothing is wrong.
const fn healthy(id: &'static str, what: &'static str, test: &'static str) -> Case {
    case(id, what, &[], test)
}

/// What no scene shows, and why.
pub const NOT_REPRODUCED: [(&str, &str, &str); 1] = [(
    "N7",
    "the path is slow",
    "wants sch_netem, which not every kernel has; told from packets alone in the unit tests of pcap",
)];

/// Every case, in the order in which it is told.
#[rustfmt::skip] // A table: one line a scene.
pub const CASES: &[Case] = &[
    case("N1", "gateway gives up on its upstream", &["proxy-timeout"], "live_proxy_timeout::a_gateway_found_by_its_port_is_named_with_its_setting"),
    case("N1", "the same, upstream watched too", &["proxy-timeout"], "live_proxy_timeout::the_upstream_still_at_work_is_shown_with_its_line"),
    case("N1", "the same, gateway started by gopulse", &["proxy-timeout"], "live_proxy_timeout::a_gateway_started_by_gopulse_is_watched_from_its_first_connection"),
    case("N1", "a deadline in the gateway's handler", &["proxy-timeout"], "live_proxy_timeout::a_deadline_that_the_gateways_own_handler_sets_is_named"),
    case("N2", "slow uploads cut off, answered 400", &["server-timeout"], "live_server_timeout::slow_uploads_that_are_answered_with_an_error_name_read_timeout"),
    case("N2", "slow uploads cut off, nothing answered", &["server-timeout"], "live_server_timeout::slow_uploads_that_are_closed_with_nothing_name_read_timeout"),
    case("N2", "heads trickle", &["server-timeout"], "live_server_timeout::heads_that_trickle_name_read_header_timeout"),
    case("N2", "TimeoutHandler answers 503", &["server-timeout"], "live_server_timeout::a_timeout_handler_is_named_while_the_handler_works_on"),
    case("N2", "slow downloads cut off in the middle", &["server-timeout"], "live_server_timeout::downloads_that_are_cut_off_in_the_middle_name_write_timeout"),
    case("N2", "nginx stops waiting for a body", &["server-timeout"], "live_server_timeout::an_nginx_that_stops_waiting_for_a_body_has_a_limit_and_no_go_setting"),
    case("N3", "nginx in front gives up", &["proxy-timeout"], "live_native_proxy::nginx_gives_up_after_its_proxy_read_timeout"),
    case("N3", "haproxy in front gives up", &["proxy-timeout"], "live_native_proxy::haproxy_gives_up_after_its_timeout_server"),
    case("N3", "caddy in front gives up", &["proxy-timeout"], "live_native_proxy::caddy_gives_up_after_its_response_header_timeout"),
    case("N4", "SYN dropped by the peer's firewall", &["connect-timeout"], "live_connect::a_syn_dropped_by_the_peers_firewall_names_netfilter"),
    case("N4", "SYN dropped by the local OUTPUT chain", &["connect-timeout"], "live_connect::a_syn_dropped_by_the_own_firewall_names_netfilter"),
    case("N4", "SYN to no such host", &["connect-timeout"], "live_connect::a_syn_to_nobody_accuses_nobody"),
    case("N5", "SYN answered by RST", &["connect-refused"], "live_connect::a_syn_answered_by_rst_is_a_refusal"),
    case("N6", "handler sends to nobody", &["no-response"], "live_no_response::a_handler_that_sends_to_nobody_is_named_with_its_line"),
    case("N6", "handler at a lock", &["no-response"], "live_no_response::a_handler_at_a_lock_is_named_with_its_line"),
    case("N6", "handler waits for its workers", &["no-response"], "live_no_response::a_handler_that_waits_for_its_workers_is_named_with_its_line"),
    case("N6", "handlers stuck since before the window", &["no-response"], "live_no_response::handlers_that_were_stuck_before_the_window_are_told_by_their_stacks"),
    case("N6", "client gives up on a stuck handler", &["no-response"], "live_no_response::a_client_that_gives_up_on_a_stuck_handler_is_told_as_its_consequence"),
    case("N6", "process stopped, requests unread", &["no-response"], "live_no_response::a_process_that_is_stopped_leaves_requests_unread"),
    case("N6", "accept loop stuck, requests unread", &["no-response"], "live_no_response::an_accept_loop_that_is_elsewhere_is_named_with_its_line"),
    case("N7", "the application pauses", &["stalled-transfer"], "live_transfer::a_handler_that_pauses_in_mid_response_is_the_silent_sender"),
    case("N7", "the receiver's window is full for a while", &["stalled-transfer"], "live_transfer::a_receiver_that_stops_reading_is_named"),
    case("N7", "the receiver's window is full for good", &["stalled-transfer"], "live_transfer::a_receiver_that_never_reads_again_is_named"),
    case("N7", "packets are lost", &["packet-loss"], "live_transfer::lost_packets_are_the_cause_of_the_gap"),
    case("N8", "handler panics", &["empty-response"], "live_reset::a_panic_is_told_with_its_line"),
    case("N8", "handler aborts on purpose", &["empty-response"], "live_reset::an_abort_on_purpose_is_told_as_possible"),
    case("N8", "WriteTimeout passes", &["server-timeout"], "live_server_timeout::answers_after_write_timeout_are_thrown_away"),
    case("N8", "the upstream resets", &["connection-reset"], "live_reset::an_upstream_that_resets_is_the_cause_of_the_gateways_empty_reply"),
    case("N9", "post crosses the close of an idle connection", &["keepalive-race"], "live_reset::posts_that_cross_the_close_of_an_idle_connection_name_both_idle_times"),
    case("N10", "a connection for every message", &["connection-churn"], "live_resources::a_connection_for_every_message_is_named_with_its_function"),
    case("N10", "an http.Client for every message", &["connection-churn"], "live_resources::a_client_for_every_message_is_churn_as_well"),
    case("N11", "client keeps what its server closed", &["close-wait-leak"], "live_resources::connections_that_are_never_closed_are_named_with_who_opened_them"),
    case("N11", "server keeps what its clients closed", &["close-wait-leak"], "live_resources::a_server_that_keeps_what_its_clients_closed_is_found"),
    case("N11", "the same, from before the window", &["close-wait-leak"], "live_resources::leaks_from_before_the_window_are_found"),
    case("N12", "the accept queue overflows", &["accept-backlog"], "live_resources::a_queue_that_overflows_is_told_with_its_length"),
    case("N13", "close with linger 0", &["connection-reset"], "live_reset::a_close_with_linger_0_names_the_line"),
    case("N13", "close with data unread", &["connection-reset"], "live_reset::a_close_with_data_unread_names_the_line"),
    case("N14", "descriptors have run out", &["fd-exhaustion"], "live_resources::calls_that_fail_for_want_of_a_descriptor_are_told_with_the_limit"),
    case("N14", "descriptors will run out", &["fd-exhaustion"], "live_resources::descriptors_that_will_run_out_are_told_before"),
    case("N15", "http.Client.Timeout", &["client-timeout"], "live_client_timeout::the_clients_own_timeout_is_named"),
    case("N15", "a context's deadline", &["client-timeout"], "live_client_timeout::the_deadline_of_a_context_is_named"),
    case("N15", "Dialer.Timeout", &["client-timeout"], "live_client_timeout::a_dialers_timeout_is_not_taken_for_the_clients"),
    case("S1", "timers set again and again", &["timer-abuse"], "live_runtime::timers_that_are_set_again_and_again_are_named"),
    case("S1", "tickers that nobody stops", &["timer-abuse"], "live_runtime::tickers_that_nobody_stops_are_named"),
    case("S1", "time.After in a loop", &["timer-abuse"], "live_runtime::time_after_in_a_loop_is_named"),
    case("S2", "a neighbour takes the CPUs", &["run-queue-delay"], "live_cpu::a_neighbour_that_takes_the_cpus_is_named"),
    case("S3", "GOMAXPROCS far above the quota", &["cpu-throttled"], "live_cpu::a_quota_far_below_gomaxprocs_is_named_with_both_and_with_the_requests_it_delayed"),
    case("S4", "tiny pieces from thread to thread", &["scheduler-thrash"], "live_runtime::tiny_pieces_that_are_handed_from_thread_to_thread_are_named"),
    case("S5", "allocation drives the collector", &["gc-pressure"], "live_runtime::garbage_with_no_room_to_lie_in_names_who_makes_it"),
    case("S6", "one handler burns the CPU (from the recording)", &["slow-response"], "live_slow_cpu::a_handler_that_burns_the_cpu_is_named_with_its_function"),
    case("G1", "a channel that nobody reads", &["goroutine-leak"], "live_leaks::a_result_that_nobody_receives_leaks_its_goroutine"),
    case("G2", "a WaitGroup without its Done", &["goroutine-leak"], "live_leaks::a_group_that_is_never_done_leaks_who_waits_for_it"),
    case("G3", "a mutex held over a slow call", &["lock-contention"], "live_leaks::a_lock_held_over_something_slow_is_told_with_holder_and_queue"),
    case("G4", "two locks in opposite order", &["deadlock"], "live_leaks::two_locks_in_opposite_order_are_a_deadlock"),
    case("G5", "range over a channel that stays open", &["goroutine-leak"], "live_leaks::a_range_over_a_channel_that_is_never_closed_leaks"),
    case("G5", "time.After in a loop that nobody ends", &["goroutine-leak"], "live_leaks::a_loop_over_a_timer_that_nobody_ends_leaks"),
    case("G5", "a body that nobody closes", &["goroutine-leak"], "live_leaks::a_body_that_nobody_closes_leaks_its_connection_and_names_who_asked"),
    case("G6", "everything waits for a slow database", &["slow-response"], "live_database::a_slow_database_is_the_cause_and_no_leak_is_claimed"),
    case("G6", "everything waits for a pool that is used up", &["slow-response"], "live_pool::a_pool_that_is_used_up_is_told_with_its_limit"),
    healthy("H1", "kept connections under full load", "live_healthy::kept_connections_under_full_load_are_healthy"),
    healthy("H1", "a connection a request under full load", "live_healthy::a_connection_for_every_request_under_full_load_is_healthy"),
    healthy("H1", "a service that computes at full load", "live_slow_cpu::a_service_that_computes_at_full_load_and_answers_in_time_is_healthy"),
    healthy("H2", "50,000 idle goroutines", "live_leaks::fifty_thousand_idle_goroutines_are_healthy"),
    healthy("H2", "2,000 idle connections", "live_resources::thousands_of_idle_connections_below_the_limit_are_healthy"),
    healthy("H3", "a batch job in Go on every CPU", "live_slow_cpu::a_batch_job_in_go_that_uses_every_cpu_is_healthy"),
    healthy("H3", "a batch job of shells on every CPU", "live_slow_cpu::a_batch_job_of_shells_that_uses_every_cpu_is_healthy"),
    healthy("H4", "quiet long polls", "live_no_response::long_polls_without_news_are_healthy"),
    healthy("H4", "quiet websockets", "live_healthy::quiet_websockets_are_healthy"),
    healthy("H4", "streams of events, polls, slow readers", "live_transfer::streams_polls_and_steady_readers_are_healthy"),
    healthy("H5", "a service that shuts down", "live_reset::a_service_that_shuts_down_is_healthy"),
    healthy("H5", "a rolling restart behind nginx", "live_healthy::a_rolling_restart_behind_nginx_is_healthy"),
    healthy("H6", "Debian's prometheus scrapes and answers", "live_debian::prometheus_that_scrapes_and_answers_is_healthy"),
    healthy("H6", "Debian's etcd puts, reads, watches", "live_debian::etcd_under_puts_reads_and_watches_is_healthy"),
    healthy("H6", "Debian's caddy serves files and proxies", "live_debian::caddy_that_serves_files_and_proxies_is_healthy"),
    healthy("H6", "Debian's nginx serves files and proxies", "live_debian::nginx_that_serves_files_and_proxies_is_healthy"),
    healthy("H7", "bodies read and closed", "live_leaks::bodies_that_are_read_and_closed_are_healthy"),
    healthy("H7", "goroutines that end after a while", "live_leaks::goroutines_that_end_after_a_while_are_healthy"),
    healthy("H7", "one ticker for 50,000 sessions", "live_runtime::a_service_with_as_many_sessions_and_one_ticker_is_healthy"),
    healthy("H7", "clients that leave", "live_reset::clients_that_leave_are_healthy"),
    healthy("H7", "a pooled client, idle connections closed", "live_reset::a_pooled_client_whose_connections_the_server_closes_is_healthy"),
    healthy("H7", "limits that nobody runs into", "live_server_timeout::limits_that_nobody_runs_into_are_healthy"),
    healthy("H7", "a quick database", "live_database::a_quick_database_is_healthy"),
    healthy("H7", "a pool that suffices", "live_pool::a_pool_that_suffices_is_healthy"),
    healthy("H7", "a burst that the queue holds", "live_resources::a_burst_that_the_queue_holds_is_healthy"),
    healthy("H7", "a quota that is not used up", "live_cpu::a_quota_that_is_not_used_up_is_healthy_whatever_gomaxprocs_is"),
];
