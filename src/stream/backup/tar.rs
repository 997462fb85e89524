//! Tar files, as far as backups are some: headers of 512 bytes (ustar), whose long names and times stand in files of their own before
//! them (pax, or GNU's).
//!
//! Nothing is ever written where a name says: names only tell what a file is. The format: POSIX `pax`, "ustar Interchange Format".

use super::BackupError;

/// Everything stands in blocks of this size.
pub const BLOCK_BYTES: usize = 512;

/// What a header is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// Properties of the next file: pax.
    Properties,
    /// Properties of all files.
    Global,
    /// The name of the next file: GNU.
    LongName,
    /// A directory, a link, a device.
    Other,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What for.
    pub kind: Kind,
    /// The file's name.
    pub name: Vec<u8>,
    /// How long the file is.
    pub len: u64,
}

/// Reads a block as a header; `None` for one of zeros, which is the end.
///
/// # Errors
///
/// It is none.
pub fn read(block: &[u8; BLOCK_BYTES]) -> Result<Option<Header>, BackupError> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let stored = octal(&block[148..156])?;
    let sum = |signed: bool| {
        let bytes = block.iter().enumerate().map(|(at, byte)| match at {
            148..156 => i64::from(b' '),
            _ if signed => i64::from(*byte as i8),
            _ => i64::from(*byte),
        });
        bytes.sum::<i64>() as u64
    };
    // Some have counted bytes as signed.
    if !cfg!(fuzzing) && stored != sum(false) && stored != sum(true) {
        return Err(BackupError::Tar);
    }
    let kind = match block[156] {
        b'0' | 0 => Kind::File,
        b'x' => Kind::Properties,
        b'g' => Kind::Global,
        b'L' => Kind::LongName,
        _ => Kind::Other,
    };
    let mut name = until_zero(&block[345..500]).to_vec();
    if &block[257..263] != b"ustar\0" {
        name.clear();
    }
    if !name.is_empty() {
        name.push(b'/');
    }
    name.extend_from_slice(until_zero(&block[..100]));
    Ok(Some(Header { kind, name, len: number(&block[124..136])? }))
}

/// Name and length of the next file, if its properties tell them.
///
/// # Errors
///
/// They are none.
pub fn read_properties(mut bytes: &[u8]) -> Result<(Option<Vec<u8>>, Option<u64>), BackupError> {
    let (mut name, mut len) = (None, None);
    while !bytes.is_empty() {
        // `LENGTH KEY=VALUE\n`, the length that of all of it.
        let space = memchr::memchr(b' ', &bytes[..bytes.len().min(20)]).ok_or(BackupError::Tar)?;
        let whole = decimal(&bytes[..space])? as usize;
        let (property, rest) = bytes.split_at_checked(whole).ok_or(BackupError::Tar)?;
        let property = property.get(space + 1..).and_then(|property| property.strip_suffix(b"\n"));
        let property = property.ok_or(BackupError::Tar)?;
        let equals = memchr::memchr(b'=', property).ok_or(BackupError::Tar)?;
        match (&property[..equals], &property[equals + 1..]) {
            (b"path", value) => name = Some(value.to_vec()),
            (b"size", value) => len = Some(decimal(value)?),
            _ => {}
        }
        bytes = rest;
    }
    Ok((name, len))
}

/// How many bytes follow a file to the end of its last block.
pub fn padding(len: u64) -> u64 {
    len.wrapping_neg() % BLOCK_BYTES as u64
}

/// What a GNU long name says.
pub fn until_zero(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())]
}

fn number(field: &[u8]) -> Result<u64, BackupError> {
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    // Large ones are binary, with the highest bit set.
    let digits =
        field[1..].iter().fold(u128::from(field[0] & 0x7f), |number, byte| number << 8 | u128::from(*byte));
    u64::try_from(digits).ok().filter(|len| *len <= i64::MAX as u64).ok_or(BackupError::Tar)
}

fn octal(field: &[u8]) -> Result<u64, BackupError> {
    let text = field.trim_ascii_start();
    let end = text.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(text.len());
    text[..end].iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'7' => Ok(number << 3 | u64::from(digit - b'0')),
        _ => Err(BackupError::Tar),
    })
}

fn decimal(text: &[u8]) -> Result<u64, BackupError> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.filter(|number| *number <= i64::MAX as u64).ok_or(BackupError::Tar)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file as tar has it.
    pub fn file(kind: u8, name: &str, content: &[u8]) -> Vec<u8> {
        let mut block = [0; BLOCK_BYTES];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        block[156] = kind;
        block[257..263].copy_from_slice(b"ustar\0");
        block[148..156].copy_from_slice(b"        ");
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let mut file = block.to_vec();
        file.extend_from_slice(content);
        file.resize(file.len().next_multiple_of(BLOCK_BYTES), 0);
        file
    }

    fn header(bytes: &[u8]) -> Result<Option<Header>, BackupError> {
        read(bytes.first_chunk().unwrap())
    }

    #[test]
    fn headers_tell_name_and_length_and_have_a_checksum() {
        let mut bytes = file(b'0', "msgs/1.blk", &[7; 700]);
        assert_eq!(bytes.len(), 512 + 1024);
        let wanted = Header { kind: Kind::File, name: b"msgs/1.blk".to_vec(), len: 700 };
        assert_eq!(header(&bytes), Ok(Some(wanted)));
        assert_eq!(padding(700), 324);
        assert_eq!(padding(1024), 0);
        bytes[0] ^= 1;
        assert_eq!(header(&bytes), Err(BackupError::Tar));
        assert_eq!(header(&[0; 512]), Ok(None));
        assert_eq!(header(&[b'x'; 512]), Err(BackupError::Tar));
    }

    #[test]
    fn properties_tell_long_names_and_large_files() {
        let text = b"30 mtime=1795833165.854378162\n14 path=a/b/c\n18 size=123456789\n";
        assert_eq!(read_properties(&text[..text.len() - 18]), Ok((Some(b"a/b/c".to_vec()), None)));
        assert_eq!(read_properties(text), Ok((Some(b"a/b/c".to_vec()), Some(123_456_789))));
        for wrong in [&b"5 a=b\n"[..], b"x a=b\n", b"99 a=b\n", b"6 a-b\n", b"0 ", b"6 a=b.", b"9 size=x\n"] {
            assert_eq!(read_properties(wrong), Err(BackupError::Tar), "{wrong:?}");
        }
    }
}
