//! The build statement: what a program was built from and with.
//!
//! Its digest is the keyset's `software` (formats.md §2). It is the program's word about itself,
//! worth what the launch measurement makes it worth; it lets a verifier's policy, or a person, say
//! which source, compiler and runtime a measurement stands for.

use crate::onnxruntime;
use serde::Serialize;
use touchstone_formats::{Result, digest::Digest, jcs};

/// `touchstone/build/1`. Serialised as JCS; members in no particular order here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildStatement {
    v: &'static str,
    /// The package that was built, such as `enclave`.
    pub package: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the Cargo.lock that it was built with: every dependency by digest.
    pub cargo_lock_sha256: Digest,
    /// `rustc --version` of the compiler.
    pub rustc: String,
    /// The target triple.
    pub target: String,
    /// `release` or `debug`.
    pub profile: String,
    /// The package's enabled cargo features, sorted.
    pub features: Vec<String>,
    /// The runtime that it loads when it is configured as shipped.
    pub onnxruntime: RuntimePin,
}

/// The pinned runtime inside a [`BuildStatement`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuntimePin {
    /// How it came here: `pinned-binary`, that is, not built from source by us.
    pub kind: &'static str,
    /// Its version.
    pub version: &'static str,
    /// SHA-256 of the library, hex.
    pub library_sha256: &'static str,
    /// SHA-256 of the wheel it was taken from, hex.
    pub wheel_sha256: &'static str,
}

/// What only the build of the program itself knows; its build script and `env!` supply it.
#[derive(Debug, Clone, Copy)]
pub struct BuildFacts<'a> {
    /// Package name.
    pub package: &'a str,
    /// Package version.
    pub version: &'a str,
    /// The bytes of Cargo.lock.
    pub cargo_lock: &'a [u8],
    /// `rustc --version`.
    pub rustc: &'a str,
    /// Target triple.
    pub target: &'a str,
    /// Cargo profile.
    pub profile: &'a str,
    /// Enabled features, comma-joined, in any order; may be empty.
    pub features: &'a str,
}

impl BuildStatement {
    /// The statement about a program with these facts.
    pub fn new(facts: BuildFacts<'_>) -> Self {
        let mut features: Vec<String> = facts
            .features
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        features.sort_unstable();
        features.dedup();
        Self {
            v: "touchstone/build/1",
            package: facts.package.to_owned(),
            version: facts.version.to_owned(),
            cargo_lock_sha256: Digest::of(facts.cargo_lock),
            rustc: facts.rustc.to_owned(),
            target: facts.target.to_owned(),
            profile: facts.profile.to_owned(),
            features,
            onnxruntime: RuntimePin {
                kind: "pinned-binary",
                version: onnxruntime::VERSION,
                library_sha256: onnxruntime::LIBRARY_SHA256,
                wheel_sha256: onnxruntime::WHEEL_SHA256,
            },
        }
    }

    /// The canonical bytes, which `GET /v1/objects/<digest>` serves.
    ///
    /// # Errors
    /// None in practice: the statement holds text and digests only.
    pub fn to_jcs(&self) -> Result<Vec<u8>> {
        jcs::to_vec(self)
    }

    /// SHA-256 of [`to_jcs`](Self::to_jcs): the keyset's `software`.
    ///
    /// # Errors
    /// As [`to_jcs`](Self::to_jcs).
    pub fn digest(&self) -> Result<Digest> {
        self.to_jcs().map(|bytes| Digest::of(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: BuildFacts<'static> = BuildFacts {
        package: "enclave",
        version: "0.1.0",
        cargo_lock: b"lock",
        rustc: "rustc 1.95.0",
        target: "x86_64-unknown-linux-gnu",
        profile: "release",
        features: "b,a",
    };

    #[test]
    fn a_statement_is_canonical_and_complete() {
        let bytes = BuildStatement::new(FACTS)
            .to_jcs()
            .expect("text and digests");
        let lock = Digest::of(b"lock");
        let expected = format!(
            concat!(
                r#"{{"cargo_lock_sha256":"{}","features":["a","b"],"onnxruntime":{{"kind":"pinned-binary","#,
                r#""library_sha256":"{}","version":"{}","wheel_sha256":"{}"}},"package":"enclave","#,
                r#""profile":"release","rustc":"rustc 1.95.0","target":"x86_64-unknown-linux-gnu","#,
                r#""v":"touchstone/build/1","version":"0.1.0"}}"#
            ),
            lock,
            onnxruntime::LIBRARY_SHA256,
            onnxruntime::VERSION,
            onnxruntime::WHEEL_SHA256
        );
        assert_eq!(String::from_utf8(bytes).expect("JSON is UTF-8"), expected);
        jcs::check(expected.as_bytes()).expect("canonical");
    }

    #[test]
    fn every_fact_changes_the_digest() {
        let digest = |facts| {
            BuildStatement::new(facts)
                .digest()
                .expect("text and digests")
        };
        let base = digest(FACTS);
        assert_eq!(
            base,
            digest(BuildFacts {
                features: "a,b",
                ..FACTS
            }),
            "order of features means nothing"
        );
        for other in [
            BuildFacts {
                package: "other",
                ..FACTS
            },
            BuildFacts {
                version: "0.1.1",
                ..FACTS
            },
            BuildFacts {
                cargo_lock: b"another lock",
                ..FACTS
            },
            BuildFacts {
                rustc: "rustc 1.95.1",
                ..FACTS
            },
            BuildFacts {
                target: "aarch64-unknown-linux-gnu",
                ..FACTS
            },
            BuildFacts {
                profile: "debug",
                ..FACTS
            },
            BuildFacts {
                features: "",
                ..FACTS
            },
        ] {
            assert_ne!(base, digest(other));
        }
    }
}
