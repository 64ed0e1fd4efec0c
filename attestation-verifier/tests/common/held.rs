//! What a caller holds of an exchange that the test kit minted.

use attestation_verifier::Comparison;
use attestation_verifier::exchange::{RequestBytes, ResponseBytes};
use touchstone_testkit::mint::Exchange;

/// Question and answer as they went over the wire; not the tensors in them.
pub fn held(exchange: &Exchange) -> Comparison {
    Comparison {
        request: Some(RequestBytes {
            method: exchange.method.clone(),
            target: exchange.target.clone(),
            header_length: exchange.request_header_length,
            body: exchange.request_body.clone(),
        }),
        response: Some(ResponseBytes {
            status: exchange.status,
            header_length: exchange.response_header_length,
            body: exchange.response_body.clone(),
        }),
        nonce: exchange.nonce.clone(),
        require: Some(exchange.require),
        expect_simulated: true,
        ..Comparison::default()
    }
}
