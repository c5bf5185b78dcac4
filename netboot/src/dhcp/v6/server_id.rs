use std::fs;
use std::io;
use std::path::Path;

use kiln_builder::durable;
use kiln_inventory::Duid;

/// Returns what this server calls itself, and keeps it in a file: clients renew with the server of that name, also
/// after its network card was changed. Made of random numbers (DUID-UUID, RFC 6355).
///
/// # Errors
///
/// When the file cannot be read or written, or holds something else.
pub fn server_id(path: &Path) -> io::Result<Duid> {
    match fs::read_to_string(path) {
        Ok(text) => {
            return text
                .trim()
                .parse()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut bytes = [0; 18];
    if let Some(number) = bytes.get_mut(2..) {
        aws_lc_rs::rand::fill(number).map_err(|_| io::Error::other("no randomness"))?;
    }
    bytes[1] = 4;
    let duid = Duid::new(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    durable::replace(path, format!("{duid}\n").as_bytes(), 0o640)?;
    Ok(duid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_server_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dhcpv6-duid");
        let first = server_id(&path).unwrap();
        assert!(first.as_bytes().starts_with(&[0, 4]) && first.as_bytes().len() == 18);
        assert_eq!(server_id(&path).unwrap(), first);
        fs::write(&path, "nonsense").unwrap();
        let error = server_id(&path).unwrap_err().to_string();
        assert!(error.contains("is not a DUID"), "{error}");
    }
}
