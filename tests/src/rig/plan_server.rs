use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kiln_builder::Store;
use kiln_builder::output::Plan;

/// No request of a firmware is longer.
const MAX_HEAD: u64 = 16 << 10;

/// Hands out one file over HTTP while it is still a plan, as a server does that never writes it.
#[derive(Debug)]
pub(crate) struct PlanServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl PlanServer {
    /// Listens in the network namespace of the calling thread and answers every path with the file.
    pub(crate) fn start(address: SocketAddr, plan: Plan, store: Store) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (plan, store) = (plan.clone(), store.clone());
                // A machine that goes away in the middle is seen by what it does not do.
                thread::spawn(move || drop(answer(stream, &plan, &store)));
            }
        });
        Ok(Self { address, stop })
    }
}

impl Drop for PlanServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(self.address));
    }
}

/// Answers requests until the other side has no more.
fn answer(stream: TcpStream, plan: &Plan, store: &Store) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut method = String::new();
        let mut head = (&mut reader).take(MAX_HEAD);
        loop {
            let mut line = String::new();
            if head.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if method.is_empty() {
                method = line.split(' ').next().unwrap_or_default().to_owned();
            }
            if line.trim_end().is_empty() {
                break;
            }
        }
        let (kind, len) = ("application/efi", plan.len());
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n\r\n")?;
        if method == "GET" {
            plan.write(store, &mut stream)?;
        }
    }
}
