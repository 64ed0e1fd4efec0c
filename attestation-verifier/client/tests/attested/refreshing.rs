//! A policy that leaves it to a manifest what may run: what the host gives counts if the policy's signers stand for it, if it is in
//! force and no step back; whatever else it does, the client goes on with what it had.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use attestation_verifier::dates::rfc3339;
use attestation_verifier::manifest::{Accepted, Authentic};
use attestation_verifier::{At, Comparison, Manifests, Policy, Verifier};
use serde_json::{Value, json};
use tempfile::TempDir;
use touchstone_client::manifest::{Refreshed, State};
use touchstone_client::{Builder, Client, Error};
use touchstone_formats::text::{base64_encode, hex_encode};
use touchstone_formats::{Attachment, Bundle};
use touchstone_testkit::mint::World;

use crate::signing::{Key, file, key, payload, statement};
use crate::support::{Hook, Reply, Server, input, output, refused};

const ASKED: [f32; 4] = [0.1, 0.5, -2.25, 3.0e-7];
const TARGET: &str = "/v1/manifest";
/// Another release's measurement.
const NEWER: [u8; 48] = [0x22; 48];
/// When release 1 ends by the second manifest, seconds after the world's time.
const OVERLAP: u64 = 60;

/// A server whose software a manifest lists, and the keys of alice, bob and somebody else.
struct Place {
    server: Server,
    keys: [Key; 3],
    /// What release 1 is measured as.
    first: [u8; 48],
    clock: Arc<AtomicU64>,
    folder: TempDir,
}

impl Place {
    async fn new() -> Place {
        let server = Server::start().await;
        Place {
            first: server.enclave().world.machine.report.measurement,
            server,
            keys: [key(), key(), key()],
            clock: Arc::new(AtomicU64::new(World::AT)),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn state(&self) -> Accepted {
        State::open(&self.path("state.json")).unwrap().accepted
    }

    fn release(&self, name: &str, measurement: &[u8; 48], ends: u64) -> Value {
        let ingredient = |role: &str, origin: &str| json!({ "role": role, "name": role, "sha256": "01".repeat(32), "size": 1, "origin": origin, "source": "here" });
        let rebuilt = ["firmware", "kernel", "initrd", "cmdline"].map(|r| ingredient(r, "rebuilt"));
        json!({ "release": name, "not_after": rfc3339(ends), "platforms": [{
            "name": "qemu", "tee": "sev-snp", "vmm": "qemu", "os_binding": "launch-digest", "quote_source": "exclusive",
            "ingredients": rebuilt,
            "minimum_tcb": { "Genoa": { "bootloader": 1, "tee": 0, "snp": 1, "microcode": 1 } },
            "measurements": [{ "snp": { "measurement": hex_encode(measurement), "vcpus": 4, "cpu": "EPYC-Genoa",
                                         "guest_features": "0x1" } }] }] })
    }

    fn predicate(&self, version: u64, releases: Vec<Value>) -> Value {
        let models = self.server.enclave().world.models.clone();
        let models = models.iter().map(|model| {
            json!({ "name": model.name, "version": model.version, "model_digest": model.model_digest,
                    "config_digests": [model.config_digest] })
        });
        json!({ "v": "touchstone/manifest/1", "name": "enclave", "version": version,
            "issued": rfc3339(World::AT - 1000 + version), "not_after": rfc3339(World::AT + 86_400),
            "releases": releases, "models": models.collect::<Vec<_>>() })
    }

    /// Version 1: release 1 alone.
    fn one(&self) -> Value {
        self.predicate(1, vec![self.release("1", &self.first, World::AT + 86_400)])
    }

    /// Version 2: release 2 beside release 1, which is about to end.
    fn two(&self) -> Value {
        let releases = vec![
            self.release("2", &NEWER, World::AT + 86_400),
            self.release("1", &self.first, World::AT + OVERLAP),
        ];
        self.predicate(2, releases)
    }

    /// Signed by alice and bob.
    fn signed(&self, predicate: &Value) -> Vec<u8> {
        let [alice, bob, _] = &self.keys;
        file(&payload(&statement(predicate)), &[alice, bob])
    }

    fn policy(&self) -> Policy {
        let manifest = "{ expect = \"manifest\" }";
        let changes = ["snp.measurement", "models", "configs"].map(|key| (key, manifest));
        let mut table =
            "\n[manifest]\nname = \"enclave\"\nminimum_version = 1\nthreshold = 2\n".to_owned();
        for (key, name) in self.keys.iter().zip(["alice", "bob"]) {
            let spki = base64_encode(&key.public.to_spki());
            table += &format!("[[manifest.signer]]\nname = {name:?}\nkey = {spki:?}\n");
        }
        let text = self.server.policy_text(&changes);
        let text = text.replacen("\n[[platform]]", &(table + "\n[[platform]]"), 1);
        Policy::parse(&text).unwrap()
    }

    fn builder(&self, given: &[Vec<u8>]) -> Builder {
        let clock = self.clock.clone();
        self.server
            .builder_with(self.policy())
            .clock(move || clock.load(Ordering::SeqCst))
            .manifest_state(self.path("state.json"))
            .manifests(Manifests {
                files: given.to_vec(),
                known: Accepted::default(),
            })
    }

    fn serve(&self, reply: Reply) {
        let hook: Hook = Box::new(move |_, _, _| reply.clone());
        self.server.hooks().manifest = Some(hook);
    }

    fn serves(&self, file: &[u8]) {
        self.serve(Reply::new(200, file));
    }

    /// Release 2 takes the place of release 1.
    fn deploy(&self, measurement: [u8; 48]) {
        self.server
            .rotate(|world| world.machine.report.measurement = measurement);
    }

    fn fetched(&self) -> usize {
        self.server.host_was_asked(TARGET)
    }
}

async fn works(client: &Client) -> Bundle {
    let answer = client.infer("digits", &[input(ASKED)]).await.unwrap();
    let answer = answer.verified().await.unwrap();
    assert_eq!(answer.outputs(), [output(ASKED)]);
    answer.bundle().clone()
}

/// What the client says of a connection that it does not use.
async fn fails(client: &Client) -> Error {
    let asked = client.infer("digits", &[input(ASKED)]).await;
    refused(asked, 4, "snp.measurement")
}

fn version(client: &Client) -> Option<u64> {
    client
        .manifest()
        .unwrap()
        .manifest
        .map(|(version, _)| version)
}

#[tokio::test]
async fn a_client_goes_on_by_itself_when_a_release_follows_another() {
    let place = Place::new().await;
    let (one, two) = (place.signed(&place.one()), place.signed(&place.two()));
    let client = place
        .builder(std::slice::from_ref(&one))
        .connect()
        .await
        .unwrap();
    works(&client).await;
    assert_eq!(
        (version(&client), place.fetched()),
        (Some(1), 0),
        "nothing was wanting"
    );

    // A release that nothing lists yet, and a host that has nothing newer: refused, whoever asks.
    place.deploy(NEWER);
    place.serves(&one);
    let error = fails(&client).await;
    let words = error.verdict().words();
    assert!(words.contains("version 1"), "{words}");
    assert_eq!(place.server.asked(), 2, "to release 1, which has gone");
    assert_eq!(place.fetched(), 1, "asked once");

    // Now it is listed.
    place.serves(&two);
    works(&client).await;
    assert_eq!((version(&client), place.fetched()), (Some(2), 2));
    assert_eq!(place.state().version("enclave"), Some(2));
    // Release 1 is still to be met, and its end has not come.
    place.deploy(place.first);
    works(&client).await;

    // The old manifest again is a step back, by request or not.
    place.serves(&one);
    let error = client.refresh_manifest().await.unwrap_err();
    assert_eq!(error.check(), Some("manifest.version"), "{error}");
    let in_use = client.manifest().unwrap();
    assert!(in_use.asked.unwrap().1.unwrap_err().contains("older"));
    assert_eq!(in_use.signed_by, ["alice", "bob"]);
    works(&client).await;
    place.deploy(NEWER);
    works(&client).await;

    // Release 1 ends: a connection to it that was proven before takes no further question.
    place.deploy(place.first);
    works(&client).await;
    let sessions = place.server.sessions();
    place.clock.fetch_add(OVERLAP + 1, Ordering::SeqCst);
    let asked = place.server.asked();
    let ended = client.infer("digits", &[input(ASKED)]).await;
    let words = refused(ended, 5, "manifest.validity").verdict().words();
    assert_eq!(place.server.asked(), asked, "{words}");
    assert_eq!(place.server.sessions(), sessions + 1);
    assert!(words.contains("There is no newer manifest"), "{words}");
    place.deploy(NEWER);
    works(&client).await;
}

#[tokio::test]
async fn whatever_a_host_gives_the_client_goes_on_with_what_it_has() {
    let place = Place::new().await;
    let (one, two) = (place.signed(&place.one()), place.two());
    let good = place.signed(&two);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut predicate = two.clone();
        change(&mut predicate);
        predicate
    };
    let [alice, bob, mallory] = &place.keys;
    // Their signatures under something else.
    let other = changed(&|p| p["version"] = json!(3));
    let tampered: String = [alice, bob]
        .map(|signer| {
            let mut line = signer.bundle(&payload(&statement(&two)));
            line["dsseEnvelope"]["payload"] = json!(base64_encode(&payload(&statement(&other))));
            line.to_string() + "\n"
        })
        .concat();
    let body = payload(&statement(&two));
    let endless = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{}",
        8 << 20,
        "{".repeat(5 << 20)
    );
    let mut cases: Vec<(&str, Reply, Option<&str>)> = vec![
        ("404", Reply::problem(404, "None"), None),
        ("503", Reply::problem(503, "Busy"), None),
        (
            "a redirection",
            Reply::new(302, "").header("location", "/x"),
            None,
        ),
        (
            "torn",
            Reply::Torn(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec()),
            None,
        ),
        ("endless", Reply::Raw(endless.into_bytes()), None),
        ("no HTTP", Reply::Raw(b"hello\r\n\r\n".to_vec()), None),
    ];
    for (what, file, check) in [
        ("empty", Vec::new(), "manifest.format"),
        ("garbage", vec![0xff; 1000], "manifest.format"),
        ("half", good[..good.len() / 3].to_vec(), "manifest.format"),
        ("unsigned", body.clone(), "manifest.format"),
        ("a draft", two.to_string().into_bytes(), "manifest.format"),
        ("tampered", tampered.into_bytes(), "manifest.signature"),
        ("another's", file(&body, &[mallory]), "manifest.signature"),
        ("by one alone", file(&body, &[alice]), "manifest.threshold"),
        (
            "by one twice",
            file(&body, &[alice, alice]),
            "manifest.threshold",
        ),
        (
            "by one and another",
            file(&body, &[alice, mallory]),
            "manifest.threshold",
        ),
        (
            "of another name",
            place.signed(&changed(&|p| p["name"] = json!("other"))),
            "manifest.name",
        ),
        (
            "ended",
            place.signed(&changed(&|p| {
                p["not_after"] = json!(rfc3339(World::AT - 1))
            })),
            "manifest.validity",
        ),
        (
            "of tomorrow",
            place.signed(&changed(&|p| {
                p["issued"] = json!(rfc3339(World::AT + 1000))
            })),
            "manifest.validity",
        ),
        // What it lists it may have under no number that was given already.
        (
            "a second version 1",
            place.signed(&changed(&|p| p["version"] = json!(1))),
            "manifest.version",
        ),
    ] {
        cases.push((what, Reply::new(200, file), Some(check)));
    }
    let state = std::fs::read_to_string;
    let client = place.builder(&[one]).connect().await.unwrap();
    let before = state(place.path("state.json")).unwrap();
    for (what, reply, check) in cases {
        place.serve(reply);
        let error = client.refresh_manifest().await.unwrap_err();
        assert_eq!(error.check(), check, "{what}: {error}");
        place.deploy(NEWER);
        let error = fails(&client).await;
        let words = error.verdict().words();
        assert!(
            words.contains("There is no newer manifest"),
            "{what}: {words}"
        );
        place.deploy(place.first);
        works(&client).await;
        assert_eq!(version(&client), Some(1), "{what}");
        assert_eq!(state(place.path("state.json")).unwrap(), before, "{what}");
    }
    // And it was none of this that the honest one differs in.
    place.serves(&good);
    assert_eq!(
        client.refresh_manifest().await.unwrap(),
        Refreshed::Newer {
            from: Some(1),
            to: 2
        }
    );
    assert_eq!(
        client.refresh_manifest().await.unwrap(),
        Refreshed::Same { version: 2 }
    );
    place.deploy(NEWER);
    works(&client).await;
}

#[tokio::test]
async fn what_was_accepted_is_remembered() {
    let place = Place::new().await;
    let (one, two) = (place.signed(&place.one()), place.signed(&place.two()));
    // Who has none gets one, and keeps it.
    let cache = place.path("cache");
    let builder = |given: &[Vec<u8>]| place.builder(given).collateral_cache(&cache);
    refused(builder(&[]).connect().await, 5, "manifest.present");
    place.serves(&two);
    let client = builder(&[]).connect().await.unwrap();
    works(&client).await;
    let kept = kept(&cache);
    assert_eq!(std::fs::read(&kept).unwrap(), two);

    // The next client has what was kept, whatever the host has by then.
    place.serves(&one);
    let client = builder(&[]).connect().await.unwrap();
    works(&client).await;
    assert_eq!(version(&client), Some(2));
    // Without it the state remembers: neither the caller's older file nor the host's will do.
    std::fs::remove_file(&kept).unwrap();
    refused(
        builder(std::slice::from_ref(&one)).connect().await,
        4,
        "manifest.version",
    );
    // And it is the state that does.
    std::fs::remove_file(place.path("state.json")).unwrap();
    works(&builder(std::slice::from_ref(&one)).connect().await.unwrap()).await;

    // What was kept proves itself too.
    let [alice, _, mallory] = &place.keys;
    std::fs::write(
        &kept,
        file(&payload(&statement(&place.two())), &[alice, mallory]),
    )
    .unwrap();
    place.deploy(NEWER);
    refused(
        builder(std::slice::from_ref(&one)).connect().await,
        4,
        "snp.measurement",
    );
    place.serves(&two);
    works(&builder(std::slice::from_ref(&one)).connect().await.unwrap()).await;

    // A state that is damaged is an error, and stays as it is.
    let whole = std::fs::read(place.path("state.json")).unwrap();
    for damaged in [&b""[..], b"{}", &whole[..whole.len() / 2]] {
        std::fs::write(place.path("state.json"), damaged).unwrap();
        let error = refused(
            builder(std::slice::from_ref(&two)).connect().await,
            1,
            "usage",
        );
        assert!(error.to_string().contains("damaged"), "{error}");
        assert_eq!(std::fs::read(place.path("state.json")).unwrap(), damaged);
    }
    std::fs::write(place.path("state.json"), whole).unwrap();
    let client = builder(&[]).connect().await.unwrap();
    // Nor is what cannot be remembered used.
    std::fs::write(place.path("state.json"), "{").unwrap();
    place.serves(
        &place.signed(&place.predicate(3, vec![place.release("2", &NEWER, World::AT + 900)])),
    );
    let error = client.refresh_manifest().await.unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert_eq!(version(&client), Some(2));
}

/// Who has no state file has the process's memory, and what the caller says that he accepted: nobody takes that back, not he himself.
#[tokio::test]
async fn what_a_process_accepted_it_does_not_forget() {
    let place = Place::new().await;
    let (one, two) = (place.signed(&place.one()), place.signed(&place.two()));
    let given = |files: &[&Vec<u8>], known: &Accepted| Manifests {
        files: files.iter().map(|file| file.to_vec()).collect(),
        known: known.clone(),
    };
    let nothing = Accepted::default();
    let client = place.server.builder_with(place.policy());
    let client = client.manifests(given(&[&one], &nothing));
    let client = client.connect().await.unwrap();
    client.replace_manifests(&given(&[&one], &nothing)).unwrap();
    works(&client).await;
    place.serves(&two);
    client.refresh_manifest().await.unwrap();
    assert_eq!(version(&client), Some(2));
    // The caller's older file takes the newer one's place, and is a step back.
    client.replace_manifests(&given(&[&one], &nothing)).unwrap();
    place.serve(Reply::problem(404, "None"));
    let asked = client.infer("digits", &[input(ASKED)]).await;
    refused(asked, 4, "manifest.version");
    place.serves(&two);
    works(&client).await;

    // What the caller accepted counts beside a state that knows less.
    let demand = place.policy().manifest.unwrap();
    let mut known = Accepted::default();
    known
        .accept(&Authentic::read(&one, &demand.signers).unwrap())
        .unwrap();
    let knowing = |known: &Accepted| place.builder(&[]).manifests(given(&[&one], known));
    place.serve(Reply::problem(404, "None"));
    works(&knowing(&known).connect().await.unwrap()).await;
    assert_eq!(place.state().version("enclave"), Some(1));
    known
        .accept(&Authentic::read(&two, &demand.signers).unwrap())
        .unwrap();
    refused(knowing(&known).connect().await, 4, "manifest.version");
    assert_eq!(place.state().version("enclave"), Some(2));
}

fn kept(cache: &Path) -> PathBuf {
    let names = std::fs::read_dir(cache)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut names = names.filter(|path| path.to_string_lossy().ends_with(".manifest.jsonl"));
    names.next().unwrap()
}

/// A model that came after the manifest: the answer is there already, and is judged again.
#[tokio::test]
async fn an_answer_of_a_newer_model_is_judged_again() {
    let place = Place::new().await;
    let two = place.signed(&place.two());
    let mut without = place.one();
    without["models"] = json!([]);
    let client = place
        .builder(&[place.signed(&without)])
        .connect()
        .await
        .unwrap();
    let ask = async || {
        let answer = client.infer("digits", &[input(ASKED)]).await.unwrap();
        answer.verified().await
    };
    let unverified = ask().await.unwrap_err();
    let verdict = unverified.verdict;
    assert_eq!(verdict.exit(), 4, "{}", verdict.words());
    assert!(
        verdict.deciding().unwrap().contains("model"),
        "{}",
        verdict.words()
    );
    assert!(
        verdict.words().contains("There is no newer manifest"),
        "{}",
        verdict.words()
    );
    place.serves(&two);
    ask().await.unwrap();
    assert_eq!(version(&client), Some(2));
}

#[tokio::test]
async fn a_kept_bundle_has_its_manifest_with_it() {
    let place = Place::new().await;
    let (one, two) = (place.signed(&place.one()), place.signed(&place.two()));
    place.serves(&two);
    let client = place
        .builder(std::slice::from_ref(&one))
        .connect()
        .await
        .unwrap();
    // Whatever the host puts there.
    let attached = |file: &[u8]| {
        let text = String::from_utf8(file.to_vec()).unwrap();
        let json = json!({ "manifest": text, "type": "touchstone/manifest/1" }).to_string();
        Attachment::parse(&json).unwrap()
    };
    let other = Attachment::parse("{\"type\":\"x\"}").unwrap();
    let put = [attached(b"{"), other.clone(), attached(&one)];
    place.server.hooks().receipt = Some(Box::new(move |_, _, reply| {
        reply.with_body(|body| {
            let mut bundle = Bundle::parse(&body).unwrap();
            bundle.attachments = put.to_vec();
            bundle.to_file()
        })
    }));
    let bundle = works(&client).await;
    assert_eq!(bundle.attachments, [other.clone(), attached(&one)]);
    client.refresh_manifest().await.unwrap();
    let bundle = works(&client).await;
    assert_eq!(bundle.attachments, [other, attached(&two)]);

    // Years later nobody else has it; it says what was true then.
    let verifier = Verifier::new(place.policy(), place.server.roots());
    let at = At {
        time: World::AT,
        asserted: true,
    };
    let comparison = Comparison {
        expect_simulated: true,
        receipt_only: true,
        ..Comparison::default()
    };
    let verdict = verifier.check(&bundle.to_file(), &comparison, at);
    assert_eq!(verdict.exit(), 0, "{}", verdict.words());
    assert_eq!(verdict.context.manifest.unwrap().manifest().version, 2);
    let mut bare = bundle;
    bare.attachments.clear();
    let verdict = verifier.check(&bare.to_file(), &comparison, at);
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (5, Some("manifest.present"))
    );
}

/// Many at once are refused for want of the same manifest, and one of them asks for it.
#[tokio::test]
async fn many_who_want_it_ask_once() {
    let place = Place::new().await;
    let two = place.signed(&place.two());
    let client = place
        .builder(&[place.signed(&place.one())])
        .connect()
        .await
        .unwrap();
    place.deploy(NEWER);
    place.serve(Reply::Later(
        std::time::Duration::from_millis(800),
        Box::new(Reply::new(200, two)),
    ));
    let asking = (0..4).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { works(&client).await })
    });
    for asked in asking.collect::<Vec<_>>() {
        asked.await.unwrap();
    }
    assert_eq!(place.fetched(), 1);
}

#[tokio::test]
async fn a_policy_without_one_asks_for_none() {
    let server = Server::start().await;
    let client = server.builder().connect().await.unwrap();
    assert_eq!(client.manifest(), None);
    let error = client.refresh_manifest().await.unwrap_err();
    assert!(error.to_string().contains("no [manifest]"), "{error}");
    assert_eq!(server.host_was_asked(TARGET), 0);
}

/// Who asks may be dropped at any time: what was accepted by then is not lost.
#[tokio::test]
async fn a_question_that_is_dropped_loses_no_manifest() {
    let place = Place::new().await;
    let (one, two) = (place.signed(&place.one()), place.signed(&place.two()));
    let client = place.builder(&[one]).connect().await.unwrap();
    place.serves(&two);
    place.deploy(NEWER);
    // Somebody else has the state, so that the client waits for it with the manifest in hand.
    let held = State::open(&place.path("state.json")).unwrap();
    let inputs = [input(ASKED)];
    let asking = client.infer("digits", &inputs);
    let asked = tokio::time::timeout(std::time::Duration::from_secs(2), asking).await;
    assert!(asked.is_err(), "it waits");
    drop(held);
    for _ in 0..1000 {
        if version(&client) == Some(2) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(place.state().version("enclave"), Some(2));
    works(&client).await;
}
