//! What Touchstone accepts of SEV-SNP evidence, `sev` accepts.

use touchstone_crosscheck::run::{Size, run};
use touchstone_crosscheck::snp::{
    EXCUSES, MUST_ACCEPT, MUST_REFUSE, both_accept_what_is_honest, mutant,
};

#[test]
fn what_we_accept_they_accept() {
    both_accept_what_is_honest();
    run(
        "snp",
        Size::from_env(),
        mutant,
        EXCUSES,
        &MUST_ACCEPT,
        &MUST_REFUSE,
    );
}
