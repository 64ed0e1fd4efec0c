//! Every truncation and every single-bit flip of a receipt and of a bundle.

mod common;

use touchstone_formats::{Bundle, Receipt};

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[bit / 8] ^= 1 << (bit % 8);
    out
}

#[test]
fn receipt() {
    let cose = common::cose();
    let key = common::keyset().receipt_key.0;
    let holds = |bytes: &[u8]| Receipt::parse(bytes).is_ok_and(|receipt| receipt.verify(&key));
    assert!(holds(&cose));
    for length in 0..cose.len() {
        assert!(!holds(&cose[..length]), "{length} bytes");
    }
    let mut parsed = 0;
    for bit in 0..cose.len() * 8 {
        let changed = flipped(&cose, bit);
        assert!(!holds(&changed), "bit {bit}");
        parsed += usize::from(Receipt::parse(&changed).is_ok());
    }
    // Most bits are digests and signature: there it is the signature that refuses.
    assert!(parsed > 2000, "{parsed} parsed");
    assert!(!holds(&[cose.as_slice(), &[0]].concat()));
}

#[test]
fn bundle() {
    let bundle = common::bundle();
    let file = bundle.to_file();
    assert_eq!(Bundle::parse(&file).unwrap(), bundle);
    for length in 0..file.len() {
        assert!(Bundle::parse(&file[..length]).is_err(), "{length} bytes");
    }
    // A quarter for each thread: debug builds parse slowly.
    std::thread::scope(|scope| {
        for quarter in 0..4 {
            let (file, bundle) = (&file, &bundle);
            scope.spawn(move || {
                for bit in (quarter..file.len() * 8).step_by(4) {
                    if let Ok(parsed) = Bundle::parse(&flipped(file, bit)) {
                        assert_ne!(&parsed, bundle, "bit {bit}");
                        // One way to write a value: what was parsed is written as it came.
                        assert_eq!(parsed.to_file(), flipped(file, bit), "bit {bit}");
                    }
                }
            });
        }
    });
}
