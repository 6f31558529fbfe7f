//! N6: a request is read and never answered; another is never even read, because the accept loop is
//! elsewhere, or because the process does not run. The three are told apart, and none is taken for a
//! long poll.

use std::{fs, net::SocketAddr, thread::sleep, time::Duration};

use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch},
    http::Asked,
    process::Process,
    report::Report,
    services::{self, Service, go_time},
    turn::Turn,
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Answered requests on one connection each.
fn answered(server: SocketAddr, path: &str, number: usize) -> anyhow::Result<()> {
    for _ in 0..number {
        let answer = Asked::get(server, path)?.answer()?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    Ok(())
}

/// The only `no-response`, and nothing else at warning or above.
fn assert_only_silence(report: &Report, status: i32) -> anyhow::Result<()> {
    report.only("no-response")?;
    assert_eq!(report.rules(), ["no-response"], "{}", report.titles());
    assert_eq!(status, 1);
    Ok(())
}

fn stuck(scenario: &str, path: &str, method: &str) -> anyhow::Result<()> {
    let Some(_turn) = Turn::take(scenario, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(scenario);
    let service = Service::start("stuck", &[])?;
    let watch = Watch::diagnose(&["--pid", &service.pid()])?;
    answered(service.address, "/ok", 8)?;
    let _asked = Asked::get(service.address, path)?;
    sleep(draw.millis(1500..2500));
    let Verdict { status, report, .. } = watch.finish()?;

    assert_only_silence(&report, status)?;
    let found = report.only("no-response")?;
    assert!(found.mentions(method), "{found:?}");
    assert!(found.mentions("never answered"), "{found:?}");
    assert!(!found.mentions("unread"), "{found:?}");
    Ok(())
}

#[test]
fn a_handler_that_sends_to_nobody_is_named_with_its_line() -> anyhow::Result<()> {
    stuck(
        "a handler that sends to nobody",
        "/send",
        "main.(*Board).Post",
    )
}

#[test]
fn a_handler_at_a_lock_is_named_with_its_line() -> anyhow::Result<()> {
    stuck("a handler at a lock", "/lock", "main.(*Board).Count")
}

#[test]
fn a_handler_that_waits_for_its_workers_is_named_with_its_line() -> anyhow::Result<()> {
    stuck(
        "a handler that waits for its workers",
        "/group",
        "main.(*Board).Gather",
    )
}

#[test]
fn handlers_that_were_stuck_before_the_window_are_told_by_their_stacks() -> anyhow::Result<()> {
    let name = "handlers that were stuck before the window";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    // Where somebody else of the service waits for something, that may be what lets the handlers go on.
    let service = Service::start("stuck", &["-for", "1m"])?;
    let asked: Vec<Asked> = (0..6)
        .map(|_| Asked::get(service.address, "/send"))
        .collect::<anyhow::Result<_>>()?;
    answered(service.address, "/ok", 8)?;
    let watch = Watch::diagnose(&["--pid", &service.pid()])?;
    sleep(draw.millis(8000..9000));
    let Verdict { status, report, .. } = watch.finish()?;
    drop(asked);

    assert_only_silence(&report, status)?;
    let found = report.only("no-response")?;
    assert!(found.mentions("main.(*Board).Post"), "{found:?}");
    assert!(found.mentions("6 handlers"), "{found:?}");
    Ok(())
}

#[test]
fn a_client_that_gives_up_on_a_stuck_handler_is_told_as_its_consequence() -> anyhow::Result<()> {
    let name = "a client that gives up on a stuck handler";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let patience = draw.millis(500..1200);
    let service = Service::start("stuck", &[])?;
    let url = format!("http://{}/receive", service.address);
    let mut client = std::process::Command::new(services::program("client")?);
    client.args(["-url", &url, "-n", "0", "-timeout", &go_time(patience)]);
    let client = Process::start(&mut client)?;
    let watch = Watch::diagnose(&["--pid", &service.pid(), "--pid", &client.pid().to_string()])?;
    services::wait_for_outcomes(&client, 3)?;
    // A handler that notices would have by then.
    sleep(Duration::from_millis(1100));
    let Verdict { status, report, .. } = watch.finish()?;

    assert_only_silence(&report, status)?;
    let found = report.only("no-response")?;
    assert!(found.mentions("main.(*Board).Fetch"), "{found:?}");
    let gave_up = report.only("client-timeout")?;
    assert_eq!(gave_up.caused_by(), Some(found.id()));
    gave_up.blames("net/http.Client.Timeout", patience)
}

#[test]
fn a_process_that_is_stopped_leaves_requests_unread() -> anyhow::Result<()> {
    let name = "a process that is stopped";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let service = Service::start("stuck", &[])?;
    let pid = Pid::from_raw(i32::try_from(service.process.pid())?);
    let watch = Watch::diagnose(&["--pid", &service.pid()])?;
    let mut kept = Asked::get(service.address, "/ok")?;
    kept.answer()?;
    kill(pid, Signal::SIGSTOP)?;
    wait::until("the process to stop", Duration::from_secs(5), || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Ok(stat.contains(") T ").then_some(()))
    })?;
    kept.again("/ok")?;
    let fresh = [
        Asked::get(service.address, "/ok")?,
        Asked::get(service.address, "/ok")?,
    ];
    sleep(draw.millis(2300..3000));
    let verdict = watch.finish();
    kill(pid, Signal::SIGCONT)?;
    let Verdict { status, report, .. } = verdict?;
    drop(fresh);

    assert_only_silence(&report, status)?;
    let found = report.only("no-response")?;
    assert_eq!(found.count(), Some(3), "{found:?}");
    assert!(found.mentions("does not run"), "{found:?}");
    assert!(found.mentions("SIGSTOP"), "{found:?}");
    assert!(!found.mentions("never answered"), "{found:?}");
    Ok(())
}

#[test]
fn an_accept_loop_that_is_elsewhere_is_named_with_its_line() -> anyhow::Result<()> {
    let name = "an accept loop that is elsewhere";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let service = Service::start("stuck", &["-accepts", "2"])?;
    let watch = Watch::diagnose(&["--pid", &service.pid()])?;
    let mut taken = [
        Asked::get(service.address, "/ok")?,
        Asked::get(service.address, "/ok")?,
    ];
    for asked in &mut taken {
        asked.answer()?;
    }
    let _left = [
        Asked::get(service.address, "/ok")?,
        Asked::get(service.address, "/ok")?,
    ];
    sleep(draw.millis(2300..3000));
    // Those accepted before are served on.
    for asked in &mut taken {
        asked.again("/ok")?;
        asked.answer()?;
    }
    let Verdict { status, report, .. } = watch.finish()?;

    assert_only_silence(&report, status)?;
    let found = report.only("no-response")?;
    assert_eq!(found.count(), Some(2), "{found:?}");
    assert!(found.mentions("main.(*Limited).Accept"), "{found:?}");
    assert!(!found.mentions("SIGSTOP"), "{found:?}");
    Ok(())
}

#[test]
fn long_polls_without_news_are_healthy() -> anyhow::Result<()> {
    let name = "long polls without news";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let service = Service::start("stuck", &[])?;
    let watch = Watch::diagnose(&["--pid", &service.pid()])?;
    answered(service.address, "/ok", 8)?;
    let polls: Vec<_> = (0..20)
        .map(|_| Asked::get(service.address, "/poll"))
        .collect::<anyhow::Result<_>>()?;
    sleep(Draw::new(name).millis(5500..6500));
    let verdict = watch.finish()?;
    drop(polls);
    verdict.assert_healthy();
    Ok(())
}
