//! The sidecar of a part file: what the next process has to know to go on with it.

use http::HeaderValue;

use crate::client::download::representation::Representation;
use crate::client::download::validator::Validator;

/// The first line; another version is not read.
const TITLE: &[u8] = b"reqwest-resilient part 1";

/// A longer file is none of ours.
pub(crate) const MOST_BYTES: u64 = 65_536;

/// Writes what is known of a download whose resource has this key. `None` if it is not resumable.
///
/// The key is a hash, as the URL may have secrets.
pub(crate) fn write(key: u64, representation: &Representation) -> Option<Vec<u8>> {
    let Representation { start, length, complete, is_bounded, validator } = representation;
    let mut text = TITLE.to_vec();
    let mut line = |name: &str, value: &[u8]| {
        text.push(b'\n');
        text.extend_from_slice(name.as_bytes());
        text.push(b' ');
        text.extend_from_slice(value);
    };
    let number = |it: &Option<u64>| it.map_or("-".to_owned(), |it| it.to_string());
    line("key", format!("{key:016x}").as_bytes());
    line("start", start.to_string().as_bytes());
    line("length", number(length).as_bytes());
    line("complete", number(complete).as_bytes());
    line("bounded", is_bounded.to_string().as_bytes());
    match validator.as_ref().ok()? {
        Validator::ETag(etag) => line("etag", etag.as_bytes()),
        Validator::Modified { at, etag } => {
            line("modified", at.as_bytes());
            line("weak", etag.as_ref().map_or(b"-", HeaderValue::as_bytes));
        }
        Validator::Immutable => line("immutable", b"-"),
    }
    // A file that was cut has no last line.
    line("end", b"\n");
    Some(text)
}

/// Reads a sidecar; `None` if it is of another resource, incomplete or invalid.
pub(crate) fn read(key: u64, text: &[u8]) -> Option<Representation> {
    let mut lines = text.split(|it| *it == b'\n');
    if lines.next()? != TITLE {
        return None;
    }
    let mut value = |name: &str| {
        let line = lines.next()?.strip_prefix(name.as_bytes())?;
        line.strip_prefix(b" ")
    };
    let text = |it: &[u8]| Some(std::str::from_utf8(it).ok()?.to_owned());
    let number = |it: &[u8]| match it {
        b"-" => Some(None),
        it => Some(Some(text(it)?.parse::<u64>().ok()?)),
    };
    let header = |it: &[u8]| HeaderValue::from_bytes(it).ok();
    if value("key")? != format!("{key:016x}").as_bytes() {
        return None;
    }
    let start = number(value("start")?)??;
    let length = number(value("length")?)?;
    let complete = number(value("complete")?)?;
    let is_bounded = text(value("bounded")?)?.parse().ok()?;
    let line = lines.next()?;
    let (kind, rest) = line.split_at(line.iter().position(|it| *it == b' ')?);
    let rest = &rest[1..];
    let validator = match kind {
        b"etag" => Validator::ETag(header(rest)?),
        b"modified" => {
            let etag = match lines.next()?.strip_prefix(b"weak ")? {
                b"-" => None,
                it => Some(header(it)?),
            };
            Validator::Modified { at: header(rest)?, etag }
        }
        b"immutable" => Validator::Immutable,
        _ => return None,
    };
    if lines.next()? != b"end " {
        return None;
    }
    Some(Representation { start, length, complete, is_bounded, validator: Ok(validator) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::download::representation::NotResumable;

    fn all() -> Vec<Representation> {
        let header = HeaderValue::from_static;
        let at = || header("Sun, 06 Nov 1994 08:49:37 GMT");
        let opaque = HeaderValue::from_bytes(b"\"\xff- end\"").unwrap();
        let validators = [
            Validator::ETag(header("\"a\"")),
            Validator::ETag(opaque),
            Validator::Modified { at: at(), etag: None },
            Validator::Modified { at: at(), etag: Some(header("W/\"x\"")) },
            Validator::Immutable,
        ];
        let of = |(i, validator)| Representation {
            start: i as u64,
            length: (i > 1).then_some(u64::MAX),
            complete: (i > 2).then_some(7),
            is_bounded: i == 3,
            validator: Ok(validator),
        };
        validators.into_iter().enumerate().map(of).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        for it in all() {
            let text = write(42, &it).unwrap();
            assert_eq!(read(42, &text), Some(it.clone()));
            assert_eq!(read(43, &text), None, "another resource");
            for end in 0..text.len() - 1 {
                assert_eq!(read(42, &text[..end]), None, "{}", text[..end].escape_ascii());
            }
        }
    }

    #[test]
    fn what_cannot_be_resumed_has_no_sidecar() {
        let validator = Err(NotResumable::NoValidator);
        let it = Representation { validator, ..all().remove(0) };
        assert_eq!(write(42, &it), None);
    }

    #[test]
    fn other_files_are_not_read() {
        for text in [&b""[..], b"\n", b"reqwest-resilient part 2\n", b"\xff\xff"] {
            assert_eq!(read(42, text), None);
        }
    }
}
