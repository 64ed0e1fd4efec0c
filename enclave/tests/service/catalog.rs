//! Catalogs: epochs, and the log.

use std::time::Duration;

use enclave::reload;

use super::{
    follower::Follower,
    onnx,
    source::Source,
    support::{INFER, Models, Running, body, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_an_epoch_and_a_log_entry() {
    let test = "every_change_is_an_epoch_and_a_log_entry";
    let Some((running, models)) = Running::with_models(test, &[], 0).await else {
        return;
    };
    let service = &running.service;
    let mut client = running.client().await;
    let wait = [("prefer", "wait=5")];
    assert_eq!(client.infer(&wait).await.status, 200);
    assert!(!service.reload().await.unwrap(), "nothing changed");

    models.write("negation", "1", &onnx::negation());
    let target = "/v2/models/negation/infer";
    assert_eq!(
        client
            .send(hyper::Method::POST, target, &wait, body([1.0; 4]))
            .await
            .status,
        404
    );
    assert!(service.reload().await.unwrap());
    assert_eq!(
        client
            .send(hyper::Method::POST, target, &wait, body([1.0; 4]))
            .await
            .status,
        200
    );

    // A reload that fails changes nothing.
    models.write("broken", "1", b"no model");
    assert!(service.reload().await.is_err());
    reload::now(service).await;
    assert_eq!(client.infer(&wait).await.status, 200);
    assert_eq!(
        client
            .send(hyper::Method::POST, target, &wait, body([1.0; 4]))
            .await
            .status,
        200
    );
    std::fs::remove_dir_all(models.folder.path().join("broken")).unwrap();
    std::fs::remove_dir_all(models.folder.path().join("negation")).unwrap();
    assert!(service.reload().await.unwrap());
    assert_eq!(
        client
            .send(hyper::Method::POST, target, &wait, body([1.0; 4]))
            .await
            .status,
        404
    );
    // The same name, another model.
    models.write("reciprocal", "1", &onnx::negation());
    assert!(service.reload().await.unwrap());
    let reply = client
        .send(hyper::Method::POST, INFER, &wait, body([2.0; 4]))
        .await;
    assert_eq!(reply.json()["outputs"][0]["data"][0], -2.0);

    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(5).await;
    let log = follower.log();
    let epochs: Vec<u64> = log
        .receipts
        .iter()
        .map(|receipt| receipt.claims.catalog.0)
        .collect();
    assert_eq!(epochs, [0, 1, 1, 1, 3]);
    let entries: Vec<u64> = log.catalogs.iter().map(|(index, _)| *index).collect();
    // boot, catalog 0, receipt, catalog 1, receipt ×3, catalog 2, catalog 3, receipt
    assert_eq!(entries, [1, 3, 7, 8]);
    assert_eq!(log.indexes, [2, 4, 5, 6, 9]);
    for (receipt, index) in log.receipts.iter().zip(&log.indexes) {
        let (epoch, digest) = receipt.claims.catalog;
        let (at, catalog) = log
            .catalogs
            .iter()
            .find(|(_, catalog)| catalog.epoch == epoch)
            .unwrap();
        assert!(
            at < index,
            "no receipt names a catalog that the log has later"
        );
        assert_eq!(catalog.digest(), digest);
        let pair = (
            receipt.claims.model_digest.unwrap(),
            receipt.claims.config_digest.unwrap(),
        );
        assert!(
            catalog
                .models
                .iter()
                .any(|model| (model.model_digest, model.config_digest) == pair)
        );
        // Old epochs stay to be had by digest.
        let object = running.get(&format!("/v1/objects/{digest}")).await;
        assert_eq!(touchstone_formats::Digest::of(&object.body), digest);
    }
    assert_eq!(
        log.receipts[0].claims.model_digest,
        log.receipts[2].claims.model_digest
    );
    assert_ne!(
        log.receipts[0].claims.model_digest,
        log.receipts[4].claims.model_digest
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_folder_is_read_again_when_it_has_changed() {
    let test = "a_watched_folder_is_read_again_when_it_has_changed";
    let Some(models) = Models::new(test) else {
        return;
    };
    let folder = format!("models.repository = {:?}", models.folder.path());
    let running = Running::start(&[&folder], Source::new(Duration::ZERO), models.loader()).await;
    tokio::spawn(reload::watch(
        running.service.clone(),
        Duration::from_millis(40),
    ));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let epoch = || {
        running
            .service
            .current()
            .unwrap()
            .catalog
            .load()
            .catalog
            .epoch
    };
    assert_eq!(epoch(), 0);
    models.write("negation", "1", &onnx::negation());
    until("epoch 1", async || epoch() == 1).await;
    assert_eq!(running.get("/v2/models/negation").await.status, 200);
    // What does not load is not tried again and again, and the next good state is taken.
    models.write("broken", "1", b"no model");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(epoch(), 1);
    std::fs::remove_dir_all(models.folder.path().join("broken")).unwrap();
    models.write("negation", "2", &onnx::reciprocal());
    until("epoch 2", async || epoch() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_keyset_starts_with_the_catalog_in_force() {
    let test = "a_new_keyset_starts_with_the_catalog_in_force";
    let Some((running, models)) = Running::with_models(test, &[], 0).await else {
        return;
    };
    models.write("negation", "1", &onnx::negation());
    assert!(running.service.reload().await.unwrap());
    running.service.rotate().await.unwrap();
    let epoch = running.service.current().unwrap();
    let catalog = epoch.catalog.load_full();
    assert_eq!(
        (catalog.catalog.epoch, catalog.catalog.keyset_digest),
        (0, epoch.digest)
    );
    assert_eq!(catalog.catalog.models.len(), 4);
    assert_eq!(
        running
            .client()
            .await
            .infer(&[("prefer", "wait=5")])
            .await
            .status,
        200
    );
    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(1).await;
}
