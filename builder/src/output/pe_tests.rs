use super::checksum::Checksum;
use super::*;
use crate::hash::sha256;

/// Makes a program with two sections and room for the headers of some more.
pub(in crate::output) fn program(machine: u16, room: usize) -> Vec<u8> {
    let (pe, optional) = (0x80, 0x80 + 24);
    let table = optional + 240;
    let headers = (table + (2 + room) * SECTION).next_multiple_of(512);
    let mut bytes = vec![0; headers];
    put(&mut bytes, 0, b"MZ");
    put(&mut bytes, 0x3c, &u32::try_from(pe).unwrap().to_le_bytes());
    put(&mut bytes, pe, b"PE\0\0");
    put(&mut bytes, pe + 4, &machine.to_le_bytes());
    put(&mut bytes, pe + 6, &2_u16.to_le_bytes());
    put(&mut bytes, pe + 20, &240_u16.to_le_bytes());
    put(&mut bytes, optional, &PE32_PLUS.to_le_bytes());
    put(&mut bytes, optional + 32, &4096_u32.to_le_bytes());
    put(&mut bytes, optional + 36, &512_u32.to_le_bytes());
    put(&mut bytes, optional + 56, &0x3000_u32.to_le_bytes());
    put(&mut bytes, optional + 60, &u32::try_from(headers).unwrap().to_le_bytes());
    put(&mut bytes, optional + 108, &16_u32.to_le_bytes());
    for (n, name) in [(0, b".text"), (1, b".sbat")] {
        let at = table + n * SECTION;
        let (n, offset) = (u32::try_from(n).unwrap(), u32::try_from(bytes.len()).unwrap());
        put(&mut bytes, at, name);
        put(&mut bytes, at + 8, &100_u32.to_le_bytes());
        put(&mut bytes, at + 12, &((n + 1) * 4096).to_le_bytes());
        put(&mut bytes, at + 16, &512_u32.to_le_bytes());
        put(&mut bytes, at + 20, &offset.to_le_bytes());
        bytes.resize(bytes.len() + 512, 0x11 * u8::try_from(n + 1).unwrap());
    }
    bytes
}

fn section(name: &'static str, len: usize, memory: u64) -> NewSection {
    let mut content = Plan::default();
    content.push_bytes(vec![7; len]);
    NewSection { name, content, memory }
}

#[test]
fn sections_are_added_behind_those_of_the_stub() {
    let program = program(0x8664, 4);
    let new = [section(".a", 1, 0), section(".linux", 5000, 20_000), section(".c", 512, 0)];
    let plan = append(&program, &new).unwrap();
    let Some(super::super::Piece::Bytes(head)) = plan.pieces().first() else { panic!() };
    let headers = Headers::parse(head).unwrap();
    headers.check_arch(Arch::X86_64).unwrap();
    headers.check_gapless().unwrap();
    let found: Vec<_> = headers
        .sections()
        .iter()
        .map(|s| (s.name.as_str(), s.address, s.size, s.file_size))
        .collect();
    assert_eq!(
        found,
        [
            (".text", 0x1000, 100, 512),
            (".sbat", 0x2000, 100, 512),
            (".a", 0x3000, 1, 512),
            (".linux", 0x4000, 20_000, 5120),
            (".c", 0x9000, 512, 512),
        ]
    );
    assert_eq!(headers.size_of_image(), 0xa000);
    assert_eq!(plan.len(), program.len() as u64 + 512 + 5120 + 512);
}

#[test]
fn what_would_spoil_a_program_is_refused() {
    let program = program(0xaa64, 1);
    let error = |program: &[u8], sections: &[NewSection]| append(program, sections).unwrap_err();
    let many = [".1", ".2", ".3", ".4", ".5", ".6", ".7"].map(|name| section(name, 1, 0));
    assert!(matches!(error(&program, &many), PeError::NoRoom { need: 360, .. }));
    assert!(matches!(error(&program, &[section(".sbat", 1, 0)]), PeError::Duplicate(_)));
    let mut huge = section(".initrd", 0, 0);
    huge.content.push_artifact(sha256(b""), 5 << 30);
    assert!(matches!(error(&program, &[huge]), PeError::TooLarge { .. }));
    assert!(matches!(error(b"#!/bin/sh", &[]), PeError::NotPe(_)));
    for len in 0..program.len() {
        // Cut off anywhere, it is refused or read, and nothing breaks.
        let _ = Headers::parse(&program[..len]);
    }
    let headers = Headers::parse(&program).unwrap();
    assert!(matches!(headers.check_arch(Arch::X86_64), Err(PeError::Machine { .. })));
}

#[test]
fn a_signature_is_of_everything_but_the_checksum_and_its_own_entry() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let plan = append(&program(0x8664, 4), &[section(".a", 1, 0)]).unwrap();
    let digest = |plan: &Plan| {
        let headers = headers(plan, &store).unwrap();
        authenticated(plan, &headers).unwrap().sha256(&store).unwrap()
    };
    let summed = with_checksum(&plan, &store).unwrap();
    assert_ne!(summed.sha256(&store).unwrap(), plan.sha256(&store).unwrap());
    assert_eq!(digest(&summed), digest(&plan));
    assert_eq!(
        authenticated(&plan, &headers(&plan, &store).unwrap()).unwrap().len(),
        plan.len() - 12
    );

    let before = headers(&plan, &store).unwrap();
    let signed = attach(&plan, &before, vec![1; 16]).unwrap();
    assert_eq!(signed.len(), plan.len() + 16);
    let after = headers(&signed, &store).unwrap();
    assert_eq!(after.certificates, (u32::try_from(plan.len()).unwrap(), 16));
    assert!(matches!(authenticated(&signed, &after), Err(PeError::Signed)));
}

#[test]
fn the_checksum_does_not_depend_on_how_the_bytes_come() {
    let bytes: Vec<u8> = (0..=250).cycle().take(100_001).collect();
    let sum = |size: usize| {
        let mut sum = Checksum::default();
        bytes.chunks(size).for_each(|chunk| sum.update(chunk));
        sum.finish()
    };
    assert_eq!(sum(1), sum(100_001));
    assert_eq!(sum(7), sum(4096));
}

#[test]
fn fuzzed_programs_are_read_or_refused_and_can_be_added_to() {
    let (with_room, without) = (program(0x8664, 4), program(0xaa64, 0));
    kiln_fuzz::check("pe", &[&with_room, &without], |bytes| {
        let Ok(headers) = Headers::parse(bytes) else { return };
        for section in headers.sections() {
            assert!(!section.name.contains('\0'));
        }
        let _ =
            (headers.check_arch(Arch::X86_64), headers.check_gapless(), headers.size_of_image());
        if let Ok(plan) = append(bytes, &[section(".a", 1, 0), section(".linux", 700, 5000)]) {
            assert!(plan.len() > bytes.len() as u64 / 2);
        }
    });
}
