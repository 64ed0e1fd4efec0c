//! `ask` and the connection it asks over: nothing leaves before the enclave is proven, and nothing is
//! readable by who relays it unless that was said.

mod support;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use support::{Run, npy, policy_for, touchstone_in};
use touchstone_testkit::mitm::{Config, Lie, ManInTheMiddle, Server, Upstream};

/// What is asked: four numbers whose bytes stand nowhere else.
const INPUT: [f32; 4] = [0.123_456_79, 98.765_43, -2.718_281_7, 3.141_592_7e-5];

/// A caller, and a server with somebody before it.
struct Caller {
    folder: tempfile::TempDir,
    server: Arc<Server>,
    middle: ManInTheMiddle,
}

impl Caller {
    fn before(lie: Lie) -> Caller {
        let server = Arc::new(Server::new(lie));
        let config = Config::before(Upstream::Own(server.clone()), lie);
        let caller = Caller {
            folder: tempfile::tempdir().unwrap(),
            middle: ManInTheMiddle::start(config).unwrap(),
            server,
        };
        std::fs::write(caller.path("x.npy"), npy(&[1, 4], &INPUT)).unwrap();
        std::fs::write(caller.path("root.pem"), caller.server.world().root_pem()).unwrap();
        caller.policy(&[]);
        caller
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The strict policy with these changes.
    fn policy(&self, changes: &[(&str, &str)]) {
        let text = policy_for(self.server.world(), changes);
        std::fs::write(self.path("policy.toml"), text).unwrap();
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.middle.address())
    }

    fn ask_at(&self, url: &str, more: &[&str]) -> Run {
        let mut args = vec!["ask", url, "digits", "--input", "x=x.npy"];
        args.extend(["--policy", "policy.toml", "-o", "answer", "--force"]);
        args.extend(more);
        touchstone_in(self.folder.path(), &args)
    }

    /// `ask https://…` with the simulated root.
    fn ask(&self, more: &[&str]) -> Run {
        let root = ["--trust-simulated-root", "root.pem"];
        self.ask_at(&self.url("https"), &[&root, more].concat())
    }

    /// `check` of what was kept, at this machine's clock.
    fn check(&self) -> Run {
        let mut args = vec!["check", "answer", "--policy", "policy.toml", "--json"];
        args.extend(["--trust-simulated-root", "root.pem"]);
        touchstone_in(self.folder.path(), &args)
    }

    fn kept(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("answer"));
        let mut names: Vec<String> = entries
            .map(|all| {
                all.map(|e| e.unwrap().file_name().into_string().unwrap())
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        names
    }

    /// Whether the question stood in anything that was sent, encrypted or not.
    fn question_was_sent(&self) -> bool {
        let question: Vec<u8> = INPUT.iter().flat_map(|x| x.to_le_bytes()).collect();
        let seen = self.middle.record().connections();
        seen.iter().any(|seen| seen.sent(&question))
    }

    /// Refused by this check before anything was sent.
    #[track_caller]
    fn refused(&self, run: &Run, exit: i32, id: &str) {
        assert_eq!(run.code, exit, "{}", run.stderr);
        assert!(
            run.stderr.contains(&format!("because {id}: ")),
            "{}",
            run.stderr
        );
        assert!(run.stdout.is_empty(), "{}", run.stdout);
        assert!(!self.question_was_sent());
        assert_eq!(self.kept(), ["expect.json", "request.bin"]);
    }
}

const WHOLE: [&str; 6] = [
    "bundle.json",
    "expect.json",
    "request.bin",
    "response.bin",
    "response.json",
    "session.json",
];

#[test]
fn the_enclave_is_proven_and_then_asked() {
    let caller = Caller::before(Lie::None);
    let run = caller.ask(&[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let line = run.stderr.lines().next().unwrap();
    let measurement = hex::encode(caller.server.world().machine.report.measurement);
    for part in [
        "connection: bound by tls-exporter to enclave.example, chip ",
        &format!("measurement {}…", &measurement[..16]),
        "SIMULATED",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(run.stdout.contains("not judged"));
    assert_eq!(caller.kept(), WHOLE);
    let verdict = caller.check().verdict();
    assert_eq!(
        (&verdict["exit"], &verdict["binding"]),
        (&6.into(), &"tls-exporter".into())
    );
    // It was sent, and only inside TLS.
    assert!(caller.question_was_sent());
    let question = std::fs::read(caller.path("answer/request.bin")).unwrap();
    let seen = caller.middle.record().connections();
    assert!(seen.iter().all(|seen| seen.tls || !seen.sent(&question)));

    // The answer needs the record, where the policy asks for a binding.
    caller.policy(&[("answers", "{ expect = \"tls-exporter\" }")]);
    assert_eq!(caller.check().code, 6);
    std::fs::remove_file(caller.path("answer/session.json")).unwrap();
    caller.check().refused(4, "session.binding");
}

#[test]
fn nothing_is_sent_to_a_liar() {
    for (exit, lie) in [
        (3, Lie::OwnCertificate),
        (3, Lie::SameCertificate),
        (3, Lie::Replay),
        (3, Lie::ClientRole),
        (3, Lie::WrongSpki),
        (3, Lie::NoTlsKey),
        (3, Lie::CollateralForeign),
        (3, Lie::Reflection),
        (3, Lie::SwapKeyset),
        (3, Lie::SameKey),
        (3, Lie::OtherExporter),
        (3, Lie::StaleNonce),
        (3, Lie::Tls12),
        (2, Lie::OtherPurpose),
        (4, Lie::ExpiredKeyset),
        (5, Lie::CollateralNone),
    ] {
        let caller = Caller::before(lie);
        caller.refused(&caller.ask(&[]), exit, lie.refused_by());
    }
}

#[test]
fn nothing_is_sent_to_an_enclave_that_the_policy_does_not_accept() {
    let caller = Caller::before(Lie::None);
    for (key, value, id) in [
        (
            "snp.measurement",
            format!("{{ expect = \"{}\" }}", "ab".repeat(48)),
            "snp.measurement",
        ),
        (
            "snp.chip_id",
            format!("{{ expect = \"{}\" }}", "ab".repeat(64)),
            "snp.chip_id",
        ),
        (
            "name",
            "{ expect = \"another.example\" }".into(),
            "keyset.name",
        ),
        (
            "keyset_span_seconds",
            "{ expect = 60 }".into(),
            "keyset.span",
        ),
        (
            "binding",
            "{ expect = \"spki-pin\" }".into(),
            "session.binding",
        ),
    ] {
        caller.policy(&[(key, &value)]);
        caller.refused(&caller.ask(&[]), 4, id);
    }
    caller.policy(&[]);
    // A simulated platform is nothing to who does not name its root.
    let bare = caller.ask_at(&caller.url("https"), &[]);
    caller.refused(&bare, 3, "snp.chain.root");
    assert_eq!(caller.ask(&[]).code, 0);
}

#[test]
fn the_connection_is_on_record_before_the_question_leaves() {
    // The question goes out, and no answer comes.
    let caller = Caller::before(Lie::Drop);
    let run = caller.ask(&["--timeout", "2"]);
    assert_eq!(run.code, 4, "{}", run.stderr);
    assert!(run.stderr.contains("connection.late"), "{}", run.stderr);
    assert!(caller.question_was_sent());
    assert_eq!(
        caller.kept(),
        ["expect.json", "request.bin", "session.json"]
    );
}

#[test]
fn collateral_of_ones_own() {
    let honest = Caller::before(Lie::None);
    let cache = honest.path("cache");
    let cache = cache.to_str().unwrap();
    assert_eq!(honest.ask(&["--collateral-cache", cache]).code, 0);
    let file = std::fs::read_dir(cache).unwrap().next().unwrap().unwrap();

    // A host that has none: neither a file of one's own nor the cache needs him.
    let none = Upstream::Own(honest.server.clone());
    let middle = ManInTheMiddle::start(Config::before(none, Lie::CollateralNone)).unwrap();
    let url = format!("https://{}", middle.address());
    let root = ["--trust-simulated-root", "root.pem"];
    let ask = |more: &[&str]| honest.ask_at(&url, &[&root, more].concat());
    let run = ask(&[]);
    assert_eq!(run.code, 5, "{}", run.stderr);
    let own = file.path();
    assert_eq!(ask(&["--collateral", own.to_str().unwrap()]).code, 0);
    let name = own.file_name().unwrap().to_str().unwrap().replace(
        &honest.middle.address().port().to_string(),
        &middle.address().port().to_string(),
    );
    std::fs::rename(&own, honest.path("cache").join(name)).unwrap();
    assert_eq!(ask(&["--collateral-cache", cache]).code, 0);

    let run = ask(&["--collateral", "root.pem"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("root.pem"), "{}", run.stderr);
}

#[test]
fn records_may_stand_elsewhere() {
    let caller = Caller::before(Lie::None);
    let own = caller.url("http");
    assert_eq!(caller.ask(&["--records", &own]).code, 0);
    // Where nobody is there is no collateral to prove the connection with.
    let nobody = ["--records", "http://127.0.0.1:1"];
    assert_eq!(caller.ask(&nobody).code, 5);
    let run = caller.ask(&["--records", &caller.url("https")]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("expected http://"), "{}", run.stderr);
}

#[test]
fn plaintext_has_to_be_said() {
    let caller = Caller::before(Lie::None);
    let (http, https) = (caller.url("http"), caller.url("https"));
    let run = caller.ask_at(&http, &[]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("http:// would show your question")
            && run.stderr.contains("--plaintext"),
        "{}",
        run.stderr
    );
    let run = caller.ask_at(&https, &["--plaintext"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(caller.kept().is_empty(), "nothing was written");

    // Said, and the policy demands a binding all the same.
    let run = caller.ask_at(&http, &["--plaintext"]);
    caller.refused(&run, 4, "session.binding");
    assert!(caller.middle.record().is_empty(), "nobody was connected to");

    caller.policy(&[("binding", "{ waive = \"nothing secret is asked\" }")]);
    let run = caller.ask_at(&http, &["--plaintext"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let line = run.stderr.lines().next().unwrap();
    assert!(
        line.contains("plaintext") && line.contains("can read"),
        "{line}"
    );
    assert_eq!(caller.kept(), WHOLE[..5]);
    assert_eq!(caller.check().verdict()["binding"], "none");
    // Over TLS again, and back: no record of a connection outlives its answer.
    assert_eq!(caller.ask(&[]).code, 0);
    assert_eq!(caller.kept(), WHOLE);
    assert_eq!(caller.ask_at(&http, &["--plaintext"]).code, 0);
    assert_eq!(caller.kept(), WHOLE[..5]);
}

#[test]
fn servers_that_speak_no_tls_or_are_not_there() {
    let caller = Caller::before(Lie::None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; 1];
        stream.read_exact(&mut hello).unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest
    });
    let root = ["--trust-simulated-root", "root.pem"];
    caller.refused(&caller.ask_at(&url, &root), 3, "connection.tls");
    let sent = server.join().unwrap();
    assert!(sent.len() < 2_000, "a ClientHello and an alert, no more");
    caller.refused(
        &caller.ask_at("https://127.0.0.1:1", &root),
        1,
        "connection.io",
    );
}
