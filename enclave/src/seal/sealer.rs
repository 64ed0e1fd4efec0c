//! Sealing: one checkpoint and one quote for everything that waits.

use std::sync::Arc;

use tokio::sync::oneshot;
use touchstone_formats::{
    catalog::Catalog,
    checkpoint::{Checkpoint, LogSigner},
    digest::Digest,
    merkle::{RightEdge, append_batch},
    report_data::{Purpose, bind_checkpoint, report_data},
};

use super::{
    Outbox,
    log::{Entry, Log, LoggedReceipt},
    wire,
};
use crate::quote::Quoter;

/// Batches up to this size are worked out on the async thread; a thread switch costs as much.
const INLINE: usize = 64;

/// What seals one log. It holds the log's key, which is erased with it.
pub struct Sealer {
    log: Arc<Log>,
    keyset: Digest,
    signer: LogSigner,
    origin: String,
    quoter: Arc<Quoter>,
    outbox: Arc<Outbox>,
    edge: RightEdge,
}

/// A batch under its new root, which no quote covers yet.
struct Prepared {
    checkpoint: Checkpoint,
    edge: RightEdge,
    receipts: Vec<(u64, Arc<LoggedReceipt>)>,
    signals: Vec<oneshot::Sender<()>>,
    catalogs: Vec<Arc<Catalog>>,
    /// JSON of the batch's `receipts`.
    json: Vec<u8>,
    closed: bool,
}

impl Sealer {
    /// A sealer for a log in which nothing is sealed yet.
    pub fn new(
        log: Arc<Log>,
        keyset: Digest,
        signer: LogSigner,
        quoter: Arc<Quoter>,
        outbox: Arc<Outbox>,
    ) -> Self {
        let origin = signer.log_key().name;
        Self {
            log,
            keyset,
            signer,
            origin,
            quoter,
            outbox,
            edge: RightEdge::new(),
        }
    }

    /// Seals until the log is closed and its last entry sealed.
    ///
    /// Order of things: the quote is made over the unsigned checkpoint's text; only when it is there is the
    /// checkpoint signed, and only then does the batch exist for anybody outside. So there is never a signed
    /// checkpoint without its quote, and never two of one size.
    pub async fn run(mut self) {
        loop {
            let entries = self.log.due().await;
            let prepared = self.prepare(entries).await;
            let text = prepared.checkpoint.text();
            let data = report_data(
                Purpose::Checkpoint,
                self.keyset,
                None,
                bind_checkpoint(&text),
            );
            let evidence = self
                .quoter
                .seal(data)
                .await
                .into_evidence(Purpose::Checkpoint, None);
            let note = self.signer.sign(&prepared.checkpoint);
            self.edge = prepared.edge;
            let closed = prepared.closed;
            let sealed = wire::seal(
                self.keyset,
                &note,
                &evidence,
                &prepared.catalogs,
                &prepared.json,
                closed,
            );
            let number =
                self.outbox
                    .publish_seal(sealed, prepared.receipts, closed.then_some(self.keyset));
            for signal in prepared.signals {
                // Whoever waited may have hung up.
                let _ = signal.send(());
            }
            tracing::debug!(
                batch = number,
                size = prepared.checkpoint.size,
                closed,
                "sealed"
            );
            if closed {
                return;
            }
        }
    }

    async fn prepare(&self, entries: Vec<Entry>) -> Prepared {
        let (edge, origin) = (self.edge.clone(), self.origin.clone());
        if entries.len() <= INLINE {
            return prepare(edge, origin, entries);
        }
        match tokio::task::spawn_blocking(move || prepare(edge, origin, entries)).await {
            Ok(prepared) => prepared,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

fn prepare(edge: RightEdge, origin: String, entries: Vec<Entry>) -> Prepared {
    let leaves: Vec<Digest> = entries.iter().map(Entry::leaf).collect();
    let first = edge.size();
    let (edge, proofs) = append_batch(&edge, &leaves);
    let checkpoint = Checkpoint {
        origin,
        size: edge.size(),
        root: edge.root(),
    };
    let mut prepared = Prepared {
        checkpoint,
        edge,
        receipts: Vec::with_capacity(entries.len()),
        signals: Vec::with_capacity(entries.len()),
        catalogs: Vec::new(),
        json: Vec::with_capacity(entries.len() * 1_600),
        closed: false,
    };
    for (at, entry) in entries.into_iter().enumerate() {
        match entry {
            Entry::Receipt { receipt, sealed } => {
                let index = first + at as u64;
                wire::receipt(&mut prepared.json, &receipt.cose, index, &proofs.proof(at));
                prepared.receipts.push((index, receipt));
                prepared.signals.extend(sealed);
            }
            Entry::Catalog { catalog, .. } => prepared.catalogs.push(catalog),
            Entry::Close { .. } => prepared.closed = true,
            Entry::Boot { .. } => {}
        }
    }
    prepared
}
