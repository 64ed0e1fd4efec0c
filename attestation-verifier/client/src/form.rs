//! The form of an answer (formats.md §4 and §9): what its headers say, and that none of them changes what its
//! body means. Nothing here is believed.

use attestation_verifier::exchange::{OwnedTensor, tensors as tensors_digest};
use touchstone_formats::commitment::{request_digest, response_digest};
use touchstone_formats::headers::{OpeningSalts, TouchstoneResponse};
use touchstone_formats::{Digest, Opening, Openings, Salt};

use crate::http::Answer;
use crate::oip;
use crate::question::Question;

/// What the form of an answer says.
pub(crate) struct Form {
    pub header: TouchstoneResponse,
    pub header_length: Option<u64>,
    salts: OpeningSalts,
    /// None of a refusal.
    pub outputs: Option<Vec<OwnedTensor>>,
}

impl Form {
    /// None: a refusal without a receipt. The error says what is wrong.
    pub fn of(answer: &Answer) -> Result<Option<Form>, String> {
        let header = |name| answer.header(name).map_err(|e| e.to_string());
        let header_length = content_length(header("inference-header-content-length")?)?;
        let answered = answer.is_success();
        if answered {
            framing(
                header("content-encoding")?,
                header("content-type")?,
                header_length,
            )?;
        }
        let Some(receipt) = header("touchstone")? else {
            return match answered {
                true => {
                    Err("the answer has no Touchstone header: this server gives no receipts".into())
                }
                false => Ok(None),
            };
        };
        let salts = header("touchstone-openings")?.map(OpeningSalts::parse);
        let outputs = answered.then(|| oip::outputs(&answer.body, header_length));
        Ok(Some(Form {
            header: TouchstoneResponse::parse(receipt)
                .map_err(|e| format!("header Touchstone: {e}"))?,
            header_length,
            salts: salts
                .transpose()
                .map_err(|e| format!("header Touchstone-Openings: {e}"))?
                .unwrap_or_default(),
            outputs: outputs.transpose().map_err(|e| e.to_string())?,
        }))
    }

    /// The salts that came with the answer, and digests of the caller's own bytes.
    pub fn openings(&self, question: &Question, answer: &Answer) -> Openings {
        let open = |salt: Option<Salt>, digest: Digest| salt.map(|salt| Opening { salt, digest });
        // Tensors that have no digest cannot be compared, and the judgement says so.
        let tensors = |salt: Option<Salt>, tensors: Option<&Vec<OwnedTensor>>| {
            let digest = tensors_digest(tensors?).ok()?;
            open(salt, digest)
        };
        let request = request_digest(
            Question::METHOD,
            question.target(),
            question.header_length(),
            question.body(),
        );
        let response = response_digest(answer.status, self.header_length, &answer.body);
        let answered = self.outputs.is_some();
        Openings {
            request: open(self.salts.request, request),
            response: open(self.salts.response, response),
            inputs: tensors(
                self.salts.inputs.filter(|_| answered),
                question.inputs.as_ref(),
            ),
            outputs: tensors(self.salts.outputs, self.outputs.as_ref()),
        }
    }
}

fn content_length(header: Option<&str>) -> Result<Option<u64>, String> {
    let Some(text) = header else {
        return Ok(None);
    };
    // One way to write it, since the digest is over the number's text.
    match text.parse::<u64>() {
        Ok(number) if number.to_string() == text => Ok(Some(number)),
        _ => Err(format!(
            "header Inference-Header-Content-Length: {text:?} is not canonical"
        )),
    }
}

/// No header outside the response digest may change what the body means (formats.md §4): an answer
/// that needs one to be read is not the answer that was signed.
fn framing(
    encoding: Option<&str>,
    kind: Option<&str>,
    header_length: Option<u64>,
) -> Result<(), String> {
    if let Some(encoding) = encoding
        && !encoding.eq_ignore_ascii_case("identity")
    {
        return Err(format!(
            "header Content-Encoding: expected none, found {encoding:?}"
        ));
    }
    let expected = oip::content_type(header_length);
    let found = kind.unwrap_or_default();
    let bare = found.split(';').next().unwrap_or_default().trim();
    match bare.eq_ignore_ascii_case(expected) {
        true => Ok(()),
        false => Err(format!(
            "header Content-Type: expected {expected}, found {found:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lengths_are_canonical_or_refused() {
        assert_eq!(content_length(Some("167")), Ok(Some(167)));
        assert_eq!(content_length(None), Ok(None));
        for bad in ["+167", "0167", "", "1e2", "-1", "18446744073709551616"] {
            assert!(content_length(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_header_changes_what_an_answer_means() {
        let (json, binary) = ("application/json", "application/octet-stream");
        assert_eq!(
            framing(None, Some("Application/JSON; charset=utf-8"), None),
            Ok(())
        );
        assert_eq!(framing(Some("identity"), Some(binary), Some(1)), Ok(()));
        for (encoding, kind, length) in [
            (Some("gzip"), Some(json), None),
            (None, Some(binary), None),
            (None, Some(json), Some(1)),
            (None, None, None),
        ] {
            assert!(
                framing(encoding, kind, length).is_err(),
                "{encoding:?} {kind:?}"
            );
        }
    }
}
