//! `gopulse goroutines` of running services: from their memory and by pprof.

use std::time::Duration;

use gopulse_tests::{
    gopulse::{ended, gopulse},
    http::Asked,
    process::Process,
    services::Service,
    turn::Turn,
};
use serde_json::Value;

#[test]
fn goroutines_that_leak_grow_and_those_that_wait_do_not() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take_without_tracing("goroutines from memory", &[]) else {
        return Ok(());
    };
    let crowd = Service::start("crowd", &["-goroutines", "200"])?;
    let mut watch = Process::start(&mut gopulse(&[
        "goroutines",
        "--pid",
        &crowd.pid(),
        "--every",
        "400ms",
        "--times",
        "4",
        "--format",
        "json",
    ])?)?;
    // It leaks for as long as it is looked at.
    while watch.runs()? {
        Asked::get(crowd.address, "/leak?many=5&tenant=acme")?.answer()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = watch.wait(Duration::from_secs(20))?;
    assert_eq!(ended.status, 0, "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!(report["snapshots"].as_array().map(Vec::len), Some(4));
    assert_eq!(report["snapshots"][0]["source"], "memory");
    let leak = &report["groups"][0];
    assert!(
        leak["frames"].to_string().contains("main.(*Crowd).offer"),
        "{leak}"
    );
    assert_eq!(leak["state"], "chan send");
    assert!(
        leak["created_by"]
            .to_string()
            .contains("main.(*Crowd).Leak"),
        "{leak}"
    );
    assert!(leak["growth"].as_i64() > Some(0), "{leak}");
    assert!(leak["growth_per_s"].as_f64() > Some(0.0), "{leak}");
    assert_eq!(
        (&leak["born"], &leak["ended"]),
        (&leak["growth"], &0.into()),
        "{leak}"
    );
    let waiting = report["groups"].as_array().into_iter().flatten();
    let waiting =
        waiting.filter(|group| group["frames"].to_string().contains("main.(*Crowd).Join"));
    let growths: Vec<_> = waiting.map(|group| group["growth"].as_i64()).collect();
    assert!(growths.len() > 3, "{report}");
    assert!(growths.iter().all(|growth| *growth == Some(0)), "{report}");
    Ok(())
}

#[test]
fn an_endpoint_is_asked_for_no_more_than_it_can_bear() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take_without_tracing("goroutines by pprof", &[]) else {
        return Ok(());
    };
    for (goroutines, asked, has_ids) in [("100", "debug=2", true), ("3000", "debug=0", false)] {
        let crowd = Service::start("crowd", &["-goroutines", goroutines])?;
        Asked::get(crowd.address, "/leak?many=7&tenant=acme")?.answer()?;
        let url = format!("http://{}", crowd.address);
        let arguments = [
            "goroutines",
            "--url",
            &url,
            "--filter",
            "offer",
            "--format",
            "json",
        ];
        let ended = ended(&arguments)?;
        assert_eq!(ended.status, 0, "{ended:?}");
        assert!(ended.stderr.contains(asked), "{ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout)?;
        let snapshot = &report["snapshots"][0];
        assert_eq!(
            (&snapshot["source"], &snapshot["has_ids"]),
            (&"pprof".into(), &has_ids.into())
        );
        assert_eq!(report["groups"][0]["count"], 7, "{report}");
        assert_eq!(report["groups"][0]["labels"]["tenant"], "acme", "{report}");
    }
    Ok(())
}
