//! The real programs on the kernel's quote sources: enclave, host, and the command that asks and judges.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use touchstone_formats::evidence::{Collateral, CollateralFile, Tee};
use touchstone_formats::{Digest, SnpCollateral};
use touchstone_quote_source::{SevGuest, Source, SourceError, Tsm};
use touchstone_simulated_guest::{sev_guest, tsm};
use touchstone_testkit::fixtures;
use touchstone_testkit::machine::{Endorsement, Machine, TdxMachine, TeeMachine};
use touchstone_testkit::platform::{Fault, PlatformConfig, SimulatedPlatform};
use touchstone_testkit::stack::{Process, Stack, StackBuilder, onnxruntime, programs};

use crate::common::{can_mount, data_in, mount_device, mount_tsm};

const MODEL: &str = "digits_mlp_plain";

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_str().unwrap())
}

/// What the enclave hands on of the certificates that came beside its quotes.
fn handed_on<M: TeeMachine>(stack: &Stack<M>) -> Option<CollateralFile> {
    let answer = stack.enclave_control().get("/control/v1/collateral");
    match answer.status {
        200 => Some(CollateralFile::parse(&answer.body).unwrap()),
        404 => None,
        other => panic!("{other}"),
    }
}

/// The same, from the machine itself: all but the revocation list, which no host puts into the table here.
fn beside_quotes(machine: &Machine) -> CollateralFile {
    let files = machine.collateral();
    CollateralFile {
        tee: Tee::SevSnp,
        collateral: Collateral::SevSnp(SnpCollateral {
            vek: Some(files.vek),
            chain: files.chain,
            crls: Vec::new(),
        }),
    }
}

/// Asks a question, and judges the folder that comes of it offline.
fn ask_and_check<M: TeeMachine>(stack: &Stack<M>, changes: &[(&str, &str)], folder: &str) {
    let policy = stack.policy("policy.toml", changes);
    let asked = stack.ask(MODEL, &policy, folder, &["--require", "logged quoted"]);
    let policy = policy.display().to_string();
    let root = stack.root().display().to_string();
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    let log = stack.enclave_process().tail();
    assert!(asked.status.success(), "{said}\n{log}");
    let check = |more: &[&str]| {
        let mut arguments = vec!["check", folder, "--policy", &policy];
        arguments.extend(more);
        stack.touchstone(arguments).status.code()
    };
    assert_eq!(check(&["--trust-simulated-root", &root]), Some(6));
    assert_eq!(check(&[]), Some(3), "without its root");
    // Nobody asked the quote agent.
    assert_eq!(stack.platform.counters().requests, 0);
}

#[test]
fn an_answer_over_configfs_tsm_proves_itself() {
    let test = "an_answer_over_configfs_tsm_proves_itself";
    if !can_mount(test) {
        return;
    }
    let machine = Machine::strict(now());
    let place = mount_tsm(tsm::Tsm::new(Tee::SevSnp, machine.clone()));
    let started = StackBuilder::new()
        .machine(machine)
        .model(MODEL)
        .enclave("quote.source", "\"tsm\"")
        .enclave("quote.tsm", &quoted(place.mounted.path()))
        .start(test);
    let Some(stack) = started else { return };
    ask_and_check(&stack, &[], "answer");
    let machine = stack.platform.machine();
    assert_eq!(handed_on(&stack), Some(beside_quotes(&machine)));
}

#[test]
fn an_answer_over_configfs_tsm_on_tdx_proves_itself() {
    let test = "an_answer_over_configfs_tsm_on_tdx_proves_itself";
    if !can_mount(test) {
        return;
    }
    let machine = TdxMachine::strict(now());
    let place = mount_tsm(tsm::Tsm::new(Tee::Tdx, machine.clone()));
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("CCEL");
    std::fs::write(&log, machine.event_log().unwrap().data.0).unwrap();
    let started = StackBuilder::tdx()
        .machine(machine)
        .model(MODEL)
        .enclave("quote.source", "\"tsm\"")
        .enclave("quote.tsm", &quoted(place.mounted.path()))
        .enclave("quote.event_log", &quoted(&log))
        .start(test);
    let Some(stack) = started else { return };
    ask_and_check(&stack, &[], "answer");
    assert_eq!(handed_on(&stack), None);
}

#[test]
fn an_answer_over_the_device_proves_itself() {
    let test = "an_answer_over_the_device_proves_itself";
    if !can_mount(test) {
        return;
    }
    // With a key of a cloud provider, whose certificate cannot be had elsewhere.
    let mut machine = Machine::strict(now());
    let csp_id = "CN=cc-nowhere-1.simulated.invalid".to_owned();
    let provider = format!("{{ expect = [{csp_id:?}] }}");
    let vleks = [
        ("snp.signing_key", "{ expect = [\"vlek\"] }"),
        ("snp.vlek.csp", provider.as_str()),
    ];
    machine.endorsement = Endorsement::Vlek { csp_id };
    machine.reissue();
    let place = mount_device(sev_guest::SevGuest::new(machine.clone()));
    let started = StackBuilder::new()
        .machine(machine)
        .model(MODEL)
        .enclave("quote.source", "\"sev-guest\"")
        .enclave("quote.device", &quoted(&place.mounted.device()))
        .start(test);
    let Some(stack) = started else { return };
    ask_and_check(&stack, &vleks, "answer");
    let machine = stack.platform.machine();
    assert_eq!(handed_on(&stack), Some(beside_quotes(&machine)));
    // Whatever the host puts there, the enclave goes on, and hands on nothing that is no table.
    place.mounted.state().certificates = Some(vec![0xFF; 0x4000]);
    ask_and_check(&stack, &vleks, "another");
    assert_eq!(handed_on(&stack), None);
}

#[test]
fn the_program_shows_a_quote_agent_as_the_kernels_files() {
    let test = "the_program_shows_a_quote_agent_as_the_kernels_files";
    if !can_mount(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [report, device] = ["report", "dev"].map(|name| folder.path().join(name));
    std::fs::create_dir(&report).unwrap();
    std::fs::create_dir(&device).unwrap();
    let machine = Machine::strict(now());
    machine.write_to(folder.path()).unwrap();
    let socket = folder.path().join("agent.sock");
    let platform = SimulatedPlatform::start(PlatformConfig::new(socket.clone(), machine)).unwrap();
    let program = Process::start(
        "simulated-guest",
        Command::new(env!("CARGO_BIN_EXE_simulated-guest"))
            .arg("--agent")
            .arg(socket)
            .arg("--tsm")
            .arg(&report)
            .arg("--sev-guest")
            .arg(&device)
            .arg("--vek")
            .arg(folder.path().join("collateral/vek.der")),
    );
    program.wait_for_line(&["SIMULATED", "sev-guest"], Duration::from_secs(20));

    let mut sources = [
        Source::Tsm(Tsm::open(&report, "touchstone", None).unwrap()),
        Source::SevGuest(SevGuest::open(&device.join("sev-guest"), None).unwrap()),
    ];
    for source in &mut sources {
        let made = source.quote(&[5; 64]).unwrap();
        assert_eq!(data_in::<Machine>(&made.quote), Some([5; 64]));
        assert!(made.certificates.is_some());
        platform.set_fault(Fault::Busy, Some(1));
        let busy = source.quote(&[5; 64]).unwrap_err();
        assert!(matches!(busy, SourceError::Busy { .. }), "{busy}");
        platform.set_fault(Fault::Fail, Some(1));
        let failed = source.quote(&[5; 64]).unwrap_err();
        assert!(matches!(failed, SourceError::Interface { .. }), "{failed}");
    }
    drop(sources);
    program.signal("TERM");
    assert!(program.wait(Duration::from_secs(20)).success());
    assert_eq!(std::fs::read_dir(&report).unwrap().count(), 0);
    assert!(!device.join("sev-guest").exists());
}

#[test]
fn without_a_provider_the_enclave_ends_before_it_listens() {
    let test = "without_a_provider_the_enclave_ends_before_it_listens";
    if !can_mount(test) {
        return;
    }
    let enclave = programs().join("enclave");
    let (true, Some(runtime)) = (enclave.is_file(), onnxruntime()) else {
        return fixtures::skipped(test, "no enclave program, or no ONNX Runtime");
    };
    let place = mount_tsm(tsm::Tsm::new(Tee::SevSnp, Machine::strict(now())));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("enclave.toml");
    let sha256 = Digest::of(&std::fs::read(&runtime).unwrap());
    let run = |source: &str, listens: bool| {
        let text = format!(
            "name = \"n\"\nlog_prefix = \"l\"\nlisten.public = \"tcp://127.0.0.1:0\"\nlisten.control = \"tcp://127.0.0.1:0\"\n\
             {source}\nruntime.library = {}\nruntime.sha256 = \"{sha256}\"\nmodels.repository = \"/no/models\"\n",
            quoted(&runtime)
        );
        std::fs::write(&file, text).unwrap();
        let ended = Command::new(&enclave).arg("--config").arg(&file).output();
        let ended = ended.unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert_eq!(said.contains("listening"), listens, "{said}");
        said
    };
    let tsm = format!(
        "quote.source = \"tsm\"\nquote.tsm = {}",
        quoted(place.mounted.path())
    );
    // With a provider it comes as far as its models.
    let said = run(&tsm, true);
    assert!(said.contains("model repository"), "{said}");
    place.mounted.state().provider = None;
    let said = run(&tsm, false);
    assert!(
        said.contains("no provider of attestation reports"),
        "{said}"
    );
    let absent = folder.path().join("sev-guest");
    let device = format!(
        "quote.source = \"sev-guest\"\nquote.device = {}",
        quoted(&absent)
    );
    let said = run(&device, false);
    assert!(said.contains("no such interface"), "{said}");
}
