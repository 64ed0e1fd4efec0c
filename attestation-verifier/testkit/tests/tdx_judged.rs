//! Bundles and sessions minted on a TDX machine, judged by our own verifier: what is honest holds, and every lie, signed
//! again, is refused by the check that it is about.

use attestation_verifier::policy::template;
use attestation_verifier::{At, Connection, Policy, Roots, check, check_session};
use touchstone_formats::report_data::bind_session;
use touchstone_formats::text::HexBytes;
use touchstone_formats::{CollateralFile, Digest, Purpose, SessionAnswer, Tee};
use touchstone_testkit::intel::{Pki, PkiKeys};
use touchstone_testkit::machine::{TdxMachine, TeeMachine as _};
use touchstone_testkit::mint::{Exchange, Mint, Minted, World};
use touchstone_testkit::policy::edit;
use touchstone_testkit::tdx::attributes;

#[path = "../../tests/common/held.rs"]
mod held;
use held::held;

type TdxWorld = World<TdxMachine>;

/// The strict template with what nobody but the caller can know of this world.
fn policy(world: &TdxWorld) -> Policy {
    let models: Vec<String> = world
        .models
        .iter()
        .map(|m| m.model_digest.to_string())
        .collect();
    let mut changes = vec![("models", format!("{{ expect = {models:?} }}"))];
    for (key, value) in world.machine.reference_values() {
        changes.push((key, format!("{{ expect = [{value:?}] }}")));
    }
    let changes: Vec<(&str, &str)> = changes.iter().map(|(k, v)| (*k, v.as_str())).collect();
    Policy::parse(&edit(&template(Tee::Tdx), &changes)).unwrap()
}

fn roots(world: &TdxWorld) -> Roots {
    Roots::pinned()
        .with_simulated_pem(world.root_pem().as_bytes())
        .unwrap()
}

/// Exit code and deciding check, for a caller who holds question and answer.
fn judge(world: &TdxWorld, minted: &Minted) -> (u8, Option<String>) {
    let comparison = held(&minted.exchange);
    let at = At {
        time: world.at,
        asserted: false,
    };
    let (policy, roots) = (policy(world), roots(world));
    let verdict = check(&minted.file(), &policy, &roots, &comparison, at);
    (verdict.exit(), verdict.deciding().map(str::to_owned))
}

#[test]
fn honest_bundles_hold_in_every_shape() {
    let world = TdxWorld::tdx(1);
    for exchange in [Exchange::json(1), Exchange::binary(2)] {
        for words in ["logged", "logged quoted"] {
            let minted = world.mint(exchange.clone().requiring(words)).finish();
            assert_eq!(judge(&world, &minted), (0, None), "{words}");
        }
    }
}

type Lie = for<'a> fn(Mint<'a, TdxMachine>, &'a TdxMachine) -> Mint<'a, TdxMachine>;

#[test]
fn lies_about_the_platform_are_refused_by_their_check() {
    let lies: &[(u8, &str, Lie)] = &[
        (4, "tdx.attributes.debug", |mint, _| {
            mint.report(|_, q| q.report.td_attributes |= attributes::DEBUG)
        }),
        (4, "tdx.mrtd", |mint, _| {
            mint.report(|_, q| q.report.mr_td[0] ^= 1)
        }),
        (3, "evidence.report_data", |mint, _| {
            mint.report(|_, q| q.report.report_data[0] ^= 1)
        }),
        (3, "tdx.qe.binding", |mint, _| {
            mint.report(|_, q| q.qe_report.report_data = Some([1; 64]))
        }),
        (4, "tdx.tcb.status", |mint, machine| {
            mint.collateral(|_, collateral| {
                let mut tcb_info = machine.tcb_info.clone();
                tcb_info.set_status("OutOfDate", &[]);
                let text = tcb_info.to_json();
                collateral.tcb_info_signature = Some(HexBytes(machine.pki.sign_json(&text)));
                collateral.tcb_info = Some(text);
            })
        }),
        (3, "tdx.tcb_info.signature", |mint, _| {
            mint.collateral(|_, collateral| {
                let text = collateral.tcb_info.as_mut().unwrap();
                text.push(' ');
            })
        }),
        (3, "tdx.chain.revoked", |mint, machine| {
            mint.collateral(|_, collateral| {
                let mut crl = machine.pck_crl.clone();
                crl.revoke(&machine.pck.serial);
                let crl = crl.sign(&machine.pki.keys.platform_ca);
                collateral.pck_crl = Some(HexBytes(crl));
            })
        }),
        (4, "tdx.event_log", |mint, machine| {
            mint.evidence(|all| {
                let mut log = machine.events.clone();
                log.events.pop();
                all[0].event_log = Some(log.to_evidence());
            })
        }),
    ];
    let world = TdxWorld::tdx(1);
    let mint = || world.mint(Exchange::json(1).requiring("logged quoted"));
    assert_eq!(judge(&world, &mint().finish()), (0, None));
    for (exit, deciding, lie) in lies {
        let lie = lie(mint(), &world.machine).finish();
        let expected = (*exit, Some((*deciding).to_owned()));
        assert_eq!(judge(&world, &lie), expected);
    }
}

#[test]
fn sessions_hold_and_those_of_another_machine_do_not() {
    let mut world = TdxWorld::tdx(1);
    world.keyset.tls_spki_sha256 = Some(Digest::of(b"SubjectPublicKeyInfo"));
    let connection = Connection {
        nonce: [7; 32],
        exporter: [9; 32],
        tls_spki_sha256: world.keyset.tls_spki_sha256.unwrap(),
    };
    let judge = |answering: &TdxWorld| {
        let bind = bind_session(connection.tls_spki_sha256, &connection.exporter);
        let nonce = Some(connection.nonce.to_vec());
        let mut evidence = answering.evidence(Purpose::Session, nonce, bind);
        let collateral = CollateralFile {
            tee: Tee::Tdx,
            collateral: evidence.collateral.take().unwrap(),
        };
        let answer = SessionAnswer {
            keyset: answering.keyset.clone(),
            evidence,
        };
        let at = At {
            time: world.at,
            asserted: false,
        };
        let (policy, roots) = (policy(&world), roots(&world));
        let file = answer.to_file();
        let session = check_session(
            &file,
            &connection,
            Some(&collateral),
            &policy,
            &roots,
            at,
            true,
        );
        let verdict = session.verdict;
        (verdict.exit(), verdict.deciding().map(str::to_owned))
    };
    assert_eq!(judge(&world), (0, None));
    let mut other = world.clone();
    other.machine.report.report.mr_td = [1; 48];
    assert_eq!(judge(&other), (4, Some("tdx.mrtd".into())));
    let mut stranger = world.clone();
    let keys = PkiKeys::shared("a stranger's");
    stranger.machine.pki = Pki::with_keys(world.at, keys);
    stranger.machine.reissue();
    assert_eq!(judge(&stranger), (3, Some("tdx.chain.root".into())));
}
