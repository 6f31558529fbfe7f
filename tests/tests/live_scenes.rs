//! The scenes themselves, with no tool watching: what the other scenarios expect gopulse to find does
//! happen, and nothing of it is left behind.

use std::{fs, path::Path};

use gopulse_tests::{
    netns::{Netns, Pair},
    process::Process,
    services::{self, Outcome, Service, upload_by},
    turn::Turn,
};

fn lasted(outcome: &Outcome, seconds: f64) -> bool {
    (outcome.seconds - seconds).abs() < 0.1
}

#[test]
fn a_gateway_gives_up_on_large_uploads_only() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take_without_tracing("the gateway's scene", &[]) else {
        return Ok(());
    };
    let upload = Service::start("upload", &["-large-delay", "700ms"])?;
    let upstream = upload.address.to_string();
    for (on_error, status) in [("abort", 0), ("502", 502)] {
        let gateway = Service::start(
            "gateway",
            &[
                "-upstream",
                &upstream,
                "-response-header-timeout",
                "300ms",
                "-on-error",
                on_error,
            ],
        )?;
        let url = format!("http://{}/upload", gateway.address);
        let outcomes = services::upload(&url, &["-n", "4", "-large-every", "2"])?;
        for outcome in &outcomes {
            if outcome.bytes > 100_000 {
                assert!(
                    outcome.status == status && lasted(outcome, 0.3),
                    "{outcome:?}"
                );
            } else {
                assert!(outcome.status == 200 && lasted(outcome, 0.0), "{outcome:?}");
            }
        }
        assert_eq!(outcomes.len(), 4);
    }
    Ok(())
}

#[test]
fn a_client_gives_up_by_each_of_its_settings() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take_without_tracing("the client's scene", &[]) else {
        return Ok(());
    };
    let upload = Service::start("upload", &["-large-delay", "700ms"])?;
    let url = format!("http://{}/upload", upload.address);
    for (flag, word) in [
        ("-timeout", "Client.Timeout exceeded"),
        ("-ctx-timeout", "context deadline exceeded"),
    ] {
        let outcomes = services::upload(&url, &["-large-every", "1", flag, "300ms"])?;
        let outcome = &outcomes[0];
        assert!(
            outcome.error.contains(word) && lasted(outcome, 0.3),
            "{outcome:?}"
        );
    }
    Ok(())
}

#[test]
fn a_dropped_syn_is_never_answered() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take_without_tracing("the dropped SYN's scene", &["ip", "nft"]) else {
        return Ok(());
    };
    let pair = Pair::new()?;
    pair.pretend_nobody_is_there()?;
    pair.far.drop_tcp_to(81, "input")?;
    pair.near.drop_tcp_to(82, "output")?;
    let dial = |host: &str, port: u16| {
        let url = format!("http://{host}:{port}/");
        let mut client = pair.near.command(services::program("client")?);
        let outcomes = upload_by(client.args(["-url", &url, "-dial-timeout", "300ms"]))?;
        anyhow::Ok(outcomes[0].clone())
    };
    for (host, port) in [(Pair::FAR, 81), (Pair::FAR, 82), (Pair::NOBODY, 83)] {
        let outcome = dial(host, port)?;
        assert!(
            outcome.error.contains("i/o timeout") && lasted(&outcome, 0.3),
            "{outcome:?}"
        );
    }
    let refused = dial(Pair::FAR, 84)?;
    assert!(refused.error.contains("refused"), "{refused:?}");
    Ok(())
}

#[test]
fn nothing_is_left_of_a_scene() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take_without_tracing("the end of a scene", &["ip"]) else {
        return Ok(());
    };
    let before = namespaces();
    let netns = Netns::new("ends")?;
    assert_eq!(namespaces(), before + 1);
    let mut hello = netns.command(services::program("hello")?);
    let mut hello = Process::start(&mut hello)?;
    hello.line("listening ")?;
    let pid = hello.pid();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    drop(hello);
    drop(netns);
    assert_eq!(namespaces(), before);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}

#[test]
fn a_service_that_cannot_listen_says_why() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take_without_tracing("a service that cannot listen", &[]) else {
        return Ok(());
    };
    let first = Service::start("hello", &[])?;
    let address = first.address.to_string();
    let second = Service::start("hello", &["-listen", &address]);
    let why = second.err().map(|error| error.to_string());
    assert!(
        why.as_deref().is_some_and(|why| why.contains("in use")),
        "{why:?}"
    );
    drop(first);
    // The port is free again as soon as the process is gone.
    Service::start("hello", &["-listen", &address])?;
    Ok(())
}

fn namespaces() -> usize {
    fs::read_dir("/run/netns").map_or(0, Iterator::count)
}
