//! Transfers over real sockets, with the client of a test.

use std::sync::Mutex;

use bytes::Bytes;

use super::*;

#[derive(Debug, Default)]
pub(super) struct Shelf {
    ended: Mutex<Vec<Ended>>,
}

pub(super) fn large() -> Vec<u8> {
    (0..200_000_u32).map(|n| (n * 7 % 251) as u8).collect()
}

impl Files for Shelf {
    async fn open(&self, _: IpAddr, name: &str) -> Option<File> {
        match name {
            "ipxe/a" => Some(Bytes::from(vec![7; 3000]).into()),
            "large" => Some(Bytes::from(large()).into()),
            "streamed" => Some(File::streamed(200_000, io::Cursor::new(large()))),
            "short" => Some(File::streamed(200_001, io::Cursor::new(large()))),
            "lines" => Some(Bytes::from_static(b"a\nb\n").into()),
            // 65 540 blocks of 8 bytes.
            "many" => Some(Bytes::from(vec![1; 524_313]).into()),
            _ => None,
        }
    }

    fn ended(&self, transfer: &Ended) {
        self.ended.lock().unwrap().push(transfer.clone());
    }
}

impl Shelf {
    /// Waits until that many transfers are over.
    pub(super) async fn ends(&self, count: usize) -> Vec<(String, End, u64)> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let ended = self.ended.lock().unwrap().clone();
            if ended.len() >= count {
                return ended.into_iter().map(|e| (e.name, e.end, e.taken)).collect();
            }
            assert!(tokio::time::Instant::now() < deadline, "{ended:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(super) fn serve(config: Config) -> (Arc<Shelf>, Server) {
    let shelf = Arc::new(Shelf::default());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = Server::start(socket, shelf.clone(), config).unwrap();
    (shelf, server)
}

/// A client in one port.
pub(super) struct Client {
    pub(super) socket: tokio::net::UdpSocket,
    server: SocketAddr,
    pub(super) peer: Option<SocketAddr>,
}

impl Client {
    pub(super) async fn new(server: &Server) -> Self {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Self { socket, server: server.local_addr(), peer: None }
    }

    /// Sends a request as it is.
    pub(super) async fn ask(&self, packet: &[u8]) {
        self.socket.send_to(packet, self.server).await.unwrap();
    }

    /// Asks for a file; `options` are pairs that end with `|`.
    pub(super) async fn read(&self, name: &[u8], options: &str) {
        let mut packet = [&[0, 1], name, b"\0octet\0"].concat();
        packet.extend(options.replace('|', "\0").bytes());
        self.ask(&packet).await;
    }

    /// Returns the next packet, or nothing when none comes.
    pub(super) async fn hear(&mut self, wait: Duration) -> Option<Vec<u8>> {
        let mut packet = vec![0; 70_000];
        let received = tokio::time::timeout(wait, self.socket.recv_from(&mut packet)).await;
        let (length, peer) = received.ok()?.unwrap();
        self.peer = Some(peer);
        packet.truncate(length);
        Some(packet)
    }

    pub(super) async fn next(&mut self) -> Vec<u8> {
        self.hear(Duration::from_secs(20)).await.unwrap()
    }

    pub(super) async fn send(&self, packet: &[u8]) {
        self.socket.send_to(packet, self.peer.unwrap()).await.unwrap();
    }

    pub(super) async fn ack(&self, block: u16) {
        let [high, low] = block.to_be_bytes();
        self.send(&[0, 4, high, low]).await;
    }

    /// Fetches a whole file. Blocks are lost where `loses` says so, by how many have come.
    pub(super) async fn fetch(
        &mut self,
        name: &str,
        options: &str,
        loses: impl Fn(u32) -> bool,
    ) -> Result<Vec<u8>, u16> {
        self.read(name.as_bytes(), options).await;
        let (mut block, mut window) = (512, 1);
        let (mut file, mut last, mut since, mut seen) = (Vec::new(), 0_u16, 0, 0);
        loop {
            let packet = self.next().await;
            let number = u16::from_be_bytes([packet[2], packet[3]]);
            match packet[1] {
                6 => {
                    let text = String::from_utf8(packet[2..].to_vec()).unwrap();
                    let mut parts = text.split('\0');
                    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                        match name {
                            "blksize" => block = value.parse().unwrap(),
                            "windowsize" => window = value.parse().unwrap(),
                            _ => {}
                        }
                    }
                    self.ack(0).await;
                }
                3 => {
                    seen += 1;
                    if loses(seen) {
                        continue;
                    }
                    if number != last.wrapping_add(1) {
                        // As EDK2 does: what it has, for every block that does not fit.
                        self.ack(last).await;
                        continue;
                    }
                    last = number;
                    since += 1;
                    file.extend_from_slice(&packet[4..]);
                    let ends = packet.len() < block + 4;
                    if since == window || ends {
                        since = 0;
                        self.ack(number).await;
                    }
                    if ends {
                        return Ok(file);
                    }
                }
                _ => return Err(number),
            }
        }
    }
}

const NONE: fn(u32) -> bool = |_| false;

#[tokio::test]
async fn a_file_arrives_whole_and_a_missing_one_is_refused_at_once_by_both_engines() {
    for engine in [Engine::Kiln, Engine::AsyncTftp] {
        let (shelf, server) = serve(Config { engine, ..Config::default() });
        for name in ["/ipxe/a", "ipxe\\a"] {
            let mut client = Client::new(&server).await;
            assert_eq!(client.fetch(name, "blksize|1468|", NONE).await, Ok(vec![7; 3000]));
        }
        let mut client = Client::new(&server).await;
        assert_eq!(client.fetch("../../etc/passwd", "", NONE).await, Err(1));
        let ends = shelf.ends(2).await;
        assert_eq!(ends[0], ("ipxe/a".to_owned(), End::Done, 3000), "{engine:?}");
        server.shutdown().await;
    }
}

#[tokio::test]
async fn every_block_and_window_gives_the_same_file_with_losses_too() {
    let (shelf, server) = serve(Config::default());
    let mut count = 0;
    for options in [
        "",
        "blksize|8|windowsize|64|",
        "blksize|512|windowsize|4|",
        "blksize|1468|windowsize|16|tsize|0|",
        "BLKSIZE|1468|WindowSize|65535|",
        "blksize|1000|",
    ] {
        let loses: [fn(u32) -> bool; 2] = [NONE, |seen| seen % 97 == 5];
        // In lockstep a loss costs a second.
        let lossy = if options.contains("indow") { 2 } else { 1 };
        for loses in loses.into_iter().take(lossy) {
            let mut client = Client::new(&server).await;
            assert_eq!(client.fetch("large", options, loses).await, Ok(large()), "{options}");
            count += 1;
        }
    }
    let ends = shelf.ends(count).await;
    assert!(ends.iter().all(|(_, end, _)| *end == End::Done), "{ends:?}");
    let counts = server.stats().counts();
    assert_eq!((counts.done, counts.active), (count as u64, 0));
    assert!(counts.resent > 0);
    server.shutdown().await;
}

#[tokio::test]
async fn a_file_that_is_read_meanwhile_arrives_as_one_in_memory_does_and_one_too_short_breaks_off()
{
    for engine in [Engine::Kiln, Engine::AsyncTftp] {
        let (shelf, server) = serve(Config { engine, ..Config::default() });
        let mut client = Client::new(&server).await;
        let file = client.fetch("streamed", "blksize|1468|windowsize|16|", |n| n % 97 == 5).await;
        assert_eq!(file, Ok(large()), "{engine:?}");
        shelf.ends(1).await;
        server.shutdown().await;
    }
    let (shelf, server) = serve(Config::default());
    let mut client = Client::new(&server).await;
    client.read(b"short", "blksize|1468|windowsize|16|").await;
    client.next().await;
    let ended = async {
        let mut block = 0;
        loop {
            client.ack(block).await;
            block += 16;
            for _ in 0..16 {
                if client.hear(Duration::from_secs(2)).await.is_none() {
                    return;
                }
            }
        }
    };
    ended.await;
    let ends = shelf.ends(1).await;
    assert!(matches!(ends[0].1, End::Broken(_)), "{ends:?}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_file_of_more_than_65535_blocks_goes_on_with_block_0() {
    let (_, server) = serve(Config::default());
    let mut client = Client::new(&server).await;
    let file = client.fetch("many", "blksize|8|windowsize|16|", NONE).await.unwrap();
    assert_eq!(file.len(), 524_313);
    server.shutdown().await;
}

#[tokio::test]
async fn a_probe_for_the_size_is_no_failure_and_its_port_is_free_at_once() {
    let (shelf, server) = serve(Config::default());
    let mut client = Client::new(&server).await;
    client.read(b"ipxe/a", "tsize|0|blksize|1468|windowsize|4|").await;
    assert_eq!(client.next().await, b"\0\x06blksize\x001468\0tsize\x003000\0windowsize\x004\0");
    client.send(b"\0\x05\0\x08User aborted the transfer\0").await;
    assert_eq!(shelf.ends(1).await, [("ipxe/a".to_owned(), End::Probe, 0)]);
    // The same port asks for the file, as firmware does.
    let file = client.fetch("ipxe/a", "blksize|1468|windowsize|4|", NONE).await;
    assert_eq!(file, Ok(vec![7; 3000]));
    shelf.ends(2).await;
    let counts = server.stats().counts();
    assert_eq!((counts.probes, counts.done, counts.broken, counts.active), (1, 1, 0, 0));
    server.shutdown().await;
}

#[tokio::test]
async fn names_are_found_without_regard_to_case_and_with_bytes_after_their_end() {
    let (_, server) = serve(Config::default());
    for name in [&b"IPXE/A"[..], b"\\Ipxe\\A", b"ipxe/a\xff", b"//ipxe//./a"] {
        let mut client = Client::new(&server).await;
        client.read(name, "").await;
        assert_eq!(client.next().await[..4], [0, 3, 0, 1], "{name:?}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn netascii_has_its_own_ends_of_lines() {
    let (_, server) = serve(Config::default());
    let mut client = Client::new(&server).await;
    client.ask(b"\0\x01lines\0netascii\0tsize\x000\0").await;
    assert_eq!(client.next().await, b"\0\x03\0\x01a\r\nb\r\n");
    server.shutdown().await;
}

#[tokio::test]
async fn a_stop_lets_a_transfer_end_and_takes_no_new_one() {
    let (shelf, server) = serve(Config::default());
    let mut client = Client::new(&server).await;
    client.read(b"ipxe/a", "blksize|1468|").await;
    client.next().await;
    let other = Client::new(&server).await;
    let stopping = tokio::spawn(server.shutdown());
    client.ack(0).await;
    for block in 1..=3 {
        assert_eq!(client.next().await[..4], [0, 3, 0, block]);
        client.ack(block.into()).await;
    }
    stopping.await.unwrap();
    let _ = other.socket.send_to(b"\0\x01ipxe/a\0octet\0", other.server).await;
    assert_eq!(shelf.ends(1).await, [("ipxe/a".to_owned(), End::Done, 3000)]);
}

#[tokio::test]
async fn a_request_that_comes_twice_is_one_transfer() {
    let (_, server) = serve(Config::default());
    let mut client = Client::new(&server).await;
    client.read(b"ipxe/a", "blksize|1468|").await;
    client.next().await;
    let first = client.peer;
    client.read(b"ipxe/a", "blksize|1468|").await;
    client.next().await;
    assert_eq!(client.peer, first);
    assert_eq!(server.stats().counts().active, 1);
    server.shutdown().await;
}
