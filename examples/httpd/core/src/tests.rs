//! A table of requests: the section that decides, the outcome with nginx 1.22, and the outcome here
//! where it is another one.

use alloc::vec::Vec;

use Outcome::{Closed, Kept};

/// The status of the answer, and the fate of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The next request on the connection is answered, too.
    Kept(u16),
    /// The connection ends after the answer.
    Closed(u16),
}

/// An RFC and its section, the request, the outcome with nginx, and the outcome here where it is
/// another one.
type Row = (&'static str, &'static str, Outcome, Option<Outcome>);

#[rustfmt::skip] // a row a line
const REQUESTS: &[Row] = &[
    // Forms of the target.
    ("9112 3.2.1", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("9112 3.2.1", "GET /about.txt?x#y HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("9112 3.2.1", "GET /about.txt#x HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("9112 3.2", "GET about.txt HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    ("9112 3.2", "GET ?x HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    ("9112 3.2.2", "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("9112 3.2.2", "GET http://a?x=/about.txt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("9112 3.2.2", "GET http://a#/about.txt HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    ("9112 3.2.2", "GET http://a/about.txt?x HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("3986 3.1", "GET HTTP://a/about.txt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("9112 3.2.2", "GET http://a:80/none HTTP/1.1\r\nHost: a\r\n\r\n", Kept(404), None),
    ("9110 4.2.1", "GET http:///about.txt HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    ("9110 4.2.4", "GET http://u@a/about.txt HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    ("9112 3.2.2", "GET http://a/about.txt HTTP/1.1\r\n\r\n", Closed(400), None),
    ("9110 7.4", "GET ftp://a/about.txt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), Some(Closed(400))),
    ("9112 3.2.4", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    ("9112 3.2.4", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), Some(Kept(405))),
    ("9112 3.2.3", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    // Equivalent paths.
    ("3986 6.2.2.2", "GET /%61bout.txt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("3986 6.2.2.2", "GET /about%2Etxt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("3986 6.2.2.1", "GET /about%2etxt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("3986 6.2.2.1", "GET /%41bout.txt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(404), None),
    ("3986 2.2", "GET /%2fabout.txt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), Some(Kept(404))),
    ("3986 2.2", "GET /about.txt%3fx HTTP/1.1\r\nHost: a\r\n\r\n", Kept(404), None),
    ("3986 2.4", "GET /%2561bout.txt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(404), None),
    ("3986 3.4", "GET /about.txt?%zz HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("3986 2.1", "GET /about.txt%zz HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    ("3986 2.1", "GET /about.txt%4 HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    ("3986 2.1", "GET /about.txt% HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    ("3986 7.3", "GET /about.txt%00 HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    ("3986 5.2.4", "GET /./about.txt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("3986 5.2.4", "GET /x/../about.txt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("3986 6.2.2.3", "GET /x/%2e%2E/about.txt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("3986 5.2.4", "GET /x/.. HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("3986 5.2.4", "GET /. HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("3986 5.4.2", "GET /.. HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    ("3986 5.4.2", "GET /../about.txt HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    ("3986 5.4.2", "GET /.../about.txt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(404), None),
    ("3986 6.2.2", "GET //about.txt HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), Some(Kept(404))),
    ("3986 6.2.2", "GET /about.txt/ HTTP/1.1\r\nHost: a\r\n\r\n", Kept(404), None),
    // The option `close`.
    ("9112 9.6", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Closed(200), None),
    ("9112 9.3", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, keep-alive\r\n\r\n", Closed(200), None),
    ("9110 7.6.1", "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: CLOSE\r\n\r\n", Closed(200), None),
    ("9110 5.6.1", "GET / HTTP/1.1\r\nHost: a\r\nConnection: x , close\r\n\r\n", Closed(200), None),
    ("9112 9.3", "GET / HTTP/1.0\r\n\r\n", Closed(200), None),
    ("9112 9.3", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Kept(200), None),
    ("9112 9.3", "GET / HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n", Closed(200), None),
    ("9112 9.3", "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", Closed(200), None),
    ("9112 9.3", "GET / HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", Closed(200), None),
    // Hosts.
    ("9112 3.2", "GET / HTTP/1.1\r\n\r\n", Closed(400), None),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Closed(400), None),
    ("9112 3.2", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Closed(400), None),
    ("9112 3.2", "GET / HTTP/1.0\r\nHost: a b\r\n\r\n", Closed(400), None),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: a b/c@d\r\n\r\n", Closed(400), None),
    ("9110 4.2.1", "GET / HTTP/1.1\r\nHost: \r\n\r\n", Closed(400), None),
    ("9110 7.2", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Closed(400), None),
    ("9110 7.2", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Kept(200), Some(Closed(400))),
    ("9110 7.2", "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", Kept(200), Some(Closed(400))),
    ("9110 7.2", "GET / HTTP/1.1\r\nHost: a:80\r\n\r\n", Kept(200), None),
    ("3986 3.2.3", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", Kept(200), None),
    ("3986 3.2.3", "GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", Kept(200), Some(Closed(400))),
    ("3986 3.2.3", "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", Kept(200), Some(Closed(400))),
    ("3986 3.2.2", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Kept(200), None),
    ("3986 3.2.2", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Kept(200), Some(Closed(400))),
    ("3986 3.2.2", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", Kept(200), None),
    ("3986 3.2.2", "GET / HTTP/1.1\r\nHost: a%20b\r\n\r\n", Kept(200), None),
    ("3986 2.1", "GET / HTTP/1.1\r\nHost: a%zz\r\n\r\n", Kept(200), Some(Closed(400))),
    // Lines and versions.
    ("9110 2.5", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", Closed(505), None),
    ("9110 15.6.6", "GET / HTTP/3\r\nHost: a\r\n\r\n", Closed(505), None),
    ("9110 2.5", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", Kept(200), Some(Closed(505))),
    ("9112 2.3", "GET / http/1.1\r\nHost: a\r\n\r\n", Closed(400), None),
    ("9112 2.2", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("9112 2.2", "GET / HTTP/1.1\nHost: a\n\n", Kept(200), None),
    ("9112 5.1", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", Closed(400), None),
    ("9112 5.2", "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", Closed(400), None),
    ("9110 5.5", "GET / HTTP/1.1\r\nHost: a\r\nA: x\0y\r\n\r\n", Closed(400), None),
    // Methods.
    ("9110 9.3.2", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", Kept(200), None),
    ("9110 9.1", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", Kept(405), None),
    ("9110 9.1", "get / HTTP/1.1\r\nHost: a\r\n\r\n", Closed(400), Some(Kept(405))),
    ("9110 9.3.7", "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n", Kept(405), None),
    ("9110 9.3.8", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Closed(405), Some(Kept(405))),
    ("9110 10.1.1", "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", Kept(200), None),
    // Bodies.
    ("9112 6.2", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", Kept(200), None),
    ("9110 9.3.3", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", Kept(405), None),
    ("9112 6.3", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", Closed(400), None),
    ("9110 8.6", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", Closed(400), Some(Kept(200))),
    ("9110 8.6", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", Closed(400), None),
    ("9110 8.6", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", Closed(400), None),
    ("9110 15.5.14", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", Closed(413), None),
    ("9112 6.1", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", Closed(501), None),
    ("9112 7.1", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Kept(200), Some(Closed(501))),
    ("9112 6.3", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", Closed(400), None),
    ("9112 6.1", "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Closed(400), None),
];

const NEXT: &[u8] = b"GET /1k.txt HTTP/1.1\r\nHost: a\r\n\r\n";

/// The statuses of all answers to `input`, the last answer's body, and whether the connection goes
/// on.
fn answers(input: &[u8]) -> (Vec<u16>, Vec<u8>, bool) {
    let (mut input, mut skip, mut output) = (input.to_vec(), 0, Vec::new());
    let keep = super::take_requests(&mut input, &mut skip, |out| out.extend_from_slice(b"now"), &mut output);
    let starts = output.windows(9).enumerate().filter(|(_, window)| *window == b"HTTP/1.1 ").map(|(at, _)| at);
    let status = |at: usize| core::str::from_utf8(&output[at + 9..at + 12]).unwrap().parse().unwrap();
    let statuses = starts.map(status).collect();
    let body = output.windows(4).rposition(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
    (statuses, output[body..].to_vec(), keep)
}

fn outcome(request: &str) -> Outcome {
    match answers(&[request.as_bytes(), NEXT].concat()) {
        (statuses, _, true) if statuses.len() == 2 && statuses[1] == 200 => Kept(statuses[0]),
        (statuses, _, false) if statuses.len() == 1 => Closed(statuses[0]),
        other => panic!("{request:?}: {other:?}"),
    }
}

#[test]
fn requests_get_the_status_and_the_fate_of_the_table() {
    for (section, request, nginx, ours) in REQUESTS {
        assert_eq!(outcome(request), ours.unwrap_or(*nginx), "RFC {section}: {request:?}");
        assert_ne!(Some(*nginx), *ours, "{request:?} is like nginx");
    }
}

#[test]
fn a_target_leads_to_its_own_page() {
    let page = |target: &str| answers(alloc::format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).1;
    let (index, about) = (page("/"), page("/about.txt"));
    assert_ne!(index, about);
    for target in ["http://a", "http://a?x=/about.txt", "/x/..", "/about.txt/..", "/?/about.txt", "/#/about.txt"] {
        assert_eq!(page(target), index, "{target}");
    }
    for target in ["/%61bout.txt", "/x/../about.txt", "http://a/about.txt?/", "/%2E/about%2etxt"] {
        assert_eq!(page(target), about, "{target}");
    }
}

#[test]
fn any_octets_are_answered_without_a_panic() {
    let mut state = 9u32;
    for (_, request, ..) in REQUESTS.iter().cycle().take(20_000) {
        let mut octets = request.as_bytes().to_vec();
        for _ in 0..2 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (state >> 8) as usize % octets.len();
            octets[at] = (state >> 24) as u8;
        }
        let _ = answers(&octets);
    }
}
