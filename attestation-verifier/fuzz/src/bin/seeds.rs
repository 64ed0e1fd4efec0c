//! Writes the seeds anew, from the test kit: cargo run --release --features seeds --bin seeds
//!
//! The files differ from run to run (ECDSA and PSS sign with random numbers); those under `seeds/*/regression-*` are found
//! inputs and stay.

use std::fs;
use std::path::{Path, PathBuf};

use attestation_verifier::exchange::SessionRecord;
use attestation_verifier::ohttp::OhttpRecord;
use attestation_verifier::policy::template;
use attestation_verifier::{Comparison, Policy, Roots, check};
use touchstone_formats::headers::{OpeningSalts, State, TouchstoneRequest, TouchstoneResponse};
use touchstone_formats::report_data::{bind_boot, bind_session};
use touchstone_formats::text::{Base64Bytes, hex_decode};
use touchstone_formats::{
    CollateralFile, Digest, Evidence, GuaranteeSet, LogSigner, Purpose, SessionAnswer,
    SessionRequest, Tee, quote_agent,
};
use touchstone_fuzz::AT;
use touchstone_testkit::amd::Product;
use touchstone_testkit::intel::PckCa;
use touchstone_testkit::machine::{Endorsement, Machine, TdxMachine, TeeMachine};
use touchstone_testkit::mint::{Exchange, World};
use touchstone_testkit::tdx::TdReport;
use touchstone_testkit::tdx_boot::{LinuxKernel, TdxFirmware};

/// Two events as dstack's guest agent writes them, the second one of its own.
const DSTACK: &str = concat!(
    r#"d[{"imr":0,"event_type":2147483659,"digest":""#,
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f",
    r#"","event":"","event_payload":""},{"imr":3,"event_type":134217729,"digest":""#,
    r#"","event":"app-id","event_payload":"ea549f02e1a25fabd1cb788380e033ec5461b2ff"}]"#,
);

fn main() {
    let snp = World::new(1);
    let tdx = World::tdx(1);
    assert_eq!((snp.at, tdx.at), (AT.time, AT.time));
    world(&snp, &tdx);
    exchanges(&snp, &tdx);
    vendors(&snp, &tdx);
    formats(&snp);
}

fn put(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), bytes).expect("a file");
}

/// What the targets judge with.
fn world(snp: &World, tdx: &World<TdxMachine>) {
    put("world", "snp-root.pem", snp.root_pem());
    put("world", "tdx-root.pem", tdx.root_pem());
    put("world", "vcek.pk8", snp.machine.key.to_pkcs8());
    let evidence = evidence(snp);
    put("world", "snp-evidence.json", evidence.to_file());
    // One policy for both machines: the model that answers, and what nobody else can know of them.
    let policy = filled(&template(Tee::SevSnp), &snp.machine);
    let tdx_policy = filled(&template(Tee::Tdx), &tdx.machine);
    let (_, tdx_platform) = tdx_policy.split_once("[[platform]]").expect("a platform");
    let models: Vec<String> = [snp.exchange(), tdx.exchange()]
        .iter()
        .map(|minted| format!("\"{}\"", minted.claims.model_digest.expect("a model")))
        .collect();
    let models = format!("{{ expect = [{}] }}", models.join(", "));
    let policy = touchstone_testkit::policy::edit(&policy, &[("models", &models)]);
    let policy = format!("{policy}\n[[platform]]{tdx_platform}");
    put("world", "policy.toml", &policy);
    put("policy", "strict.toml", &policy);
    put("policy", "template.toml", template(Tee::SevSnp));
    put("policy", "template-tdx.toml", template(Tee::Tdx));
    // A seed that is refused for another reason than a mutation of it would be teaches nothing.
    let policy = Policy::parse(&policy).expect("the policy");
    let held = |root: String, bundle: &[u8]| {
        let roots = Roots::pinned()
            .with_simulated_pem(root.as_bytes())
            .expect("the root");
        let comparison = Comparison {
            receipt_only: true,
            ..Comparison::default()
        };
        let verdict = check(bundle, &policy, &roots, &comparison, AT);
        assert_eq!(verdict.exit(), 6, "{}", verdict.words());
        verdict
    };
    let verdict = held(snp.root_pem(), &snp.exchange().file());
    put("explanation", "verdict.json", verdict.to_json());
    held(tdx.root_pem(), &tdx.exchange().file());
}

/// A template with the machine's reference values.
fn filled<M: TeeMachine>(template: &str, machine: &M) -> String {
    let values: Vec<(&str, String)> = machine
        .reference_values()
        .into_iter()
        .map(|(key, value)| (key, format!("{{ expect = [\"{value}\"] }}")))
        .collect();
    let values: Vec<(&str, &str)> = values
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    touchstone_testkit::policy::edit(template, &values)
}

fn evidence<M: TeeMachine>(world: &World<M>) -> Evidence {
    let machine = &world.machine;
    Evidence {
        purpose: Some(Purpose::Boot),
        tee: M::TEE,
        quote: machine.quote([0x42; 64]),
        collateral: Some(M::evidence_collateral(machine.attached())),
        event_log: machine.event_log(),
        nonce: None,
    }
}

fn exchanges(snp: &World, tdx: &World<TdxMachine>) {
    for (name, exchange) in [
        ("json", Exchange::json(1)),
        ("binary", Exchange::binary(2)),
        ("refusal", Exchange::refusal(3, 503)),
    ] {
        let minted = snp.mint(exchange).finish();
        put("receipt", name, &minted.bundle.receipt);
        put("check", &format!("{name}.json"), minted.file());
        put("bundle", &format!("{name}.json"), minted.file());
    }
    let minted = tdx.mint(Exchange::json(1)).finish();
    put("check", "tdx.json", minted.file());
    put("bundle", "tdx.json", minted.file());
    let unsealed = snp.mint(Exchange::json(4)).unsealed().finish();
    put("check", "unsealed.json", unsealed.file());
}

fn vendors(snp: &World, tdx: &World<TdxMachine>) {
    for (name, file) in [
        ("snp.json", evidence(snp).to_file()),
        ("tdx.json", evidence(tdx).to_file()),
    ] {
        put("evidence", name, &file);
        put("appraise", name, &file);
    }
    put("tdx_evidence", "v5.json", evidence(tdx).to_file());
    for product in Product::ALL {
        for version in [2, 3, 5] {
            let machine = Machine::new(product, version, AT.time);
            let report = machine.quote([0x42; 64]);
            put("snp_report", &format!("{product}-v{version}"), &report);
            if product == Product::Genoa {
                put(
                    "signed_report",
                    &format!("{product}-v{version}"),
                    &report[..0x2a0],
                );
            }
        }
    }
    put(
        "signed_report",
        "held",
        &snp.machine.quote([0; 64])[..0x2a0],
    );
    let mut vlek = Machine::new(Product::Turin, 5, AT.time);
    vlek.endorsement = Endorsement::Vlek {
        csp_id: "CN=cc-x.simulated.invalid".into(),
    };
    vlek.reissue();
    let files = snp.machine.collateral();
    put("certificate", "vcek.der", files.vek);
    put("certificate", "ask.der", &files.chain[0]);
    put("certificate", "ark.der", snp.machine.pki.ark_der());
    put("certificate", "vlek.der", vlek.collateral().vek);
    put("crl", "ark.der", &files.crls[0]);
    put("roots", "amd.pem", snp.root_pem());
    put("roots", "intel.pem", tdx.root_pem());

    let machine = &tdx.machine;
    let signed = |ca| machine.pck.sign(machine.pki.ca_key(ca));
    put("certificate", "pck.der", signed(machine.ca));
    put(
        "certificate",
        "pck-ca.der",
        machine.pki.ca_der(PckCa::Platform),
    );
    put("certificate", "intel-root.der", machine.pki.root_der());
    let collateral = machine.collateral();
    let file =
        |bytes: &Option<touchstone_formats::text::HexBytes>| bytes.clone().expect("collateral").0;
    put("crl", "pck.der", file(&collateral.pck_crl));
    put("crl", "intel-root.der", file(&collateral.root_ca_crl));
    let log = machine.event_log().expect("a log");
    put("event_log", "ccel", [b"c", &log.data.0[..]].concat());
    put("event_log", "dstack", DSTACK);
    put(
        "tcb_info",
        "tcb.json",
        collateral.tcb_info.as_ref().expect("collateral"),
    );
    put(
        "qe_identity",
        "qe.json",
        collateral.qe_identity.as_ref().expect("collateral"),
    );
    for (name, version, report) in [
        ("v4", 4, TdReport::v1_0()),
        ("v5-1.0", 5, TdReport::v1_0()),
        ("v5-1.5", 5, TdReport::v1_5()),
    ] {
        put(
            "tdx_quote",
            name,
            TdxMachine::new(version, report, AT.time).quote([0x42; 64]),
        );
    }
    let attached = CollateralFile {
        tee: Tee::Tdx,
        collateral: TdxMachine::evidence_collateral(collateral),
    };
    put("evidence", "collateral-tdx.json", attached.to_file());
}

fn formats(snp: &World) {
    let minted = snp.exchange();
    put("keyset", "keyset.json", snp.keyset.to_jcs());
    put("keyset", "catalog.json", snp.catalog().to_jcs());
    let proof = minted.bundle.proof.clone().expect("sealed");
    put("checkpoint", "proof", &proof);
    let note = proof.split_once("\n\n").expect("a note").1;
    put("checkpoint", "note", note);
    let signer = LogSigner::from_seed(&[7; 32], "example.com/log").expect("a key");
    put("checkpoint", "vkey", signer.log_key().to_string());
    put("world", "log.vkey", signer.log_key().to_string() + "\n");
    let request = TouchstoneRequest {
        require: Some(GuaranteeSet::default_set()),
        nonce: Some(vec![7; 16]),
    };
    let salt = Some([9; 16]);
    let salts = OpeningSalts {
        request: salt,
        response: salt,
        inputs: salt,
        outputs: salt,
    };
    let response = TouchstoneResponse {
        id: [5; 16],
        keyset: snp.keyset.digest(),
        require: GuaranteeSet::default_set(),
        state: State::Sealed,
    };
    put("headers", "request", request.to_string());
    put("headers", "response", response.to_string());
    put("headers", "openings", salts.to_string());
    put("headers", "prefer", "wait=30");
    let exchange = &minted.exchange;
    let mut body = vec![0xff, 0xff];
    body.extend_from_slice(&exchange.response_body);
    put("oip", "json", &body);
    let head = format!(
        "200\ncontent-type: application/json\ntouchstone: {response}\ntouchstone-openings: {salts}\n\n"
    );
    put(
        "answer",
        "json",
        [head.as_bytes(), &exchange.response_body].concat(),
    );
    let npy = b"\x93NUMPY\x01\x00\x36\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}\n\0\0\0\0\0\0\x80?";
    put("npy", "f4.npy", npy);
    put(
        "quote_agent",
        "request",
        quote_agent::Request::new([3; 64]).to_line(),
    );
    let (tee, quote) = (Tee::SevSnp, snp.machine.quote([3; 64]));
    put(
        "quote_agent",
        "answer",
        quote_agent::Answer::Quote {
            tee,
            quote,
            event_log: None,
        }
        .to_line(),
    );
    put(
        "session",
        "request",
        SessionRequest { nonce: [1; 32] }.to_file(),
    );
    let real = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::read(
            folder
                .join("../../measurements/launch/testdata/virtee-sev")
                .join(name),
        )
        .expect("an image")
    };
    put("ovmf", "amd-sev", real("ovmf_AmdSev_suffix.bin"));
    put("ovmf", "generic", real("ovmf_OvmfX64_suffix.bin"));
    let mut kernel = vec![0x20];
    kernel.extend(LinuxKernel::default().image());
    put("kernel", "signed", kernel);
    put("tdvf", "ovmf", TdxFirmware::new(0x1000, 0x1000).image());
    session(snp);
    sealed(snp);
    requests();
}

/// Requests to the host, each after a byte that says how it is cut; and what has two readings.
fn requests() {
    let put = |name: &str, text: &str| put("http_request", name, text);
    put("get", "\x07GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    put(
        "pipeline",
        "\x01POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab\nGET /b HTTP/1.0\r\n\r\n",
    );
    put(
        "one-byte",
        "\x02POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nxGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    put(
        "chunked",
        "\x10POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\n\r\n0\r\n00A\r\n0123456789\r\n0\r\nX-Late: 1\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    put(
        "two-lengths",
        "\x20POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    );
    put("fold", "\0GET / HTTP/1.1\r\nHost: h\r\nX: 1\r\n 2\r\n\r\n");
    put(
        "extension",
        "\x03POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\n\r\n",
    );
    put(
        "chunk-end",
        "\x09POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nax\r\n0\r\n\r\n",
    );
    put("connect", "\x05CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n");
    put(
        "trailer",
        "\x41POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTouchstone-Keyset: x\r\n\r\n",
    );
    put(
        "trailer-host",
        "\x41POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\nHost: h\r\n\r\n",
    );
    put(
        "underscore",
        "\x04POST / HTTP/1.1\r\nHost: h\r\nContent_Length: 1\r\n\r\nx",
    );
    answers();
    heads();
    targets();
}

/// Answers to the host, each after a byte that says how it is cut, and by its highest bit that it answers a HEAD.
fn answers() {
    for (name, text) in [
        (
            "length",
            &b"\x07HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab\nHTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n"[..],
        ),
        (
            "chunked",
            b"\x01HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\n\r\n0\r\n00A\r\n0123456789\r\n0\r\nX-Late: 1\r\n\r\n",
        ),
        (
            "no-content",
            b"\x02HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\nHTTP/1.1 304 \xc3\r\nContent-Length: 9\r\n\r\n",
        ),
        (
            "head",
            b"\xc0HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nHTTP/1.1 200 \r\n\r\n",
        ),
        ("endless", b"\x10HTTP/1.1 200 OK\r\nServer: s\r\n\r\n"),
        (
            "two-lengths",
            b"\x20HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ] {
        put("http_answer", name, text);
    }
}

/// Heads of requests and answers, and what follows them.
fn heads() {
    for (name, text) in [
        (
            "named",
            "POST / HTTP/1.1\r\nHost: h\r\nX-One:1\r\nConnection: x-ONE,, keep-alive ,trailer\r\nTE: trailers\r\nKeep-Alive: 5\r\nTrailer: x-two\r\nx-one: \t2 \r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "close",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nconnection: Close\r\nUpgrade: h2c\r\nProxy-Connection: x\r\nEmpty:\r\n\r\nx",
        ),
        (
            "end-to-end",
            "GET / HTTP/1.1\r\nHost: h\r\nTouchstone: require=(signed)\r\nConnection: touchstone\r\n\r\n",
        ),
        (
            "no-name",
            "GET / HTTP/1.0\r\nConnection: close, (a b)\r\n\r\n",
        ),
        ("no-head", "\nConnection: a\nA\n:\r\r\n"),
    ] {
        put("http_fields", name, text);
    }
}

/// Method, target and `Host`, a line each.
fn targets() {
    for (name, lines) in [
        ("path", "POST\n/v2/models/m/infer?a=%20b\nh.example:8080"),
        (
            "absolute",
            "GET\nhttp://H.example:80/v1/keyset\nh.example:80",
        ),
        ("asterisk", "OPTIONS\n*\n[::1]:80"),
        ("user", "GET\nhttp://u@h/\nu@h"),
        ("connect", "CONNECT\nh:1\nh:1"),
        ("encoding", "GET\n/%zz\nh"),
    ] {
        put("http_target", name, lines);
    }
}

/// The examples of RFC 9292 (figures 13 and 14) and RFC 9458 (appendix A); and a key that holds.
fn sealed(snp: &World) {
    let bytes = |hex: &str| hex_decode(hex).expect("hex");
    let head = "03474554056874747073000a2f68656c6c6f2e747874";
    let fields = "0a757365722d6167656e74346375726c2f372e31362e33206c69626375726c2f372e31362e33204f70656e53534c2f302e392e376c207a6c69622f312e322e3304686f73740f7777772e6578616d706c652e636f6d0f6163636570742d6c616e677561676506656e2c206d69";
    put(
        "bhttp",
        "known",
        bytes(&format!("00{head}406c{fields}0000")),
    );
    put(
        "bhttp",
        "indeterminate",
        bytes(&format!("02{head}{fields}0002616202636400")),
    );
    put("bhttp", "answer", bytes("0140c80603616765013704626f647900"));
    put(
        "ohttp",
        "configurations",
        bytes(
            "002d01002031e1f05a740102115220e9af918f738674aec95f54db6e04eb705aae8e79815500080001000100010003",
        ),
    );
    put(
        "ohttp",
        "request",
        bytes(
            "010020000100014b28f881333e7c164ffc499ad9796f877f4e1051ee6d31bad19dec96c208b4726374e469135906992e1268c594d2a10c695d858c40a026e7965e7d86b83dd440b2c0185204b4d63525",
        ),
    );

    let nonce = [1; 32];
    let mut world = snp.clone();
    let keys = b"application/ohttp-keys".to_vec();
    let ohttp_keys_sha256 = Digest::of(&keys);
    world.keyset.ohttp_keys = Some(Base64Bytes(keys));
    let evidence = world.evidence(Purpose::Boot, Some(nonce.to_vec()), bind_boot());
    let keyset = world.keyset.clone();
    let answer = SessionAnswer {
        keyset: keyset.clone(),
        evidence: evidence.clone(),
    };
    let record = OhttpRecord {
        nonce,
        ohttp_keys_sha256,
        opened_at: AT.time,
        keyset,
        evidence,
    };
    let record = record.to_file().expect("a record");
    put("check_session", "boot", answer.to_file());
    put("check_session", "ohttp-record", &record);
    put("session_record", "ohttp.json", &record);
}

/// A connection that holds: what the target `check_session` says of its own end is what the evidence was made for.
fn session(snp: &World) {
    let (nonce, exporter) = ([1; 32], [2; 32]);
    let mut world = snp.clone();
    let tls_spki_sha256 = Digest([3; 32]);
    world.keyset.tls_spki_sha256 = Some(tls_spki_sha256);
    let bind = bind_session(tls_spki_sha256, &exporter);
    let evidence = world.evidence(Purpose::Session, Some(nonce.to_vec()), bind);
    let keyset = world.keyset.clone();
    let answer = SessionAnswer {
        keyset: keyset.clone(),
        evidence: evidence.clone(),
    };
    let record = SessionRecord {
        nonce,
        exporter: Some(exporter),
        tls_spki_sha256,
        opened_at: AT.time,
        keyset,
        evidence: Some(evidence),
    };
    put("session", "answer", answer.to_file());
    put("check_session", "answer", answer.to_file());
    let record = record.to_file().expect("a record");
    put("check_session", "record", &record);
    put("session_record", "session.json", &record);
    put(
        "session_record",
        "response.json",
        "{\"header_length\":null,\"status\":200,\"v\":\"touchstone/response/1\"}\n",
    );
}
