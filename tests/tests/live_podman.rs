//! Containers of a real runtime, found by the names that podman gave them.

use std::{collections::BTreeSet, time::Duration};

use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch},
    podman::{self, Podman},
    services::{self, go_time},
    turn::Turn,
    wait,
};

/// Where the gateway and its upstream listen, in a network namespace where nobody else does.
const GATEWAY: &str = "127.0.0.1:9000";
const UPSTREAM: &str = "127.0.0.1:9001";

#[test]
fn a_gateway_and_its_upstream_in_one_container_are_found_by_its_name() -> anyhow::Result<()> {
    let name = "a gateway and its upstream in one container of podman";
    let Some(_turn) = Turn::take(name, podman::PROGRAMS) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let patience = draw.millis(500..1000);
    let delay = go_time(patience + draw.millis(300..600));
    let podman = Podman::new(&["upload", "gateway", "client"])?;
    let shop = Podman::name("shop");
    let upload = ["/bin/upload", "-listen", UPSTREAM, "-large-delay", &delay];
    let id = podman.start(&shop, &upload)?;
    let patient = go_time(patience);
    let gateway = ["/bin/gateway", "-listen", GATEWAY, "-upstream", UPSTREAM];
    let gateway = [&gateway[..], &["-response-header-timeout", &patient]].concat();
    podman.add(&shop, &gateway)?;
    let url = format!("http://{GATEWAY}/upload");
    let client = ["/bin/client", "-url", &url];
    wait::until("the gateway", Duration::from_secs(20), || {
        let outcomes = services::upload_by(podman.exec(&shop, &client).args(["-n", "1"]))?;
        Ok(outcomes
            .iter()
            .all(|outcome| outcome.status == 200)
            .then_some(()))
    })?;

    let watch = Watch::diagnose(&["--container", &shop])?;
    let asking = ["-n", "6", "-large-every", "3"];
    let outcomes = services::upload_by(podman.exec(&shop, &client).args(asking))?;
    let Verdict { report, .. } = watch.finish()?;

    let failed = outcomes.iter().filter(|outcome| outcome.status != 200);
    assert_eq!(failed.count(), 2, "{outcomes:?}");
    let found = report.only("proxy-timeout")?;
    assert_eq!((found.comm(), found.count()), ("gateway", Some(2)));
    assert!(found.mentions("main.(*Archive).store"), "{found:?}");
    for comm in ["gateway", "upload"] {
        let told = report.processes(comm);
        assert_eq!(told.len(), 1, "{comm}: {told:?}");
        assert_eq!(told[0]["container"], id, "{told:?}");
    }
    Ok(())
}

#[test]
fn a_container_that_is_started_again_or_made_anew_is_watched_on() -> anyhow::Result<()> {
    let name = "a container of podman that is made anew";
    let Some(_turn) = Turn::take(name, podman::PROGRAMS) else {
        return Ok(());
    };
    let podman = Podman::new(&["hello"])?;
    let (web, hello) = (Podman::name("web"), ["/bin/hello"]);
    let first = podman.start(&web, &hello)?;
    let watch = Watch::diagnose(&["--container", &web])?;
    // Each start is that of a new file, of whose functions gopulse has to be told.
    let noticed = |before: usize| {
        wait::until(
            "the container's new process",
            Duration::from_secs(30),
            || Ok((watch.hooks() > before).then_some(())),
        )
    };
    let before = watch.hooks();
    podman.restart(&web)?;
    noticed(before)?;
    let before = watch.hooks();
    podman.remove(&web)?;
    let second = podman.start(&web, &hello)?;
    noticed(before)?;
    let Verdict { report, .. } = watch.finish()?;
    let told = report.processes("hello");
    let pids: BTreeSet<_> = told
        .iter()
        .filter_map(|told| told["pid"].as_u64())
        .collect();
    assert_eq!(pids.len(), 3, "{told:?}");
    // Of the one between them the cgroup may be gone before it is looked for.
    for id in [&first, &second] {
        assert!(
            told.iter().any(|told| told["container"] == **id),
            "{told:?}"
        );
    }
    Ok(())
}
