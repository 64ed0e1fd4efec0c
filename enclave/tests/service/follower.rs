//! Follows the control listener as a host would, and checks everything that it is given against the
//! keysets: signatures, report data, the tree, the sequence.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use touchstone_formats::{
    catalog::Catalog,
    checkpoint::SignedNote,
    control::{Ack, Batch, Batches, Keysets, Status},
    digest::Digest,
    evidence::quote_report_data,
    keyset::Keyset,
    merkle::{EntryKind, RightEdge, entry, leaf_hash, verify_inclusion},
    receipt::Receipt,
    report_data::{Purpose, bind_boot, bind_checkpoint, bind_receipt, report_data},
    text::Hex16,
};

use super::support::Client;

/// One keyset's log as it was sealed.
#[derive(Default)]
pub struct Log {
    edge: RightEdge,
    /// In the order of the log, which must be that of the sequence.
    pub receipts: Vec<Receipt>,
    /// Index of each receipt's entry.
    pub indexes: Vec<u64>,
    pub catalogs: Vec<(u64, Catalog)>,
    pub seals: usize,
    pub closed: bool,
}

/// What a host knows.
pub struct Follower {
    control: SocketAddr,
    pub boot: Hex16,
    pub keysets: Vec<Keyset>,
    pub logs: BTreeMap<Digest, Log>,
    /// Receipts that have a quote of their own, by id.
    pub quotes: BTreeMap<[u8; 16], touchstone_formats::Evidence>,
    pub through: u64,
}

impl Follower {
    pub async fn new(control: SocketAddr) -> Self {
        let status = status(control).await;
        let mut follower = Self {
            control,
            boot: status.boot,
            keysets: Vec::new(),
            logs: BTreeMap::new(),
            quotes: BTreeMap::new(),
            through: 0,
        };
        follower.keysets().await;
        follower
    }

    /// Fetches keysets; checks their boot evidence.
    pub async fn keysets(&mut self) {
        let reply = Client::new(self.control)
            .await
            .get("/control/v1/keysets")
            .await;
        let keysets: Keysets = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(keysets.boot, self.boot);
        for known in keysets.keysets {
            let digest = known.keyset.digest();
            assert_eq!(known.evidence.purpose, Some(Purpose::Boot));
            assert_eq!(known.evidence.collateral, None);
            let expected = report_data(Purpose::Boot, digest, None, bind_boot());
            assert_eq!(
                quote_report_data(known.evidence.tee, &known.evidence.quote),
                Some(expected)
            );
            assert!(known.keyset.log.name_is_origin());
            if !self.keysets.contains(&known.keyset) {
                self.keysets.push(known.keyset);
            }
        }
    }

    /// Fetches the batches that are there after waiting for one; gives how many there were. Acknowledges
    /// nothing.
    pub async fn fetch(&mut self, wait: u64) -> usize {
        let path = format!("/control/v1/batches?after={}&wait={wait}", self.through);
        let reply = Client::new(self.control).await.get(&path).await;
        assert_eq!(reply.status, 200);
        let batches: Batches = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(batches.boot, self.boot);
        let count = batches.batches.len();
        for batch in batches.batches {
            assert_eq!(batch.number, self.through + 1, "batches come without gaps");
            self.through = batch.number;
            self.apply(batch).await;
        }
        count
    }

    pub async fn acknowledge(&self) {
        let ack = serde_json::to_string(&Ack {
            boot: self.boot,
            through: self.through,
        })
        .unwrap();
        let mut client = Client::new(self.control).await;
        let reply = client
            .send(hyper::Method::POST, "/control/v1/ack", &[], ack)
            .await;
        assert_eq!(reply.status, 204);
    }

    /// Fetches and acknowledges until so many receipts are sealed, in all logs together.
    pub async fn until_sealed(&mut self, receipts: usize) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while self.sealed() < receipts {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{} of {receipts} sealed in 20 s",
                self.sealed()
            );
            self.fetch(1).await;
            self.acknowledge().await;
        }
        assert_eq!(self.sealed(), receipts);
    }

    pub fn sealed(&self) -> usize {
        self.logs.values().map(|log| log.receipts.len()).sum()
    }

    /// The only log.
    pub fn log(&self) -> &Log {
        assert_eq!(self.logs.len(), 1);
        self.logs.values().next().unwrap()
    }

    pub fn keyset(&self, digest: Digest) -> &Keyset {
        self.keysets
            .iter()
            .find(|keyset| keyset.digest() == digest)
            .expect("the keyset of a batch is listed")
    }

    async fn apply(&mut self, batch: Batch) {
        if !self
            .keysets
            .iter()
            .any(|keyset| keyset.digest() == batch.keyset_digest)
        {
            self.keysets().await;
        }
        let keyset = self.keyset(batch.keyset_digest).clone();
        for quote in batch.quotes {
            let evidence = quote.evidence;
            assert_eq!(evidence.purpose, Some(Purpose::Receipt));
            self.quotes.insert(quote.id.0, evidence);
        }
        let Some(note) = batch.checkpoint else {
            assert!(
                batch.evidence.is_none() && batch.receipts.is_empty() && batch.catalogs.is_empty()
            );
            assert!(!batch.closed);
            return;
        };
        let log = self.logs.entry(batch.keyset_digest).or_default();
        assert!(!log.closed, "nothing comes after the end");
        let note = SignedNote::parse(&note).unwrap();
        assert!(note.verify(&keyset.log));
        let checkpoint = note.checkpoint().unwrap();
        let evidence = batch.evidence.unwrap();
        assert_eq!(evidence.purpose, Some(Purpose::Checkpoint));
        let expected = report_data(
            Purpose::Checkpoint,
            batch.keyset_digest,
            None,
            bind_checkpoint(&note.text),
        );
        assert_eq!(
            quote_report_data(evidence.tee, &evidence.quote),
            Some(expected)
        );

        // Which entries are no receipts follows from which indexes are missing.
        let first = log.edge.size();
        let mut receipts = batch.receipts.into_iter().peekable();
        let mut catalogs = batch.catalogs.into_iter();
        let mut closed = false;
        for index in first..checkpoint.size {
            let leaf = if let Some(sealed) = receipts.next_if(|sealed| sealed.index == index) {
                let receipt = Receipt::parse(&sealed.receipt.0).unwrap();
                assert!(receipt.verify(&keyset.receipt_key.0));
                assert_eq!(receipt.claims.iss, keyset.name);
                assert_eq!(receipt.claims.keyset_digest, batch.keyset_digest);
                assert_eq!(
                    receipt.claims.sequence,
                    log.receipts.len() as u64,
                    "no gaps, in order"
                );
                assert!(index >= receipt.claims.sequence + 2);
                assert!((keyset.not_before..=keyset.not_after).contains(&receipt.claims.iat));
                let leaf = leaf_hash(&entry(EntryKind::Receipt, receipt.digest()));
                let proof: Vec<Digest> = sealed.proof.iter().map(|hash| hash.0).collect();
                assert!(verify_inclusion(
                    index,
                    checkpoint.size,
                    leaf,
                    &proof,
                    checkpoint.root
                ));
                log.receipts.push(receipt);
                log.indexes.push(index);
                leaf
            } else if index == 0 {
                leaf_hash(&entry(EntryKind::Boot, batch.keyset_digest))
            } else if let Some(catalog) = catalogs.next() {
                assert_eq!(catalog.keyset_digest, batch.keyset_digest);
                assert_eq!(catalog.epoch, log.catalogs.len() as u64);
                let before = log
                    .catalogs
                    .last()
                    .map_or(Digest::ZERO, |(_, catalog)| catalog.digest());
                assert_eq!(catalog.previous, before);
                let leaf = leaf_hash(&entry(EntryKind::Catalog, catalog.digest()));
                log.catalogs.push((index, catalog));
                leaf
            } else {
                assert!(
                    batch.closed && index + 1 == checkpoint.size,
                    "an entry that nothing explains"
                );
                closed = true;
                leaf_hash(&entry(EntryKind::Close, Digest::of(b"")))
            };
            log.edge.append(leaf);
        }
        assert!(receipts.next().is_none() && catalogs.next().is_none());
        assert_eq!(log.edge.size(), checkpoint.size);
        assert_eq!(
            log.edge.root(),
            checkpoint.root,
            "the checkpoint's root is that of the entries"
        );
        assert_eq!(closed, batch.closed);
        log.closed = closed;
        log.seals += 1;
        for receipt in &log.receipts {
            let (epoch, digest) = receipt.claims.catalog;
            let catalog = log
                .catalogs
                .iter()
                .find(|(_, catalog)| catalog.epoch == epoch);
            assert_eq!(catalog.map(|(_, catalog)| catalog.digest()), Some(digest));
        }
    }

    /// Checks the quotes of single receipts against the receipts.
    pub fn check_quotes(&self) {
        for (id, evidence) in &self.quotes {
            let receipt = self
                .logs
                .values()
                .flat_map(|log| &log.receipts)
                .find(|receipt| receipt.claims.cti == *id)
                .expect("the receipt of a quote is sealed");
            let nonce = receipt.claims.nonce.as_deref();
            assert_eq!(evidence.nonce.as_deref(), nonce);
            let bind = bind_receipt(receipt.cose());
            let expected = report_data(Purpose::Receipt, receipt.claims.keyset_digest, nonce, bind);
            assert_eq!(
                quote_report_data(evidence.tee, &evidence.quote),
                Some(expected)
            );
        }
    }
}

pub async fn status(control: SocketAddr) -> Status {
    let reply = Client::new(control).await.get("/control/v1/status").await;
    serde_json::from_slice(&reply.body).unwrap()
}
