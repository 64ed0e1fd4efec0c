//! The relay: callers' connections in, connections to the enclave's public listener out, or to its TLS
//! listener.

mod body;
mod buffers;
mod caller;
pub mod fields;
pub mod forward;
mod inbox;
mod passthrough;
pub(crate) mod sealed;
mod seats;
mod shed;
mod splice;
pub mod strict;
mod target;
pub mod upstream;
pub(crate) mod workers;

use std::{
    future::{Future, poll_fn},
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinSet, coop::has_budget_remaining},
    time::{Instant, Sleep, sleep, timeout},
};

use crate::{
    clients::Clients,
    collateral::CollateralFolder,
    config::{Limits, Patience},
    fleet::Fleet,
    limits::Activity,
    manifest::ManifestFile,
    metrics::{Metrics, Passed, Refusal},
    receipts::Receipts,
    seldom::seldom,
};
use caller::Caller;
use forward::Forwarder;
use passthrough::{Broken, Passthrough};
use seats::{Seat, Seats};
use workers::Workers;

/// Longest time that a connection waits for one that gives up its place.
const ROOM: Duration = Duration::from_millis(500);
/// A connection's place, and its file.
type Slot = (OwnedSemaphorePermit, OwnedSemaphorePermit);
/// Connections that are told at once why there is no place for them.
const TURNED_AWAY: usize = 256;
/// Longest sleep of a connection that has no deadline.
const FAR: Duration = Duration::from_secs(3_600);

/// Everything a connection needs, shared by all of them.
#[derive(Debug)]
pub struct Relay {
    forwarder: Forwarder,
    receipts: Receipts,
    collateral: Arc<CollateralFolder>,
    manifest: Arc<ManifestFile>,
    /// `None`: every connection is HTTP.
    passthrough: Option<Passthrough>,
    limits: Limits,
    metrics: Arc<Metrics>,
    clients: Arc<Clients>,
    /// Connections that are being told that there is no place for them.
    turned_away: Arc<Semaphore>,
    seats: Arc<Seats>,
    slots: Arc<Semaphore>,
    /// Files that connections may still take.
    files: Arc<Semaphore>,
    closing: AtomicBool,
    closed: Notify,
}

impl Relay {
    /// A relay that answers for receipts, collateral and the manifest itself and forwards everything else, TLS
    /// unread.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another part of the host, named once"
    )]
    pub fn new(
        forwarder: Forwarder,
        receipts: Receipts,
        collateral: Arc<CollateralFolder>,
        manifest: Arc<ManifestFile>,
        fleet: Arc<Fleet>,
        enclave: &Patience,
        limits: &Limits,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            forwarder,
            receipts,
            collateral,
            manifest,
            passthrough: Passthrough::new(fleet, enclave, limits),
            limits: limits.clone(),
            metrics,
            clients: Clients::new(
                limits.client_connections,
                limits.client_in_flight,
                limits.trusted_forwarders.clone(),
            ),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
            seats: Arc::default(),
            slots: Arc::new(Semaphore::new(limits.connections)),
            files: Arc::new(Semaphore::new(limits.files)),
            closing: AtomicBool::new(false),
            closed: Notify::new(),
        })
    }

    /// Who is there.
    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// Serves until `stop` is true, then finishes what is under way, for the drain time at most.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        workers: Workers,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                // Ended connections are taken off the list as they end.
                Some(_) = connections.join_next() => continue,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let (stream, peer) = match accepted {
                Ok((stream, peer)) => (stream, peer.ip()),
                Err(error) => {
                    // Out of descriptors or memory, or the caller is gone again: the rest goes on.
                    seldom!(warn, %error, "a connection was not accepted");
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let Some(place) = self.clients.connection(peer) else {
                self.metrics.refused(Refusal::ClientConnections);
                // Those beyond the few that are told why are closed at once.
                if let Ok(turn) = self.turned_away.clone().try_acquire_owned() {
                    connections.spawn(async move {
                        shed::turn_away(stream, shed::Reason::Client).await;
                        drop(turn);
                    });
                }
                continue;
            };
            if let Some(slot) = self.slot() {
                let relay = self.clone();
                workers.carry(stream, &mut connections, move |stream| async move {
                    relay.connection(stream, peer).await;
                    drop((place, slot));
                });
                continue;
            }
            self.seats.make_room();
            let Ok(turn) = self.turned_away.clone().try_acquire_owned() else {
                self.metrics.refused(Refusal::Connections);
                continue;
            };
            let relay = self.clone();
            workers.carry(stream, &mut connections, move |stream| async move {
                if let Ok(Some(slot)) = timeout(ROOM, relay.wait_for_slot()).await {
                    drop(turn);
                    relay.connection(stream, peer).await;
                    drop((place, slot));
                } else {
                    relay.metrics.refused(Refusal::Connections);
                    shed::turn_away(stream, shed::Reason::All).await;
                    drop((place, turn));
                }
            });
        }
        drop(listener);
        self.closing.store(true, SeqCst);
        self.closed.notify_waiters();
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(self.limits.drain, all_ended).await.is_err() {
            // Whether anything is under way on a TLS connection cannot be seen.
            tracing::warn!(
                connections = connections.len(),
                "connections closed while requests were under way, or TLS was open"
            );
        }
        connections.shutdown().await;
        workers.end().await;
    }

    fn slot(&self) -> Option<Slot> {
        let slot = self.slots.clone().try_acquire_owned().ok()?;
        let file = self.files.clone().try_acquire_owned().ok()?;
        Some((slot, file))
    }

    async fn wait_for_slot(&self) -> Option<Slot> {
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        let file = self.files.clone().acquire_owned().await.ok()?;
        Some((slot, file))
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: IpAddr) {
        let _connected = self.metrics.connection();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone before it began");
            return;
        }
        let activity = Activity::new(self.limits.header_timeout, self.limits.idle_timeout);
        let seat = self.seats.take(activity);
        let Some(passthrough) = &self.passthrough else {
            return self.http(stream, peer, &seat).await;
        };
        let first = self.first_byte(&stream, &seat).await;
        if first == Some(passthrough::HANDSHAKE) {
            // Until the handshake is over its place can be another's.
            seat.activity.received();
            let Ok(_other_side) = self.files.try_acquire() else {
                self.metrics.refused(Refusal::Connections);
                return self.seats.make_room();
            };
            match passthrough.serve(stream, &seat).await {
                Ok(()) => self.metrics.passed(Passed::Ended),
                Err(error @ (Broken::Unreachable { .. } | Broken::NoEnclave)) => {
                    self.metrics.passed(Passed::NoEnclave);
                    seldom!(warn, %error, "a TLS connection could not be passed on");
                }
                Err(error) => {
                    self.metrics.passed(Passed::BrokeOff);
                    tracing::debug!(%error, "a TLS connection broke off");
                }
            }
        } else if first.is_some() {
            self.http(stream, peer, &seat).await;
        }
    }

    /// The first byte of a connection, which stays where it is. `None`: there is none in time, or the
    /// host stops.
    async fn first_byte(&self, stream: &TcpStream, seat: &Seat) -> Option<u8> {
        let closed = self.closed.notified();
        if self.closing.load(SeqCst) {
            return None;
        }
        let mut byte = [0];
        let peeked = tokio::select! {
            peeked = timeout(self.limits.idle_timeout, stream.peek(&mut byte)) => peeked.ok()?.ok()?,
            () = closed => 0,
            () = seat.leave.notified() => 0,
        };
        byte.first().copied().filter(|_| peeked > 0)
    }

    async fn http(&self, stream: TcpStream, peer: IpAddr, seat: &Seat) {
        let activity = &*seat.activity;
        let mut connection = pin!(Caller::new(self, stream, peer, activity).serve());
        let mut timer = pin!(sleep(FAR));
        let mut closed = pin!(self.closed.notified());
        let mut leave = pin!(seat.leave.notified());
        let mut watching = false;
        poll_fn(|cx| {
            // One poll leaves this task's waker there; after it the flag is enough. (Polling it every
            // time would take a lock that all connections share.)
            if !watching {
                watching = true;
                let _ = closed.as_mut().poll(cx);
                let _ = leave.as_mut().poll(cx);
            }
            if seat.is_asked_to_leave() && activity.silent_for().is_some() {
                return Poll::Ready(());
            }
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                if let Err(error) = result {
                    tracing::debug!(%error, "a caller's connection ended");
                }
                return Poll::Ready(());
            }
            watch(
                timer.as_mut(),
                activity.deadline().map(Instant::from_std),
                cx,
            )
        })
        .await;
    }
}

/// Keeps the connection's timer at its deadline; ready when that has passed. The timer is moved only
/// when the deadline has come nearer or the timer fires: not for every request.
fn watch(
    mut timer: std::pin::Pin<&mut Sleep>,
    deadline: Option<Instant>,
    cx: &mut std::task::Context<'_>,
) -> Poll<()> {
    // Whoever always has more to say takes all that a task may do at once, and a timer is then not looked at.
    if !has_budget_remaining() && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Poll::Ready(());
    }
    loop {
        if let Some(deadline) = deadline
            && deadline < timer.deadline()
        {
            timer.as_mut().reset(deadline);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        match deadline {
            Some(deadline) if deadline <= Instant::now() => return Poll::Ready(()),
            Some(deadline) => timer.as_mut().reset(deadline),
            None => timer.as_mut().reset(Instant::now() + FAR),
        }
    }
}
