//! The `RateLimit` header: quotas as an RFC 9651 structured field.

use std::time::Duration;

use http::HeaderValue;

use super::number::{count, is_spent, seconds};

/// The longest refill time of each kind of quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refills {
    /// Of the quotas that are exhausted.
    pub(super) exhausted: Option<Duration>,
    /// Of all quotas.
    pub(super) any: Option<Duration>,
}

/// One quota of a field, as far as the field says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Field {
    /// Empty for the one quota of a dictionary.
    pub(super) name: String,
    pub(super) remaining: Option<u64>,
    pub(super) limit: Option<u64>,
    pub(super) reset: Option<Duration>,
    pub(super) window: Option<Duration>,
}

/// Reads the refill times of quotas; `None` when anything is malformed.
pub(super) fn rate_limit<'a>(lines: impl Iterator<Item = &'a HeaderValue>) -> Option<Refills> {
    let mut refills = Refills::default();
    for field in fields(lines)? {
        refills.any = refills.any.max(field.reset);
        let is_exhausted = field.remaining == Some(0);
        refills.exhausted = refills.exhausted.max(field.reset.filter(|_| is_exhausted));
    }
    Some(refills)
}

/// Reads quotas.
///
/// Two forms are in use: the list of current drafts, `"burst";r=0;t=30, "daily";r=9;t=7200`, and
/// the dictionary of older ones, `limit=100, remaining=0, reset=30`. `None` when anything is
/// malformed: the drafts want the whole field ignored then.
pub(super) fn fields<'a>(lines: impl Iterator<Item = &'a HeaderValue>) -> Option<Vec<Field>> {
    let mut fields = vec![];
    // The dictionary spreads one quota over its members.
    let mut plain = Field::default();
    for line in lines {
        let mut rest = line.to_str().ok()?.trim_ascii();
        while !rest.is_empty() {
            let name = item(&mut rest)?;
            if take(&mut rest, "=") {
                plain.learn(name, item(&mut rest)?)?;
            }
            let mut field = Field { name: name.trim_matches('"').to_owned(), ..Field::default() };
            while take(&mut rest, ";") {
                rest = rest.trim_ascii_start();
                let key = item(&mut rest)?;
                let value = if take(&mut rest, "=") { item(&mut rest)? } else { "" };
                field.learn(key, value)?;
            }
            fields.push(field);

            rest = rest.trim_ascii_start();
            if !rest.is_empty() {
                // A comma at the end announces a member that is not there.
                take(&mut rest, ",").then_some(())?;
                rest = rest.trim_ascii_start();
                (!rest.is_empty()).then_some(())?;
            }
        }
    }
    fields.push(plain);
    Some(fields)
}

impl Field {
    fn learn(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "r" | "remaining" => {
                // A share of one is still something.
                let left = if is_spent(value)? { 0 } else { count(value)?.max(1) };
                self.remaining = Some(left);
            }
            "t" | "reset" | "resets" => self.reset = Some(seconds(value)?),
            "q" | "limit" | "total" => self.limit = count(value),
            "w" => self.window = seconds(value),
            _ => {}
        }
        Some(())
    }
}

fn take(rest: &mut &str, what: &str) -> bool {
    match rest.strip_prefix(what) {
        Some(after) => {
            *rest = after;
            true
        }
        None => false,
    }
}

/// Takes a key or a bare item: a number, token, string, byte sequence or boolean.
fn item<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let text = *rest;
    let length = match text.bytes().next()? {
        b'"' => {
            let mut escaped = false;
            let end = text.bytes().skip(1).position(|it| {
                let end = it == b'"' && !escaped;
                escaped = it == b'\\' && !escaped;
                end
            })?;
            end + 2
        }
        b':' => text.get(1..)?.find(':')? + 2,
        b'?' => 2,
        _ => text
            .bytes()
            .position(|it| !it.is_ascii_alphanumeric() && !b"_-.*/:!#$%&'+^`|~".contains(&it))
            .unwrap_or(text.len()),
    };
    let (item, after) = (text.get(..length)?, text.get(length..)?);
    *rest = after;
    (!item.is_empty()).then_some(item)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: &[&str]) -> Option<Refills> {
        let lines = lines.iter().map(|it| HeaderValue::from_bytes(it.as_bytes()));
        rate_limit(lines.collect::<Result<Vec<_>, _>>().ok()?.iter())
    }

    fn read(lines: &[&str]) -> Option<Duration> {
        all(lines)?.exhausted
    }

    #[track_caller]
    fn check(line: &str, expected: impl Into<Option<u64>>) {
        let read = read(&[line]);
        assert_eq!(read, expected.into().map(Duration::from_secs), "{line:?}");
    }

    #[test]
    fn lists_of_quotas() {
        check(r#""default";r=0;t=30"#, 30);
        check(r#"default;r=0;t=30"#, 30);
        check(r#""10-in-1min"; r=0; t=30"#, 30);
        check(r#""a";r=0;t=30, "b";r=0;t=60 , "c";r=5;t=90"#, 60);
        check(r#""a, \"b\";r=9";r=0;t=30;pk=:cHN0:;new;x=?1"#, 30);
        check(r#""a";t=30;r=0"#, 30);
        check(r#""a";pk=:cA==:;r=0;t=30"#, 30);
    }

    #[test]
    fn dictionaries_of_older_drafts() {
        check("limit=100, remaining=0, reset=30", 30);
        check("limit=100,remaining=1,reset=30", None);
    }

    #[test]
    fn quotas_with_room_are_known_as_well() {
        let seconds = |it| Some(Duration::from_secs(it));
        for (line, exhausted, any) in [
            (r#""a";r=0;t=30, "b";r=5;t=90"#, seconds(30), seconds(90)),
            (r#""a";r=5;t=30"#, None, seconds(30)),
            (r#""a";t=30"#, None, seconds(30)),
            (r#""a";r=-1;t=30"#, seconds(30), seconds(30)),
            ("total=100; remaining=0; resets=41", seconds(41), seconds(41)),
            (r#""burst";q=100;w=60"#, None, None),
        ] {
            assert_eq!(all(&[line]), Some(Refills { exhausted, any }), "{line:?}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [r#""a";r=0;t=30"#, r#""b";r=0;t=60"#];
        assert_eq!(read(&lines), Some(Duration::from_secs(60)));
        assert_eq!(read(&[lines[0], "("]), None);
    }

    #[test]
    fn nothing_exhausted_or_malformed() {
        for line in [
            "",
            "10",
            r#""a""#,
            r#""a";r=1;t=30"#,
            r#""a";r=0.5;t=30"#,
            r#""a";r=0"#,
            r#""a";t=30"#,
            r#""a";r=0;t=-1"#,
            r#""a";r=0;t=soon"#,
            r#""a";r=0;t="#,
            r#""a";r;t=30"#,
            r#""a";r=0;t=30,"#,
            r#""a";r=0;t=30 "b""#,
            r#""a;r=0;t=30"#,
            r#"("a";r=0;t=30)"#,
            r#"r=0;t=30"#,
            ";r=0;t=30",
        ] {
            check(line, None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_text_is_read_or_refused(line in ".*") {
            let _ = read(&[&line]);
        }

        #[test]
        fn near_misses_are_read_or_refused(line in r#"[rt0-9a=;:?,"\\ é]{0,24}"#) {
            let _ = read(&[&line]);
        }
    }
}
