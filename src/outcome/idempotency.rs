//! The idempotency key, by which a server recognises a repeated request.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::Request;

/// Adds an `Idempotency-Key` to requests with a non-idempotent method, which makes them repeatable.
///
/// One key per request, the same on every attempt. A key the caller set is kept. Only for servers
/// that know the header: to others the key means nothing, and a repeated POST is a second POST.
///
/// A 409 to a re-sent or [hedged](crate::Hedge) request means that another copy is still at work:
/// it is retried. A 422, the key of another request, is final.
///
/// # Default
///
/// The header is `Idempotency-Key` and the value a string in double quotes, as
/// [draft-ietf-httpapi-idempotency-key-header](https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/)
/// has it.
///
/// ```
/// use http::HeaderName;
/// use reqwest_resilient::{IdempotencyKey, KeyFormat, RetryOverride};
///
/// let drafted = RetryOverride::new().idempotency_key(IdempotencyKey::random());
/// let paypal = IdempotencyKey::random()
///     .header(HeaderName::from_static("paypal-request-id"))
///     .format(KeyFormat::Raw);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct IdempotencyKey {
    header: HeaderName,
    format: KeyFormat,
    fixed: Option<String>,
}

/// The notation of an [`IdempotencyKey`].
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{IdempotencyKey, KeyFormat};
///
/// let stripe = IdempotencyKey::random().format(KeyFormat::Raw);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyFormat {
    /// In double quotes, as the draft has it. The default.
    #[default]
    Quoted,
    /// Unquoted.
    Raw,
}

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

impl IdempotencyKey {
    /// Generates a new random UUID for each request.
    pub const fn random() -> Self {
        Self { header: HEADER, format: KeyFormat::Quoted, fixed: None }
    }

    /// Uses this key: for one request and its repeats, also by another process.
    ///
    /// Printable ASCII without quotes and backslashes; anything else is refused by `build`.
    pub fn fixed(key: impl Into<String>) -> Self {
        Self { fixed: Some(key.into()), ..Self::random() }
    }

    /// Sends the key in this header.
    pub fn header(mut self, header: HeaderName) -> Self {
        self.header = header;
        self
    }

    /// Writes the key in this form.
    pub const fn format(mut self, format: KeyFormat) -> Self {
        self.format = format;
        self
    }

    /// Returns a fixed key that no header can carry.
    pub(crate) fn fault(&self) -> Option<&str> {
        let plain = |it: u8| (b' '..=b'~').contains(&it) && it != b'"' && it != b'\\';
        self.fixed.as_deref().filter(|it| it.is_empty() || !it.bytes().all(plain))
    }

    /// Gives `request` its key, if it needs one and has none.
    pub(crate) fn apply(&self, request: &mut Request, random: impl FnOnce() -> u128) {
        if is_idempotent(request.method()) || self.is_on(request.headers()) {
            return;
        }
        let key = self.fixed.clone().unwrap_or_else(|| uuid(random()));
        let value = match self.format {
            KeyFormat::Quoted => format!("\"{key}\""),
            KeyFormat::Raw => key,
        };
        if let Ok(value) = HeaderValue::try_from(value) {
            request.headers_mut().insert(self.header.clone(), value);
        }
    }

    fn is_on(&self, headers: &HeaderMap) -> bool {
        has(headers, &self.header)
    }
}

/// Returns whether a request carries a key: the drafted one or that of the settings.
pub(crate) fn is_keyed(headers: &HeaderMap, key: Option<&IdempotencyKey>) -> bool {
    has(headers, &HEADER) || key.is_some_and(|it| it.is_on(headers))
}

/// Returns whether there is a header of this name.
fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    // Hashing a name takes longer than comparing it with a few: most are standard names, which
    // compare as numbers.
    match headers.keys_len() {
        0..=16 => headers.keys().any(|it| it == name),
        _ => headers.contains_key(name),
    }
}

/// Returns whether a method is idempotent by
/// [RFC 9110 §9.2.2](https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2), or QUERY.
#[inline]
pub(crate) fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent() || method.as_str() == "QUERY"
}

/// Returns a UUID, version 4 of [RFC 9562](https://www.rfc-editor.org/rfc/rfc9562#section-5.4).
fn uuid(random: u128) -> String {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let bits = random & !VERSION & !VARIANT | 4 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(key: &IdempotencyKey, method: Method, own: Option<&'static str>) -> Option<String> {
        let url = reqwest::Url::parse("http://example.com").unwrap();
        let mut request = Request::new(method, url);
        if let Some(own) = own {
            request.headers_mut().insert(HEADER, HeaderValue::from_static(own));
        }
        key.apply(&mut request, || u128::MAX);
        let value = request.headers().get(&key.header)?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn only_what_needs_a_key_gets_one() {
        let random = IdempotencyKey::random();
        let uuid = "\"ffffffff-ffff-4fff-bfff-ffffffffffff\"";
        assert_eq!(keyed(&random, Method::POST, None).as_deref(), Some(uuid));
        assert_eq!(keyed(&random, Method::PATCH, Some("mine")).as_deref(), Some("mine"));
        assert_eq!(keyed(&random, Method::PUT, None), None);
        let raw = IdempotencyKey::fixed("order-7").format(KeyFormat::Raw);
        assert_eq!(keyed(&raw, Method::POST, None).as_deref(), Some("order-7"));
    }

    #[test]
    fn a_key_is_found_among_few_headers_and_many() {
        for others in [0, 1, 15, 16, 40] {
            let mut headers: HeaderMap = (0..others)
                .map(|it| (format!("x-{it}").parse().unwrap(), HeaderValue::from_static("")))
                .collect();
            assert!(!is_keyed(&headers, None), "{others} others");
            headers.insert(HEADER, HeaderValue::from_static("a"));
            assert!(is_keyed(&headers, None), "{others} others");
        }
    }

    #[test]
    fn a_key_that_no_header_can_carry_is_a_fault() {
        for wrong in ["", "a\nb", "a\"b", "ü"] {
            assert_eq!(IdempotencyKey::fixed(wrong).fault(), Some(wrong));
        }
        assert_eq!(IdempotencyKey::fixed("order 7").fault(), None);
    }
}
