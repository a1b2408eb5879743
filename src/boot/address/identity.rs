//! How DHCP servers know this machine: by the number that its firmware and iPXE give as well, and by what firmware it
//! has. Some say whom to boot from only to whoever says that it boots from the network.

use std::env;
use std::fs;
use std::path::Path;

/// The machine's own number, what is there with UEFI, and a number that makers of boards forget to change.
const MACHINE_UUID: &str = "/sys/class/dmi/id/product_uuid";
const UEFI: &str = "/sys/firmware/efi";
const SAMPLE_UUID: u128 = 0x03000200_0400_0500_0006_000700080009;

/// What tells one machine from another.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Identity {
    /// As a text has it, the first digits first.
    pub(super) uuid: Option<[u8; 16]>,
    /// What firmware it has (RFC 4578, section 2.1; RFC 5970, section 3.3).
    pub(super) architecture: Option<u16>,
}

impl Identity {
    pub(super) fn of_this_machine() -> Identity {
        let uuid = fs::read_to_string(MACHINE_UUID).ok().and_then(|text| uuid(&text));
        let by_uefi = Path::new(UEFI).exists();
        let architecture = match (env::consts::ARCH, by_uefi) {
            ("x86_64", true) => Some(7),
            ("x86_64", false) => Some(0),
            ("aarch64", _) => Some(11),
            ("riscv64", _) => Some(27),
            _ => None,
        };
        Identity { uuid, architecture }
    }

    /// The vendor class of who boots from the network, as firmware and iPXE write it.
    pub(super) fn vendor_class(&self) -> Option<String> {
        Some(format!("PXEClient:Arch:{:05}:UNDI:003016", self.architecture?))
    }
}

/// None for what boards have that were given no number of their own.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()?;
    let is_none = matches!(number, 0 | u128::MAX) || number == SAMPLE_UUID;
    (!is_none).then_some(number.to_be_bytes())
}
