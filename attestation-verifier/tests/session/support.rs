//! One connection with both of its ends, and the two assertions.

use attestation_verifier::{
    At, Binding, Bound, Connection, Policy, Roots, SessionVerdict, check_session,
};
use touchstone_formats::report_data::bind_session;
use touchstone_formats::{CollateralFile, Digest, Purpose, SessionAnswer, Tee};
use touchstone_testkit::mint::World;

use crate::bundles::{policy_text, world};
use crate::warm;

/// A connection: what the caller saw of it, what the enclave was asked to quote, and how it is judged.
#[derive(Clone)]
pub struct Scene {
    /// The enclave that answers. Its keyset is the answer's unless `answered` says otherwise.
    pub world: World,
    /// What the caller saw at his end.
    pub caller: Connection,
    /// What the quote is over: what the enclave saw at its end.
    pub quoted: Connection,
    /// What else than the connection the quote is over.
    pub bind: Option<Digest>,
    /// What the quote says it is for.
    pub purpose: Purpose,
    /// The last change to the answer, after everything in it is signed.
    pub answered: fn(&mut SessionAnswer),
    pub collateral: Option<CollateralFile>,
    /// The strict template with these changes.
    pub changes: Vec<(&'static str, String)>,
    pub roots: Roots,
    pub at: At,
    pub expect_simulated: bool,
}

/// The world of the bundle tests, with a TLS key in its keyset.
pub fn tls_world() -> World {
    let mut world = world();
    world.keyset.tls_spki_sha256 = Some(Digest::of(b"SubjectPublicKeyInfo"));
    world
}

/// What goes beside quotes of this world.
pub fn collateral(world: &World) -> CollateralFile {
    let evidence = world.evidence(Purpose::Boot, None, Digest::ZERO);
    CollateralFile {
        tee: Tee::SevSnp,
        collateral: evidence.collateral.unwrap(),
    }
}

/// A caller's end of a connection to this world's enclave.
pub fn connection(world: &World) -> Connection {
    Connection {
        nonce: [7; 32],
        exporter: [9; 32],
        tls_spki_sha256: world.keyset.tls_spki_sha256.unwrap(),
    }
}

impl Scene {
    /// The honest connection.
    pub fn new() -> Scene {
        Scene::of(tls_world())
    }

    /// The honest connection to this world's enclave.
    pub fn of(world: World) -> Scene {
        let caller = connection(&world);
        Scene {
            caller,
            quoted: caller,
            bind: None,
            purpose: Purpose::Session,
            answered: |_| {},
            collateral: Some(collateral(&world)),
            changes: Vec::new(),
            roots: Roots::pinned()
                .with_simulated_pem(world.root_pem().as_bytes())
                .unwrap(),
            at: At {
                time: world.at,
                asserted: false,
            },
            expect_simulated: true,
            world,
        }
    }

    /// The same with a change.
    pub fn with(mut self, change: impl FnOnce(&mut Scene)) -> Scene {
        change(&mut self);
        self
    }

    /// The same under another policy: one more change of the template.
    pub fn policy(mut self, key: &'static str, value: impl Into<String>) -> Scene {
        self.changes.push((key, value.into()));
        self
    }

    pub fn policy_text(&self) -> String {
        let changes = self.changes.iter().map(|(k, v)| (*k, v.as_str()));
        policy_text(&self.world, &changes.collect::<Vec<_>>())
    }

    /// The answer file, as the enclave gives it: without collateral.
    pub fn answer(&self) -> Vec<u8> {
        let Connection {
            nonce,
            exporter,
            tls_spki_sha256,
        } = self.quoted;
        let bind = bind_session(tls_spki_sha256, &exporter);
        let bind = self.bind.unwrap_or(bind);
        let mut evidence = self
            .world
            .evidence(self.purpose, Some(nonce.to_vec()), bind);
        evidence.collateral = None;
        let mut answer = SessionAnswer {
            keyset: self.world.keyset.clone(),
            evidence,
        };
        (self.answered)(&mut answer);
        answer.to_file()
    }

    pub fn judge(&self) -> SessionVerdict {
        self.judge_file(&self.answer())
    }

    pub fn judge_file(&self, file: &[u8]) -> SessionVerdict {
        let policy = Policy::parse(&self.policy_text()).expect("a policy that stands");
        let session = self.judge_by(&policy, file);
        warm::alike(&session.verdict, &policy, &self.roots, |verifier| {
            let (caller, collateral) = (&self.caller, self.collateral.as_ref());
            let (at, expect_simulated) = (self.at, self.expect_simulated);
            let again = verifier.check_session(file, caller, collateral, at, expect_simulated);
            assert_eq!(again, session);
            again.verdict
        });
        session
    }

    /// For many files: the policy is read once.
    pub fn judge_by(&self, policy: &Policy, file: &[u8]) -> SessionVerdict {
        check_session(
            file,
            &self.caller,
            self.collateral.as_ref(),
            policy,
            &self.roots,
            self.at,
            self.expect_simulated,
        )
    }

    /// It holds; returns the judgement.
    #[track_caller]
    pub fn holds(&self) -> SessionVerdict {
        let session = self.judge();
        let verdict = &session.verdict;
        let found = (verdict.exit(), verdict.deciding(), verdict.binding());
        assert_eq!(
            found,
            (0, None, Binding::TlsExporter),
            "{}",
            verdict.words()
        );
        assert_eq!(session.keyset(), Some(&self.world.keyset));
        assert_eq!(session.bound().binding(), Binding::TlsExporter);
        assert_eq!(session.bound().keyset(), Some(self.world.keyset.digest()));
        session
    }

    /// It is refused with this exit code, and this check decides; nothing is bound and nothing can be kept.
    #[track_caller]
    pub fn refused(&self, exit: u8, deciding: &str) -> SessionVerdict {
        let session = self.judge();
        assert_refused(&session, exit, deciding);
        assert_eq!(session.record(&self.caller, self.at.time), None);
        session
    }
}

/// Refused with this exit code, this check decides, and nothing is bound.
#[track_caller]
pub fn assert_refused(session: &SessionVerdict, exit: u8, deciding: &str) {
    let verdict = &session.verdict;
    let found = (verdict.exit(), verdict.deciding());
    assert_eq!(found, (exit, Some(deciding)), "{}", verdict.words());
    assert_eq!(session.keyset(), None);
    assert_eq!(session.bound(), Bound::default());
    if deciding != "session.binding" {
        assert_eq!(verdict.binding(), Binding::None);
    }
}
