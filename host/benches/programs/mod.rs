//! The host, and relays to measure beside it, as processes whose CPU time is their own.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A relay that runs.
pub struct Relay {
    child: Child,
    /// Where callers come in.
    pub address: SocketAddr,
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Not its processes alone: a peer that is killed leaves its children behind, and one that is not makes others.
        let kill = |signal: &str, process: u32| {
            let _ = Command::new("kill")
                .args([signal, &process.to_string()])
                .status();
        };
        kill("-STOP", self.child.id());
        for process in self.family() {
            kill("-KILL", process);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `count` cores from the `first` on, as taskset writes them.
#[allow(dead_code, reason = "not every benchmark needs it")]
pub fn cores(first: usize, count: usize) -> String {
    format!("{first}-{}", first + count.max(1) - 1)
}

/// What the figures were found on.
#[allow(dead_code, reason = "not every benchmark needs it")]
pub fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let load = read("/proc/loadavg");
    format!(
        "machine: {} × {}, Linux {}, load {}",
        std::thread::available_parallelism().map_or(0, usize::from),
        cpu.unwrap_or_default().trim_start_matches([' ', '\t', ':']),
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or_default()
    )
}

fn command(program: &OsStr, cores: Option<&str>) -> Command {
    match cores {
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(cores).arg(program);
            command
        }
        None => Command::new(program),
    }
}

impl Relay {
    /// A host in front of one enclave, whose control listener is not there.
    #[allow(dead_code, reason = "not every benchmark does without")]
    pub fn host(
        program: &OsStr,
        folder: &Path,
        public: SocketAddr,
        threads: usize,
        cores: Option<&str>,
    ) -> Self {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let control = nobody.local_addr().unwrap();
        drop(nobody);
        Self::host_of(program, folder, (public, control), threads, cores)
    }

    /// A host in front of one enclave with this public and this control listener.
    pub fn host_of(
        program: &OsStr,
        folder: &Path,
        (public, control): (SocketAddr, SocketAddr),
        threads: usize,
        cores: Option<&str>,
    ) -> Self {
        let file = folder.join("host.toml");
        let store = folder.join("store.sqlite");
        let settings = format!(
            "listen = \"tcp://127.0.0.1:0\"\nthreads = {threads}\n[enclave]\npublic = \"tcp://{public}\"\n\
             control = \"tcp://{control}\"\n[store]\npath = {store:?}\n\
             [limits]\nclient_connections = 4096\nclient_in_flight = 4096\n"
        );
        std::fs::write(&file, settings).unwrap();
        let mut child = command(program, cores)
            .arg("--config")
            .arg(file)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, address) = line.split_once("listening address=")?;
                address.split(' ').next()?.parse().ok()
            })
            .expect("the host starts");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// nginx or HAProxy, whose program the environment names.
    #[allow(dead_code, reason = "not every benchmark has peers")]
    pub fn peer(
        name: &str,
        folder: &Path,
        enclave: SocketAddr,
        threads: usize,
        cores: Option<&str>,
        streamed: bool,
    ) -> Self {
        let program = std::env::var_os(name.to_uppercase()).expect("it is named");
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let file = folder.join("peer.conf");
        let at = folder.display();
        let (settings, arguments): (String, Vec<String>) = match name {
            // One process for each thread; they are children of one that does nothing.
            "nginx" => {
                let buffering = if streamed { "off" } else { "on" };
                let settings = format!(
                    "daemon off; worker_processes {threads}; pid {at}/pid; error_log {at}/error.log;\n\
                     events {{ worker_connections 8192; }}\n\
                     http {{ access_log off; client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at};\n\
                     uwsgi_temp_path {at}; scgi_temp_path {at}; keepalive_requests 1000000000; server_tokens off;\n\
                     client_max_body_size 64m; client_body_buffer_size 68k; proxy_request_buffering {buffering};\n\
                     proxy_buffer_size 16k; proxy_buffers 8 16k; proxy_max_temp_file_size 0;\n\
                     upstream enclave {{ server {enclave}; keepalive 2048; keepalive_requests 1000000000; }}\n\
                     server {{ listen {address} reuseport; location / {{ proxy_pass http://enclave; proxy_http_version 1.1;\n\
                     proxy_set_header Connection \"\"; proxy_set_header Host $http_host; }} }} }}\n"
                );
                let (folder, file) = (at.to_string(), file.display().to_string());
                (settings, vec!["-p".into(), folder, "-c".into(), file])
            }
            _ => {
                let settings = format!(
                    "global\n nbthread {threads}\n maxconn 8192\n\
                     defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n http-reuse always\n\
                     frontend f\n bind {address}\n default_backend b\nbackend b\n server s {enclave}\n"
                );
                (
                    settings,
                    vec!["-db".into(), "-f".into(), file.display().to_string()],
                )
            }
        };
        std::fs::write(&file, settings).unwrap();
        let child = command(&program, cores)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let peer = Self {
            child: child.unwrap(),
            address,
        };
        for _ in 0..200 {
            if std::net::TcpStream::connect(address).is_ok() {
                return peer;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{name} does not listen");
    }

    /// Processes of its own, and it.
    fn family(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        children.chain([own]).collect()
    }

    /// Seconds of CPU so far, of all its threads and processes: user and system together, and system alone.
    pub fn cpu(&self) -> (f64, f64) {
        let each = self.family().into_iter().map(|process| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
            let (_, fields) = stat.rsplit_once(')').unwrap();
            let fields: Vec<&str> = fields.split_whitespace().collect();
            let seconds = |field: usize| fields[field].parse::<f64>().unwrap() / 100.0;
            (seconds(11), seconds(12))
        });
        each.fold((0.0, 0.0), |(all, system), (user, more)| {
            (all + user + more, system + more)
        })
    }

    /// Resident memory, in MiB.
    #[allow(dead_code, reason = "not every benchmark tells it")]
    pub fn memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().split(' ').next().unwrap();
        kib.parse::<u64>().unwrap() / 1_024
    }
}
