//! Connections and answers obey the manifests that the client was given, and those that replace them.

use attestation_verifier::manifest::{Manifest, PublicKey, Statement};
use attestation_verifier::{Manifests, Policy};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use touchstone_formats::text::{base64_encode, hex_encode};
use touchstone_testkit::mint::World;
use touchstone_testkit::policy::edit;

use crate::support::{Server, input, output, refused};

const ASKED: [f32; 4] = [0.1, 0.5, -2.25, 3.0e-7];

struct Signer {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl Signer {
    fn new() -> Signer {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        let public = PublicKey::from_point(pair.public_key().as_ref()).unwrap();
        Signer { pair, public }
    }

    /// A manifest of this version, which lists this measurement and the world's models.
    fn manifests(&self, version: u64, measurement: &[u8; 48], world: &World) -> Manifests {
        let ingredient = |role: &str| json!({ "role": role, "name": role, "sha256": "01".repeat(32), "size": 7, "origin": "pinned-binary", "source": "here" });
        let roles = ["firmware", "kernel", "initrd", "cmdline"].map(ingredient);
        let models = world.models.iter().map(|model| {
            json!({ "name": model.name, "version": model.version, "model_digest": model.model_digest,
                    "config_digests": [model.config_digest] })
        });
        let draft = json!({
            "v": "touchstone/manifest/1", "name": "touchstone-enclave", "version": version,
            "issued": "2026-09-01T00:00:00Z", "not_after": "2027-06-01T00:00:00Z",
            "releases": [{ "release": "1.4.2", "not_after": "2027-06-01T00:00:00Z", "platforms": [{
                "name": "qemu", "tee": "sev-snp", "vmm": "qemu", "os_binding": "launch-digest", "quote_source": "exclusive",
                "ingredients": roles,
                "minimum_tcb": { "Genoa": { "bootloader": 9, "tee": 0, "snp": 23, "microcode": 72 } },
                "measurements": [{ "snp": { "measurement": hex_encode(measurement), "vcpus": 2, "cpu": "EPYC-Genoa",
                                            "guest_features": "0x1" } }],
            }] }],
            "models": models.collect::<Vec<_>>(),
        });
        let manifest = Manifest::parse_draft(draft.to_string().as_bytes()).unwrap();
        let statement = Statement::new(manifest).unwrap();
        let signature = self
            .pair
            .sign(&SystemRandom::new(), &statement.to_sign())
            .unwrap();
        let (line, _) = statement
            .signed_line(&self.public, signature.as_ref())
            .unwrap();
        Manifests {
            files: vec![line.into_bytes()],
            ..Manifests::default()
        }
    }

    fn policy(&self, server: &Server) -> Policy {
        let listed = "{ expect = \"manifest\" }";
        let text = server.policy_text(&[]);
        let text = edit(
            &text,
            &[
                ("snp.measurement", listed),
                ("models", listed),
                ("configs", listed),
            ],
        );
        let key = base64_encode(&self.public.to_spki());
        let table = format!(
            "[manifest]\nname = \"touchstone-enclave\"\nminimum_version = 1\nthreshold = 1\n\
             [[manifest.signer]]\nname = \"alice\"\nkey = \"{key}\"\n[[platform]]"
        );
        Policy::parse(&text.replacen("[[platform]]", &table, 1)).unwrap()
    }
}

#[tokio::test]
async fn a_manifest_lets_questions_through_and_another_ends_that() {
    let (server, signer) = (Server::start().await, Signer::new());
    let world = server.enclave().world.clone();
    let own = world.machine.report.measurement;
    let policy = signer.policy(&server);
    let builder = || server.builder_with(policy.clone());
    let client = builder()
        .manifests(signer.manifests(18, &own, &world))
        .connect()
        .await
        .unwrap();
    assert_eq!(
        client.session().unwrap().verdict.context.release["release"],
        "1.4.2"
    );
    let answer = client
        .infer("digits", &[input(ASKED)])
        .await
        .unwrap()
        .verified()
        .await
        .unwrap();
    assert_eq!(answer.outputs(), [output(ASKED)]);
    assert_eq!(answer.verdict().context.release["version"], 18);
    assert_eq!((server.sessions(), server.asked()), (1, 1));

    // The next one lists it too: the connection is attested anew, once.
    client
        .replace_manifests(&signer.manifests(19, &own, &world))
        .unwrap();
    for _ in 0..2 {
        let answer = client
            .infer("digits", &[input(ASKED)])
            .await
            .unwrap()
            .verified()
            .await
            .unwrap();
        assert_eq!(answer.verdict().context.release["version"], 19);
    }
    assert_eq!((server.sessions(), server.asked()), (2, 3));

    // An answer that is not verified yet is judged by what is in force when it is.
    let late = client.infer("digits", &[input(ASKED)]).await.unwrap();
    client
        .replace_manifests(&signer.manifests(20, &[0x42; 48], &world))
        .unwrap();
    let verdict = late.verified().await.unwrap_err().verdict;
    let found = (verdict.exit(), verdict.deciding());
    assert_eq!(found, (4, Some("snp.measurement")), "{}", verdict.words());
    // And the next question is not sent.
    let asked = server.asked();
    refused(
        client.infer("digits", &[input(ASKED)]).await,
        4,
        "snp.measurement",
    );
    assert_eq!(server.asked(), asked);

    client
        .replace_manifests(&signer.manifests(21, &own, &world))
        .unwrap();
    client
        .infer("digits", &[input(ASKED)])
        .await
        .unwrap()
        .verified()
        .await
        .unwrap();
}

#[tokio::test]
async fn without_a_manifest_that_counts_nothing_is_sent() {
    let (server, signer) = (Server::start().await, Signer::new());
    let world = server.enclave().world.clone();
    let own = world.machine.report.measurement;
    let policy = signer.policy(&server);
    let connect = |manifests: Manifests| {
        server
            .builder_with(policy.clone())
            .manifests(manifests)
            .connect()
    };
    connect(signer.manifests(18, &own, &world)).await.unwrap();
    refused(connect(Manifests::default()).await, 5, "manifest.present");
    refused(
        connect(Signer::new().manifests(18, &own, &world)).await,
        3,
        "manifest.signature",
    );
    refused(
        connect(signer.manifests(18, &[0x42; 48], &world)).await,
        4,
        "snp.measurement",
    );
    let junk = Manifests {
        files: vec![b"junk".to_vec()],
        ..Manifests::default()
    };
    refused(connect(junk).await, 2, "manifest.format");
    server.quiet().await;
    assert_eq!((server.sessions(), server.asked()), (5, 0));
}
