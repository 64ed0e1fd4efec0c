//! Servers that answer as AMD's key distribution service, Intel's provisioning certification service or a PCCS do, about a
//! simulated machine, and that fail in every way servers fail.
//!
//! Addresses are written out here, not taken from the code under test: AMD 57230 ("Key Distribution Server API"), Intel PCS
//! API v4. Nothing but a loopback socket is ever opened.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::amd::{Product, Tcb};
use crate::machine::{Endorsement, Machine, TdxMachine};
use crate::x509::pem;

/// What a server does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// 200.
    Ok {
        /// Header fields beside the length.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// Another status, with these header fields.
    Status(u16, Vec<(String, String)>),
    /// Nothing for so long, then the connection ends.
    Silence(Duration),
    /// Half of the body that was announced, then the connection ends.
    Truncated(Vec<u8>),
    /// The connection ends before an answer begins.
    Hangup,
    /// A body without an end.
    Endless,
}

impl Reply {
    /// 200 and this body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Reply {
        Reply::Ok {
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// 200, this body, and a header field.
    pub fn with(body: impl Into<Vec<u8>>, name: &str, value: &str) -> Reply {
        Reply::Ok {
            headers: vec![(name.into(), value.into())],
            body: body.into(),
        }
    }

    /// A status and one header field.
    pub fn status(status: u16, name: &str, value: &str) -> Reply {
        Reply::Status(status, vec![(name.into(), value.into())])
    }
}

#[derive(Default)]
struct Shelves {
    /// Replies to a target, in order; the last stays.
    replies: HashMap<String, Vec<Reply>>,
    asked: Vec<(Instant, String)>,
}

/// A vendor's server on a loopback port. It ends with the process.
#[derive(Clone)]
pub struct Vendor {
    address: SocketAddr,
    shelves: Arc<Mutex<Shelves>>,
}

impl Vendor {
    /// A server that knows nothing yet: 404 to everything.
    pub fn start() -> Vendor {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let vendor = Vendor {
            address: listener.local_addr().expect("an address"),
            shelves: Arc::default(),
        };
        let shelves = vendor.shelves.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shelves = shelves.clone();
                std::thread::spawn(move || {
                    // A client that went away is what some tests are about.
                    let _ = answer(stream, &shelves);
                });
            }
        });
        vendor
    }

    /// AMD's service, with what this machine needs.
    pub fn kds(machine: &Machine) -> Vendor {
        let vendor = Vendor::start();
        let files = machine.collateral();
        let product = machine.pki.product;
        let kind = match machine.endorsement {
            Endorsement::Vcek => "vcek",
            Endorsement::Vlek { .. } => "vlek",
        };
        let chain = pem("CERTIFICATE", &files.chain[0]) + &machine.root_pem();
        vendor.put(
            &format!("/{kind}/v1/{product}/cert_chain"),
            Reply::ok(chain),
        );
        vendor.put(
            &format!("/{kind}/v1/{product}/crl"),
            Reply::ok(files.crls[0].clone()),
        );
        vendor.put(&vcek_target(machine), Reply::ok(files.vek));
        vendor
    }

    /// Intel's service as a PCCS gives it, with what this machine needs.
    pub fn pcs(machine: &TdxMachine) -> Vendor {
        let vendor = Vendor::start();
        let collateral = machine.collateral();
        let signed = |name: &str, text: Option<String>, signature: Option<Vec<u8>>| {
            let (text, signature) = (text.unwrap(), hex::encode(signature.unwrap()));
            format!("{{\"{name}\":{text},\"signature\":\"{signature}\"}}")
        };
        let encoded = |chain: Option<String>| percent_encode(&chain.unwrap());
        let fmspc = hex::encode(machine.platform.fmspc).to_uppercase();
        let info = signed(
            "tcbInfo",
            collateral.tcb_info,
            collateral.tcb_info_signature.map(|hex| hex.0),
        );
        vendor.put(
            &format!("/tdx/certification/v4/tcb?fmspc={fmspc}"),
            Reply::with(
                info,
                "TCB-Info-Issuer-Chain",
                &encoded(collateral.tcb_info_issuer_chain),
            ),
        );
        let identity = signed(
            "enclaveIdentity",
            collateral.qe_identity,
            collateral.qe_identity_signature.map(|hex| hex.0),
        );
        vendor.put(
            "/tdx/certification/v4/qe/identity",
            Reply::with(
                identity,
                "SGX-Enclave-Identity-Issuer-Chain",
                &encoded(collateral.qe_identity_issuer_chain),
            ),
        );
        let ca = machine.ca.name().to_lowercase();
        vendor.put(
            &format!("/sgx/certification/v4/pckcrl?ca={ca}&encoding=der"),
            Reply::with(
                collateral.pck_crl.unwrap().0,
                "SGX-PCK-CRL-Issuer-Chain",
                &encoded(collateral.pck_crl_issuer_chain),
            ),
        );
        vendor.put(
            "/sgx/certification/v4/rootcacrl",
            Reply::ok(hex::encode(collateral.root_ca_crl.unwrap().0)),
        );
        vendor
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a target is answered with from now on.
    pub fn put(&self, target: &str, reply: Reply) {
        self.script(target, vec![reply]);
    }

    /// What a target is answered with, one after another; the last stays.
    pub fn script(&self, target: &str, replies: Vec<Reply>) {
        assert!(!replies.is_empty(), "an answer at least");
        self.lock().replies.insert(target.to_owned(), replies);
    }

    /// What a target is answered with next.
    pub fn reply(&self, target: &str) -> Reply {
        self.lock().replies[target][0].clone()
    }

    /// The targets that were asked for, in their order, each with the time.
    pub fn asked(&self) -> Vec<(Instant, String)> {
        self.lock().asked.clone()
    }

    /// How often a target that contains this was asked for.
    pub fn count(&self, part: &str) -> usize {
        self.asked()
            .iter()
            .filter(|(_, t)| t.contains(part))
            .count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where AMD has the VCEK certificate of this machine.
pub fn vcek_target(machine: &Machine) -> String {
    let product = machine.pki.product;
    let hwid = hex::encode(&machine.report.chip_id[..product.hwid_length()]);
    let tcb = Tcb::from_bytes(machine.report.reported_tcb, product);
    let fmc = match product {
        Product::Turin => format!("fmcSPL={:02}&", tcb.fmc),
        _ => String::new(),
    };
    format!(
        "/vcek/v1/{product}/{hwid}?{fmc}blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
        tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode
    )
}

/// URL encoding, as Intel encodes the chains in its headers.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn answer(stream: TcpStream, shelves: &Mutex<Shelves>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?.take(64 << 10));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
    }
    let reply = {
        let mut shelves = shelves.lock().unwrap_or_else(PoisonError::into_inner);
        shelves.asked.push((Instant::now(), target.clone()));
        match shelves.replies.get_mut(&target) {
            None => Reply::Status(404, Vec::new()),
            Some(replies) if replies.len() > 1 => replies.remove(0),
            Some(replies) => replies[0].clone(),
        }
    };
    let mut stream = stream;
    let mut head = |status: u16, headers: &[(String, String)], length: Option<usize>| {
        let mut text = format!("HTTP/1.1 {status} Said\r\nConnection: close\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(length) = length {
            text.push_str(&format!("Content-Length: {length}\r\n"));
        }
        stream.write_all((text + "\r\n").as_bytes())?;
        stream.try_clone()
    };
    match reply {
        Reply::Ok { headers, body } => head(200, &headers, Some(body.len()))?.write_all(&body),
        Reply::Status(status, headers) => head(status, &headers, Some(0)).map(drop),
        Reply::Silence(time) => {
            std::thread::sleep(time);
            Ok(())
        }
        Reply::Truncated(body) => {
            head(200, &[], Some(body.len()))?.write_all(&body[..body.len() / 2])
        }
        Reply::Hangup => Ok(()),
        Reply::Endless => {
            let mut stream = head(200, &[], None)?;
            // Until the client has had enough.
            loop {
                stream.write_all(&[b'x'; 16 << 10])?;
            }
        }
    }
}
