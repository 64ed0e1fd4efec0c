//! Clients that misbehave, places that cannot be listened on or written to.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use touchstone_testkit::mitm::Lie;

use crate::client::Response;
use crate::running::{INFER, Proxy, World, ask, folders, json};
use crate::support::touchstone;

#[test]
fn a_page_of_another_origin_does_not_get_through() {
    let world = World::new(Lie::None);
    let proxy = world.proxy(&["--allow-host", "proxy.example:8080"]);
    let body = String::from_utf8(json("{}")).unwrap();
    let send = |host: &str| -> Response {
        let request = format!(
            "POST {INFER} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        proxy.connect().raw(request.as_bytes(), false)
    };
    let port = proxy.address.port();
    let before = proxy.verified().len();
    for foreign in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        "127.0.0.1:1".to_owned(),
        "proxy.example".to_owned(),
    ] {
        let answer = send(&foreign);
        assert_eq!(answer.status, 421, "{foreign}");
        assert!(!answer.has(b"model_name"));
    }
    assert_eq!(proxy.verified().len(), before);
    assert_eq!(proxy.status()["declined"]["421"], 5);
    proxy.until(|proxy| (proxy.events("declined").len() == 5).then_some(()));
    for own in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        "proxy.example:8080".to_owned(),
    ] {
        assert_eq!(send(&own).status, 200, "{own}");
    }
    // The status page is no exception.
    let status = format!("GET /touchstone HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n");
    assert_eq!(proxy.connect().raw(status.as_bytes(), false).status, 421);
}

#[test]
fn it_is_no_forward_proxy_and_knows_few_targets() {
    let world = World::new(Lie::None);
    let proxy = world.proxy(&[]);
    let raw = |line: &str| {
        let request = format!("{line} HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address);
        proxy.connect().raw(request.as_bytes(), false)
    };
    let connections = world.liar.record().len();
    for (line, status) in [
        ("GET http://elsewhere.example/", 400),
        ("CONNECT elsewhere.example:443", 400),
        ("GET /v2/models/digits?x", 400),
        ("POST /v1/session", 404),
        ("GET /v1/collateral", 404),
        ("GET /", 404),
        ("GET /v2/models/digits/infer", 405),
        ("DELETE /v2/models/digits", 405),
    ] {
        let answer = raw(line);
        assert_eq!(answer.status, status, "{line}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(answer.json()["error"].is_string());
    }
    assert_eq!(
        world.liar.record().len(),
        connections,
        "nothing of this goes out"
    );
    assert_eq!(ask(&mut proxy.connect()).status, 200);
}

#[test]
fn what_is_too_much_or_framed_in_two_ways_is_refused() {
    let world = World::new(Lie::None);
    let proxy = world.proxy(&[]);
    let raw = |headers: &str, body: &str| {
        let request = format!(
            "POST {INFER} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n{body}",
            proxy.address
        );
        proxy.connect().raw(request.as_bytes(), false).status
    };
    let body = String::from_utf8(json("{}")).unwrap();
    let length = format!("Content-Length: {}\r\n", body.len());
    // Not a byte of the body is waited for.
    let oversize = format!("Content-Length: {}\r\n", (256 << 20) + 1);
    assert_eq!(raw(&oversize, ""), 413);
    for (more, status) in [
        ("Content-Encoding: gzip\r\n", 415),
        ("Content-Type: text/plain\r\n", 415),
        ("Inference-Header-Content-Length: 017\r\n", 400),
        ("Touchstone: require=(perfect)\r\n", 422),
        ("Touchstone: require=(signed\r\n", 400),
    ] {
        assert_eq!(raw(&format!("{length}{more}"), &body), status, "{more}");
    }
    let chunked = "Transfer-Encoding: chunked\r\nTrailer: x\r\n";
    let trailer = format!("{:x}\r\n{body}\r\n0\r\nx: y\r\n\r\n", body.len());
    assert_eq!(raw(chunked, &trailer), 400);
    let many = format!("X: {}\r\n", "x".repeat(40 << 10));
    assert_eq!(raw(&many, ""), 431);
    assert_eq!(raw(&length, &body), 200, "the twin of all of these");
    let whole = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    assert_eq!(raw("Transfer-Encoding: chunked\r\n", &whole), 200);
}

#[test]
fn more_at_once_than_it_may_is_told_to_come_back() {
    let world = World::with(Lie::Delay, &[], |config| {
        config.delay = Duration::from_secs(20);
    });
    let proxy = world.proxy(&["--connections", "1"]);
    let body = json("{}");
    let head = format!(
        "POST {INFER} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
        proxy.address,
        body.len()
    );
    let request = [head.as_bytes(), &body].concat();
    let waiting: Vec<TcpStream> = (0..256)
        .map(|_| {
            let mut stream = TcpStream::connect(proxy.address).unwrap();
            stream.write_all(&request).unwrap();
            stream
        })
        .collect();
    proxy.until(|proxy| (proxy.status()["in_flight"] == 256).then_some(()));
    let answer = ask(&mut proxy.connect());
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert!(answer.json().get("check").is_none(), "nothing was judged");
    drop(waiting);
}

#[test]
fn an_answer_that_cannot_be_kept_is_not_given() {
    let world = World::new(Lie::None);
    let proxy = world.proxy(&[]);
    let mut client = proxy.connect();
    assert_eq!(ask(&mut client).status, 200, "the twin");

    // The day's folder is gone, and a file is in its place: nothing can be put there.
    let day = proxy.verified()[0].parent().unwrap().to_owned();
    fs::rename(&day, world.path("moved")).unwrap();
    fs::write(&day, b"").unwrap();
    let answer = ask(&mut client);
    let problem = answer.json();
    assert_eq!(
        (answer.status, &problem["check"]),
        (502, &"proxy.keep".into())
    );
    assert_eq!(problem["exit"], 1);
    assert!(!answer.has(&crate::running::secret()) && !answer.has(b"model_name"));
    // A page may have asked: what the system says, and of which folder, is for the log.
    assert!(!answer.has(b"os error"), "{problem}");
    let told = proxy.until(|proxy| proxy.events("answer-not-kept").pop());
    assert!(told["error"].as_str().unwrap().contains("os error"));
    assert_eq!(
        folders(&proxy.kept.join(".writing")).len(),
        0,
        "nothing is left over"
    );
    assert_eq!(proxy.answers(2)[1]["check"], "proxy.keep");

    fs::remove_file(&day).unwrap();
    assert_eq!(ask(&mut client).status, 200);
}

/// Exit code and words of a proxy that does not get to listen.
fn start(world: &World, change: impl FnOnce(&mut Vec<String>)) -> (i32, String) {
    let mut arguments = world.arguments();
    change(&mut arguments);
    match Proxy::start(&arguments, &world.path("kept")) {
        Ok(proxy) => panic!("it listens on {}", proxy.address),
        Err(ended) => ended,
    }
}

fn set(arguments: &mut [String], option: &str, value: &str) {
    let at = arguments.iter().position(|found| found == option).unwrap();
    arguments[at + 1] = value.to_owned();
}

#[test]
fn places_that_will_not_do_are_refused_before_anything_is_sent() {
    let world = World::new(Lie::None);
    let (code, said) = start(&world, |arguments| set(arguments, "--listen", "0.0.0.0:0"));
    assert_eq!(code, 1);
    assert!(said.contains("--listen-anywhere"), "{said}");

    fs::write(world.path("file"), b"").unwrap();
    let file = world.path("file").display().to_string();
    let (code, said) = start(&world, |arguments| set(arguments, "--keep", &file));
    assert_eq!(code, 1);
    assert!(said.contains("cannot keep answers"), "{said}");

    let plain = format!("http://{}", world.liar.address());
    let (code, said) = start(&world, |arguments| set(arguments, "--server", &plain));
    assert_eq!(code, 1);
    assert!(said.contains("https://"), "{said}");
    assert!(world.liar.record().is_empty(), "nobody was asked anything");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = start(&world, |arguments| set(arguments, "--listen", &address));
    assert_eq!(code, 1);
    assert!(said.contains("cannot listen on"), "{said}");
    drop(taken);

    let anywhere = {
        let mut arguments = world.arguments();
        set(&mut arguments, "--listen", "0.0.0.0:0");
        arguments.push("--listen-anywhere".into());
        arguments
    };
    assert!(Proxy::start(&anywhere, &world.path("kept")).is_ok());
}

#[test]
fn a_simulated_platform_has_to_be_asked_for() {
    let world = World::new(Lie::None);
    let (code, said) = start(&world, |arguments| {
        arguments.retain(|argument| argument != "--expect-simulated");
    });
    assert_eq!(code, 6, "{said}");
    assert!(
        said.contains("SIMULATED") && said.contains("not listening"),
        "{said}"
    );
    let (code, said) = start(&world, |arguments| {
        let at = arguments
            .iter()
            .position(|a| a == "--trust-simulated-root")
            .unwrap();
        arguments.drain(at..at + 2);
    });
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("snp.chain.root"), "{said}");
}

#[test]
fn the_help_says_what_the_dangerous_flag_does() {
    let help = touchstone(&["proxy", "--help"]).stdout;
    assert!(help.contains("--listen-anywhere"));
    assert!(help.contains("plain HTTP"));
}
