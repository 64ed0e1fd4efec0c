//! The checks of a policy for SEV-SNP.

use super::{CRL_STATES, CheckSpec, Form, platform_check, policy_check};
use crate::product::PRODUCTS;

const REPORT: &str = "AMD 56860, table ATTESTATION_REPORT";
const POLICY: &str = "AMD 56860, table Guest Policy";
const PLATFORM: &str = "AMD 56860, table PLATFORM_INFO";

pub(super) static CHECKS: &[CheckSpec] = &[
    policy_check(
        "snp.version",
        Form::Numbers,
        "VERSION of the report is one of these.",
        "Version 2 has no CPUID fields, so that nothing but the certificate names the product. \
         Versions other than 2, 3 and 5 are malformed whatever stands here.",
        REPORT,
        "{ expect = [3, 5] }",
    ),
    policy_check(
        "snp.product",
        Form::Words(PRODUCTS),
        "The product (CPUID and certificate agree upon it) is one of these.",
        "Milan is not in the list: its endorsement key's seed was extracted by software alone in 2026 \
         (arXiv 2605.12990), so its reports can be forged for any firmware level.",
        "AMD 56860, CPUID_FAM_ID and CPUID_MOD_ID; AMD 57230, productName",
        "{ expect = [\"Genoa\", \"Turin\"] }",
    ),
    policy_check(
        "snp.signing_key",
        Form::Words(&["vcek", "vlek"]),
        "SIGNING_KEY is one of these kinds.",
        "A VCEK belongs to one chip. A VLEK belongs to a cloud provider, who can put it into any of \
         his machines: it shows whose machine it was, not which.",
        "AMD 56860, KEY_INFO.SIGNING_KEY; AMD 57230",
        "{ expect = [\"vcek\"] }",
    ),
    policy_check(
        "snp.vlek.csp",
        Form::Texts,
        "A VLEK was given to one of these providers (cspID of its certificate). Holds for every VCEK.",
        "Whoever accepts VLEKs has to say whose.",
        "AMD 57230, cspID",
        "{ expect = [] }",
    ),
    platform_check(
        "snp.chain.crl",
        Form::Word(CRL_STATES),
        "A revocation list of the root is there, due (nextUpdate) after the time of judgement and not \
         older than answer.collateral_age_seconds. Failure is exit 5. A list that is there is always \
         used, also when this is waived.",
        "Without it a revoked intermediate is accepted.",
        "AMD 57230, CRL; RFC 5280 §6.3",
        "{ expect = \"current\" }",
    ),
    policy_check(
        "snp.chip_id.masked",
        Form::Flag,
        "CHIP_ID is all zero, because the host masks it (or its firmware does, under a VLEK).",
        "A masked report does not say which chip made it.",
        "AMD 56860, CHIP_ID and MASK_CHIP_ID",
        "{ expect = false }",
    ),
    policy_check(
        "snp.chip_id",
        Form::Hexes(64),
        "CHIP_ID is one of these.",
        "Pins the machines. Known machines are the one defence here against somebody who holds a \
         genuine chip in his hands.",
        REPORT,
        "{ waive = \"any genuine chip of these products; pin the chips you know\" }",
    ),
    platform_check(
        "snp.tcb.reported",
        Form::Floors,
        "Every component of REPORTED_TCB is at or above its product's floor. A variant without an \
         entry of its own takes its product's; a product without an entry fails.",
        "The endorsement key is derived for this level: it is what the signature proves.",
        "AMD-SB-3019 (CVE-2024-56161); AMD 56860, TCB_VERSION",
        FLOORS,
    ),
    platform_check(
        "snp.tcb.committed",
        Form::Floors,
        "Every component of COMMITTED_TCB is at or above its product's floor.",
        "Below this level the host can no longer roll back.",
        "AMD-SB-3019 (CVE-2024-56161); AMD 56860, COMMITTED_TCB",
        FLOORS,
    ),
    platform_check(
        "snp.tcb.launch",
        Form::Floors,
        "Every component of LAUNCH_TCB is at or above its product's floor.",
        "A guest that was launched under old firmware stays what it was, however new the firmware is \
         by now.",
        "AMD-SB-3019 (CVE-2024-56161); AMD 56860, LAUNCH_TCB",
        FLOORS,
    ),
    platform_check(
        "snp.tcb.provisional",
        Form::Flag,
        "The firmware that runs (CURRENT_TCB, CURRENT version) is not the committed one.",
        "Provisional firmware can be rolled back to the committed one without a reboot.",
        "AMD 56860, section Provisional Firmware (SNP_COMMIT)",
        "{ expect = false }",
    ),
    policy_check(
        "snp.policy.debug",
        Form::Flag,
        "POLICY.DEBUG: the host may read and write the guest's memory.",
        "A guest that may be debugged has no secrets and no integrity.",
        POLICY,
        "{ expect = false }",
    ),
    policy_check(
        "snp.policy.migrate_ma",
        Form::Flag,
        "POLICY.MIGRATE_MA: the guest may be bound to a migration agent.",
        "A migration agent is code that can move the guest's state elsewhere.",
        POLICY,
        "{ expect = false }",
    ),
    policy_check(
        "snp.policy.abi",
        Form::Flag,
        "POLICY.ABI_MAJOR and ABI_MINOR are not above the firmware's API version, current and \
         committed.",
        "The firmware refuses to launch otherwise; a report that says so contradicts itself.",
        POLICY,
        "{ expect = true }",
    ),
    policy_check(
        "snp.policy.smt",
        Form::Flag,
        "POLICY.SMT: the guest may run on a host with SMT.",
        "Sibling threads share caches and predictors (StackWarp, AMD-SB-3027, needs one). The template \
         has the bits that guests are usually launched with (0x30000); false is stricter and needs \
         hosts with SMT off.",
        POLICY,
        "{ expect = true }",
    ),
    policy_check(
        "snp.policy.single_socket",
        Form::Flag,
        "POLICY.SINGLE_SOCKET: the guest runs on one socket only.",
        "The link between sockets is one more place to listen at. True is stricter.",
        POLICY,
        "{ expect = false }",
    ),
    policy_check(
        "snp.policy.cxl",
        Form::Flag,
        "POLICY.CXL_ALLOW: devices and memory on CXL are allowed.",
        "CXL memory stands outside the socket. True is weaker.",
        POLICY,
        "{ expect = false }",
    ),
    policy_check(
        "snp.policy.mem_aes_256_xts",
        Form::Flag,
        "POLICY.MEM_AES_256_XTS: memory must be encrypted with AES-256-XTS.",
        "Else AES-128-XEX will do. True is stricter and needs a BIOS setting.",
        POLICY,
        "{ expect = false }",
    ),
    policy_check(
        "snp.policy.rapl_dis",
        Form::Flag,
        "POLICY.RAPL_DIS: the guest runs only where RAPL is off.",
        "RAPL lets software read power, and from it secrets (PLATYPUS). True is stricter.",
        POLICY,
        "{ expect = false }",
    ),
    policy_check(
        "snp.policy.ciphertext_hiding",
        Form::Flag,
        "POLICY.CIPHERTEXT_HIDING: the guest runs only where the host cannot read ciphertext.",
        "Ciphertexts tell equal plaintexts (CipherLeaks). True is stricter; newer firmware has it.",
        POLICY,
        "{ expect = false }",
    ),
    policy_check(
        "snp.policy.page_swap_disable",
        Form::Flag,
        "POLICY.PAGE_SWAP_DISABLE: SNP_PAGE_MOVE and the swap commands are refused. Reports before \
         version 5 have no such bit, and it is found false.",
        "Moving pages helps who looks for patterns in ciphertext. True is stricter.",
        POLICY,
        "{ expect = false }",
    ),
    policy_check(
        "snp.platform.smt",
        Form::Flag,
        "PLATFORM_INFO.SMT_EN: SMT is on.",
        "See snp.policy.smt. False is stricter.",
        PLATFORM,
        "{ expect = true }",
    ),
    policy_check(
        "snp.platform.tsme",
        Form::Flag,
        "PLATFORM_INFO.TSME_EN: all memory is encrypted, the host's too.",
        "It does not protect the guest, whose memory is encrypted in any case; it belongs to what the \
         machine is known to be.",
        PLATFORM,
        "{ expect = false }",
    ),
    policy_check(
        "snp.platform.ecc",
        Form::Flag,
        "PLATFORM_INFO.ECC_EN: the memory has error correction.",
        "Without it flipping bits (Rowhammer) is easier.",
        PLATFORM,
        "{ expect = true }",
    ),
    policy_check(
        "snp.platform.rapl_dis",
        Form::Flag,
        "PLATFORM_INFO.RAPL_DIS: RAPL is off.",
        "See snp.policy.rapl_dis. True is stricter.",
        PLATFORM,
        "{ expect = false }",
    ),
    policy_check(
        "snp.platform.ciphertext_hiding",
        Form::Flag,
        "PLATFORM_INFO.CIPHERTEXT_HIDING_DRAM_EN: the host cannot read ciphertext.",
        "See snp.policy.ciphertext_hiding. True is stricter.",
        PLATFORM,
        "{ expect = false }",
    ),
    platform_check(
        "snp.platform.alias_check",
        Form::Flag,
        "PLATFORM_INFO.ALIAS_CHECK_COMPLETE: aliased memory was looked for since the last reset, and \
         there is none. Version 2 has no such bit, and it is found false.",
        "Memory modules that lie about their size alias guest memory (BadRAM, CVE-2024-21944).",
        "AMD-SB-3015; AMD 56860, table PLATFORM_INFO",
        "{ expect = true }",
    ),
    policy_check(
        "snp.report_id_ma",
        Form::Hexes(32),
        "REPORT_ID_MA is one of these; all ones means that there is no migration agent.",
        "See snp.policy.migrate_ma.",
        REPORT,
        "{ expect = [\"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\"] }",
    ),
    policy_check(
        "snp.vmpl",
        Form::Numbers,
        "VMPL is one of these. 4294967295 is a report that the host asked for.",
        "REPORT_DATA is the word of whatever runs at this level; above 0 something more privileged \
         runs in the same guest.",
        REPORT,
        "{ expect = [0] }",
    ),
    policy_check(
        "snp.measurement",
        Form::Hexes(48),
        "MEASUREMENT, the launch digest, is one of these.",
        "It is the software's identity. The template accepts none: put in what you built or \
         reproduced, never what a server told you.",
        REPORT,
        "{ expect = [] }",
    ),
    policy_check(
        "snp.host_data",
        Form::Hexes(32),
        "HOST_DATA is one of these; all zero if the host gave none.",
        "The host writes it at launch; software may take it for configuration.",
        REPORT,
        "{ expect = [\"0000000000000000000000000000000000000000000000000000000000000000\"] }",
    ),
    policy_check(
        "snp.guest_svn",
        Form::Number,
        "GUEST_SVN is at least this.",
        "The image's own version, out of a signed ID block; raise it to refuse old images.",
        REPORT,
        "{ expect = 0 }",
    ),
    policy_check(
        "snp.family_id",
        Form::Hexes(16),
        "FAMILY_ID is one of these.",
        "A name out of the ID block; it identifies nothing without its key.",
        REPORT,
        "{ waive = \"a name without weight; MEASUREMENT identifies the software\" }",
    ),
    policy_check(
        "snp.image_id",
        Form::Hexes(16),
        "IMAGE_ID is one of these.",
        "A name out of the ID block; it identifies nothing without its key.",
        REPORT,
        "{ waive = \"a name without weight; MEASUREMENT identifies the software\" }",
    ),
    policy_check(
        "snp.id_key_digest",
        Form::Hexes(48),
        "ID_KEY_DIGEST is one of these; all zero without an ID block.",
        "Pins who signed the image's ID block.",
        REPORT,
        "{ waive = \"not pinned: no ID key is part of this trust\" }",
    ),
    policy_check(
        "snp.author_key_digest",
        Form::Hexes(48),
        "AUTHOR_KEY_DIGEST is one of these; all zero without an author key.",
        "Pins who certified the ID key.",
        REPORT,
        "{ waive = \"not pinned: no author key is part of this trust\" }",
    ),
    platform_check(
        "snp.mitigation.launch",
        Form::Mask,
        "LAUNCH_MIT_VECTOR has every bit of this mask. Not there before version 5, and then only an \
         empty mask holds.",
        "Bits that AMD assigns to mitigations that no patch level shows.",
        "AMD 56860, LAUNCH_MIT_VECTOR (from version 5)",
        "{ waive = \"no mitigation that only this vector shows is demanded\" }",
    ),
    platform_check(
        "snp.mitigation.current",
        Form::Mask,
        "CURRENT_MIT_VECTOR has every bit of this mask. Not there before version 5, and then only an \
         empty mask holds.",
        "As snp.mitigation.launch, for the firmware that runs now.",
        "AMD 56860, CURRENT_MIT_VECTOR (from version 5)",
        "{ waive = \"no mitigation that only this vector shows is demanded\" }",
    ),
];

/// Floors at the levels of AMD-SB-3019, the bulletin of CVE-2024-56161 (forged microcode).
///
/// A microcode level is the low byte of the fixed revision: Milan 0x0A0011DB, Milan-X 0x0A001244,
/// Genoa 0x0A101154, Genoa-X 0x0A10124F, Bergamo and Siena 0x0AA00219; SNP firmware 0x18 for
/// Milan and 0x17 for Zen 4. Turin came later: its microcode floor is AMD-SB-3020's
/// 0x0B002150 (above 0x0B002147, the first that is not open to forged microcode), Turin-Dense's is
/// 0x0B101047, SNP firmware 4 for both (AMD-SB-3020).
const FLOORS: &str = "{ expect = { \
    Milan = { bootloader = 0, tee = 0, snp = 24, microcode = 219 }, \
    Milan-X = { bootloader = 0, tee = 0, snp = 24, microcode = 68 }, \
    Genoa = { bootloader = 0, tee = 0, snp = 23, microcode = 84 }, \
    Genoa-X = { bootloader = 0, tee = 0, snp = 23, microcode = 79 }, \
    Bergamo = { bootloader = 0, tee = 0, snp = 23, microcode = 25 }, \
    Turin = { fmc = 0, bootloader = 0, tee = 0, snp = 4, microcode = 80 }, \
    Turin-Dense = { fmc = 0, bootloader = 0, tee = 0, snp = 4, microcode = 71 } } }";
