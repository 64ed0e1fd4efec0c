//! Evidence of the shapes that cost a verifier most, each within the limits of formats.md: long revocation lists, many
//! certificates, certificates of many extensions, long texts and event logs, roots of one name.
//!
//! Judged at [`AT`] under the template's policy and the roots of [`Worst::root_pem`].

use touchstone_formats::evidence::{Collateral, Evidence, SnpCollateral, TdxCollateral, Tee};
use touchstone_formats::text::HexBytes;

use crate::intel::{Pki, PkiKeys};
use crate::machine::{Machine, TdxMachine, TeeMachine};
use crate::tdx::TdReport;
use crate::x509::{Crl, Extension, pem};

/// When it is judged, Unix seconds.
pub const AT: u64 = 1_790_000_000;
/// Collateral within the limit of 1 MiB, with room for what is beside it.
const BULK: usize = 1_030_000;

/// One evidence object.
pub struct Worst {
    /// What is much about it, for people.
    pub name: &'static str,
    /// The object.
    pub evidence: Evidence,
    /// The simulated roots that it is judged by.
    pub root_pem: String,
    /// How its judgement ends under the template's policy: 4 where all but the measurement holds, less where that much is
    /// refused on the way.
    pub exit: u8,
}

fn evidence(tee: Tee, quote: Vec<u8>, collateral: Collateral) -> Evidence {
    Evidence {
        purpose: None,
        nonce: None,
        tee,
        quote,
        collateral: Some(collateral),
        event_log: None,
    }
}

/// As many entries, none of them ours, as make the signed list so many bytes longer.
fn lengthen(crl: &mut Crl, bytes: usize) {
    let long = |crl: &mut Crl, entries: usize| {
        for n in 0..entries {
            crl.revoke(&(0x40_0000 + n as u32).to_be_bytes());
        }
    };
    let mut longer = crl.clone();
    long(&mut longer, 1000);
    let each = (longer.to_be_signed().len() - crl.to_be_signed().len()) / 1000 + 1;
    long(crl, bytes / each);
}

fn extensions(count: u32) -> impl Iterator<Item = Extension> {
    (0..count).map(|n| {
        let oid = format!("1.3.6.1.4.1.311.{n}");
        Extension::new(&oid, false, vec![0x05, 0x00])
    })
}

/// Of SEV-SNP; the first is ordinary.
pub fn snp() -> Vec<Worst> {
    let machine = Machine::strict(AT);
    let own = machine.collateral();
    let with = |name, exit, change: &dyn Fn(&mut SnpCollateral)| {
        let mut collateral = SnpCollateral {
            vek: Some(own.vek.clone()),
            chain: own.chain.clone(),
            crls: own.crls.clone(),
        };
        change(&mut collateral);
        let quote = machine.quote([0; 64]);
        Worst {
            name,
            evidence: evidence(Tee::SevSnp, quote, Collateral::SevSnp(collateral)),
            root_pem: machine.root_pem(),
            exit,
        }
    };
    let lists = |count: usize| -> Vec<Vec<u8>> {
        let list = |n: usize| {
            let mut crl = machine.crl.clone();
            crl.this_update -= n as u64;
            lengthen(&mut crl, BULK / count);
            crl.sign(&machine.pki.keys.ark)
        };
        (0..count).map(list).collect()
    };
    // Certificates of many extensions: as long as they are read, and longer.
    let wide = |count| {
        let mut wide = machine.clone();
        wide.vek.extensions.extend(extensions(count));
        wide.collateral().vek
    };
    let vek = wide(800);
    assert!((12 << 10..16 << 10).contains(&vek.len()), "{}", vek.len());
    vec![
        with("SNP, ordinary", 4, &|_| {}),
        with("SNP, one list of 1 MiB", 4, &|c| c.crls = lists(1)),
        with("SNP, four lists", 4, &|c| c.crls = lists(4)),
        with("SNP, sixteen lists", 3, &|c| c.crls = lists(16)),
        with("SNP, sixteen intermediates", 3, &|c| {
            c.chain = vec![own.chain[0].clone(); 16];
        }),
        with("SNP, seventeen certificates of many extensions", 3, &|c| {
            c.vek = Some(vek.clone());
            c.chain = vec![vek.clone(); 16];
            let mut crl = machine.crl.clone();
            lengthen(&mut crl, BULK - 17 * vek.len());
            c.crls = vec![crl.sign(&machine.pki.keys.ark)];
        }),
        with("SNP, a long certificate", 2, &|c| {
            c.vek = Some(wide(20_000));
        }),
        with("SNP, a list of many extensions", 2, &|c| {
            let mut crl = machine.crl.clone();
            crl.extensions.extend(extensions(40_000));
            c.crls = vec![crl.sign(&machine.pki.keys.ark)];
        }),
    ]
}

/// Of TDX; the first is ordinary.
pub fn tdx() -> Vec<Worst> {
    let machine = TdxMachine::strict(AT);
    let with = |name, exit, change: &dyn Fn(&mut TdxCollateral)| {
        let mut collateral = machine.collateral();
        change(&mut collateral);
        let quote = machine.quote([0; 64]);
        Worst {
            name,
            evidence: evidence(Tee::Tdx, quote, Collateral::Tdx(collateral)),
            root_pem: machine.root_pem(),
            exit,
        }
    };
    let pck_list = |bytes| {
        let mut crl = machine.pck_crl.clone();
        lengthen(&mut crl, bytes);
        Some(HexBytes(crl.sign(machine.pki.ca_key(machine.ca))))
    };
    let one_list = pck_list(BULK - 60_000);
    let mut log = machine.events.clone();
    log.events = vec![log.events[0].clone(); 8_000];
    let logged = |mut worst: Worst| {
        worst.evidence.event_log = Some(log.to_evidence());
        worst
    };
    let long = |c: &mut TdxCollateral| c.pck_crl = one_list.clone();
    vec![
        with("TDX, ordinary", 4, &|_| {}),
        with("TDX, a list of 1 MiB", 4, &long),
        with("TDX, two lists", 4, &|c| {
            let mut crl = machine.root_crl.clone();
            lengthen(&mut crl, BULK / 2);
            c.root_ca_crl = Some(HexBytes(crl.sign(&machine.pki.keys.root)));
            c.pck_crl = pck_list(BULK / 2 - 60_000);
        }),
        with("TDX, a hundred levels", 4, &|c| {
            let mut levels = machine.clone();
            let level = levels.tcb_info.tcb_levels[0].clone();
            levels.tcb_info.tcb_levels = vec![level; 100];
            *c = levels.collateral();
        }),
        // Text that is no TCB info, as long as the collateral may be.
        with("TDX, brackets", 2, &|c| {
            c.tcb_info = Some("[".repeat(BULK - 60_000));
        }),
        with("TDX, a chain of 400", 2, &|c| {
            let chain = pem("CERTIFICATE", &machine.pki.root_der()).repeat(400);
            c.pck_crl_issuer_chain = Some(chain);
        }),
        logged(with("TDX, eight thousand events", 4, &|_| {})),
        logged(with(
            "TDX, a list of 1 MiB and eight thousand events",
            4,
            &long,
        )),
    ]
}

/// TDX evidence under one root, then under four that the caller named, all of one name: each could have signed, and each
/// is asked.
pub fn roots_of_one_name() -> Vec<Worst> {
    let machine = TdxMachine::new(5, TdReport::v1_5(), AT);
    let under = |name, root_pem| Worst {
        name,
        evidence: evidence(
            Tee::Tdx,
            machine.quote([0; 64]),
            Collateral::Tdx(machine.collateral()),
        ),
        root_pem,
        exit: 4,
    };
    let mut pem = machine.root_pem();
    for name in ["bounded 1", "bounded 2", "bounded 3"] {
        pem += &Pki::with_keys(AT, PkiKeys::shared(name)).root_pem();
    }
    vec![
        under("TDX, one root", machine.root_pem()),
        under("TDX, four roots of one name", pem),
    ]
}
