//! The shapes of settings: reads values as written and names every fault.

use std::time::Duration;

use http::{HeaderName, Method, StatusCode};

use crate::common::fault::ConfigFault;
use crate::common::host_pattern::{self, INVALID_HOST};
use crate::config::file::tree::{Tree, WithoutText};
use crate::config::file::value::{Setter, Table, Value};
use crate::host::mirrors::{INVALID_BASE, canonical_base};

/// One setting: its name, its valid values, what they set, and a line about it for those who write
/// one.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
    pub(super) set: Setter,
    #[cfg_attr(not(feature = "schemars"), expect(dead_code))]
    pub(super) about: &'static str,
}

/// The kinds of values.
pub(super) enum Kind {
    /// `true` or `"on"`.
    On,
    /// `false` or `"off"`.
    Off,
    Whole {
        min: u64,
        max: u64,
    },
    Number {
        min: f64,
        max: f64,
    },
    /// A length of time as people write it.
    Time {
        zero: bool,
    },
    Word(&'static [&'static str]),
    Status,
    Method,
    Header,
    Text,
    /// A base URL.
    Url,
    List(&'static Self),
    /// The keys of all these lists.
    Table(&'static [&'static [Key]]),
    /// A table by host name, with a table of these keys for each.
    Hosts(&'static [&'static [Key]]),
    /// A table by base URL, with a table of these keys for each.
    Urls(&'static [&'static [Key]]),
    /// A table by header name.
    Headers(&'static Self),
    /// The first of these that fits.
    Any(&'static [Self]),
}

impl Kind {
    /// Reads `tree`, or adds its faults to `faults`.
    pub(super) fn read(
        &self,
        tree: &Tree,
        path: &str,
        faults: &mut Vec<ConfigFault>,
    ) -> Option<Value> {
        match (self, tree) {
            (Self::Table(keys), Tree::Table(entries)) => {
                Some(Value::Table(read_table(keys, entries, path, faults)))
            }
            (Self::Hosts(keys) | Self::Urls(keys), Tree::Table(entries)) => {
                let kind = &Self::Table(keys);
                Some(Value::Table(read_named(kind, self.names()?, entries, path, faults)))
            }
            (Self::Headers(kind), Tree::Table(entries)) => {
                Some(Value::Table(read_named(kind, self.names()?, entries, path, faults)))
            }
            (Self::List(kind), Tree::List(items)) => {
                let item = |(i, it)| kind.read(it, &format!("{path}[{i}]"), faults);
                Some(Value::List(items.iter().enumerate().filter_map(item).collect()))
            }
            (Self::List(_), Tree::Bare(text)) => {
                let items = text.split(',').map(|it| Tree::Bare(it.trim().to_owned())).collect();
                self.read(&Tree::List(items), path, faults)
            }
            (Self::Any(kinds), _) => match kinds.iter().find_map(|it| it.simple(tree)) {
                Some(value) => Some(value),
                // What is wrong inside a table or a list is for that kind to say.
                None => match kinds.iter().find(|it| it.opens(tree)) {
                    Some(kind) => kind.read(tree, path, faults),
                    None => self.refuse(tree, path, faults),
                },
            },
            _ => self.simple(tree).or_else(|| self.refuse(tree, path, faults)),
        }
    }

    /// Returns what makes one spelling of the names in a table of this kind, and the rule that they
    /// keep.
    pub(super) fn names(&self) -> Option<(Canonical, &'static str)> {
        match self {
            Self::Hosts(_) => Some((host_pattern::canonical, INVALID_HOST)),
            Self::Urls(_) => Some((canonical_base, INVALID_BASE)),
            Self::Headers(_) => Some((canonical_header, "must name a header")),
            _ => None,
        }
    }

    fn refuse(&self, tree: &Tree, path: &str, faults: &mut Vec<ConfigFault>) -> Option<Value> {
        let (path, rule) = (path.to_owned(), format!("must be {}", self.wanted()));
        faults.push(match self {
            // A URL that is invalid may be so because of its password.
            Self::Url => ConfigFault::new(path, rule, WithoutText(tree)),
            _ => ConfigFault::new(path, rule, tree),
        });
        None
    }

    /// Returns whether this kind reads the parts of such a value.
    fn opens(&self, tree: &Tree) -> bool {
        match self {
            Self::Table(_) | Self::Hosts(_) | Self::Urls(_) | Self::Headers(_) => {
                matches!(tree, Tree::Table(_))
            }
            Self::List(_) => matches!(tree, Tree::List(_) | Tree::Bare(_)),
            _ => false,
        }
    }

    /// A value that is neither list nor table.
    fn simple(&self, tree: &Tree) -> Option<Value> {
        let text = match tree {
            Tree::Text(text) | Tree::Bare(text) => Some(text.as_str()),
            _ => None,
        };
        let bare = match tree {
            Tree::Bare(text) => Some(text.as_str()),
            _ => None,
        };
        let flag = match tree {
            Tree::Flag(flag) => Some(*flag),
            _ if text == Some("on") || bare == Some("true") => Some(true),
            _ if text == Some("off") || bare == Some("false") => Some(false),
            _ => None,
        };
        let whole = match tree {
            Tree::Whole(whole) => u64::try_from(*whole).ok(),
            _ => bare.and_then(|it| it.parse().ok()),
        };
        let number = match tree {
            Tree::Float(number) => Some(*number),
            Tree::Whole(whole) => Some(*whole as f64),
            _ => bare.and_then(|it| it.parse().ok()),
        };
        match self {
            Self::On => flag.filter(|it| *it).map(|_| Value::On),
            Self::Off => flag.filter(|it| !*it).map(|_| Value::Off),
            Self::Whole { min, max } => {
                whole.filter(|it| (min..=max).contains(&it)).map(Value::Whole)
            }
            Self::Number { min, max } => {
                number.filter(|it| (min..=max).contains(&it)).map(Value::Number)
            }
            Self::Time { zero } => text
                .and_then(|it| humantime::parse_duration(it).ok())
                .filter(|it| *zero || !it.is_zero())
                .map(Value::Time),
            Self::Word(words) => {
                words.iter().find(|it| text == Some(**it)).map(|it| Value::Word(it))
            }
            Self::Status => {
                let status = StatusCode::from_u16(u16::try_from(whole?).ok()?);
                status.ok().map(Value::Status)
            }
            Self::Method => {
                // Methods are case-sensitive, and a `get` that never matches is a mistake.
                let method = text.filter(|it| !it.bytes().any(|it| it.is_ascii_lowercase()))?;
                Method::from_bytes(method.as_bytes()).ok().map(Value::Method)
            }
            Self::Header => HeaderName::try_from(text?).ok().map(Value::Header),
            Self::Text => text.map(|_| Value::Text),
            Self::Url => {
                let url = text.filter(|it| canonical_base(it).is_some());
                url.map(|it| Value::Url(it.to_owned()))
            }
            Self::Any(kinds) => kinds.iter().find_map(|it| it.simple(tree)),
            Self::List(_) | Self::Table(_) | Self::Hosts(_) | Self::Urls(_) | Self::Headers(_) => {
                None
            }
        }
    }

    /// Returns what is valid, to follow "must be".
    fn wanted(&self) -> String {
        match self {
            Self::On => "true".into(),
            Self::Off => "false".into(),
            Self::Whole { min, max: u64::MAX } => format!("a whole number from {min}"),
            Self::Whole { min, max } => format!("a whole number from {min} to {max}"),
            Self::Number { min, max: f64::MAX } => format!("a number from {min}"),
            Self::Number { min, max } => format!("a number from {min} to {max}"),
            Self::Time { zero: true } => "a duration such as \"300ms\"".into(),
            Self::Time { zero: false } => "a duration above zero such as \"300ms\"".into(),
            Self::Word(words) => {
                words.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(" or ")
            }
            Self::Status => "a status from 100 to 999".into(),
            Self::Method => "a method such as \"GET\"".into(),
            Self::Header => "a header's name".into(),
            Self::Text => "text".into(),
            Self::Url => "an http or https URL without userinfo, query and fragment".into(),
            Self::List(_) => "a list".into(),
            Self::Table(_) | Self::Hosts(_) | Self::Urls(_) | Self::Headers(_) => "a table".into(),
            Self::Any(kinds) => kinds.iter().map(Self::wanted).collect::<Vec<_>>().join(" or "),
        }
    }
}

/// Reads a length of time above zero.
pub(super) fn time(tree: &Tree) -> Option<Duration> {
    match (Kind::Time { zero: false }).simple(tree) {
        Some(Value::Time(time)) => Some(time),
        _ => None,
    }
}

fn read_table(
    keys: &[&[Key]],
    entries: &[(String, Tree)],
    path: &str,
    faults: &mut Vec<ConfigFault>,
) -> Table {
    let full = |name: &str| match path {
        "" => shown(name),
        _ => format!("{path}.{}", shown(name)),
    };
    let mut table = Table::new();
    for (i, (name, tree)) in entries.iter().enumerate() {
        let path = full(name);
        match keys.iter().copied().flatten().find(|it| it.name == name) {
            // Whatever it is, it may be a password.
            None => faults.push(ConfigFault::new(path, unknown(name, keys), WithoutText(tree))),
            Some(_) if entries[..i].iter().any(|(it, _)| it == name) => {
                faults.push(ConfigFault::new(path, "is given twice", tree));
            }
            Some(key) => {
                table.extend(key.kind.read(tree, &path, faults).map(|it| (name.clone(), it)));
            }
        }
    }
    for key in keys.iter().copied().flatten().filter(|it| it.required) {
        if !entries.iter().any(|(it, _)| it == key.name) {
            faults.push(ConfigFault::new(full(key.name), "is needed", &Tree::Null));
        }
    }
    table
}

/// Returns a name as it may be shown: that of an unknown key may be anything, a URL or nothing.
pub(super) fn shown(name: &str) -> String {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-' | b'$');
    match !name.is_empty() && name.bytes().all(is_plain) {
        true => name.to_owned(),
        false => format!("{:?}", host_pattern::without_secrets(name)),
    }
}

/// Returns a name in its one spelling, if it is one.
pub(super) type Canonical = fn(&str) -> Option<Box<str>>;

fn canonical_header(name: &str) -> Option<Box<str>> {
    Some(HeaderName::try_from(name).ok()?.as_str().into())
}

/// Reads a table whose keys are names, which `canonical` knows in every spelling; the rule is what it
/// asks of them.
fn read_named(
    kind: &Kind,
    (canonical, rule): (Canonical, &'static str),
    entries: &[(String, Tree)],
    path: &str,
    faults: &mut Vec<ConfigFault>,
) -> Table {
    let mut table = Table::new();
    let mut seen = vec![];
    for (name, tree) in entries {
        let path = format!("{path}.{:?}", host_pattern::without_secrets(name));
        let value = kind.read(tree, &path, faults);
        match canonical(name) {
            None => faults.push(ConfigFault::new(path, rule, tree)),
            Some(it) if seen.contains(&it) => {
                faults.push(ConfigFault::new(path, "is given twice", tree));
            }
            Some(it) => {
                seen.push(it);
                table.extend(value.map(|it| (name.clone(), it)));
            }
        }
    }
    table
}

/// Returns the rule that an unknown name breaks, with the name that may be meant.
fn unknown(name: &str, keys: &[&[Key]]) -> String {
    let names = keys.iter().copied().flatten().map(|it| it.name);
    let near = names.map(|it| (distance(name, it), it)).min();
    match near.filter(|(distance, it)| *distance <= it.len() / 3) {
        Some((_, near)) => format!("is not a setting (did you mean {near}?)"),
        None => "is not a setting".into(),
    }
}

/// Returns how many characters to insert, remove or change from one name to the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut above_left = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, b) in row.iter_mut().skip(1).zip(to.chars()) {
            let changed = above_left + usize::from(a != b);
            above_left = *cell;
            left = changed.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Kind = Kind::Whole { min: 1, max: 9 };
    const KEYS: &[Key] = &[
        Key { name: "most", kind: MOST, required: true, set: Setter::Part, about: "" },
        Key {
            name: "limit",
            kind: Kind::Any(&[Kind::Off, Kind::Time { zero: false }]),
            required: false,
            set: Setter::Part,
            about: "",
        },
    ];

    #[test]
    fn a_distance_counts_changes() {
        for (from, to, steps) in
            [("", "", 0), ("abc", "abc", 0), ("max_retry", "max_retries", 3), ("a", "", 1)]
        {
            assert_eq!((distance(from, to), distance(to, from)), (steps, steps), "{from} {to}");
        }
    }

    #[test]
    fn every_fault_of_a_table_is_named() {
        let text = |it: &str| Tree::Text(it.into());
        let entries = vec![
            ("limit".into(), text("0s")),
            ("limits".into(), Tree::Flag(true)),
            ("limit".into(), Tree::Flag(false)),
        ];
        let mut faults = vec![];
        let table = Kind::Table(&[KEYS]).read(&Tree::Table(entries), "a", &mut faults);
        assert_eq!(table, Some(Value::Table(vec![])));
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "a.limit must be false or a duration above zero such as \"300ms\", got \"0s\"",
                "a.limits is not a setting (did you mean limit?), got true",
                "a.limit is given twice, got false",
                "a.most is needed, got null",
            ]
        );
    }

    #[test]
    fn bare_text_may_be_anything() {
        let bare = |it: &str| Tree::Bare(it.into());
        let read = |kind: &Kind, text| kind.read(&bare(text), "", &mut vec![]);
        assert_eq!(read(&MOST, "7"), Some(Value::Whole(7)));
        assert_eq!(read(&MOST, "10"), None);
        assert_eq!(read(&Kind::Off, "false"), Some(Value::Off));
        assert_eq!(read(&Kind::Number { min: 0.0, max: 1.0 }, "0.5"), Some(Value::Number(0.5)));
        assert_eq!(
            read(&Kind::List(&MOST), "1, 2"),
            Some(Value::List(vec![Value::Whole(1), Value::Whole(2)]))
        );
        assert_eq!(MOST.read(&Tree::Text("7".into()), "", &mut vec![]), None, "text is no number");
    }
}
