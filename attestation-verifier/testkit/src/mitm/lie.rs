//! The lies by name, each with the check of `docs/checks.md` that should refuse it.

use std::fmt;
use std::str::FromStr;

/// Which part of a client a lie is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No lie: what a client must accept.
    Honest,
    /// A relay between the client and a genuine enclave, at work before the session is proven.
    Relay,
    /// A relay that damages what is proven and encrypted.
    Stream,
    /// The part of a host that is not secret: receipts, collateral, plain requests.
    Host,
    /// A server whose quotes are genuine, and which is dishonest all the same. Always the kit's own.
    Server,
    /// A host that lies about the key that requests are to be sealed to (Oblivious HTTP).
    Key,
    /// A host that carries sealed requests, and damages or makes up what it carries. The key was proven.
    Sealed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] = [
        Kind::Honest,
        Kind::Relay,
        Kind::Stream,
        Kind::Host,
        Kind::Server,
        Kind::Key,
        Kind::Sealed,
    ];

    /// What a list of lies says above those of this kind.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Honest => "No lie",
            Kind::Relay => "A relay, before anything is proven",
            Kind::Stream => {
                "A relay that damages the proven connection (--turn 3: the first answer; 2: the session's)"
            }
            Kind::Host => "The host's own part, which is not secret and proves itself",
            Kind::Server => "A server whose quotes are genuine",
            Kind::Key => "The key for sealed requests (Oblivious HTTP), before it is proven",
            Kind::Sealed => "Sealed requests and their answers, once the key is proven",
        }
    }
}

macro_rules! lies {
    ($($kind:ident { $($(#[$doc:meta])* $lie:ident $name:literal $refused:literal $about:literal;)* })*) => {
        /// One way of standing between a client and an enclave. The documentation of each is what
        /// `man-in-the-middle --list` says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Lie {
            $($(#[doc = $about] $lie,)*)*
        }

        impl Lie {
            /// All of them, [`Lie::None`] first.
            pub const ALL: &[Lie] = &[$($(Lie::$lie,)*)*];

            /// The name on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $($(Lie::$lie => $name,)*)*
                }
            }

            /// What it does, in a sentence.
            pub fn about(self) -> &'static str {
                match self {
                    $($(Lie::$lie => $about,)*)*
                }
            }

            /// The check that refuses it in a client that takes no short cuts; empty where nothing is to be refused.
            pub fn refused_by(self) -> &'static str {
                match self {
                    $($(Lie::$lie => $refused,)*)*
                }
            }

            /// Which kind it is.
            pub fn kind(self) -> Kind {
                match self {
                    $($(Lie::$lie => Kind::$kind,)*)*
                }
            }
        }
    };
}

lies! {
    Honest {
        None "none" "" "Passes every byte on and changes nothing: the honest twin of every lie.";
    }
    Relay {
        OwnCertificate "own-certificate" "session.tls_key"
            "Ends TLS under a certificate of its own and relays what it reads, session included, over its own TLS session.";
        SameCertificate "same-certificate" "connection.tls"
            "Shows the enclave's own certificate without having its key.";
        Reflection "reflection" "session.tls_key"
            "Asks the enclave for a session with the client's nonce on another connection and hands that evidence over.";
        Replay "replay" "session.tls_key"
            "Hands over the evidence of an earlier session.";
        SwapKeyset "swap-keyset" "evidence.report_data"
            "Puts its own TLS key into the keyset beside a genuine quote.";
        SameKey "same-key" "evidence.report_data"
            "Has the enclave's certificate and its very key (stolen), and relays between two TLS sessions. Only the exporter tells.";
        Tls12 "tls12" "connection.tls"
            "Speaks TLS 1.2 alone, whose sessions are not bound.";
        Resumption "resumption" "connection.tls"
            "Gives tickets on a proven connection, sends its client away with 421, and resumes the next connection whether or not the client asks for that.";
        Divert "divert" "snp.chip_id"
            "Passes every byte to another genuine enclave. Only a policy that pins the chip, the host data or the name refuses it.";
    }
    Stream {
        Alter "alter" "connection.tls" "Changes one bit of an answer.";
        Drop "drop" "connection.late" "Swallows an answer and whatever follows, and keeps the connection open.";
        Double "double" "connection.tls" "Sends the answer before once more, in front of the answer.";
        Delay "delay" "connection.late" "Holds an answer back (--delay-ms; an hour unless told).";
        Swap "swap" "connection.tls" "Gives two clients each other's answer.";
        Truncate "truncate" "connection.io" "Ends the connection in the middle of an answer.";
    }
    Host {
        ReceiptAlter "receipt-alter" "receipt.signature" "Changes one bit of a receipt's signature.";
        ReceiptSwap "receipt-swap" "answer.format" "Gives two clients each other's receipt.";
        ReceiptOfAnother "receipt-of-another" "answer.format"
            "Gives everybody after the first client the first client's receipt.";
        ReceiptWithhold "receipt-withhold" "guarantees.stated" "Says of every receipt that it is not ready yet.";
        ReceiptStale "receipt-stale" "guarantees.stated"
            "Gives the bundle as it was before the seal, and says that it is complete.";
        CollateralForeign "collateral-foreign" "snp.chain.signature" "Gives the collateral of another machine, made by nobody known.";
        CollateralNone "collateral-none" "snp.collateral" "Has no collateral.";
        StripRequire "strip-require" "guarantees.required"
            "Takes the guarantees asked for out of plain requests (for clients that let the host read along).";
    }
    Server {
        OtherPurpose "other-purpose" "evidence.purpose" "Shows evidence of its boot in place of the session's.";
        ClientRole "client-role" "evidence.report_data" "Binds the session in the role of the client.";
        ExpiredKeyset "expired-keyset" "keyset.lifetime" "Shows a keyset whose life is over.";
        WrongSpki "wrong-spki" "session.tls_key" "Has another TLS key in its quoted keyset than on the connection.";
        NoTlsKey "no-tls-key" "session.tls_key" "Has no TLS key in its quoted keyset.";
        StaleNonce "stale-nonce" "session.nonce" "Shows evidence over another nonce than the client's.";
        OtherExporter "other-exporter" "evidence.report_data" "Shows evidence over another connection's exporter.";
    }
    Key {
        OhttpOwnKeyset "ohttp-own-keyset" "evidence.report_data"
            "Shows a keyset that is all its own, key for sealed requests included, beside a genuine quote.";
        OhttpOwnKey "ohttp-own-key" "evidence.report_data"
            "Puts its own key for sealed requests into the genuine keyset.";
        OhttpOtherKem "ohttp-other-kem" "evidence.report_data" "Says that the keyset's key is for another KEM.";
        OhttpOtherAead "ohttp-other-aead" "evidence.report_data" "Says that the keyset's key is for another AEAD.";
        OhttpReplay "ohttp-replay" "session.nonce" "Gives everybody the same boot evidence, made earlier.";
        OhttpStaleNonce "ohttp-stale-nonce" "session.nonce" "Has boot evidence made over a nonce of its own.";
        OhttpRenonced "ohttp-renonced" "evidence.report_data"
            "Has boot evidence made over a nonce of its own, and writes the client's beside it.";
        OhttpSessionEvidence "ohttp-session-evidence" "evidence.purpose"
            "Hands over the evidence of a TLS session of its own, opened with the client's nonce.";
        OhttpRelabelled "ohttp-relabelled" "evidence.report_data"
            "The same, and says that it is boot evidence.";
        OhttpLaunchEvidence "ohttp-launch-evidence" "session.nonce"
            "Shows the evidence of its launch, which every bundle has, and which is over no nonce.";
        OhttpExpiredKeyset "ohttp-expired-keyset" "keyset.lifetime" "Shows a quoted keyset whose life is over.";
        OhttpNoKey "ohttp-no-key" "session.ohttp_key" "Has no key for sealed requests in its quoted keyset.";
        OhttpForeignSuite "ohttp-foreign-suite" "answer.format"
            "Has a key in its quoted keyset for a suite (AES-256-GCM) that the formats do not know.";
    }
    Sealed {
        OhttpRequestAlter "ohttp-request-alter" "ohttp.refused" "Changes one bit of a sealed request.";
        OhttpRequestCut "ohttp-request-cut" "ohttp.refused" "Hands over half of a sealed request.";
        OhttpRequestExtend "ohttp-request-extend" "ohttp.refused" "Puts a byte behind a sealed request.";
        OhttpRequestReplay "ohttp-request-replay" "ohttp.answer"
            "Hands over every sealed request twice, and gives the second answer.";
        OhttpForward "ohttp-forward" "ohttp.refused"
            "Hands sealed requests to another genuine enclave than the one that was proven.";
        OhttpKeysetHeader "ohttp-keyset-header" "ohttp.refused" "Says outside that a request is sealed for another keyset.";
        OhttpAnswerAlter "ohttp-answer-alter" "ohttp.answer" "Changes one bit of a sealed answer.";
        OhttpAnswerCut "ohttp-answer-cut" "ohttp.answer" "Gives half of a sealed answer, as if it were whole.";
        OhttpAnswerExtend "ohttp-answer-extend" "ohttp.answer" "Puts a byte behind a sealed answer.";
        OhttpAnswerReplay "ohttp-answer-replay" "ohttp.answer" "Gives everybody the first sealed answer once more.";
        OhttpAnswerSwap "ohttp-answer-swap" "ohttp.answer" "Gives two clients each other's sealed answer.";
        OhttpUnsealed "ohttp-unsealed" "ohttp.answer" "Answers itself, with 200 and JSON.";
        OhttpMislabelled "ohttp-mislabelled" "ohttp.answer" "Answers itself, with 200 and JSON, and says that it is a sealed answer.";
        Ohttp500 "ohttp-500" "ohttp.refused" "Hides every answer and says 500.";
        Ohttp503 "ohttp-503" "ohttp.refused" "Hides every answer and says 503.";
        Ohttp422 "ohttp-422" "ohttp.refused" "Hides every answer and says that the keyset changed. It did not.";
        Ohttp422Unproven "ohttp-422-unproven" "evidence.report_data"
            "Hides every answer, says that the keyset changed, and shows a key of its own for the next.";
        Ohttp422Endless "ohttp-422-endless" "ohttp.refused"
            "Hides every answer, says that the keyset changed, and sends the client from one genuine enclave to another and back.";
    }
}

impl Lie {
    /// Whether it takes a server whose keys the kit knows: such a lie is not told before a real one.
    pub fn needs_own_server(self) -> bool {
        self.kind() == Kind::Server
            || matches!(
                self,
                Lie::SameKey
                    | Lie::Resumption
                    | Lie::OhttpLaunchEvidence
                    | Lie::OhttpExpiredKeyset
                    | Lie::OhttpNoKey
                    | Lie::OhttpForeignSuite
            )
    }

    /// Whether it takes two genuine enclaves.
    pub fn needs_another(self) -> bool {
        matches!(self, Lie::Divert | Lie::OhttpForward | Lie::Ohttp422Endless)
    }

    /// Whether it is told to clients that seal their requests (Oblivious HTTP) alone. `none`, `divert`, and what is told of
    /// receipts and collateral concern them as much as others.
    pub fn is_about_sealing(self) -> bool {
        matches!(self.kind(), Kind::Key | Kind::Sealed)
    }

    /// Whether it is told before a session or a key is proven, and lets a client see that there is none: then nothing but the
    /// request for it may be sent. (`divert` is told to clients who do not mind; `resumption` on later connections;
    /// `ohttp-422-unproven` once another key was proven.)
    pub fn leaves_nothing_proven(self) -> bool {
        match self.kind() {
            Kind::Relay => !matches!(self, Lie::Divert | Lie::Resumption),
            Kind::Server | Kind::Key => true,
            _ => matches!(self, Lie::CollateralForeign | Lie::CollateralNone),
        }
    }
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Lie {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Lie::ALL.iter().find(|lie| lie.name() == text);
        found
            .copied()
            .ok_or_else(|| format!("no lie {text:?}; --list names them all"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for lie in Lie::ALL {
            assert_eq!(lie.name().parse(), Ok(*lie));
            assert!(lie.about().ends_with('.'), "{lie}");
            assert_eq!(lie.refused_by().is_empty(), *lie == Lie::None, "{lie}");
        }
        assert!("nonsense".parse::<Lie>().is_err());
    }
}
