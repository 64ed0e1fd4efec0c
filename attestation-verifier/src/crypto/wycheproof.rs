//! Project Wycheproof's vectors against what stands behind the certificate and signature checks: every valid one is
//! accepted, every invalid one refused, and so is what is valid for another curve, hash or salt.

use touchstone_formats::ed25519;
use wycheproof::{EllipticCurve, HashFunction, TestResult, ecdsa, eddsa, rsa_pss_verify};

use super::{Budget, Signed};
use crate::known::Known;

/// What came of a run of vectors.
#[derive(Default)]
struct Seen {
    valid: u32,
    invalid: u32,
    /// Valid for other parameters than ours.
    foreign: u32,
    wrong: Vec<String>,
}

impl Seen {
    /// `own`: the vector has the parameters that are verified here.
    fn judge(&mut self, set: &str, id: usize, result: TestResult, own: bool, accepted: bool) {
        let expected = match result {
            _ if !own => {
                self.foreign += 1;
                false
            }
            TestResult::Valid => {
                self.valid += 1;
                true
            }
            TestResult::Invalid => {
                self.invalid += 1;
                false
            }
            // None of the vectors for what is verified here leaves the answer open. One that did would need a reason.
            TestResult::Acceptable => {
                self.wrong
                    .push(format!("{set} {id}: acceptable, and {accepted} here"));
                accepted
            }
        };
        if accepted != expected {
            self.wrong.push(format!(
                "{set} {id}: {result:?}, and accepted is {accepted}"
            ));
        }
    }

    /// Nothing is wrong, and there was some of everything.
    fn end(self) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        assert!(self.valid > 0 && self.invalid > 0 && self.foreign > 0);
    }
}

fn ecdsa_sets(names: &[ecdsa::TestName]) -> impl Iterator<Item = (String, ecdsa::TestGroup)> {
    names.iter().flat_map(|name| {
        let set = ecdsa::TestSet::load(*name).expect("the vectors");
        set.test_groups
            .into_iter()
            .map(move |group| (format!("{name:?}"), group))
    })
}

#[test]
fn ecdsa_p256_sha256() {
    use ecdsa::TestName as Name;
    let mut seen = Seen::default();
    let names = [
        Name::EcdsaSecp256r1Sha256,
        Name::EcdsaSecp256r1Sha512,
        Name::EcdsaSecp256r1Sha3_256,
        Name::EcdsaSecp256k1Sha256,
        Name::EcdsaBrainpool256r1Sha256,
    ];
    for (set, group) in ecdsa_sets(&names) {
        let own =
            (&group.key.curve, &group.hash) == (&EllipticCurve::Secp256r1, &HashFunction::Sha2_256);
        for test in &group.tests {
            let accepted = Budget::new(&Known::new())
                .p256_sha256_der(&group.key.key, Signed::once(&test.msg, &test.sig));
            seen.judge(&set, test.tc_id, test.result, own, accepted);
        }
    }
    seen.end();
}

#[test]
fn ecdsa_p256_sha256_fixed() {
    use ecdsa::TestName as Name;
    let mut seen = Seen::default();
    let names = [
        Name::EcdsaSecp256r1Sha256P1363,
        Name::EcdsaSecp256r1Sha512P1363,
        Name::EcdsaSecp256k1Sha256P1363,
        Name::EcdsaBrainpool256r1Sha256P1363,
    ];
    for (set, group) in ecdsa_sets(&names) {
        let own =
            (&group.key.curve, &group.hash) == (&EllipticCurve::Secp256r1, &HashFunction::Sha2_256);
        for test in &group.tests {
            // Of another length there is no such signature: the type says so.
            let accepted = <&[u8; 64]>::try_from(&test.sig[..]).is_ok_and(|r_s| {
                Budget::new(&Known::new()).p256_sha256(&group.key.key, Signed::once(&test.msg, r_s))
            });
            seen.judge(&set, test.tc_id, test.result, own, accepted);
        }
    }
    seen.end();
}

#[test]
fn ecdsa_p384_sha384_fixed() {
    use ecdsa::TestName as Name;
    let mut seen = Seen::default();
    let names = [
        Name::EcdsaSecp384r1Sha384P1363,
        Name::EcdsaSecp384r1Sha512P1363,
        Name::EcdsaBrainpool384r1Sha384P1363,
    ];
    for (set, group) in ecdsa_sets(&names) {
        let own =
            (&group.key.curve, &group.hash) == (&EllipticCurve::Secp384r1, &HashFunction::Sha2_384);
        for test in &group.tests {
            let accepted = <&[u8; 96]>::try_from(&test.sig[..]).is_ok_and(|r_s| {
                Budget::new(&Known::new()).p384_sha384(&group.key.key, &test.msg, r_s)
            });
            seen.judge(&set, test.tc_id, test.result, own, accepted);
        }
    }
    seen.end();
}

#[test]
fn rsassa_pss_sha384() {
    let mut seen = Seen::default();
    for name in rsa_pss_verify::TestName::all() {
        let set = rsa_pss_verify::TestSet::load(name).expect("the vectors");
        for group in set.test_groups {
            let sha384 = HashFunction::Sha2_384;
            let own = group.hash == sha384
                && group.mgf_hash.as_ref() == Some(&sha384)
                && group.salt_size == 48
                && (2048..=8192).contains(&group.key_size);
            for test in &group.tests {
                let accepted = Budget::new(&Known::new())
                    .rsa_pss_sha384(&group.asn_key, Signed::once(&test.msg, &test.sig));
                seen.judge(&format!("{name:?}"), test.tc_id, test.result, own, accepted);
            }
        }
    }
    seen.end();
}

#[test]
fn ed25519_of_the_formats() {
    let mut seen = Seen::default();
    for name in eddsa::TestName::all() {
        let set = eddsa::TestSet::load(name).expect("the vectors");
        for group in set.test_groups {
            for test in &group.tests {
                let key = <&[u8; 32]>::try_from(&group.key.pk[..]);
                let accepted = key.is_ok_and(|key| ed25519::verify(key, &test.msg, &test.sig));
                let own = name == eddsa::TestName::Ed25519;
                seen.judge(&format!("{name:?}"), test.tc_id, test.result, own, accepted);
            }
        }
    }
    seen.end();
}
