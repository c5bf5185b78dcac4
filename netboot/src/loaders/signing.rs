//! Signs UEFI programs that are made for one machine, by the site's key for Secure Boot.
//!
//! The program differs from boot to boot, so all of it is read for each (docs/adr/0016). Firmware asks twice, for the
//! length and for the file, and gets the same signature both times.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use kiln_builder::Store;
use kiln_builder::output::Plan;
use kiln_builder::output::sign::{SignError, Signer, sign};
use kiln_types::Digest;

use super::BoxError;

/// How many programs are remembered: a rack that is switched on at once.
const KEPT: usize = 128;
/// The length of a signature that Raspberry Pis take, in bytes.
const PI_SIGNATURE: usize = 256;

/// Signs programs, and remembers the newest.
pub struct UkiSigner {
    signer: Box<dyn Signer>,
    kept: Mutex<VecDeque<(Digest, Plan)>>,
}

impl fmt::Debug for UkiSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UkiSigner").finish_non_exhaustive()
    }
}

impl UkiSigner {
    /// Signs by this key.
    pub fn new(signer: Box<dyn Signer>) -> Self {
        Self { signer, kept: Mutex::default() }
    }

    /// Returns `boot.sig` for the `boot.img` of a Raspberry Pi: the hash of the file, when it was signed, and an RSA
    /// signature of 2048 bits, each in a line of its own. Reads all of the file.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read, the key does not sign, or is longer or shorter than that.
    pub fn sign_image(&self, image: &Plan, store: &Store, now: u64) -> Result<String, BoxError> {
        let hash = image.sha256(store)?;
        let signature = self.signer.sign_file(image, store)?;
        if signature.len() != PI_SIGNATURE {
            let bits = signature.len() * 8;
            return Err(format!("Raspberry Pis take keys of 2048 bits; this one has {bits}").into());
        }
        let signature: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{}\nts: {now}\nrsa2048: {signature}\n", hash.hex()))
    }

    /// Signs a program. `name` is of these bytes and no others. Reads all of it, unless it was signed a moment ago.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read or the key does not sign.
    pub fn sign(&self, name: Digest, program: &Plan, store: &Store) -> Result<Plan, SignError> {
        let find = |kept: &VecDeque<(Digest, Plan)>| {
            kept.iter().find(|(other, _)| *other == name).map(|(_, plan)| plan.clone())
        };
        if let Some(signed) = find(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(signed);
        }
        let signed = sign(program, store, self.signer.as_ref())?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        kept.push_front((name, signed.clone()));
        Ok(signed)
    }
}
