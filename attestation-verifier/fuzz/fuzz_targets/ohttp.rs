//! Key configurations, sealed requests and sealed answers (RFC 9458).
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use touchstone_ohttp::{ANSWER_OVERHEAD, GatewayKey, PublicKey, REQUEST_OVERHEAD};

fn pair() -> &'static (GatewayKey, PublicKey) {
    static PAIR: OnceLock<(GatewayKey, PublicKey)> = OnceLock::new();
    PAIR.get_or_init(|| {
        let key = GatewayKey::generate(1).expect("a key");
        let public = PublicKey::from_configurations(&key.configurations()).expect("its half");
        (key, public)
    })
}

fuzz_target!(|input: &[u8]| {
    let (key, public) = pair();
    // A sealed request of somebody's, or what claims to be one.
    assert!(key.open(input).is_err(), "nobody else knows the key");
    // As content it comes back as it is, and as an answer nothing opens that was not sealed.
    let (sealed, waiting) = public.seal(input).expect("a sealed request");
    assert_eq!(sealed.len(), input.len() + REQUEST_OVERHEAD);
    let opened = key.open(&sealed).expect("what was sealed");
    assert_eq!(opened.content, input);
    match input.first() {
        Some(0..128) => assert!(waiting.open(input.to_vec()).is_err()),
        _ => {
            let answer = opened.responder.seal(input).expect("a sealed answer");
            assert_eq!(answer.len(), input.len() + ANSWER_OVERHEAD);
            assert_eq!(waiting.open(answer).as_deref(), Ok(input));
        }
    }
    // Keys of somebody's: whatever is read as one can be sealed to, or says that it cannot.
    if let Ok(other) = PublicKey::from_configurations(input) {
        let _ = other.seal(b"request");
    }
});
