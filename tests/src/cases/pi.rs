//! What a Raspberry Pi 4 says to a server, put together from the documentation of its boot program, played to ours.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kiln::lab::{ADDRESS, BRIDGE, Lab, Neighbour, Site};
use kiln_builder::hash::sha256;
use kiln_builder::output::Signing;
use kiln_builder::output::secure_boot::create_key;
use kiln_inventory::{Firmware, NewMachine, Phase};
use kiln_types::{Arch, Mac};
use nix::sys::socket::{setsockopt, sockopt};

use crate::rig::{Case, Need, Scene, image, kiln, store};

pub(super) fn cases() -> Vec<Case> {
    let needs = [
        Need::Root,
        Need::Program,
        Need::KilnInit(Arch::Arm64),
        Need::Tool("openssl", "openssl"),
        Need::Tool("mcopy", "mtools"),
    ];
    let name = "pi::a_raspberry_pi_4_gets_its_files_and_its_signed_image";
    let by_u_boot = "pi::a_raspberry_pi_4_starts_u_boot_where_there_is_one";
    vec![Case::new(name, &needs, gets_its_files), Case::new(by_u_boot, &needs[..3], starts_u_boot)]
}

/// The board is told to start U-Boot, which then asks for itself.
fn starts_u_boot() -> anyhow::Result<()> {
    const U_BOOT: &[u8] = b"in the place of U-Boot";
    let image = image(Arch::Arm64)?;
    let folder = tempfile::tempdir()?;
    let loaders = folder.path().join("loaders");
    fs::create_dir_all(&loaders)?;
    fs::copy(store().join("cache/loaders/undionly.kpxe"), loaders.join("undionly.kpxe"))?;
    fs::write(loaders.join("u-boot-rpi.bin"), U_BOOT)?;
    let own = NewMachine { address: Some(OWN), ..Scene::machine("pi", MAC, &image) };
    let (send, receive) = std::sync::mpsc::channel();
    let other = move |lab: &mut Lab| Ok(send.send(lab.add_neighbour(&[(BRIDGE, BEFORE)])?)?);
    let site = |site: Site| site.with_loaders(&loaders);
    Scene::play_among(other, site, vec![own], async |scene| {
        let board = receive.recv()?;
        let work = move || -> anyhow::Result<Neighbour> {
            board.enter()?;
            let udp = broadcaster()?;
            let pxe = [93, 2, 0, 0].to_vec();
            let offer = exchange(&udp, &[vec![53, 1, 1], pxe, mark()])?;
            ensure!(offer.kind == 2 && offer.yours == OWN, "the offer is {offer:?}");
            takes_its_address(&board)?;
            let config = String::from_utf8(tftp(&format!("{SERIAL}/config.txt"))?)?;
            ensure!(config.contains("\nkernel=u-boot.bin\n"), "config.txt is {config}");
            ensure!(!config.contains("initramfs"), "config.txt is {config}");
            ensure!(tftp(&format!("{SERIAL}/u-boot.bin"))? == U_BOOT, "another program");
            let class = [&[60, 12][..], b"U-Boot.armv8"].concat();
            let offer = exchange(&udp, &[vec![53, 1, 1], vec![93, 2, 0, 22], class])?;
            let file = offer.option(67).context("no boot file")?;
            let script = tftp(std::str::from_utf8(file)?.trim_end_matches('\0'))?;
            let text = String::from_utf8_lossy(&script).into_owned();
            ensure!(text.contains("booti ${kernel_addr_r}"), "the script is {text}");
            Ok(board)
        };
        let worked = tokio::task::spawn_blocking(|| std::thread::spawn(work).join()).await?;
        let _board = worked.map_err(|_| anyhow::anyhow!("the board panicked"))??;
        let boots = scene.inventory().boots(4).await?;
        // It is one boot, of the board that began it.
        let [boot] = boots.as_slice() else { bail!("the boots are {boots:?}") };
        ensure!(boot.firmware == Some(Firmware::RaspberryPi), "the boot is {boot:?}");
        Ok(scene)
    })
}

/// What it says in option 97: which board it is, and its number.
fn mark() -> Vec<u8> {
    let mut mark = vec![97, 17, 0];
    mark.extend(b"RPi4\x14\x31\xc0\x00\x32\x01\x36\xc2\x9f\xfe\xfd\xef");
    mark
}

fn broadcaster() -> anyhow::Result<UdpSocket> {
    let udp = UdpSocket::bind("0.0.0.0:68")?;
    udp.set_broadcast(true)?;
    udp.set_read_timeout(Some(Duration::from_secs(60)))?;
    setsockopt(&udp, sockopt::BindToDevice, &"p0".into())?;
    Ok(udp)
}

fn takes_its_address(board: &Neighbour) -> anyhow::Result<()> {
    for own in [&["addr", "flush", "dev", "p0"][..], &["addr", "add", "10.77.0.20/24", "dev", "p0"]]
    {
        ensure!(board.command("ip").args(own).status()?.success(), "the address cannot be set");
    }
    Ok(())
}

const MAC: Mac = Mac::new([0xdc, 0xa6, 0x32, 1, 0x36, 0xc2]);
/// The last four bytes of its serial number, which it puts in front of every name.
const SERIAL: &str = "9ffefdef";
/// The address that it is to have, and one to ask from before.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 20);
const BEFORE: &str = "10.77.0.3/24";

fn gets_its_files() -> anyhow::Result<()> {
    let image = image(Arch::Arm64)?;
    let folder = tempfile::tempdir()?;
    let loaders = folder.path().join("loaders");
    let firmware = loaders.join("raspberry-pi");
    fs::create_dir_all(firmware.join("overlays"))?;
    let undionly = store().join("cache/loaders/undionly.kpxe");
    fs::copy(undionly, loaders.join("undionly.kpxe"))?;
    for (name, bytes) in FIRMWARE {
        fs::write(firmware.join(name), bytes)?;
    }
    let key = create_key("Kiln test")?;
    let [private, certificate] = ["key.pem", "cert.pem"].map(|name| folder.path().join(name));
    fs::write(&private, &key.key_pem)?;
    fs::write(&certificate, &key.certificate_pem)?;
    let signing = Signing::Key { key: private, certificate: certificate.clone() };
    let own = NewMachine { address: Some(OWN), ..Scene::machine("pi", MAC, &image) };
    let index = kiln_builder::Store::open(store())?;
    let manifest = index.manifest(&index.find(image.name(), Arch::Arm64)?.digest)?;

    let (send, receive) = std::sync::mpsc::channel();
    let other = move |lab: &mut Lab| Ok(send.send(lab.add_neighbour(&[(BRIDGE, BEFORE)])?)?);
    let site = |site: Site| site.with_loaders(&loaders).with_signing(signing);
    Scene::play_among(other, site, vec![own], async |scene| {
        let board = receive.recv()?;
        let socket = scene.socket();
        let kernel = manifest.kernel.digest;
        let dir = folder.path().to_owned();
        let work = move || -> anyhow::Result<Neighbour> {
            board.enter()?;
            let before = files(&board)?;
            ensure!(sha256(&before.kernel) == kernel, "it got another kernel");
            signed_image(&dir, &certificate, &before)?;
            // A machine that is to boot from its disk finds nothing, and goes on.
            let set = ["machine", "set", "pi", "--boot", "disk", "--socket", &socket];
            let set = kiln(&set)?;
            ensure!(set.code == Some(0), "{}", set.stderr);
            ensure!(tftp(&format!("{SERIAL}/config.txt")).is_err(), "it boots from the net");
            ensure!(http("/net_install/boot.img").is_err(), "it boots from the net");
            Ok(board)
        };
        // In a thread of its own, which is on another host.
        let worked = tokio::task::spawn_blocking(|| std::thread::spawn(work).join()).await?;
        let _board = worked.map_err(|_| anyhow::anyhow!("the board panicked"))??;
        let boots = scene.inventory().boots(4).await?;
        let newest = boots.first().context("there is no boot")?;
        let (boot, events) = scene.inventory().boot(newest.id).await?.context("it is gone")?;
        ensure!(boot.firmware == Some(Firmware::RaspberryPi), "seen was {:?}", boot.firmware);
        for phase in [Phase::Dhcp, Phase::Script, Phase::Kernel, Phase::Segment, Phase::Loader] {
            ensure!(events.iter().any(|event| event.phase == phase), "no {phase}: {events:?}");
        }
        Ok(scene)
    })
}

/// In the place of the firmware, which is not free software.
const FIRMWARE: [(&str, &[u8]); 5] = [
    ("start4.elf", b"the program of the graphics processor"),
    ("fixup4.dat", b"its memory"),
    ("bcm2711-rpi-4-b.dtb", b"the devicetree"),
    ("overlays/overlay_map.dtb", b"the list of overlays"),
    ("start.elf", b"of older boards"),
];

struct Fetched {
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    cmdline: Vec<u8>,
}

/// Gets an address, and what the boot program asks for by TFTP, in its order.
fn files(board: &Neighbour) -> anyhow::Result<Fetched> {
    let (udp, mark) = (broadcaster()?, mark());
    let asks = [55, 14, 1, 3, 43, 60, 66, 67, 128, 129, 130, 131, 132, 133, 134, 135];
    let pxe = [93, 2, 0, 0, 94, 3, 1, 2, 1];
    let mut class = vec![60, 32];
    class.extend(b"PXEClient:Arch:00000:UNDI:002001");

    let offer =
        exchange(&udp, &[vec![53, 1, 1], asks.to_vec(), pxe.to_vec(), mark.clone(), class])?;
    ensure!(offer.kind == 2 && offer.yours == OWN, "the offer is {offer:?}");
    ensure!(offer.next == ADDRESS, "the offer names {} as server", offer.next);
    let menu = offer.option(43).context("no option 43")?;
    let named = menu.windows(17).any(|bytes| bytes == b"Raspberry Pi Boot");
    ensure!(named, "option 43 is {menu:02x?}");
    ensure!(offer.option(66) == Some(ADDRESS.to_string().as_bytes()), "option 66 is another");
    // Its request has no class.
    let wanted = [&[50, 4][..], &OWN.octets(), &[54, 4], &ADDRESS.octets()].concat();
    let ack = exchange(&udp, &[vec![53, 1, 3], wanted, mark, asks.to_vec()])?;
    ensure!(ack.kind == 5 && ack.yours == OWN, "the answer is {ack:?}");
    takes_its_address(board)?;

    let config = tftp(&format!("{SERIAL}/config.txt"))?;
    let config = String::from_utf8(config)?;
    for (name, bytes) in FIRMWARE {
        ensure!(tftp(&format!("{SERIAL}/{name}"))? == bytes, "{name} is another");
    }
    // What is not there is refused at once; it takes that for a file that it does not need.
    for name in ["recovery.elf", "dt-blob.bin", "bootcfg.txt"] {
        let error = tftp(&format!("{SERIAL}/{name}")).err().context("there is such a file")?;
        ensure!(error.to_string().contains("code 1"), "{name}: {error:#}");
    }
    let line = |start: &str| config.lines().find_map(|line| line.strip_prefix(start));
    let kernel = line("kernel=").with_context(|| format!("no kernel in {config}"))?;
    let initrd = line("initramfs ").and_then(|rest| rest.strip_suffix(" followkernel"));
    let initrd = initrd.with_context(|| format!("no initrd in {config}"))?;
    let fetch = |name: &str| tftp(&format!("{SERIAL}/{name}"));
    let (kernel, initrd) = (fetch(kernel)?, fetch(initrd)?);
    Ok(Fetched { kernel, initrd, cmdline: fetch("cmdline.txt")? })
}

/// Fetches the image and what vouches for it, and looks into it with the tools of others.
fn signed_image(dir: &Path, certificate: &Path, before: &Fetched) -> anyhow::Result<()> {
    let [image, raw, public] = ["boot.img", "raw.sig", "public.pem"].map(|name| dir.join(name));
    let signature = String::from_utf8(http("/net_install/boot.sig")?)?;
    let bytes = http("/net_install/boot.img")?;
    fs::write(&image, &bytes)?;
    let lines: Vec<&str> = signature.lines().collect();
    let [hash, time, rsa] = lines.as_slice() else { bail!("boot.sig is {signature}") };
    ensure!(*hash == sha256(&bytes).hex(), "the hash is of another file");
    ensure!(time.strip_prefix("ts: ").is_some_and(|it| it.parse::<u64>().is_ok()), "{time}");
    let rsa = rsa.strip_prefix("rsa2048: ").with_context(|| format!("boot.sig has {rsa}"))?;
    let byte = |n: usize| u8::from_str_radix(rsa.get(n..n + 2).unwrap_or_default(), 16);
    let bare: Result<Vec<u8>, _> = (0..rsa.len()).step_by(2).map(byte).collect();
    fs::write(&raw, bare?)?;
    let openssl = |arguments: &[&str]| run(Command::new("openssl").args(arguments));
    let [image, raw, public] = [&image, &raw, &public].map(|path| path.display().to_string());
    let certificate = certificate.display().to_string();
    openssl(&["x509", "-in", &certificate, "-pubkey", "-noout", "-out", &public])?;
    openssl(&["dgst", "-sha256", "-verify", &public, "-signature", &raw, &image])?;
    let inside = |name: &str| run(Command::new("mcopy").args(["-i", &image, name, "-"]));
    ensure!(inside("::kernel8.img")? == before.kernel, "another kernel in boot.img");
    ensure!(inside("::cmdline.txt")? == before.cmdline, "other arguments in boot.img");
    ensure!(inside("::initrd")?.len() == before.initrd.len(), "another initrd in boot.img");
    ensure!(inside("::bcm2711-rpi-4-b.dtb")? == FIRMWARE[2].1, "no devicetree in boot.img");
    let config = String::from_utf8(inside("::config.txt")?)?;
    ensure!(config.contains("kernel=kernel8.img\ninitramfs initrd followkernel\n"), "{config}");
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(output.stdout)
}

/// An answer of a DHCP server.
#[derive(Debug)]
struct Reply {
    kind: u8,
    yours: Ipv4Addr,
    next: Ipv4Addr,
    options: Vec<(u8, Vec<u8>)>,
}

impl Reply {
    fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(other, _)| *other == code).map(|(_, value)| value.as_slice())
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let address = |at: usize| {
            let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets))
        };
        let (mut rest, mut options) = (bytes.get(240..)?, Vec::new());
        while let [code, tail @ ..] = rest {
            rest = match (code, tail) {
                (0, _) => tail,
                (255, _) => break,
                (_, [len, tail @ ..]) => {
                    let (value, tail) = tail.split_at_checked(usize::from(*len))?;
                    options.push((*code, value.to_vec()));
                    tail
                }
                _ => return None,
            };
        }
        let kind = *options.iter().find(|(code, _)| *code == 53)?.1.first()?;
        Some(Self { kind, yours: address(16)?, next: address(20)?, options })
    }
}

/// Broadcasts a message and returns the answer to it.
fn exchange(udp: &UdpSocket, options: &[Vec<u8>]) -> anyhow::Result<Reply> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[4..8].copy_from_slice(&[0x26, 0xf3, 0x01, 0x01]);
    message[10] = 0x80;
    message[28..34].copy_from_slice(&MAC.octets());
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend(options.concat());
    message.push(255);
    message.resize(message.len().max(300), 0);
    udp.send_to(&message, "255.255.255.255:67")?;
    let mut buffer = [0; 1500];
    loop {
        let (len, _) = udp.recv_from(&mut buffer).context("no answer by DHCP")?;
        if buffer[..len].get(4..8) == Some(&message[4..8]) && buffer[0] == 2 {
            return Reply::read(&buffer[..len]).context("the answer makes no sense");
        }
    }
}

/// Fetches a file from our address as the boot program does: by blocks of 1468 bytes, one at a time.
fn tftp(name: &str) -> anyhow::Result<Vec<u8>> {
    let udp = UdpSocket::bind((OWN, 0))?;
    udp.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = format!("\0\u{1}{name}\0octet\0blksize\01468\0tsize\00\0");
    let mut answer = request.into_bytes();
    let mut to = SocketAddr::from((ADDRESS, 69));
    let (mut file, mut block, mut silent) = (Vec::new(), 0_u16, 0);
    let mut buffer = [0; 1500];
    loop {
        udp.send_to(&answer, to)?;
        let Ok((len, from)) = udp.recv_from(&mut buffer) else {
            silent += 1;
            ensure!(silent < 12, "no answer for {name}");
            continue;
        };
        to = from;
        match &buffer[..len] {
            [0, 6, ..] => answer = vec![0, 4, 0, 0],
            [0, 3, high, low, data @ ..] => {
                let number = u16::from_be_bytes([*high, *low]);
                if number == block.wrapping_add(1) {
                    block = number;
                    file.extend(data);
                }
                answer = vec![0, 4, *high, *low];
                if number == block && data.len() < 1468 {
                    udp.send_to(&answer, to)?;
                    return Ok(file);
                }
            }
            [0, 5, _, code, text @ ..] => {
                bail!("code {code} for {name}: {}", String::from_utf8_lossy(text))
            }
            other => bail!("{name} is answered by {:02x?}", other.get(..4)),
        }
    }
}

/// Fetches a path from our address.
fn http(path: &str) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((ADDRESS, 8080))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let body = answer.split_off(end.context("no head")? + 4);
    let head = String::from_utf8_lossy(&answer);
    ensure!(head.starts_with("HTTP/1.1 200 "), "{path} is answered with {head}");
    Ok(body)
}
