//! The head of an HTTP/1 request, of which little is kept.
//!
//! In: the first bytes of a message, as long as a segment carried, from the kernel or from a capture.
//! Out: method, path without its query, and `traceparent`, each bounded. Everything else is forgotten here, before
//! anything is written.

use crate::event::RequestHead;

/// Headers looked through for `traceparent`.
const HEADERS: usize = 64;
/// A longer path is cut, in characters.
const PATH: usize = 256;
/// And a longer method; the longest that is registered has 17 (`UPDATEREDIRECTREF`).
const METHOD: usize = 32;
/// A longer `traceparent` is not kept, in bytes; today's have 55.
const TRACEPARENT: usize = 64;

/// What is kept of the request that `bytes` begins; `None` where it is no HTTP/1 request.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<RequestHead> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    // Complete or cut, and with however many headers: the request line is read either way.
    let parsed = request.parse(bytes);
    let (method, target) = (request.method?, request.path?);
    if parsed.is_err() && request.version.is_none() {
        return None;
    }
    let traceparent = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("traceparent"))
        .and_then(|header| std::str::from_utf8(header.value).ok())
        .filter(|value| is_traceparent(value));
    Some(RequestHead {
        method: method.chars().take(METHOD).collect(),
        path: path(target).chars().take(PATH).collect(),
        traceparent: traceparent.map(str::to_owned),
    })
}

/// The path of a request's target (RFC 9112, section 3.2), without what may be secret beside it: the query,
/// the parameters behind a `;` (Java's servers put session ids there), and of a target with a scheme, as
/// proxies are sent, the host with what may stand before its `@`.
fn path(target: &str) -> &str {
    let path = target.split(['?', '#', ';']).next().unwrap_or_default();
    match path.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => path
            .rsplit_once('@')
            .filter(|_| !path.starts_with('/'))
            .map_or(path, |(_, host)| host),
    }
}

/// Whether it has the form that W3C's Trace Context gives it, in whatever version: hexadecimal digits and
/// dashes. Anything else that somebody sends under this name is not kept.
fn is_traceparent(value: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    value.len() <= TRACEPARENT && value.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_and_the_other_headers_are_forgotten() {
        let head = parse(
            b"POST /upload?token=secret HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nTraceParent: 00-ab-cd-01\r\n\r\nbody",
        )
        .unwrap();
        assert_eq!(head.method, "POST");
        assert_eq!(head.path, "/upload");
        assert_eq!(head.traceparent.as_deref(), Some("00-ab-cd-01"));
    }

    #[test]
    fn what_may_be_secret_in_a_target_is_forgotten() {
        for (target, kept) in [
            ("/a?token=secret", "/a"),
            ("/a;jsessionid=secret?b", "/a"),
            ("/a#secret", "/a"),
            ("http://me:secret@host/a?b", "/a"),
            ("http://me:secret@host", "/"),
            ("http://me:secret@host?b=/c", "/"),
            ("me:secret@host:443", "host:443"),
            ("/@me/a", "/@me/a"),
            ("*", "*"),
        ] {
            assert_eq!(path(target), kept, "{target}");
        }
    }

    #[test]
    fn a_traceparent_that_is_none_is_forgotten() {
        let traced = |value: &str| {
            let head = format!("GET / HTTP/1.1\r\ntraceparent: {value}\r\n\r\n");
            parse(head.as_bytes()).unwrap().traceparent
        };
        let right = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(traced(right).as_deref(), Some(right));
        assert_eq!(traced("Bearer secret"), None);
        assert_eq!(traced(&"0".repeat(65)), None);
    }

    #[test]
    fn a_head_that_a_segment_cut_is_read_as_far_as_it_goes() {
        let head = parse(b"GET /a/b HTTP/1.1\r\nHost: exam").unwrap();
        assert_eq!((head.method.as_str(), head.path.as_str()), ("GET", "/a/b"));
    }

    #[test]
    fn what_is_no_request_is_none() {
        assert_eq!(parse(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), None);
        assert_eq!(parse(b"HELO example.org\r\n"), None);
        assert_eq!(parse(b""), None);
    }
}
