//! Every rule about headers and parameters (formats.md §4 and §9). Each refusal has a twin that passes.

use hyper::Method;

use super::support::{INFER, Reply, Running, body};

/// A request with these headers; gives its status and, if refused, the problem.
async fn ask(running: &Running, headers: &[(&str, &str)], request: &str) -> (u16, String) {
    let reply = running
        .client()
        .await
        .send(Method::POST, INFER, headers, request.to_owned())
        .await;
    let problem = if reply.status == 200 {
        String::new()
    } else {
        reply.problem()
    };
    if reply.status != 200 {
        // Refused before admission: no receipt.
        assert!(!reply.headers.contains_key("touchstone"), "{reply:?}");
    }
    (reply.status, problem)
}

async fn accepted(running: &Running, headers: &[(&str, &str)]) {
    let (status, problem) = ask(running, headers, &body([1.0; 4])).await;
    assert_eq!(status, 200, "{headers:?}: {problem}");
}

async fn refused(running: &Running, status: u16, word: &str, headers: &[(&str, &str)]) {
    let (found, problem) = ask(running, headers, &body([1.0; 4])).await;
    assert_eq!(found, status, "{headers:?}: {problem}");
    assert!(
        problem.to_lowercase().contains(&word.to_lowercase()),
        "{headers:?}: {problem:?} without {word:?}"
    );
}

fn with_parameters(parameters: &str) -> String {
    let request = body([1.0; 4]);
    format!(
        r#"{},"parameters":{{{parameters}}}}}"#,
        request.strip_suffix('}').unwrap()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_may_ask_for() {
    let Some((running, _models)) = Running::with_models("what_a_request_may_ask_for", &[], 0).await
    else {
        return;
    };
    let running = &running;
    for value in [
        "require=(logged signed)",
        "require=(signed)",
        "require=(logged quoted signed)",
        "nonce=:AAECAwQFBgc=:",
        "nonce=:AAECAwQFBgc=:, require=(signed)",
    ] {
        accepted(running, &[("touchstone", value)]).await;
    }
    accepted(running, &[]).await;
    for (value, status) in [
        ("require=(recomputed signed)", 422),
        ("require=(proven)", 422),
        ("require=(certain)", 422),
        // A set on the wire is sorted and closed.
        ("require=(signed logged)", 400),
        ("require=(logged)", 400),
        ("require=(quoted)", 400),
        ("require=()", 400),
        // A set on the wire is closed, sorted and without repetition.
        ("require=(logged)", 400),
        ("require=(quoted)", 400),
        ("require=(signed logged)", 400),
        ("require=(signed signed)", 400),
        ("require=(signed), require=(logged)", 400),
        (
            "require=(signed), nonce=:AAECAwQFBgc=:, nonce=:AAECAwQFBgc=:",
            400,
        ),
        ("require=signed", 400),
        ("demand=(signed)", 400),
        ("nonce=:AAECAwQFBg==:", 400),
        ("nonce=\"0001020304050607\"", 400),
        ("nonce=:!:", 400),
        ("require=(signed", 400),
    ] {
        refused(running, status, "", &[("touchstone", value)]).await;
    }
    let sixty_four = format!("nonce=:{}AA==:", "AAAA".repeat(21));
    let sixty_five = format!("nonce=:{}AAA=:", "AAAA".repeat(21));
    accepted(running, &[("touchstone", &sixty_four)]).await;
    refused(running, 400, "nonce", &[("touchstone", &sixty_five)]).await;
    let twice = [
        ("touchstone", "require=(signed)"),
        ("touchstone", "nonce=:AAECAwQFBgc=:"),
    ];
    refused(running, 400, "more than once", &twice).await;
    let undeliverable = [("touchstone", "require=(recomputed)")];
    refused(running, 422, "recomputed", &undeliverable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_and_headers_must_agree() {
    let test = "parameters_and_headers_must_agree";
    let Some((running, _models)) = Running::with_models(test, &[], 0).await else {
        return;
    };
    let require = r#""touchstone_require":"logged signed""#;
    let nonce = r#""touchstone_nonce":"0001020304050607""#;
    let header = |value: &'static str| vec![("touchstone", value)];
    for (headers, parameters, status) in [
        (vec![], require, 200),
        (vec![], nonce, 200),
        (header("require=(logged signed)"), require, 200),
        (header("require=(signed)"), require, 400),
        (header("nonce=:AAECAwQFBgc=:"), nonce, 200),
        (header("nonce=:AAECAwQFBgg=:"), nonce, 400),
        (header("nonce=:AAECAwQFBgg=:"), require, 200),
        (vec![], r#""touchstone_require":"proven""#, 422),
        (vec![], r#""touchstone_require":"certain""#, 422),
        (vec![], r#""touchstone_require":"""#, 422),
        (vec![], r#""touchstone_require":"signed signed""#, 400),
        (vec![], r#""touchstone_require":"logged""#, 400),
        (vec![], r#""touchstone_require":"signed logged""#, 400),
        (vec![], r#""touchstone_require":"signed logged""#, 400),
        (vec![], r#""touchstone_require":"logged""#, 400),
        (vec![], r#""touchstone_require":["signed"]"#, 400),
        (vec![], r#""touchstone_nonce":"00010203040506""#, 400),
        (vec![], r#""touchstone_nonce":"000102030405060G""#, 400),
        (vec![], r#""touchstone_nonce":"000102030405060A""#, 400),
        (vec![], r#""touchstone_nonce":7"#, 400),
    ] {
        let (found, problem) = ask(&running, &headers, &with_parameters(parameters)).await;
        // The empty word is no guarantee's name: either reading of it is a refusal.
        let same = found == status || (parameters.ends_with(r#":"""#) && found == 400);
        assert!(same, "{headers:?} {parameters}: {found} {problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn framing() {
    let Some((running, _models)) = Running::with_models("framing", &[], 0).await else {
        return;
    };
    let running = &running;
    accepted(running, &[("content-type", "application/json")]).await;
    accepted(running, &[("content-encoding", "identity")]).await;
    refused(
        running,
        415,
        "Content-Encoding",
        &[("content-encoding", "gzip")],
    )
    .await;
    refused(
        running,
        415,
        "application/json",
        &[("content-type", "text/plain")],
    )
    .await;
    refused(
        running,
        415,
        "application/json",
        &[("content-type", "application/octet-stream")],
    )
    .await;
    let length = body([1.0; 4]).len().to_string();
    accepted(running, &[("inference-header-content-length", &length)]).await;
    let twice = [
        ("inference-header-content-length", length.as_str()),
        ("inference-header-content-length", length.as_str()),
    ];
    refused(running, 400, "more than once", &twice).await;
    let padded = format!("0{length}");
    refused(
        running,
        400,
        "leading zero",
        &[("inference-header-content-length", &padded)],
    )
    .await;
    refused(
        running,
        400,
        "",
        &[("inference-header-content-length", "999999")],
    )
    .await;
    let json = [
        ("inference-header-content-length", length.as_str()),
        ("content-type", "application/json"),
    ];
    refused(running, 415, "application/octet-stream", &json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets() {
    let Some((running, _models)) = Running::with_models("targets", &[], 0).await else {
        return;
    };
    let mut client = running.client().await;
    for (target, status) in [
        (INFER.to_owned(), 200),
        (format!("{INFER}?x=1"), 400),
        (format!("{INFER}?"), 400),
        ("/v2/models/%72eciprocal/infer".to_owned(), 400),
        ("/v2/models/reciprocal/versions/2/infer".to_owned(), 404),
        ("/v2/models/unknown/infer".to_owned(), 404),
        ("/v2/models/reciprocal/explain".to_owned(), 404),
    ] {
        let reply = client
            .send(Method::POST, &target, &[], body([1.0; 4]))
            .await;
        assert_eq!(reply.status, status, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_the_protocol() {
    let Some((running, _models)) = Running::with_models("documents_of_the_protocol", &[], 0).await
    else {
        return;
    };
    let mut client = running.client().await;
    let server = client.get("/v2").await;
    assert_eq!(
        (server.status, &server.json()["extensions"]),
        (200, &serde_json::json!(["binary_tensor_data"]))
    );
    assert_eq!(client.get("/v2/health/live").await.status, 200);
    assert_eq!(client.get("/v2/health/ready").await.json()["ready"], true);
    let model = client.get("/v2/models/reciprocal").await;
    assert_eq!(
        (model.status, &model.json()["name"]),
        (200, &"reciprocal".into())
    );
    assert_eq!(
        client.get("/v2/models/reciprocal/versions/1").await.json()["inputs"][0]["name"],
        "X"
    );
    assert_eq!(
        client
            .get("/v2/models/reciprocal/versions/1/ready")
            .await
            .json()["ready"],
        true
    );
    let unknown = client.get("/v2/models/unknown/ready").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.problem().contains("unknown"));

    let keyset = client.get("/v1/keyset").await;
    let bytes = keyset.body.strip_suffix(b"\n").unwrap();
    let parsed = touchstone_formats::Keyset::parse(bytes).unwrap();
    let receipts = client
        .get("/v1/receipts/00112233445566778899aabbccddeeff")
        .await;
    assert_eq!(receipts.status, 404);
    assert!(
        receipts.problem().contains("host"),
        "{}",
        receipts.problem()
    );
    // Everything that the keyset and the catalog name can be had by its digest.
    let current = running.service.current().unwrap();
    let catalog = current.catalog.load_full();
    let mut digests = vec![
        parsed.digest(),
        parsed.software,
        parsed.config,
        catalog.digest,
    ];
    digests.extend(
        catalog
            .catalog
            .models
            .iter()
            .map(|model| model.config_digest),
    );
    for digest in digests {
        let object = client.get(&format!("/v1/objects/{digest}")).await;
        assert_eq!(object.status, 200, "{digest}");
        assert_eq!(touchstone_formats::Digest::of(&object.body), digest);
        touchstone_formats::jcs::check(&object.body).unwrap();
    }
    let none = touchstone_formats::Digest::of(b"nothing");
    assert_eq!(client.get(&format!("/v1/objects/{none}")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_preflight() {
    let Some((running, _models)) = Running::with_models("methods_and_preflight", &[], 0).await
    else {
        return;
    };
    let mut client = running.client().await;
    let preflight = client
        .send(Method::OPTIONS, INFER, &[("origin", "https://example")], "")
        .await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    assert!(
        preflight
            .header("access-control-allow-methods")
            .contains("POST")
    );
    for name in [
        "Touchstone",
        "Prefer",
        "Content-Type",
        "Inference-Header-Content-Length",
    ] {
        assert!(
            preflight
                .header("access-control-allow-headers")
                .contains(name)
        );
    }
    let wrong = client.send(Method::DELETE, INFER, &[], "").await;
    assert_eq!(
        (wrong.status, wrong.header("allow")),
        (405, "POST, OPTIONS")
    );
    let wrong = client.send(Method::POST, "/v2", &[], "").await;
    assert_eq!(
        (wrong.status, wrong.header("allow")),
        (405, "GET, HEAD, OPTIONS")
    );
    let head: Reply = client.send(Method::HEAD, "/v2", &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}
