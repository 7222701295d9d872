//! Certificates as servers read them.

/// Returns a certificate or a key in text form, by its label.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in der.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or_default());
        let bits = (at(0) << 16) | (at(1) << 8) | at(2);
        for digit in 0..4_usize {
            let value = (bits >> (18 - 6 * digit)) & 0x3f;
            let is_padding = digit > three.len();
            text.push(if is_padding { '=' } else { char::from(DIGITS[value as usize]) });
        }
    }
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|it| String::from_utf8_lossy(it).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
