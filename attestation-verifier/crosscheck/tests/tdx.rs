//! What Touchstone accepts of TDX evidence, `dcap-qvl` and `tdx-quote` accept.

use touchstone_crosscheck::run::{Size, run};
use touchstone_crosscheck::tdx::{
    EXCUSES, MUST_ACCEPT, MUST_REFUSE, all_accept_what_is_honest, mutant,
};

#[test]
fn what_we_accept_they_accept() {
    all_accept_what_is_honest();
    run(
        "tdx",
        Size::from_env(),
        mutant,
        EXCUSES,
        &MUST_ACCEPT,
        &MUST_REFUSE,
    );
}
