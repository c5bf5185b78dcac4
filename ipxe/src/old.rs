//! iPXE that is too old for our scripts, such as one in the ROM of a card, starts ours instead.

/// The first version whose later builds hand the initrd over to a kernel with UEFI ([`INITRD_BY_KERNEL`]).
const SINCE: (u32, u32) = (1, 21);

/// What a build of iPXE for UEFI has in it that hands the initrd over as kernels since 5.7 ask for it: the GUID of
/// `LINUX_EFI_INITRD_MEDIA_GUID`.
pub const INITRD_BY_KERNEL: [u8; 16] = [
    0x27, 0xe4, 0x68, 0x55, 0xfc, 0x68, 0x3d, 0x4f, 0xac, 0x74, 0xca, 0x55, 0x52, 0x31, 0xcc, 0x68,
];

/// Returns whether what asks by HTTP is an iPXE that cannot hand an initrd to a kernel on UEFI. Without a version that can
/// be read it is taken for a newer one.
pub fn is_old(user_agent: &str) -> bool {
    let numbers = user_agent.strip_prefix("iPXE/").and_then(|version| {
        let mut parts = version.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    });
    numbers.is_some_and(|numbers: (u32, u32)| numbers < SINCE)
}

/// Returns the script that makes way for the loader at a URL.
pub fn renewed_by(url: &str) -> String {
    format!(
        "#!ipxe\necho Kiln: this iPXE is too old for UEFI, starting a newer one\n\
         chain --autofree {url} || echo Kiln: it cannot be had\nsleep 5\nexit 1\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_before_1_21_are_old() {
        for (agent, expected) in [
            ("iPXE/1.0.0+git-20190125.36a4c85-5.1", true),
            ("iPXE/1.20.1", true),
            ("iPXE/1.21.1+git20250501.dad20602+dfsg-1", false),
            ("iPXE/2.0.0", false),
            ("iPXE/", false),
            ("iPXE/x.y", false),
            ("UefiHttpBoot/1.0", false),
            ("", false),
        ] {
            assert_eq!(is_old(agent), expected, "{agent}");
        }
    }
}
