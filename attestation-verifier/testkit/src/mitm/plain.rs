//! Lies in what a host says and relays without TLS: receipts, collateral, requests of clients that let it read along.

use std::io;
use std::sync::{Mutex, PoisonError};

use tokio::io::AsyncWriteExt;
use touchstone_formats::headers::TouchstoneRequest;
use touchstone_formats::{Bundle, Guarantee, GuaranteeSet, Purpose};

use super::message::Message;
use super::record::Recorder;
use super::server::collateral_file;
use super::stream::Crossing;
use super::{Lie, Stream, Upstream, give, wants_close};
use crate::amd::{Pki, PkiKeys, Product};
use crate::machine::{Endorsement, Machine};
use crate::snp::Report;

const RECEIPTS: &str = "/v1/receipts/";

/// What a lying host keeps from one request to the next.
#[derive(Debug)]
pub(super) struct Host {
    lie: Lie,
    crossing: Crossing<Message>,
    /// The first complete bundle that it ever gave away, and for which target.
    first: Mutex<Option<(String, Message)>>,
    /// Collateral of a machine that nobody knows.
    foreign: Vec<u8>,
}

impl Host {
    pub(super) fn new(lie: Lie) -> Self {
        let foreign = match lie {
            Lie::CollateralForeign => {
                let (product, at) = (Product::Genoa, super::server::now());
                let pki = Pki::with_keys(product, at, PkiKeys::shared("nobody known"));
                let report = Report::new(product, 5);
                collateral_file(&Machine::under(pki, report, Endorsement::Vcek))
            }
            _ => Vec::new(),
        };
        Self {
            lie,
            crossing: Crossing::new(),
            first: Mutex::new(None),
            foreign,
        }
    }

    /// Relays one connection's requests, one by one.
    pub(super) async fn relay(
        &self,
        mut client: Stream,
        upstream: &Upstream,
        recorder: &Recorder,
    ) -> io::Result<()> {
        let mut rest = Vec::new();
        while let Some(mut request) = Message::read(&mut client, &mut rest).await? {
            let last = wants_close(&request);
            recorder.note(&request.start);
            if self.lie == Lie::StripRequire {
                strip(&mut request, recorder);
            }
            let mut answer = upstream.exchange(&request, Some(recorder.clone())).await?;
            let (method, target) = request.request();
            if method == "GET" {
                answer = self.lie_about(target, answer, recorder).await;
            }
            give(&mut client, answer, last).await?;
            if last {
                break;
            }
        }
        client.shutdown().await
    }

    async fn lie_about(&self, target: &str, answer: Message, recorder: &Recorder) -> Message {
        if target == "/v1/collateral" {
            return match self.lie {
                Lie::CollateralForeign => {
                    recorder.lie("gave the collateral of another machine");
                    Message::answer(200, "application/json", self.foreign.clone())
                }
                Lie::CollateralNone => {
                    recorder.lie("gave no collateral");
                    Message::problem(404, "there is no collateral")
                }
                _ => answer,
            };
        }
        if !target.starts_with(RECEIPTS) || answer.status() != 200 {
            return answer;
        }
        match self.lie {
            Lie::ReceiptSwap => {
                recorder.lie("waits for another client's receipt");
                self.crossing.swap(answer.clone()).await.unwrap_or(answer)
            }
            Lie::ReceiptOfAnother => {
                let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
                let (whose, given) = first.get_or_insert((target.to_owned(), answer));
                if whose != target {
                    recorder.lie("gave the first client's receipt");
                }
                given.clone()
            }
            Lie::ReceiptAlter => edited(answer, recorder, |bundle| {
                // The signature is what COSE_Sign1 ends with.
                if let Some(last) = bundle.receipt.last_mut() {
                    *last ^= 1;
                }
            }),
            Lie::ReceiptStale => edited(answer, recorder, unseal),
            Lie::ReceiptWithhold => {
                let mut answer = edited(answer, recorder, unseal);
                answer.start = "HTTP/1.1 202 -".into();
                answer.set("retry-after", "1");
                answer
            }
            _ => answer,
        }
    }
}

/// The bundle in an answer, changed.
fn edited(mut answer: Message, recorder: &Recorder, change: impl FnOnce(&mut Bundle)) -> Message {
    match Bundle::parse(&answer.body) {
        Ok(mut bundle) => {
            change(&mut bundle);
            recorder.lie("changed a bundle");
            answer.body = bundle.to_file();
        }
        Err(error) => recorder.note(format!("no bundle to lie in: {error}")),
    }
    answer
}

/// As it was before the seal.
fn unseal(bundle: &mut Bundle) {
    bundle.proof = None;
    bundle
        .evidence
        .retain(|evidence| evidence.purpose != Some(Purpose::Checkpoint));
}

/// Asks for `signed` in place of whatever was asked for.
fn strip(request: &mut Message, recorder: &Recorder) {
    let asked = request.header("touchstone").map(TouchstoneRequest::parse);
    if let Some(Ok(mut asked)) = asked {
        asked.require = GuaranteeSet::close([Guarantee::Signed]).ok();
        request.set("touchstone", &asked.to_string());
        recorder.lie("asked for less than the client did");
    }
}
