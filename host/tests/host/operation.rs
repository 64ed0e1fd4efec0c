//! What the operator sees, and what no log sees.

use std::{
    collections::BTreeSet,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use touchstone_formats::{GuaranteeSet, text::base64_encode};

use crate::{
    client::{get, send, until},
    enclave::Enclave,
    raw::nobody,
    run::Place,
};

const DASHBOARD: &str = include_str!("../../monitoring/grafana-dashboard.json");
const ALERTS: &str = include_str!("../../monitoring/alerts.yml");
const UNIT: &str = include_str!("../../systemd/touchstone-host.service");
const ENCLAVE_UNIT: &str = include_str!("../../systemd/touchstone-enclave@.service");
const COLLATERAL_UNIT: &str = include_str!("../../systemd/touchstone-collateral.service");

async fn several() -> (std::sync::Arc<Enclave>, std::sync::Arc<Enclave>, Place) {
    let (a, b) = (Enclave::start().await, Enclave::start().await);
    let mut place = Place::several(&[
        ("a", a.public, a.control, None),
        ("b", b.public, b.control, None),
    ]);
    let socket = place.path("operation.sock");
    place.more = format!(
        "format = \"json\"\n[operation]\nlisten = \"tcp://127.0.0.1:0\"\nsocket = {socket:?}\n[receipts]\noverdue_seconds = 1\n"
    );
    (a, b, place)
}

/// The value of a figure whose line begins so.
fn figure(text: &str, begin: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(begin));
    let line = line.unwrap_or_else(|| panic!("no {begin} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_say_what_happened() {
    let (a, b, place) = several().await;
    let host = place.start().await;
    let (address, operation) = (host.address(), host.operation_address().unwrap());
    let ready = |answer: &crate::client::Answer| answer.status == StatusCode::OK;
    until(operation, "/ready", "ready", ready).await;
    let quoted = GuaranteeSet::parse_words("quoted").unwrap().to_string();
    let asked = format!("require=({quoted})");
    let asked = [("touchstone", asked.as_str())];
    for (target, count) in [("digits", 4), ("nobody-has-this", 3)] {
        for _ in 0..count {
            let target = format!("/v2/models/{target}/infer");
            send(address, Method::POST, &target, &asked, b"x").await;
        }
    }
    send(address, Method::POST, "/v2/models/digits/infer", &[], b"x").await;
    crate::client::raw(address, b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n").await;
    let text = async || String::from_utf8(get(operation, "/metrics").await.body.to_vec()).unwrap();
    // Counted when the connection has ended, which its caller sees first.
    let framing = "touchstone_host_refused_total{reason=\"framing\"}";
    let end = Instant::now() + Duration::from_secs(20);
    let before = loop {
        let text = text().await;
        if figure(&text, framing) > 0.0 {
            break text;
        }
        assert!(Instant::now() < end, "never counted: {text}");
    };
    let requests = |model: &str, asked: &str| {
        format!(
            "touchstone_host_requests_total{{guarantees=\"{asked}\",model=\"{model}\",status=\"200\"}}"
        )
    };
    assert_eq!(figure(&before, &requests("digits", &quoted)), 4.0);
    let default = GuaranteeSet::default_set().to_string();
    assert_eq!(figure(&before, &requests("digits", &default)), 1.0);
    assert_eq!(figure(&before, &requests("other", &quoted)), 3.0);
    // What callers make up is no label.
    assert!(!before.contains("nobody-has-this"));
    assert_eq!(figure(&before, framing), 1.0);
    assert_eq!(figure(&before, "touchstone_host_pending_receipts"), 8.0);
    assert_eq!(
        figure(&before, "touchstone_host_enclave_serving{enclave=\"b\"}"),
        1.0
    );
    let expires = figure(
        &before,
        "touchstone_host_keyset_expires_timestamp_seconds{enclave=\"a\"}",
    );
    assert_eq!(expires, 1_790_086_400.0);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(
        figure(&text().await, "touchstone_host_overdue_receipts"),
        8.0
    );
    a.seal();
    b.seal();
    a.all_acknowledged().await;
    b.all_acknowledged().await;
    let after = text().await;
    assert_eq!(figure(&after, "touchstone_host_pending_receipts"), 0.0);
    assert_eq!(figure(&after, "touchstone_host_overdue_receipts"), 0.0);
    assert_eq!(figure(&after, "touchstone_host_proof_seconds_count"), 8.0);
    assert_eq!(
        figure(&after, "touchstone_host_seals_total{enclave=\"a\"}"),
        1.0
    );
    let stored = |enclave| {
        let begin = format!(
            "touchstone_host_receipts_total{{enclave=\"{enclave}\",guarantees=\"{quoted}\",model=\"digits\",status=\"200\"}}"
        );
        figure(&after, &begin)
    };
    assert_eq!(stored("a") + stored("b"), 7.0);
    // What the enclaves say of their quotes.
    for (begin, value) in [
        (
            "touchstone_host_enclave_quotes_total{enclave=\"a\",outcome=\"made\"}",
            5.0,
        ),
        (
            "touchstone_host_enclave_quotes_total{enclave=\"a\",outcome=\"failed\"}",
            1.0,
        ),
        (
            "touchstone_host_enclave_quote_seconds_total{enclave=\"b\"}",
            2.5,
        ),
    ] {
        assert_eq!(figure(&after, begin), value, "{begin}");
    }
    assert!(figure(&after, "touchstone_host_store_bytes") > 0.0);
    assert!(figure(&after, "touchstone_host_store_free_bytes") > 0.0);
    // One that is gone shows.
    a.die().await;
    let end = Instant::now() + Duration::from_secs(5);
    let away = "touchstone_host_enclave_condition{condition=\"away\",enclave=\"a\"}";
    while figure(&text().await, away) != 1.0 {
        assert!(Instant::now() < end);
    }
    // And what it last said is not passed off as how it is.
    let unsealed = "touchstone_host_enclave_unsealed{enclave=";
    assert_eq!(text().await.matches(unsealed).count(), 1);
    b.die().await;
    until(operation, "/ready", "not ready", |answer| {
        answer.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert_eq!(get(operation, "/live").await.status, StatusCode::OK);
    // Nothing of it is for callers, and no order is taken on this listener.
    assert_eq!(
        get(address, "/metrics").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let order = send(operation, Method::POST, "/drain/a", &[], b"").await;
    assert_eq!(order.status, StatusCode::FORBIDDEN);
    host.stop().await;
}

/// What the host refuses by itself counts, each under its reason, and no caller makes up another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_count_under_their_reasons() {
    let (_a, _b, mut place) = several().await;
    place.limits = "body_bytes = 1024\nbody_timeout_ms = 200\nheaders = 16";
    let host = place.start().await;
    let (address, operation) = (host.address(), host.operation_address().unwrap());
    let post = "POST /v2/models/digits/infer HTTP/1.1\r\nHost: h\r\n";
    let reasons = [
        ("body_length", format!("{post}Content-Length: 1025\r\n\r\n")),
        ("body_time", format!("{post}Content-Length: 9\r\n\r\nx")),
        ("head", format!("{post}{}\r\n", "A: b\r\n".repeat(20))),
        ("framing", format!("{post}Connection: Touchstone\r\n\r\n")),
        ("framing", "CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n".into()),
        ("version", "GET / HTTP/1.0\r\nHost: h\r\n\r\n".into()),
    ];
    let text = async || String::from_utf8(get(operation, "/metrics").await.body.to_vec()).unwrap();
    let begin = "touchstone_host_refused_total";
    let all = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with(begin));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut before = all(&text().await);
    for (reason, request) in &reasons {
        crate::client::raw(address, request.as_bytes()).await;
        let this = format!("{begin}{{reason=\"{reason}\"}}");
        let counted = |lines: &[String]| figure(&lines.join("\n"), &this);
        let end = Instant::now() + Duration::from_secs(5);
        let after = loop {
            let after = all(&text().await);
            if after != before {
                break after;
            }
            assert!(Instant::now() < end, "{request:?}");
        };
        assert_eq!(counted(&after), counted(&before) + 1.0, "{request:?}");
        let changed = after.iter().zip(&before).filter(|(a, b)| a != b).count();
        assert_eq!((changed, after.len()), (1, before.len()), "{request:?}");
        before = after;
    }
    host.stop().await;
}

/// Every figure that dashboard and alerts name is one that the host gives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboard_and_alerts_name_figures_that_exist() {
    let (a, _b, place) = several().await;
    let host = place.start().await;
    let operation = host.operation_address().unwrap();
    let target = "/v2/models/digits/infer";
    for _ in 0..2 {
        let answer = send(host.address(), Method::POST, target, &[], b"x").await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    get(host.address(), &format!("/v1/receipts/{}", "0".repeat(32))).await;
    let id = a.answer("quoted");
    a.quote(&[id]);
    a.seal();
    a.all_acknowledged().await;
    let text = String::from_utf8(get(operation, "/metrics").await.body.to_vec()).unwrap();
    let names = |text: &str| -> BTreeSet<String> {
        let other = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let words = text
            .split(other)
            .filter(|word| word.starts_with("touchstone_host_"));
        words.map(str::to_owned).collect()
    };
    let given = names(&text);
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
    for wanted in names(DASHBOARD).union(&names(ALERTS)) {
        assert!(given.contains(wanted), "{wanted} is no figure");
    }
    // And none is forgotten.
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for family in families.filter_map(|line| line.split(' ').next()) {
        assert!(DASHBOARD.contains(family), "{family} is on no panel");
    }
    assert!(ALERTS.matches("- alert: ").count() >= 10);
    host.stop().await;

    // What Prometheus' own tool says: of the figures' names and kinds, of each panel's question.
    let Some(check) = promtool("dashboard_and_alerts_name_figures_that_exist") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("panels.yml");
    let panels = |change: fn(&str) -> String| {
        let panels = dashboard["panels"].as_array().unwrap().iter();
        let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
        let questions = targets.enumerate().map(|(number, target)| {
            let asked = target["expr"].as_str().unwrap();
            let asked = asked.replace("$__rate_interval", "5m");
            serde_json::json!({"record": format!("panel:{number}"), "expr": change(&asked)})
        });
        let rules: Vec<Value> = questions.collect();
        let groups = serde_json::json!({"groups": [{"name": "panels", "rules": rules}]});
        std::fs::write(&file, groups.to_string()).unwrap();
        check(&["check", "rules", file.to_str().unwrap()], "")
    };
    let (good, words) = panels(str::to_owned);
    assert!(good, "{words}");
    let (good, _) = panels(|asked| asked.replace("sum by (", "sum by by ("));
    assert!(!good);
    let (good, words) = check(&["check", "metrics"], &text);
    assert!(good, "{words}");
    let (good, _) = check(&["check", "metrics"], &text.replace("_total", "_count"));
    assert!(!good);
}

/// Each alert fires when it should and not otherwise, and is in the guide with what to do.
#[test]
fn alerts_fire_when_they_should() {
    const TESTS: &str = include_str!("../../monitoring/alerts-test.yml");
    const GUIDE: &str = include_str!("../../../docs/host.md");
    let names = ALERTS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    for name in names {
        assert!(
            GUIDE.contains(&format!("\n| `{name}` |")),
            "{name} is not in the guide"
        );
        for outcome in ["fires", "does not fire"] {
            let test = format!("- name: {name} {outcome}\n");
            assert!(TESTS.contains(&test), "no test that {name} {outcome}");
        }
    }
    let Some(check) = promtool("alerts_fire_when_they_should") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let tests = folder.path().join("alerts-test.yml");
    std::fs::write(&tests, TESTS).unwrap();
    let run = |alerts: &str| {
        std::fs::write(folder.path().join("alerts.yml"), alerts).unwrap();
        check(&["test", "rules", tests.to_str().unwrap()], "")
    };
    let (good, words) = run(ALERTS);
    assert!(good, "{words}");
    let (good, words) = run(&ALERTS.replace("< 7 * 86400", "< 1 * 86400"));
    assert!(
        !good && words.contains("TouchstonePlatformRefusedSoon"),
        "{words}"
    );
}

/// Runs Prometheus' own tool, with this on its stdin: whether all is well with it, and what it says. `None`, and said so: it
/// is not here.
fn promtool(test: &str) -> Option<impl Fn(&[&str], &str) -> (bool, String)> {
    if Command::new("promtool").arg("--version").output().is_err() {
        println!("SKIPPED: {test}: no promtool here");
        return None;
    }
    Some(|arguments: &[&str], stdin: &str| {
        let mut child = Command::new("promtool")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(stdin.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        // Of a metric's name it complains and exits with 0, or 3, depending on its version.
        let words = said(&output.stdout) + &said(&output.stderr);
        let complains = words.contains("should");
        (output.status.success() && !complains, words)
    })
}

fn host(arguments: &[&str]) -> Output {
    let host = Command::new(env!("CARGO_BIN_EXE_host"))
        .args(arguments)
        .output();
    host.unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_taken_on_the_operators_socket() {
    let (a, _b, place) = several().await;
    let process = place.spawn();
    let settings = place.path("host.toml");
    let settings = settings.to_str().unwrap();
    let mode = std::fs::metadata(place.path("operation.sock")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let status = || -> Value {
        let output = host(&["status", "--config", settings]);
        assert!(output.status.success(), "{}", said(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let now = status();
        let conditions = [0, 1].map(|n| now["enclaves"][n]["condition"].clone());
        if conditions == ["serving", "serving"] {
            break;
        }
        assert!(Instant::now() < end, "{now}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let drain = |more: &[&str]| {
        let arguments = [&["drain", "--config", settings, "--within", "5"], more].concat();
        let output = host(&arguments);
        (
            output.status.code(),
            said(&output.stdout) + &said(&output.stderr),
        )
    };
    let (code, text) = drain(&["a"]);
    assert_eq!(
        (code, text.contains("it can be stopped")),
        (Some(0), true),
        "{text}"
    );
    assert_eq!(a.seen_of("infer"), 0);
    let now = status();
    assert_eq!(
        (&now["ready"], &now["enclaves"][0]["held"]),
        (&true.into(), &true.into())
    );
    let (code, text) = drain(&["b"]);
    assert_eq!(
        (code, text.contains("no other enclave")),
        (Some(1), true),
        "{text}"
    );
    let (code, text) = drain(&["nobody"]);
    assert_eq!(
        (code, text.contains("there is no enclave")),
        (Some(1), true),
        "{text}"
    );
    let resumed = host(&["resume", "a", "--config", settings]);
    assert_eq!(resumed.status.code(), Some(0));
    assert_eq!(status()["enclaves"][0]["held"], false);
    // A second host takes neither store nor socket.
    let second = place.spawn().log();
    assert!(second.contains("another host"), "{second}");
    let (code, _) = process.terminate();
    assert_eq!(code, Some(0));
    assert!(!place.path("operation.sock").exists());
    let gone = host(&["status", "--config", settings]);
    assert_eq!(gone.status.code(), Some(1));
}

/// A host that is killed while it drains an enclave, or right after, forgets nothing that matters: what was not told to stop goes
/// on, what was gets no request, and the order can be given again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drain_that_a_kill_interrupts_can_be_ordered_again() {
    let (a, b, place) = several().await;
    let settings = place.path("host.toml").to_str().unwrap().to_owned();
    let serving = async |conditions: [&str; 2]| {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let output = host(&["status", "--config", &settings]);
            let now: Value = serde_json::from_slice(&output.stdout).unwrap();
            if [0, 1].map(|n| now["enclaves"][n]["condition"].clone()) == conditions {
                return now;
            }
            assert!(Instant::now() < end, "{now}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let order = |settings: String| {
        tokio::task::spawn_blocking(move || {
            host(&["drain", "a", "--config", &settings, "--within", "5"])
        })
    };
    let infer = async |process: &crate::run::Process| {
        let headers = [("touchstone", "require=(logged signed)")];
        let target = "/v2/models/digits/infer";
        let answer = send(process.address(), Method::POST, target, &headers, b"x").await;
        assert_eq!(answer.status, StatusCode::OK);
        let said = answer.header("touchstone").unwrap();
        touchstone_formats::headers::TouchstoneResponse::parse(said)
            .unwrap()
            .id
    };

    // Killed while a request is under way, before the enclave was told.
    let process = place.spawn();
    serving(["serving", "serving"]).await;
    let mut promised = vec![infer(&process).await, infer(&process).await];
    a.answers_after(Duration::from_secs(3));
    b.answers_after(Duration::from_secs(3));
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(process.address()).await.unwrap();
        stream
            .write_all(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        waiting.push(stream);
    }
    let draining = order(settings.clone());
    tokio::time::sleep(Duration::from_millis(500)).await;
    process.kill();
    assert_eq!(draining.await.unwrap().status.code(), Some(1));
    a.answers_after(Duration::ZERO);
    b.answers_after(Duration::ZERO);
    let process = place.spawn();
    let now = serving(["serving", "serving"]).await;
    assert_eq!(now["enclaves"][0]["held"], false);
    let seen = a.seen_of("infer");
    promised.extend([infer(&process).await, infer(&process).await]);
    assert_eq!(a.seen_of("infer"), seen + 1);

    // Killed once the enclave was told.
    assert_eq!(
        order(settings.clone()).await.unwrap().status.code(),
        Some(0)
    );
    process.kill();
    let process = place.spawn();
    serving(["draining", "serving"]).await;
    let seen = a.seen_of("infer");
    promised.extend([infer(&process).await, infer(&process).await]);
    assert_eq!(a.seen_of("infer"), seen);
    assert_eq!(
        order(settings.clone()).await.unwrap().status.code(),
        Some(0)
    );
    b.seal();
    b.all_acknowledged().await;
    a.all_acknowledged().await;
    for id in promised {
        let target = format!("/v1/receipts/{}", touchstone_formats::text::hex_encode(&id));
        assert_eq!(get(process.address(), &target).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn check_config_says_what_is_in_effect() {
    let (_a, _b, mut place) = several().await;
    // Few enough for every machine's limit of open files.
    place.limits = "connections = 1100";
    std::fs::create_dir(place.path("collateral")).unwrap();
    std::fs::write(place.path("manifest.jsonl"), "").unwrap();
    let file = place.path("host.toml");
    std::fs::write(&file, place.settings()).unwrap();
    let check = || host(&["check-config", "--config", file.to_str().unwrap()]);
    let output = check();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let text = said(&output.stdout);
    for line in [
        "[enclaves.a]",
        "health_interval_ms = 50",
        "client_connections = 1024",
        "format = \"json\"",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    // It looks, and touches nothing.
    assert!(!place.store().exists());
    std::fs::remove_file(place.path("manifest.jsonl")).unwrap();
    let output = check();
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output.stderr).contains("manifest.file"));
    // What cannot be meant is doubted, by the key; and what is doubted is not refused.
    std::fs::write(place.path("manifest.jsonl"), "").unwrap();
    let settings = place.settings();
    for (from, to, key) in [
        (
            "connections = 1100",
            "connections = 512",
            "limits.client_connections: found 1024",
        ),
        (
            "[limits]",
            "[limits]\nin_flight = 100",
            "limits.client_in_flight: found 512",
        ),
        (
            "[enclave]",
            "[enclave]\nidle_timeout_ms = 30000",
            "enclave.idle_timeout_ms: found 30000",
        ),
        (
            "listen = \"tcp://127.0.0.1:0\"\nsocket",
            "listen = \"tcp://0.0.0.0:0\"\nsocket",
            "operation.listen: found",
        ),
        (
            "[enclaves.b]",
            "[enclaves.b]\ntls = \"vsock://3:1\"",
            "1 of 2 have tls",
        ),
        (
            place.path("collateral").to_str().unwrap(),
            file.to_str().unwrap(),
            "collateral.folder",
        ),
    ] {
        std::fs::write(&file, settings.replacen(from, to, 1)).unwrap();
        assert_ne!(std::fs::read_to_string(&file).unwrap(), settings, "{from}");
        let output = check();
        let words = said(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{words}");
        assert!(
            words.lines().count() == 1 && words.contains(key),
            "{key}: {words}"
        );
    }
    std::fs::write(&file, place.settings() + "\n[nonsense]\n").unwrap();
    let output = check();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output.stderr).contains("nonsense"));
}

/// At the most talkative level, whatever goes wrong: nothing of a question, an answer or a receipt's secrets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_json_and_hold_nothing_of_what_passes() {
    let (a, b, mut place) = several().await;
    place.more = place.more.replace("format", "filter = \"trace\"\nformat");
    let settings = place.settings().replace("filter = \"host=debug\"\n", "");
    let file = place.path("host.toml");
    std::fs::write(&file, settings).unwrap();
    let process = crate::run::Process::spawn(&file);
    let address = process.address();
    let there = |answer: &crate::client::Answer| answer.status == StatusCode::OK;
    until(address, "/v2/models/digits", "there", there).await;
    let nonce = base64_encode(b"a-nonce-of-callers");
    let asked = format!("require=(logged signed), nonce=:{nonce}:");
    let target = "/v2/models/digits/infer";
    let secret = "what-nobody-else-may-know";
    for round in 0..6 {
        a.refuses(round == 2);
        b.break_off(move |_, _| round == 4);
        let headers = [("touchstone", asked.as_str()), ("x-own", secret)];
        send(address, Method::POST, target, &headers, secret.as_bytes()).await;
        let bad = format!(
            "POST {target} HTTP/1.1\r\nHost: h\r\nX: {secret}\r\nX: a\r\n {secret}\r\n\r\n{secret}"
        );
        crate::client::raw(address, bad.as_bytes()).await;
    }
    a.seal();
    b.seal();
    tokio::time::sleep(Duration::from_millis(300)).await;
    a.die().await;
    send(address, Method::POST, target, &[], secret.as_bytes()).await;
    let digests = [a.keyset_digest(), b.keyset_digest(), b.catalog().digest()];
    let body = touchstone_formats::Digest::of(secret.as_bytes());
    let (code, log) = process.terminate();
    assert_eq!(code, Some(0));
    assert!(log.lines().count() > 20, "{log}");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(line["level"].is_string() && line["fields"].is_object());
    }
    let salt = "AAAAAAAAAAAAAAAAAAAAAA==";
    for secret in [secret, &nonce, salt, "x-own"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
    for digest in digests.iter().chain([&body]) {
        assert!(!log.contains(&digest.to_string()), "{digest}: {log}");
        assert!(!log.contains(&base64_encode(&digest.0)), "{digest}: {log}");
    }
}

/// An enclave that answers with anything but what it should: what it said is not in the log either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_enclave_should_not_say_is_not_logged() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let secret = "what-nobody-else-may-know";
    let digest = "ab".repeat(32);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let body = format!("{{\"v\":\"{secret}\",\"boot\":\"{digest}\"}}");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nTouchstone: id=\"{secret}\", keyset=\"{digest}\"\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 4_096];
                while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    // The same listener under two names of this machine: one address for both is refused.
    let control = std::net::SocketAddr::from(([127, 0, 0, 2], address.port()));
    let forward = tokio::net::TcpListener::bind(control).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = forward.accept().await.unwrap();
            tokio::spawn(async move {
                let mut other = tokio::net::TcpStream::connect(address).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
            });
        }
    });
    let place = Place::new(address, control);
    let file = place.path("host.toml");
    std::fs::write(&file, place.settings().replace("host=debug", "trace")).unwrap();
    let process = crate::run::Process::spawn(&file);
    let answer = get(process.address(), "/v2/models/digits").await;
    assert_eq!(answer.status, StatusCode::OK);
    get(
        process.address(),
        &format!("/v1/receipts/{}", "0".repeat(32)),
    )
    .await;
    for line in [
        "field is not understood",
        "nothing is pulled",
        "did not say how it is",
    ] {
        process.until_logged(line, 1);
    }
    let (_, log) = process.terminate();
    assert!(!log.contains(secret) && !log.contains(&digest), "{log}");
}

/// However often callers bring about what the operator has to know, it is said once a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_cannot_flood_the_log() {
    let mut place = Place::new(nobody().await, nobody().await);
    place.more = "format = \"json\"\n".into();
    let settings = place.settings().replace("host=debug", "info");
    let file = place.path("host.toml");
    std::fs::write(&file, settings).unwrap();
    let process = crate::run::Process::spawn(&file);
    let address = process.address();
    let began = Instant::now();
    for _ in 0..200 {
        let answer = get(address, "/v2/health/ready").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    get(address, "/v2/health/ready").await;
    let seconds = began.elapsed().as_secs() + 1;
    let (_, log) = process.terminate();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["fields"]["message"] == "a request could not be relayed")
        .collect();
    assert!(lines.len() as u64 <= seconds && lines.len() > 1, "{log}");
    // None is lost sight of.
    let left_out: u64 = lines
        .iter()
        .map(|line| line["fields"]["more"].as_u64().unwrap())
        .sum();
    assert_eq!(left_out + lines.len() as u64, 201, "{log}");
}

/// The units stand, and shut in what they run.
#[test]
fn the_systemd_unit_stands() {
    let test = "the_systemd_unit_stands";
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("SKIPPED: {test}: no systemd-analyze here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let check = |unit: &str, name: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, unit).unwrap();
        let verified = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&file)
            .output()
            .unwrap();
        let shut_in = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", "--threshold=25"])
            .arg(&file)
            .output()
            .unwrap();
        let words = said(&verified.stderr);
        (words, shut_in.status.success())
    };
    // A program that is there, in the place of the one that is to be installed.
    let there = env!("CARGO_BIN_EXE_host");
    for (name, unit, program) in [
        (
            "touchstone-host.service",
            UNIT,
            "/usr/local/bin/touchstone-host",
        ),
        (
            "touchstone-enclave@.service",
            ENCLAVE_UNIT,
            "/etc/touchstone/%i/start",
        ),
        (
            "touchstone-collateral.service",
            COLLATERAL_UNIT,
            "/usr/local/bin/touchstone ",
        ),
    ] {
        let start = format!("ExecStart={program}");
        assert!(unit.contains(&start), "{name}");
        let unit = unit.replace(&start, &format!("ExecStart={there} "));
        let (words, shut_in) = check(&unit, name);
        assert!(!words.contains("touchstone-"), "{words}");
        assert!(shut_in, "{name}");
        // The same without a rule, and with one that does not exist.
        let open = unit
            .replace("SystemCallFilter=", "#")
            .replace("Protect", "#Protect");
        let (_, shut_in) = check(&open, name);
        assert!(!shut_in, "{name}");
        let (words, _) = check(&unit.replace("NoNewPrivileges", "NoNewPrivilege"), name);
        assert!(words.contains("NoNewPrivilege"), "{words}");
    }
}

/// An operator's listener that cannot be had ends the start, and says which.
#[tokio::test]
async fn listeners_that_cannot_be_had_end_the_start() {
    let mut place = Place::new(nobody().await, nobody().await);
    place.more = "[operation]\nsocket = \"/nowhere/at/all.sock\"\n".into();
    let file = place.path("host.toml");
    std::fs::write(&file, place.settings()).unwrap();
    let output = host(&["--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output.stderr).contains("operation.socket"));
    place.more = String::new();
    std::fs::write(&file, place.settings()).unwrap();
    let output = host(&["status", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output.stderr).contains("operation.socket"));
}
