//! The head of an HTTP/1 request, of which little is kept.
//!
//! In: the first bytes of a message, as long as a segment carried, from the kernel or from a capture.
//! Out: method, path without its query, and `traceparent`. Everything else is forgotten here, before
//! anything is written.

use crate::event::RequestHead;

/// Headers looked through for `traceparent`.
const HEADERS: usize = 64;
/// A longer path is cut.
const PATH: usize = 256;

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
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let traceparent = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("traceparent"))
        .and_then(|header| std::str::from_utf8(header.value).ok())
        .filter(|value| value.len() <= 64);
    Some(RequestHead {
        method: method.to_owned(),
        path: path.chars().take(PATH).collect(),
        traceparent: traceparent.map(str::to_owned),
    })
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
