//! What a receipt says, against the bytes that went over the wire.

use hyper::Method;
use touchstone_formats::{
    commitment::{
        Datatype, Role, TensorRef, commit, request_digest, response_digest, tensors_digest,
    },
    control::PendingReceipt,
    digest::Digest,
    headers::{State, content_digest},
    receipt::Receipt,
};

use super::{
    onnx,
    support::{INFER, Models, Reply, Running, body},
};

/// The receipt of an answer, as the control listener gives it.
async fn receipt_of(running: &Running, reply: &Reply) -> Receipt {
    let id = hex::encode(reply.touchstone().id);
    let found = running
        .control_get(&format!("/control/v1/receipts/{id}"))
        .await;
    let pending: PendingReceipt = serde_json::from_slice(&found.body).unwrap();
    assert_eq!(pending.keyset_digest, reply.touchstone().keyset);
    let receipt = Receipt::parse(&pending.receipt.0).unwrap();
    assert_eq!(receipt.id(), id);
    receipt
}

fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn tensor(name: &str, values: &[f32]) -> Digest {
    let data = floats(values);
    let tensor = TensorRef {
        name,
        datatype: Datatype::Fp32,
        shape: &[1, 4],
        data: &data,
    };
    tensors_digest(&[tensor]).unwrap()
}

/// Checks the commitments of a receipt against what was sent and what came back.
fn check_exchange(receipt: &Receipt, reply: &Reply, request: Digest) {
    let (claims, salts) = (&receipt.claims, reply.openings());
    let length = reply.headers.get("inference-header-content-length");
    let length = length.map(|value| value.to_str().unwrap().parse().unwrap());
    let response = response_digest(reply.status, length, &reply.body);
    assert_eq!(
        claims.request,
        commit(Role::Request, &salts.request.unwrap(), &request)
    );
    assert_eq!(
        claims.response,
        commit(Role::Response, &salts.response.unwrap(), &response)
    );
    assert_eq!(reply.header("content-digest"), content_digest(&reply.body));
    let id = hex::encode(claims.cti);
    assert_eq!(
        reply.header("link"),
        format!("</v1/receipts/{id}>; rel=\"https://touchstone.invalid/rel/receipt\"")
    );
    let exposed = reply.header("access-control-expose-headers");
    for name in [
        "Touchstone",
        "Touchstone-Openings",
        "Link",
        "Content-Digest",
    ] {
        assert!(
            exposed.split(", ").any(|exposed| exposed == name),
            "{exposed}"
        );
    }
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    assert_eq!(claims.keyset_digest, reply.touchstone().keyset);
    assert_eq!(claims.guarantees, reply.touchstone().require);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_what_its_receipt_says() {
    let test = "an_answer_is_what_its_receipt_says";
    let Some((running, models)) = Running::with_models(test, &[], 0).await else {
        return;
    };
    let mut client = running.client().await;
    let json = body([1.0, 2.0, 4.0, 8.0]);
    let header = ("touchstone", "require=(signed), nonce=:AAECAwQFBgc=:");
    let reply = client
        .send(
            Method::POST,
            INFER,
            &[header, ("content-type", "application/json")],
            json.clone(),
        )
        .await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json()["outputs"][0]["data"],
        serde_json::json!([1.0, 0.5, 0.25, 0.125])
    );
    assert_eq!(reply.header("content-type"), "application/json");
    let receipt = receipt_of(&running, &reply).await;
    check_exchange(
        &receipt,
        &reply,
        request_digest("POST", INFER, None, json.as_bytes()),
    );
    let (claims, salts) = (&receipt.claims, reply.openings());
    let inputs = commit(
        Role::Inputs,
        &salts.inputs.unwrap(),
        &tensor("X", &[1.0, 2.0, 4.0, 8.0]),
    );
    let outputs = commit(
        Role::Outputs,
        &salts.outputs.unwrap(),
        &tensor("Y", &[1.0, 0.5, 0.25, 0.125]),
    );
    assert_eq!(
        (claims.inputs, claims.outputs),
        (Some(inputs), Some(outputs))
    );
    assert_eq!(claims.status, 0);
    assert_eq!(claims.nonce.as_deref(), Some(&[0, 1, 2, 3, 4, 5, 6, 7][..]));
    assert_eq!(claims.iss, "enclave.test");
    let model = models
        .repository
        .load(None)
        .unwrap()
        .find("reciprocal", None)
        .unwrap()
        .clone();
    assert_eq!(claims.model_digest, Some(model.model_digest));
    assert_eq!(claims.config_digest, Some(model.config_digest));
    let all = [salts.request, salts.response, salts.inputs, salts.outputs];
    for (at, salt) in all.iter().enumerate() {
        assert!(
            !all[..at].contains(salt),
            "each commitment has a salt of its own"
        );
        assert_ne!(salt.unwrap(), claims.cti);
    }

    // The same in the binary extension: other bytes on the wire, the same tensors.
    let head = r#"{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}],"parameters":{"binary_data_output":true}}"#;
    let binary = [head.as_bytes(), &floats(&[1.0, 2.0, 4.0, 8.0])].concat();
    let length = head.len().to_string();
    let headers = [
        ("inference-header-content-length", length.as_str()),
        ("content-type", "application/octet-stream"),
        ("touchstone", "require=(signed)"),
    ];
    let reply = client
        .send(Method::POST, INFER, &headers, binary.clone())
        .await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "application/octet-stream");
    assert!(reply.body.ends_with(&floats(&[1.0, 0.5, 0.25, 0.125])));
    let receipt = receipt_of(&running, &reply).await;
    check_exchange(
        &receipt,
        &reply,
        request_digest("POST", INFER, Some(head.len() as u64), &binary),
    );
    let salts = reply.openings();
    let inputs = commit(
        Role::Inputs,
        &salts.inputs.unwrap(),
        &tensor("X", &[1.0, 2.0, 4.0, 8.0]),
    );
    let outputs = commit(
        Role::Outputs,
        &salts.outputs.unwrap(),
        &tensor("Y", &[1.0, 0.5, 0.25, 0.125]),
    );
    assert_eq!(
        (receipt.claims.inputs, receipt.claims.outputs),
        (Some(inputs), Some(outputs))
    );
    assert_eq!(receipt.claims.nonce, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_in_the_target_is_the_version_that_answers() {
    let test = "a_version_in_the_target_is_the_version_that_answers";
    let Some(models) = Models::new(test) else {
        return;
    };
    models.write("reciprocal", "2", &onnx::negation());
    let source = super::source::Source::new(std::time::Duration::ZERO);
    let running = Running::start(&[], source, models.loader()).await;
    let mut client = running.client().await;
    let mut digests = Vec::new();
    for (target, first) in [
        ("/v2/models/reciprocal/versions/1/infer", 0.5),
        ("/v2/models/reciprocal/versions/2/infer", -2.0),
        // Without a version the highest.
        ("/v2/models/reciprocal/infer", -2.0),
    ] {
        let reply = client
            .send(Method::POST, target, &[], body([2.0, 1.0, 1.0, 1.0]))
            .await;
        assert_eq!(reply.json()["outputs"][0]["data"][0], first, "{target}");
        let receipt = receipt_of(&running, &reply).await;
        check_exchange(
            &receipt,
            &reply,
            request_digest("POST", target, None, body([2.0, 1.0, 1.0, 1.0]).as_bytes()),
        );
        digests.push(receipt.claims.model_digest.unwrap());
    }
    assert_ne!(digests[0], digests[1]);
    assert_eq!(digests[1], digests[2]);
}

/// Asks; expects a refusal with this status that has a receipt; gives its detail.
async fn refused(running: &Running, target: &str, request: &str, status: u16) -> String {
    let mut client = running.client().await;
    let reply = client
        .send(
            Method::POST,
            target,
            &[("prefer", "wait=5")],
            request.to_owned(),
        )
        .await;
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.touchstone().state, State::Sealed);
    let receipt = receipt_of(running, &reply).await;
    check_exchange(
        &receipt,
        &reply,
        request_digest("POST", target, None, request.as_bytes()),
    );
    let claims = &receipt.claims;
    assert_eq!(claims.status, status);
    assert_eq!((claims.inputs, claims.outputs), (None, None));
    assert_eq!(
        (reply.openings().inputs, reply.openings().outputs),
        (None, None)
    );
    assert!(claims.model_digest.is_some() && claims.config_digest.is_some());
    reply.problem()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_admission_has_a_receipt() {
    let test = "a_refusal_after_admission_has_a_receipt";
    let Some((running, _models)) = Running::with_models(test, &[], 0).await else {
        return;
    };
    // A shape that the model does not take.
    let wrong = r#"{"inputs":[{"name":"X","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}"#;
    let detail = refused(&running, INFER, wrong, 400).await;
    assert!(detail.contains('X'), "{detail}");
    // An input that it does not know.
    let wrong = r#"{"inputs":[{"name":"Z","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}"#;
    let detail = refused(&running, INFER, wrong, 400).await;
    assert!(detail.contains('Z') || detail.contains('X'), "{detail}");
    // Infinity, which JSON cannot carry.
    let detail = refused(&running, INFER, &body([0.0, 1.0, 1.0, 1.0]), 422).await;
    assert!(detail.contains("finite"), "{detail}");
    // The twin that goes through: the same request with no zero in it.
    let mut client = running.client().await;
    assert_eq!(
        client
            .send(Method::POST, INFER, &[], body([0.5, 1.0, 1.0, 1.0]))
            .await
            .status,
        200
    );
    // And the same zero where the answer is binary.
    let request = body([0.0, 1.0, 1.0, 1.0]);
    let binary = format!(
        r#"{},"parameters":{{"binary_data_output":true}}}}"#,
        request.strip_suffix('}').unwrap()
    );
    assert_eq!(
        client.send(Method::POST, INFER, &[], binary).await.status,
        200
    );

    // A model that fails while it runs.
    let three = |n: usize| {
        let data = vec![1.0_f32; n];
        format!(r#"{{"inputs":[{{"name":"X","datatype":"FP32","shape":[{n}],"data":{data:?}}}]}}"#)
    };
    let target = "/v2/models/three/infer";
    assert_eq!(
        client
            .send(Method::POST, target, &[], three(3))
            .await
            .status,
        200
    );
    let reply = client.send(Method::POST, target, &[], three(5)).await;
    let status = reply.status;
    assert!(status == 400 || status == 500, "{reply:?}");
    refused(&running, target, &three(5), status).await;
    // It goes on after that.
    assert_eq!(
        client
            .send(Method::POST, target, &[], three(3))
            .await
            .status,
        200
    );

    let mut follower = super::follower::Follower::new(running.control).await;
    follower.until_sealed(9).await;
    let statuses: Vec<u16> = follower
        .log()
        .receipts
        .iter()
        .map(|receipt| receipt.claims.status)
        .collect();
    assert_eq!(statuses, [400, 400, 422, 0, 0, 0, status, status, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_headers_find_the_receipts_id_in_the_body() {
    let test = "clients_without_headers_find_the_receipts_id_in_the_body";
    let Some((running, _models)) = Running::with_models(test, &[], 0).await else {
        return;
    };
    let mut client = running.client().await;
    let plain = client.infer(&[]).await;
    assert!(plain.json()["parameters"]["touchstone_id"].is_null());
    let request = body([1.0; 4]);
    let request = format!(
        r#"{},"parameters":{{"touchstone_require":"logged quoted signed","touchstone_nonce":"000102030405060708"}}}}"#,
        request.strip_suffix('}').unwrap()
    );
    let reply = client
        .send(
            Method::POST,
            INFER,
            &[("prefer", "wait=5")],
            request.clone(),
        )
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(
        reply.json()["parameters"]["touchstone_id"],
        hex::encode(reply.touchstone().id)
    );
    assert_eq!(
        reply.touchstone().require.to_string(),
        "logged quoted signed"
    );
    let receipt = receipt_of(&running, &reply).await;
    check_exchange(
        &receipt,
        &reply,
        request_digest("POST", INFER, None, request.as_bytes()),
    );
    assert_eq!(
        receipt.claims.nonce.as_deref(),
        Some(&[0, 1, 2, 3, 4, 5, 6, 7, 8][..])
    );
}
