//! Mutants of quotes: fields, bytes and lengths before they are signed, signatures written otherwise.

use touchstone_testkit::machine::{TdxMachine, TeeMachine as _};
use touchstone_testkit::tdx::{QE_REPORT_LENGTH, Quote};

use super::{Case, DATA};
use crate::mutate::{patch, several, subtract};
use crate::random::Random;

pub(super) fn fields(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let mut quote = machine.report(DATA);
    let what = several(random, 2, |random| field(random, &mut quote).into());
    case.quote = machine.sign(&quote);
    what
}

fn field(random: &mut Random, quote: &mut Quote) -> &'static str {
    let Quote {
        header,
        report,
        qe_report,
        ..
    } = quote;
    match random.below(36) {
        0 => {
            header.version = random.below(7) as u16;
            "version"
        }
        1 => {
            header.attestation_key_type = random.number() as u16;
            "attestation key type"
        }
        2 => {
            header.tee_type = random.number() as u32;
            "TEE type"
        }
        3 => {
            random.scribble(&mut header.reserved);
            "reserved of the header"
        }
        4 => {
            random.scribble(&mut header.qe_vendor_id);
            "QE vendor"
        }
        5 => {
            random.scribble(&mut header.user_data);
            "user data"
        }
        6 | 7 => {
            random.scribble(&mut report.tee_tcb_svn);
            "TEE_TCB_SVN"
        }
        8 => {
            random.scribble(&mut report.mr_seam);
            "MRSEAM"
        }
        9 => {
            random.scribble(&mut report.mr_signer_seam);
            "MRSIGNERSEAM"
        }
        10 => {
            random.scribble(&mut report.seam_attributes);
            "SEAMATTRIBUTES"
        }
        11..14 => {
            report.td_attributes ^= random.number();
            "TDATTRIBUTES"
        }
        14 | 15 => {
            report.xfam ^= random.number();
            "XFAM"
        }
        16 => {
            random.scribble(&mut report.mr_td);
            "MRTD"
        }
        17 => {
            random.scribble(&mut report.mr_config_id);
            "MRCONFIGID"
        }
        18 => {
            random.scribble(&mut report.mr_owner);
            "MROWNER"
        }
        19 => {
            random.scribble(&mut report.mr_owner_config);
            "MROWNERCONFIG"
        }
        20 => {
            let place = random.below(4);
            random.scribble(&mut report.rtmr[place]);
            "RTMR"
        }
        21 => {
            random.scribble(&mut report.report_data);
            "REPORTDATA"
        }
        22 => {
            if let Some(more) = &mut report.v1_5 {
                random.scribble(&mut more.tee_tcb_svn_2);
            }
            "TEE_TCB_SVN_2"
        }
        23 => {
            if let Some(more) = &mut report.v1_5 {
                random.scribble(&mut more.mr_service_td);
            }
            "MRSERVICETD"
        }
        24 => {
            random.scribble(&mut qe_report.cpu_svn);
            "CPUSVN of the QE"
        }
        25 => {
            qe_report.misc_select = random.number() as u32;
            "MISCSELECT"
        }
        26 => {
            random.scribble(&mut qe_report.attributes);
            "ATTRIBUTES of the QE"
        }
        27 => {
            random.scribble(&mut qe_report.mr_enclave);
            "MRENCLAVE of the QE"
        }
        28 => {
            random.scribble(&mut qe_report.mr_signer);
            "MRSIGNER of the QE"
        }
        29 => {
            qe_report.isv_prod_id = random.number() as u16;
            "ISVPRODID"
        }
        30 | 31 => {
            qe_report.isv_svn = random.below(14) as u16;
            "ISVSVN"
        }
        32 => {
            let length = random.below(70);
            quote.qe_auth_data = (0..length).map(|_| random.byte()).collect();
            "authentication data"
        }
        33 => {
            quote.certification_type = random.below(9) as u16;
            "certification type"
        }
        34 => {
            quote.pck_type = random.below(9) as u16;
            "PCK type"
        }
        _ => pem(random, &mut quote.pck_chain),
    }
}

/// Another way of writing a chain, or a chain with something around it.
pub(super) fn pem(random: &mut Random, chain: &mut Vec<u8>) -> &'static str {
    let replace = |chain: &mut Vec<u8>, from: &str, to: &str| {
        let text = String::from_utf8_lossy(chain).replace(from, to);
        *chain = text.into_bytes();
    };
    match random.below(9) {
        0 => {
            replace(chain, "\n", "\r\n");
            "PEM with CRLF"
        }
        1 => {
            chain.pop();
            "PEM without its last byte"
        }
        2 => {
            chain.push(random.byte());
            "PEM with a byte after it"
        }
        3 => {
            chain.insert(0, b'\n');
            "PEM with a line before it"
        }
        4 => {
            replace(
                chain,
                "-----END CERTIFICATE-----\n",
                "-----END CERTIFICATE-----\n\n",
            );
            "PEM with empty lines"
        }
        5 => {
            // The root's certificate is the last one.
            let text = String::from_utf8_lossy(chain).into_owned();
            if let Some(at) = text.rfind("-----BEGIN") {
                chain.truncate(at);
            }
            "PEM without the root"
        }
        6 => {
            let copy = chain.clone();
            chain.pop();
            chain.extend(copy);
            "PEM twice"
        }
        7 => {
            replace(
                chain,
                "-----BEGIN CERTIFICATE-----\n",
                "a comment\n-----BEGIN CERTIFICATE-----\n",
            );
            "PEM with comments"
        }
        _ => random.damage(chain, b"-----BEGIN CERTIFICATE-----"),
    }
}

/// Any bytes of what is signed, reserved ones too; lengths that are not true.
pub(super) fn patches(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let mut quote = machine.report(DATA);
    let mut what = several(random, 2, |random| {
        let (whose, length, patches) = match random.one_in(3) {
            true => ("QE report", QE_REPORT_LENGTH, &mut quote.qe_report.patches),
            false => ("quote", quote.to_be_signed().len(), &mut quote.patches),
        };
        format!("{} of the {whose}", patch(random, length, patches))
    });
    if random.one_in(6) {
        let lengths = &mut quote.lengths;
        let by = *random.pick(&[-1i64, 1, 2, 64, -64]);
        let told = |length: usize| (length as i64 + by) as u32;
        match random.below(2) {
            0 => lengths.pck_chain = Some(told(quote.pck_chain.len())),
            _ => lengths.qe_auth_data = Some(told(quote.qe_auth_data.len()) as u16),
        }
        what += "a length that is not true";
    }
    case.quote = machine.sign(&quote);
    what
}

/// The order of P-256, little-endian.
const ORDER: &str = "512563fcc2cab9f3849e17a7adfae6bcffffffffffffffff00000000ffffffff";

/// Signatures that are another way of writing the same, or nothing at all.
pub(super) fn signatures(random: &mut Random, quote: &mut [u8]) -> String {
    // The quote's signature is behind the body and its length, the enclave's behind key, type, size and the report.
    let body = match quote[0] {
        4 => 636,
        _ => 58 + u32::from_le_bytes(quote[50..54].try_into().expect("4 bytes")) as usize,
    };
    let enclave = random.one_in(2);
    let at = body
        + if enclave {
            64 + 64 + 6 + QE_REPORT_LENGTH
        } else {
            0
        };
    let whose = if enclave { "QE report" } else { "quote" };
    let order = hex::decode(ORDER).expect("hexadecimal");
    let half = at + 32 * random.below(2);
    let negated = |quote: &[u8], at: usize| {
        let number: Vec<u8> = quote[at..at + 32].iter().rev().copied().collect();
        let mut negated = subtract(&order, &number);
        negated.reverse();
        negated
    };
    let how = match random.below(7) {
        // (r, n − s) verifies wherever (r, s) does.
        0 | 1 => {
            let other = negated(quote, at + 32);
            quote[at + 32..at + 64].copy_from_slice(&other);
            "n − s"
        }
        2 => {
            let other = negated(quote, half);
            quote[half..half + 32].copy_from_slice(&other);
            "one of them negated"
        }
        3 => {
            quote[half..half + 32].fill(0);
            "a zero"
        }
        4 => {
            let big: Vec<u8> = order.iter().rev().copied().collect();
            quote[half..half + 32].copy_from_slice(&big);
            "n"
        }
        5 => {
            quote[at..at + 64].rotate_left(32);
            "r and s exchanged"
        }
        _ => {
            random.scribble(&mut quote[at..at + 64]);
            "anything"
        }
    };
    format!("{how} in that of the {whose}")
}
