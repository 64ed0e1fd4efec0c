//! An enclave that is nothing but a socket: it keeps the bytes that come in, and answers with bytes.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};

/// What to do when a request has come in.
#[derive(Debug, Clone)]
pub enum Then {
    /// Send these bytes and wait for the next request on the same connection.
    Say(Vec<u8>),
    /// Send these bytes and close.
    SayAndClose(Vec<u8>),
    /// Send nothing, ever.
    Hang,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of each connection, in the order in which connections came.
    came_in: Vec<Vec<u8>>,
    then: VecDeque<Then>,
}

/// The socket.
#[derive(Debug, Clone)]
pub struct RawEnclave {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl RawEnclave {
    /// Listens. A request counts as complete when nothing more of it comes in for 30 ms.
    pub async fn start(then: impl IntoIterator<Item = Then>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            came_in: Vec::new(),
            then: then.into_iter().collect(),
        }));
        let shared = state.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let state = shared.clone();
                let number = {
                    let mut state = state.lock().unwrap();
                    state.came_in.push(Vec::new());
                    state.came_in.len() - 1
                };
                tokio::spawn(async move {
                    let mut buffer = vec![0; 1 << 20];
                    let mut something = false;
                    loop {
                        let read = tokio::time::timeout(
                            Duration::from_millis(30),
                            stream.read(&mut buffer),
                        )
                        .await;
                        match read {
                            Ok(Ok(count @ 1..)) => {
                                state.lock().unwrap().came_in[number]
                                    .extend_from_slice(&buffer[..count]);
                                something = true;
                            }
                            Ok(_) => return,
                            Err(_) if !something => {}
                            Err(_) => {
                                something = false;
                                let then = state.lock().unwrap().then.pop_front();
                                match then {
                                    Some(Then::Say(bytes)) => {
                                        stream.write_all(&bytes).await.unwrap()
                                    }
                                    Some(Then::SayAndClose(bytes)) => {
                                        let _ = stream.write_all(&bytes).await;
                                        return;
                                    }
                                    Some(Then::Hang) | None => {}
                                }
                            }
                        }
                    }
                });
            }
        });
        Self { address, state }
    }

    /// Bytes of each connection.
    pub fn came_in(&self) -> Vec<Vec<u8>> {
        self.state.lock().unwrap().came_in.clone()
    }
}

/// An address where nobody listens until the socket is told to. A port that is let go is soon another test's, and what is sent
/// to nobody would come in there: this one stays taken.
pub fn nobody_yet() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

/// An address where nobody listens, for as long as the tests run.
pub async fn nobody() -> SocketAddr {
    let (address, socket) = nobody_yet();
    std::mem::forget(socket);
    address
}
