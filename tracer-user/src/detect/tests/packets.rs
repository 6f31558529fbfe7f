//! What only packets tell: every end belongs to a host, and on the loopback device to the same one.

use crate::{
    event::{Fact, HOSTS},
    model::Model,
};

use super::*;

const HOST: Pid = HOSTS;

/// The four ends of one request through a gateway.
struct Ends {
    asks: SocketId,
    front: SocketId,
    back: SocketId,
    far: SocketId,
}

fn host() -> Story {
    let mut story = Story::new();
    story.native(HOST, "127.0.0.1");
    story
}

fn ends(story: &mut Story, at: f64, nth: u16) -> Ends {
    let client = format!("127.0.0.1:{}", 36000 + nth);
    let back = format!("127.0.0.1:{}", 53000 + nth);
    Ends {
        asks: story.connected(at, HOST, &client, GATEWAY_ADDRESS),
        front: story.accepted(at + 0.1, HOST, &client, GATEWAY_ADDRESS),
        back: story.connected(at + 0.5, HOST, &back, UPSTREAM_ADDRESS),
        far: story.accepted(at + 0.6, HOST, &back, UPSTREAM_ADDRESS),
    }
}

/// Requests on which the gateway gives up, as the wire shows them: both ends alike.
fn given_up(times: u16) -> Story {
    let mut story = host();
    for nth in 0..times {
        let at = f64::from(nth) * 3_000.0;
        let ends = ends(&mut story, at, nth);
        let asked = Asked::at(at + 1.0, 90);
        let passed_on = Asked::at(at + 1.5, 95);
        story
            .http(ends.asks, 0, "GET /a", asked)
            .http(ends.front, 0, "GET /a", asked)
            .http(ends.back, 0, "GET /a", passed_on)
            .http(ends.far, 0, "GET /a", passed_on)
            .local_closed(at + 1_001.5, ends.back)
            .peer_closed(at + 1_001.5, ends.far)
            .local_closed(at + 1_001.8, ends.front)
            .peer_closed(at + 1_001.8, ends.asks);
    }
    story
}

#[test]
fn a_gateway_on_the_host_of_its_client_and_upstream_is_told_by_its_address() {
    let found = findings(&given_up(4).model(20_000.0));
    let proxy = only(&found, Rule::ProxyTimeout);
    assert_eq!(proxy.process.comm, GATEWAY_ADDRESS);
    assert!(proxy.title.starts_with(GATEWAY_ADDRESS), "{}", proxy.title);
    assert_eq!(proxy.count, 4);
    assert_eq!(proxy.setting, None);
    let json = serde_json::to_value(&proxy.process).unwrap();
    assert_eq!(json["pid"], serde_json::Value::Null);
    let empty = only(&found, Rule::EmptyResponse);
    assert_eq!(empty.caused_by.as_deref(), Some(proxy.id.as_str()));
    assert_eq!(found.len(), 2, "{found:#?}");
}

#[test]
fn a_client_that_gives_up_was_serving_nobody_although_its_host_serves_what_it_asked() {
    // The gateway notices, and leaves its upstream rightly.
    let mut story = host();
    for nth in 0..4 {
        let at = f64::from(nth) * 3_000.0;
        let ends = ends(&mut story, at, nth);
        let asked = Asked::at(at + 1.0, 90);
        let passed_on = Asked::at(at + 1.5, 95);
        story
            .http(ends.asks, 0, "GET /a", asked)
            .http(ends.front, 0, "GET /a", asked)
            .http(ends.back, 0, "GET /a", passed_on)
            .http(ends.far, 0, "GET /a", passed_on)
            .local_closed(at + 1_001.0, ends.asks)
            .peer_closed(at + 1_001.0, ends.front)
            .local_closed(at + 1_001.3, ends.back)
            .peer_closed(at + 1_001.3, ends.far)
            .local_closed(at + 1_001.6, ends.front);
    }
    let found = findings(&story.model(20_000.0));
    assert_eq!(only(&found, Rule::ClientTimeout).process.comm, "127.0.0.1");
    assert_eq!(found.len(), 1, "{found:#?}");
}

fn goroutine(frames_of: &[&str]) -> Goroutine {
    Goroutine {
        frames: frames(frames_of),
        ..saving()
    }
}

fn handler(inner: &[&str]) -> Goroutine {
    let outer = ["net/http.serverHandler.ServeHTTP", "net/http.(*conn).serve"];
    goroutine(&[inner, &outer].concat())
}

/// The upstream's goroutines, and the gateway's.
fn dumps() -> [Vec<Goroutine>; 2] {
    let profile = handler(&["net/http/pprof.Index"]);
    [
        vec![handler(&["time.Sleep", "main.save"]), profile.clone()],
        vec![
            handler(&[
                "net/http.(*persistConn).roundTrip",
                "net/http/httputil.(*ReverseProxy).ServeHTTP",
            ]),
            profile,
        ],
    ]
}

#[test]
fn a_dump_is_taken_for_that_of_the_service_that_does_what_it_shows() {
    let mut story = given_up(2);
    let model = story.model(20_000.0);
    let [upstream, gateway] = dumps().map(|dump| model.fit(&dump, None));
    assert_eq!(upstream.service, Some(UPSTREAM_ADDRESS.parse().unwrap()));
    assert_eq!(gateway.service, Some(GATEWAY_ADDRESS.parse().unwrap()));
    assert_eq!((upstream.looks.len(), gateway.looks.len()), (2, 2));
    for (socket, goroutine) in gateway.looks.into_iter().chain(upstream.looks) {
        story.tell(
            20_000.0,
            Fact::Goroutine {
                pid: HOST,
                socket: Some(socket),
                goroutine,
            },
        );
    }
    let found = findings(&story.model(20_000.0));
    let proxy = only(&found, Rule::ProxyTimeout);
    for told in [
        "In the goroutine dump of 127.0.0.1:9001 the handler is at work at main.save",
        "In the goroutine dump of 127.0.0.1:9000 the handler waits for it in net/http.(*persistConn).roundTrip",
    ] {
        assert!(proxy.explanation.contains(told), "{}", proxy.explanation);
    }
    assert_eq!(proxy.setting, None, "a dump names no setting either");
}

#[test]
fn a_dump_taken_while_nobody_waited_is_nobodys() {
    let model: Model = given_up(2).model(20_000.0);
    for dump in dumps() {
        let taken = Some(model.source().started.plus(Duration::from_millis(2_500)));
        assert_eq!(model.fit(&dump, taken).service, None);
    }
}

#[test]
fn a_dump_that_two_services_fit_is_nobodys() {
    let mut story = given_up(2);
    let socket = story.accepted(0.0, HOST, "127.0.0.1:700", "127.0.0.1:9002");
    story.http(socket, 0, "GET /b", Asked::at(1.0, 90));
    let [upstream, _] = dumps();
    let fit = story.model(20_000.0).fit(&upstream, None);
    assert_eq!((fit.service, fit.candidates), (None, 2));
    assert_eq!(fit.looks, []);
}

#[test]
fn handlers_at_different_places_are_not_taken_for_one_anothers() {
    let model = given_up(2).model(20_000.0);
    let dump = [
        handler(&["time.Sleep", "main.save"]),
        handler(&["time.Sleep", "main.load"]),
    ];
    let fit = model.fit(&dump, None);
    assert_eq!(fit.service, Some(UPSTREAM_ADDRESS.parse().unwrap()));
    assert_eq!(fit.looks, []);
}
