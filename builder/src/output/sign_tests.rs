use super::*;
use crate::output::pe::tests::program;
use crate::output::secure_boot::{SecureBootKey, create_key};

/// Writes a key and its certificate to a folder and reads them back.
fn key_file(dir: &Path, key: &SecureBootKey) -> KeyFile {
    let (path, certificate) = (dir.join("key.pem"), dir.join("cert.pem"));
    std::fs::write(&path, &key.key_pem).unwrap();
    std::fs::write(&certificate, &key.certificate_pem).unwrap();
    KeyFile::read(&path, &certificate).unwrap()
}

fn unsigned() -> Plan {
    let mut plan = Plan::default();
    plan.push_bytes(program(0x8664, 0));
    plan.push_bytes(vec![5; 512]);
    plan
}

/// Takes a signature apart again and checks each link: the digest of the program, the digest of the content, and
/// the signature of the attributes.
fn verify(signed: &Plan, store: &Store, certificate: &Certificate) -> bool {
    let plain = unsigned();
    let table = signed.slice(plain.len()..signed.len());
    let mut bytes = Vec::new();
    table.write(store, &mut bytes).unwrap();
    assert_eq!(
        bytes[..8],
        [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], &[0, 2, 2, 0]].concat()
    );
    let parts = |bytes| der::read_all(bytes).unwrap();
    let (outer, rest) = der::read(&bytes[8..]).unwrap();
    assert!(rest.len() < 8 && rest.iter().all(|&byte| byte == 0));
    let data = parts(parts(parts(outer.content)[1].content)[0].content);
    let [_, _, content, certificates, infos] = data.as_slice() else { panic!() };
    assert_eq!(certificates.content, certificate.der());
    let content = parts(parts(content.content)[1].content)[0].content;
    let info = parts(parts(infos.content)[0].content);
    let [_, _, _, attributes, _, signature] = info.as_slice() else { panic!() };
    let mut message = attributes.whole.to_vec();
    message[0] = SET;

    // The digest of the program, by another way than the one under test.
    let mut file = Vec::new();
    signed.write(store, &mut file).unwrap();
    let optional = 0x80 + 24;
    let all =
        [&file[..optional + 64], &file[optional + 68..optional + 144], &file[optional + 152..]];
    let digest = sha256(&all.concat()[..usize::try_from(plain.len()).unwrap() - 12]);

    let inner = parts(parts(content)[1].content)[1].content;
    let attribute = parts(parts(attributes.content)[1].content)[1];
    let stated = parts(attribute.content)[0].content;
    inner == digest.as_bytes()
        && stated == sha256(content).as_bytes()
        && certificate.verifies(&message, signature.content)
}

#[test]
fn a_signed_program_verifies_and_an_altered_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let key = create_key("Kiln test").unwrap();
    let signer = key_file(dir.path(), &key);
    let signed = sign(&unsigned(), &store, &signer).unwrap();
    assert!(verify(&signed, &store, &key.certificate));
    assert_eq!(sign(&unsigned(), &store, &signer).unwrap(), signed, "signing is deterministic");
    assert!(matches!(sign(&signed, &store, &signer), Err(SignError::Program(PeError::Signed))));

    let mut altered = signed.slice(0..unsigned().len() - 1);
    altered.push_bytes(vec![6]);
    altered.append(&signed.slice(unsigned().len()..signed.len()));
    assert!(!verify(&altered, &store, &key.certificate));
}

#[test]
fn a_command_can_sign() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let key = create_key("Kiln test").unwrap();
    let file = key_file(dir.path(), &key);
    // A key that knows one message: what it says is prepared, as no tool can be counted on here.
    let digest = pe::authenticated(&unsigned(), &pe::headers(&unsigned(), &store).unwrap())
        .unwrap()
        .sha256(&store)
        .unwrap();
    struct Note(Certificate, std::sync::Mutex<Vec<u8>>);
    impl Signer for Note {
        fn certificate(&self) -> &Certificate {
            &self.0
        }
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
            *self.1.lock().unwrap() = message.to_vec();
            Err(SignError::Refused)
        }
        fn sign_file(&self, _: &Plan, _: &Store) -> Result<Vec<u8>, SignError> {
            Err(SignError::Refused)
        }
    }
    let note = Note(key.certificate.clone(), std::sync::Mutex::default());
    assert!(matches!(signed_data(&digest, &note), Err(SignError::Refused)));
    let signature = dir.path().join("signature");
    std::fs::write(&signature, file.sign(&note.1.lock().unwrap()).unwrap()).unwrap();

    let shell = |script: &str| SigningCommand {
        program: "sh".into(),
        arguments: vec!["-c".into(), script.into(), "sh".into(), signature.clone().into()],
        certificate: key.certificate.clone(),
    };
    // A whole file too: the command has got all of it.
    let length = "printf %s $(wc -c)";
    let said = shell(length).sign_file(&unsigned(), &store).unwrap();
    assert_eq!(said, unsigned().len().to_string().into_bytes());
    let mut whole = Vec::new();
    unsigned().write(&store, &mut whole).unwrap();
    let by_file = file.sign_file(&unsigned(), &store).unwrap();
    assert_eq!(by_file, file.sign(&whole).unwrap());
    let signed = sign(&unsigned(), &store, &shell("cat >/dev/null; cat \"$1\"")).unwrap();
    assert!(verify(&signed, &store, &key.certificate));
    let error = sign(&unsigned(), &store, &shell("echo no card >&2; exit 3")).unwrap_err();
    assert!(error.to_string().ends_with("(exit status: 3): no card"), "{error}");
    let error = sign(&unsigned(), &store, &shell("echo nonsense")).unwrap_err();
    assert!(matches!(error, SignError::Mismatch), "{error}");
}

#[test]
fn a_key_of_another_certificate_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut key = create_key("one").unwrap();
    key.certificate_pem = create_key("two").unwrap().certificate_pem;
    let signer = key_file(dir.path(), &key);
    assert!(matches!(sign(&unsigned(), &store, &signer), Err(SignError::Mismatch)));
}

#[test]
fn files_that_are_no_keys_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        .unwrap();
    assert!(matches!(KeyFile::read(&path, &path), Err(KeyError::Key { .. })));
    assert!(matches!(Certificate::read(&path), Err(KeyError::NoPem { wanted: "CERTIFICATE", .. })));
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
        .unwrap();
    assert!(matches!(Certificate::read(&path), Err(KeyError::Certificate { .. })));
}
