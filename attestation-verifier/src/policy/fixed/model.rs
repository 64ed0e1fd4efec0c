//! Checks of a model's folder, and of what somebody signed about it (`touchstone model verify`).

use super::{FixedCheck, check};

const OMS: &str = "OpenSSF Model Signing v1.0";

pub(super) static FIXED: &[FixedCheck] = &[
    check(
        "model.format",
        "2",
        "A model's folder is one that the enclave would load for its files: model.onnx is sound, every file that it \
         opens is there, nothing else lies beside it but settings.toml, and nothing is a link or leads elsewhere.",
        "formats §5",
    ),
    check(
        "model.digest",
        "3",
        "The folder's model_digest is the one expected.",
        "formats §5",
    ),
    check(
        "model.files",
        "2, 3",
        "The files that the runtime opens are those of the list, by name, size and digest; 2 if the list is no \
         identity in canonical form.",
        "formats §5",
    ),
    check(
        "model.manifest",
        "3",
        "The folder's model_digest is one of a manifest's models; the manifest is one that the policy demands, in force now.",
        "docs/manifests.md, The predicate",
    ),
    check(
        "oms.format",
        "2",
        "A signature of OpenSSF Model Signing is a sigstore bundle v0.3 with one DSSE signature over an in-toto \
         statement that lists files, none twice, and whose subject's digest is that of the list.",
        OMS,
    ),
    check(
        "oms.signature",
        "3",
        "The key that you named signed it (ECDSA P-256). Certificates and keyless signatures are not supported in \
         this version.",
        OMS,
    ),
    check(
        "oms.method",
        "4",
        "It lists whole files (method files) by SHA-256, in version 1.0 of the format.",
        OMS,
    ),
    check(
        "oms.files",
        "3",
        "The files of the folder are those listed, name by name, with their digests: none changed, missing or \
         added. The root digest, which says nothing of names, proves nothing.",
        OMS,
    ),
    check(
        "oms.covers",
        "4",
        "No file that the runtime opens is left out of what is signed (ignore_paths).",
        OMS,
    ),
];
