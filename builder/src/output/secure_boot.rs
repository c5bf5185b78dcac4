//! Keys for Secure Boot, and the forms in which firmware takes their certificates.

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
    RsaKeySize, date_time_ymd,
};

use super::certificate::Certificate;

/// `EFI_CERT_X509_GUID` (UEFI 2.10 §32.4.1), as it lies in memory.
const X509: [u8; 16] = [
    0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72,
];

/// A new key and its certificate.
#[derive(Clone)]
pub struct SecureBootKey {
    /// The private key, PKCS #8 in PEM. Whoever has it can make what the firmware starts.
    pub key_pem: String,
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The certificate.
    pub certificate: Certificate,
}

impl std::fmt::Debug for SecureBootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecureBootKey").field("certificate", &self.certificate).finish()
    }
}

/// A key could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a key for Secure Boot")]
pub struct CreateKeyError(#[source] Option<rcgen::Error>);

/// Makes an RSA key of 2048 bits, the size that all firmware takes, with a certificate that it signed itself.
///
/// Firmware does not look at dates, and machines without a clock have none: it is valid from 2020 to the end of 2049.
///
/// # Errors
///
/// Fails when the name has no place in a certificate.
pub fn create_key(name: &str) -> Result<SecureBootKey, CreateKeyError> {
    let failed = |error| CreateKeyError(Some(error));
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(failed)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let signed = params.self_signed(&key).map_err(failed)?;
    let certificate = Certificate::parse(signed.der().to_vec()).ok_or(CreateKeyError(None))?;
    Ok(SecureBootKey { key_pem: key.serialize_pem(), certificate_pem: signed.pem(), certificate })
}

/// Returns a certificate as an `EFI_SIGNATURE_LIST`, the form in which tools enrol it. The owner is a GUID of the
/// user's choice; zeros will do.
pub fn signature_list(certificate: &Certificate, owner: [u8; 16]) -> Vec<u8> {
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let entry = 16 + certificate.der().len();
    let mut list = X509.to_vec();
    list.extend(size(28 + entry));
    list.extend(size(0));
    list.extend(size(entry));
    list.extend(owner);
    list.extend_from_slice(certificate.der());
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_list_says_how_long_it_is() {
        let key = create_key("Kiln test").unwrap();
        let list = signature_list(&key.certificate, [7; 16]);
        assert_eq!(list[16..20], u32::try_from(list.len()).unwrap().to_le_bytes());
        assert_eq!(list[24..28], u32::try_from(list.len() - 28).unwrap().to_le_bytes());
        assert!(list.ends_with(key.certificate.der()));
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }
}
