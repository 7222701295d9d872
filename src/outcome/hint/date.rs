//! Points in time as servers write them: HTTP dates in every shape met in the wild, and RFC 3339.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::number::fraction;

/// Reads an HTTP date: the three forms of RFC 9110 §5.6.7, and what mail-date parsers accept.
///
/// Beyond the standard's grammar: any letter case, a missing or wrong weekday, missing seconds,
/// numeric and North American zones, month before day, words after the zone, and dates as
/// JavaScript prints them, whose zone name in brackets may be of any language. A date without a
/// zone is refused, since reading it as GMT could be hours off; asctime alone has none and means
/// GMT.
///
/// `now` determines the century of a two-digit year: the latest that puts the date at most 50 years
/// ahead.
pub(crate) fn http_date(text: &str, now: SystemTime) -> Option<SystemTime> {
    let text = text.split('(').next().unwrap_or(text);
    // Dashes mean RFC 850, whose two-digit year `httpdate` reads without regard to `now`.
    let strict = || httpdate::parse_http_date(text).ok().filter(|_| !text.contains('-'));
    if text.is_ascii() { strict().or_else(|| tolerant(text, now)) } else { None }
}

/// Reads an RFC 3339 date and time, such as `2015-10-21T07:28:05.25Z`.
///
/// Beyond the standard's grammar: missing seconds, a space before the zone, a zone without a colon
/// or by name, words after it. Without a zone it is refused.
pub(super) fn rfc3339(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let of_time = |it: char| it.is_ascii_digit() || it == ':' || it == '.';
    let (time, zone) = time.split_at(time.find(|it| !of_time(it))?);
    let east = match zone.split_ascii_whitespace().next()? {
        // RFC 3339 §4.3: the time is UTC, and only the local offset is unknown.
        "-00:00" => 0,
        zone => seconds_east(zone)?,
    };
    let (time, rest) = time.split_once('.').unwrap_or((time, "0"));
    let mut date = date.split('-');
    let mut time = time.split(':');
    let day = Civil {
        year: digits(date.next()?, 4)?,
        month: digits(date.next()?, 2)?,
        day: digits(date.next()?, 2)?,
        hour: digits(time.next()?, 2)?,
        minute: digits(time.next()?, 2)?,
        second: time.next().map_or(Some(0), |it| digits(it, 2))?,
    };
    if date.next().is_some() || time.next().is_some() {
        return None;
    }
    system_time(day.seconds()? - east)?.checked_add(fraction(rest)?)
}

/// Sorts the words of a date by what they look like, since writers disagree about their order.
fn tolerant(text: &str, now: SystemTime) -> Option<SystemTime> {
    let (_, text) = split_weekday(text.trim_ascii());
    let mut words = text.split_ascii_whitespace();
    let first = words.next()?;
    let mut dashed = first.split('-');
    let (first, second, dashed_year) = match (dashed.next(), dashed.next(), dashed.next()) {
        (Some(day), Some(month), Some(year)) if dashed.next().is_none() => (day, month, Some(year)),
        _ => (first, words.next()?, None),
    };
    let (month, day, month_first) = match (month(first), month(second)) {
        (_, Some(month)) => (month, first, false),
        (Some(month), None) => (month, second, true),
        (None, None) => return None,
    };

    let (mut year, mut time, mut zone) = (dashed_year, None, None);
    let mut year_after_time = false;
    for word in words.take(if year.is_some() { 2 } else { 3 }) {
        if word.starts_with(['+', '-']) || word.starts_with(|it: char| it.is_ascii_alphabetic()) {
            if zone.replace(word).is_some() {
                return None;
            }
        } else if time.is_none() && word.contains([':', '.']) {
            // The zone may be glued to the time: `07:28:05+0200`.
            let (clock, glued) = word.split_at(word.find(['+', '-']).unwrap_or(word.len()));
            time = Some(clock);
            if !glued.is_empty() {
                zone = Some(glued);
            }
        } else if year.is_none() {
            year = Some(word);
            year_after_time = time.is_some();
        } else {
            return None;
        }
    }
    let east = match zone {
        Some(zone) => seconds_east(zone)?,
        None if month_first && year_after_time => 0,
        None => return None,
    };

    // Dates written by hand have commas after anything.
    let time = time?.trim_end_matches(',');
    let mut clock = time.split(if time.contains(':') { ':' } else { '.' });
    let date = Civil {
        year: number(year?.trim_end_matches(','))?,
        month,
        day: number(day.trim_end_matches(','))?,
        hour: number(clock.next()?)?,
        minute: number(clock.next()?)?,
        second: clock.next().map_or(Some(0), number)?,
    };
    if clock.next().is_some() {
        return None;
    }
    match date.year {
        100.. => system_time(date.seconds()? - east),
        _ => of_two_digits(date, east, now),
    }
}

/// Reads a date with a year of two digits: the latest one up to 50 years from `now`.
fn of_two_digits(mut date: Civil, east: i64, now: SystemTime) -> Option<SystemTime> {
    let now = match now.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).ok()?,
        Err(before) => -i64::try_from(before.duration().as_secs()).ok()?,
    };
    let latest = now.checked_add(50 * YEAR)?;
    let century = (1970 + now.div_euclid(YEAR)).div_euclid(100) * 100;
    let two_digits = date.year;
    [century + 100, century, century - 100].into_iter().find_map(|century| {
        date.year = century + two_digits;
        let seconds = date.seconds()? - east;
        system_time(seconds).filter(|_| seconds <= latest)
    })
}

/// A mean Gregorian year in seconds.
const YEAR: i64 = 31_556_952;

/// Removes a leading weekday, right or wrong.
fn split_weekday(text: &str) -> (&str, &str) {
    let first = text.split_ascii_whitespace().next().unwrap_or("");
    if let Some(comma) = first.rfind(',') {
        return text.split_at(comma + 1);
    }
    let known = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let weekday = known.iter().any(|it| it.eq_ignore_ascii_case(first));
    text.split_at(if weekday { first.len() } else { 0 })
}

fn month(word: &str) -> Option<i64> {
    const NAMES: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let named = |name: &str| {
        word.eq_ignore_ascii_case(name) || word.eq_ignore_ascii_case(name.get(..3).unwrap_or(name))
    };
    (1..).zip(NAMES).find_map(|(i, name)| named(name).then_some(i))
}

/// Returns a zone's offset east of Greenwich in seconds. Refuses military letters: they are too
/// often wrong.
fn seconds_east(zone: &str) -> Option<i64> {
    const NAMES: [(&str, i64); 14] = [
        ("UT", 0),
        ("UTC", 0),
        ("GMT", 0),
        ("Z", 0),
        ("ADT", -3),
        ("AST", -4),
        ("EDT", -4),
        ("EST", -5),
        ("CDT", -5),
        ("CST", -6),
        ("MDT", -6),
        ("MST", -7),
        ("PDT", -7),
        ("PST", -8),
    ];
    if let Some((_, hours)) = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(zone)) {
        return Some(hours * 3600);
    }
    // JavaScript writes `GMT+0200`.
    let at = zone.find(['+', '-'])?;
    let (name, offset) = zone.split_at(at);
    if !["", "GMT", "UT", "UTC"].iter().any(|it| it.eq_ignore_ascii_case(name)) {
        return None;
    }
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = match offset.get(1..)?.split_once(':') {
        Some((hours, minutes)) => (digits(hours, 2)?, digits(minutes, 2)?),
        None => {
            let hhmm = offset.get(1..)?;
            let hhmm = if hhmm.len() <= 2 { number(hhmm)? * 100 } else { number(hhmm)? };
            (hhmm / 100, hhmm % 100)
        }
    };
    // RFC 5322 §3.3: `-0000` says that the zone is not known.
    let known = (hours, minutes) != (0, 0) || sign == 1;
    (known && hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Reads a number of any sensible width.
fn number(word: &str) -> Option<i64> {
    if word.len() > 9 { None } else { digits(word, word.len()) }
}

fn digits(word: &str, count: usize) -> Option<i64> {
    let plain = word.len() == count && word.bytes().all(|it| it.is_ascii_digit());
    if plain { word.parse().ok() } else { None }
}

/// A point in time in the proleptic Gregorian calendar.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    /// Returns the seconds since 1970; `None` for a day or time that does not exist (leap seconds
    /// included).
    fn seconds(&self) -> Option<i64> {
        let &Self { year, month, day, hour, minute, second } = self;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let (before, length) = match month {
            1 => (0, 31),
            2 => (31, 28 + i64::from(leap)),
            3 => (59, 31),
            4 => (90, 30),
            5 => (120, 31),
            6 => (151, 30),
            7 => (181, 31),
            8 => (212, 31),
            9 => (243, 30),
            10 => (273, 31),
            11 => (304, 30),
            12 => (334, 31),
            _ => return None,
        };
        let exists = (1..=9999).contains(&year)
            && (1..=length).contains(&day)
            && (0..24).contains(&hour)
            && (0..60).contains(&minute)
            && (0..60).contains(&second);
        if !exists {
            return None;
        }
        let past = year - 1;
        let days = past * 365 + past / 4 - past / 100 + past / 400 - 719_162
            + before
            + i64::from(leap && month > 2)
            + day
            - 1;
        Some(((days * 24 + hour) * 60 + minute) * 60 + second)
    }
}

fn system_time(seconds: i64) -> Option<SystemTime> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds.is_negative() {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Wed, 21 Oct 2015 07:28:00 GMT.
    const NOW: i64 = 1_445_412_480;

    #[track_caller]
    fn check(text: &str, after_now: impl Into<Option<i64>>) {
        let read = http_date(text, system_time(NOW).unwrap());
        let expected = after_now.into().map(|it| system_time(NOW + it).unwrap());
        assert_eq!(read, expected, "{text:?}");
    }

    #[test]
    fn standard_forms() {
        check("Wed, 21 Oct 2015 07:28:05 GMT", 5);
        check("Wednesday, 21-Oct-15 07:28:05 GMT", 5);
        check("Wed Oct 21 07:28:05 2015", 5);
        check("Sun Nov  6 08:49:37 1994", 784_111_777 - NOW);
        check("Thu, 01 Jan 1970 00:00:00 GMT", -NOW);
        check("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799 - NOW);
    }

    #[test]
    fn two_digit_years_are_at_most_fifty_years_ahead() {
        check("Wednesday, 21-Oct-64 07:28:05 GMT", 2_991_799_685 - NOW);
        check("Thursday, 22-Oct-65 07:28:05 GMT", -132_337_915 - NOW);
        check("Wednesday, 21-Oct-68 07:28:05 GMT", -37_729_915 - NOW);
        check("Wednesday, 21-Oct-15 09:28:05 +0200", 5);

        let check = |digits: &str, now: &str, year: &str| {
            let day = |year| http_date(&format!("21 Oct {year} 07:28:05 GMT"), UNIX_EPOCH);
            let read = http_date(&format!("21-Oct-{digits} 07:28:05 GMT"), day(now).unwrap());
            assert_eq!(read, day(year), "{digits} in {now}");
        };
        check("30", "2090", "2130");
        check("30", "2110", "2130");
        check("70", "2110", "2070");
        // Clocks that stand before 1970.
        check("75", "1950", "1975");
        check("30", "1985", "2030");
        check("30", "1950", "1930");
    }

    #[test]
    fn zones_are_as_far_from_greenwich_as_they_say() {
        let hour = |zone, hours: i64| assert_eq!(seconds_east(zone), Some(hours * 3600), "{zone}");
        ["UT", "UTC", "GMT", "Z", "+0000"].into_iter().for_each(|it| hour(it, 0));
        [("ADT", -3), ("AST", -4), ("EDT", -4), ("EST", -5), ("CDT", -5), ("CST", -6)]
            .into_iter()
            .for_each(|(zone, hours)| hour(zone, hours));
        [("MDT", -6), ("MST", -7), ("PDT", -7), ("PST", -8), ("+0500", 5), ("-1200", -12)]
            .into_iter()
            .for_each(|(zone, hours)| hour(zone, hours));
        assert_eq!(seconds_east("+0530"), Some(19_800));
        assert_eq!(seconds_east("-0330"), Some(-12_600));
        // A number too wide to be a zone, whatever its zeros add up to.
        assert_eq!(seconds_east("+0000000200"), None);
        assert_eq!(seconds_east("+000000200"), Some(7200));
    }

    #[test]
    fn sloppy_writers() {
        for text in [
            "WED, 21 OCT 2015 07:28:05 GMT",
            "wed, 21 oct 2015 07:28:05 gmt",
            "Mon, 21 Oct 2015 07:28:05 GMT",
            "21 Oct 2015 07:28:05 GMT",
            "Wed 21 Oct 2015 07:28:05 GMT",
            "Wed,21 Oct 2015 07:28:05 GMT",
            "  Wed,  21  October  2015\t07:28:05 UT ",
            "Wed, 21 Oct 2015 09:28:05 +0200",
            "Wed, 21 Oct 2015 09:28:05+0200",
            "Wed, 21 Oct 2015 02:28:05 EST",
            "Wed, 21 Oct 2015 00:28:05 PDT",
            "Wed, 21 Oct 2015 07:28:05 Z",
            "Wed, 21 Oct 2015 07:28:05 +0000 (UTC)",
            "Wed, 21-Oct-2015 07:28:05 GMT",
            "Wed Oct 21 07:28:05 UTC 2015",
            "Wed Oct 21 07:28:05 2015 UTC",
            "wed oct 21 07:28:05 2015",
            "October 21, 2015 07:28:05 GMT",
            "Wed, 21 Oct 2015 07.28.05 GMT",
            "Wed Oct 21 2015 07:28:05 GMT+0000 (Coordinated Universal Time)",
            "Wed Oct 21 2015 09:28:05 GMT+0200 (Osteuropäische Zeit)",
            "Wed Oct 21 2015 02:28:05 GMT-0500",
            "Wed, 21 Oct 2015 09:28:05 UTC+02:00",
            "Wed, 21 Oct 2015 09:28:05 +02",
        ] {
            check(text, 5);
        }
        check("Wed, 21 Oct 2015 07:28 GMT", 0);
        check("Sun, 21 Oct 1715 07:28:00 GMT", -8_021_694_720 - NOW);
        let day_before = UNIX_EPOCH.checked_sub(Duration::from_secs(86_400));
        assert_eq!(http_date("Wed, 31 Dec 1969 00:00:00 GMT", UNIX_EPOCH), day_before);
    }

    #[test]
    fn nonsense() {
        for text in [
            "",
            "GMT",
            "Wed, 21 Oct 2015 07:28:05",
            "Wed, 21 Oct 2015 07:28:05 -0000",
            "Wed, 21 Oct 2015 07:28:05 XYZ",
            "Wed, 21 Oct 2015 07:28:05 A",
            "Wed, 21 Oct 2015 07:28:05 +9999",
            "Wed, 21 Oct 2015 07:28:05 +2400",
            "Wed, 32 Oct 2015 07:28:05 GMT",
            "Wed, 00 Oct 2015 07:28:05 GMT",
            "Sun, 29 Feb 2015 07:28:05 GMT",
            "Wed, 21 Foo 2015 07:28:05 GMT",
            "Wed, 21 Oct 2015 24:28:05 GMT",
            "Wed, 21 Oct 2015 07:60:05 GMT",
            "Wed, 21 Oct 2015 07:28:60 GMT",
            "Wed, 21 Oct 2015 07:28:05:01 GMT",
            "Wed, 21 Oct 2015 07 GMT",
            "Wed, 21 Oct 2015 +7:28:05 GMT",
            "Wed, 21 Oct 2015 07,:28:05 GMT",
            "Wed, 21-Oct-2015-1 07:28:05 GMT",
            "Fri, 31 Dec 99999 23:59:59 GMT",
            "Oct 21 2015 07:28:05",
            "2015-10-21T07:28:05Z",
            "2015-10-21",
            "Wed, 21 Oct 2015 07:28:05 GMT, Wed, 21 Oct 2015 07:28:05 GMT",
            "Wed, ٢١ Oct 2015 07:28:05 GMT",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn internet_dates() {
        let read = |text| rfc3339(text).map(|it| it.duration_since(UNIX_EPOCH).unwrap());
        let at = |millis| Some(Duration::from_millis(millis));
        assert_eq!(read("2015-10-21T07:28:05Z"), at(1_445_412_485_000));
        assert_eq!(read("2015-10-21t07:28:05.25z"), at(1_445_412_485_250));
        assert_eq!(read("2015-10-21T09:28:05+02:00"), at(1_445_412_485_000));
        assert_eq!(read("2015-10-21 02:28:05-05:00"), at(1_445_412_485_000));
        assert_eq!(read("2015-10-21T12:58:05+05:30"), at(1_445_412_485_000));
        assert_eq!(read("2015-10-21T07:28:05-00:00"), at(1_445_412_485_000));
        // As others write it.
        assert_eq!(read("2015-10-21T07:28Z"), at(1_445_412_480_000));
        assert_eq!(read("2015-10-21T09:28+02:00"), at(1_445_412_480_000));
        assert_eq!(read("2015-10-21T09:28:05+0200"), at(1_445_412_485_000));
        assert_eq!(read("2015-10-21 07:28:05 UTC"), at(1_445_412_485_000));
        assert_eq!(read("2015-10-21 07:28:05.5 +0000 UTC m=+1.2"), at(1_445_412_485_500));
        for bad in [
            "2015-10-21",
            "2015-10-21T07:28:05",
            "2015-10-21T07Z",
            "2015-10-21T07:28:05.Z",
            "2015-10-21T07:28:60Z",
            "2015-02-29T07:28:05Z",
            "15-10-21T07:28:05Z",
            "2015-10-21T07:28:05-0000",
            "2015-10-21T07:28:05+24:00",
            "2015-10-21T07:28:05+02:60",
            "2015-10-21-01T07:28:05Z",
            "2015-10-21T07:28:05:01Z",
            "2015-10-21T07:28:05+02:0é",
            "Wed, 21 Oct 2015 07:28:05 GMT",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_text_is_read_or_refused(text in ".*", now in any::<i64>()) {
            if let Some(now) = system_time(now) {
                let _ = http_date(&text, now);
                let _ = rfc3339(&text);
            }
        }

        #[test]
        fn dates_survive_being_written(seconds in 0..253_402_300_800_i64) {
            let date = system_time(seconds).unwrap();
            let text = httpdate::fmt_http_date(date);
            prop_assert_eq!(http_date(&text, UNIX_EPOCH), Some(date));
            // A wrong weekday keeps it from the strict parser.
            prop_assert_eq!(http_date(&format!("Xyz{}", &text[3..]), UNIX_EPOCH), Some(date));
        }
    }
}
