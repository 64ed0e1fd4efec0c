//! A child process whose log is kept, and which does not outlive the test.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Mutex<Child>,
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
    /// How many of its two pipes have not come to their end.
    open: AtomicUsize,
}

impl Process {
    /// Starts a program and keeps what it writes to stdout and stderr.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let log = Arc::new(Log {
            open: AtomicUsize::new(2),
            ..Log::default()
        });
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|s| Box::new(s) as _),
            child.stderr.take().map(|s| Box::new(s) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let log = log.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    lock(&log.lines).push(String::from_utf8_lossy(&line).into_owned());
                    log.grown.notify_all();
                }
                // Under the lock: whoever saw it open and waits has begun to.
                let lines = lock(&log.lines);
                log.open.fetch_sub(1, Ordering::SeqCst);
                drop(lines);
                log.grown.notify_all();
            });
        }
        Self {
            name: name.into(),
            child: Mutex::new(child),
            log,
        }
    }

    /// The program's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        lock(&self.child).id()
    }

    /// All lines it wrote so far.
    pub fn log(&self) -> Vec<String> {
        lock(&self.log.lines).clone()
    }

    /// The last lines, for messages.
    pub fn tail(&self) -> String {
        let lines = lock(&self.log.lines);
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The first line that holds all of `words`, which may yet have to be written.
    ///
    /// # Panics
    /// When there is none within `limit`, or the program ends first.
    pub fn wait_for_line(&self, words: &[&str], limit: Duration) -> String {
        let began = Instant::now();
        loop {
            let ended = self.ended();
            let lines = lock(&self.log.lines);
            if let Some(line) = lines
                .iter()
                .find(|line| words.iter().all(|word| line.contains(word)))
            {
                return line.clone();
            }
            // The last lines of one that has ended may still be on their way: only the pipes' ends say that there are no more.
            let said_all = ended.is_some() && self.log.open.load(Ordering::SeqCst) == 0;
            if said_all || began.elapsed() >= limit {
                let all = lines.join("\n");
                let state =
                    ended.map_or("still runs".into(), |status| format!("ended with {status}"));
                drop(lines);
                panic!(
                    "{} wrote no line with {words:?} and {state}; it wrote:\n{all}",
                    self.name
                );
            }
            let pause = Duration::from_millis(50);
            drop(
                self.log
                    .grown
                    .wait_timeout(lines, pause)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    /// # Panics
    /// When the program has ended.
    pub fn assert_running(&self) {
        if let Some(status) = self.ended() {
            panic!(
                "{} ended with {status}; it wrote:\n{}",
                self.name,
                self.tail()
            );
        }
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }

    /// Sends a signal by name (`TERM`, `HUP`, `STOP`, `CONT`).
    ///
    /// # Panics
    /// When `kill` fails.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.id().to_string())
            .status();
        assert!(
            status.is_ok_and(|s| s.success()),
            "kill -{name} {}",
            self.name
        );
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub fn wait(&self, limit: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                began.elapsed() < limit,
                "{} does not end; it wrote:\n{}",
                self.name,
                self.tail()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Resident memory in KiB, from `/proc`.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))
            .expect("a running process");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("VmRSS");
        line.split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a number of KiB")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::start("sh", Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn lines_are_waited_for_and_programs_do_not_outlive_their_handle() {
        let process =
            shell("echo starting; sleep 0.2; echo listening on port 7 >&2; exec sleep 100");
        assert_eq!(
            process.wait_for_line(&["listening", "7"], Duration::from_secs(20)),
            "listening on port 7"
        );
        process.assert_running();
        assert!(process.resident_kib() > 0);
        let id = process.id();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn signals_arrive_and_ends_are_seen() {
        let process = shell("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done");
        process.wait_for_line(&["ready"], Duration::from_secs(20));
        process.signal("TERM");
        assert_eq!(process.wait(Duration::from_secs(20)).code(), Some(3));
    }

    #[test]
    #[should_panic(expected = "for a reason")]
    fn a_program_that_ends_early_says_why() {
        shell("echo ends for a reason; exit 1")
            .wait_for_line(&["listening"], Duration::from_secs(20));
    }
}
