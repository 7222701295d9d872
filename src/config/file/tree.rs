//! A configuration as it was written, before anything is known about its meaning.

use std::fmt;

use crate::common::host_pattern::without_secrets;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value of any format.
#[derive(Clone, PartialEq)]
pub(super) enum Tree {
    Null,
    Flag(bool),
    Whole(i128),
    Float(f64),
    Text(String),
    /// Text of a source that knows no types, such as the environment: it may mean a number too.
    Bare(String),
    List(Vec<Self>),
    /// In the order of the source; a key that is given twice is there twice.
    Table(Vec<(String, Self)>),
}

impl Tree {
    /// Lays this over `base`: tables are merged, all else is replaced.
    pub(super) fn over(self, base: Self) -> Self {
        let (Self::Table(ours), Self::Table(theirs)) = (&self, &base) else { return self };
        let mut merged = ours.clone();
        for (key, under) in theirs {
            match merged.iter_mut().find(|(it, _)| it == key) {
                Some((_, over)) => *over = over.clone().over(under.clone()),
                None => merged.push((key.clone(), under.clone())),
            }
        }
        Self::Table(merged)
    }

    /// Returns what is at the end of `path`.
    pub(super) fn get(&self, path: &[&str]) -> Option<&Self> {
        let [key, rest @ ..] = path else { return Some(self) };
        let Self::Table(entries) = self else { return None };
        entries.iter().find(|(it, _)| it == key)?.1.get(rest)
    }

    /// Returns what is at the end of `path`, to be changed.
    pub(super) fn get_mut(&mut self, path: &[&str]) -> Option<&mut Self> {
        let [key, rest @ ..] = path else { return Some(self) };
        let Self::Table(entries) = self else { return None };
        entries.iter_mut().find(|(it, _)| it == key)?.1.get_mut(rest)
    }

    /// Puts `value` at the end of `path`, making tables on the way. Where there is a value already,
    /// both stay, to be named as a fault.
    pub(super) fn insert(&mut self, path: &[&str], value: Self) {
        let (Self::Table(entries), [key, rest @ ..]) = (self, path) else { return };
        if rest.is_empty() {
            entries.push(((*key).to_owned(), value));
            return;
        }
        let table = |entry: &(String, Self)| entry.0 == *key && matches!(entry.1, Self::Table(_));
        let at = entries.iter().position(table).unwrap_or_else(|| {
            entries.push(((*key).to_owned(), Self::default()));
            entries.len() - 1
        });
        if let Some((_, table)) = entries.get_mut(at) {
            table.insert(rest, value);
        }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::Table(vec![])
    }
}

/// As one would write it; long values are cut, URLs lose their secrets, and text in a table is
/// hidden: its key may be that of a password, which belongs to another program.
impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show(f, false)
    }
}

/// A tree whose `Debug` hides all text: the value of an unknown key.
pub(super) struct WithoutText<'t>(pub(super) &'t Tree);

impl fmt::Debug for WithoutText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.show(f, true)
    }
}

impl Tree {
    fn show(&self, f: &mut fmt::Formatter<'_>, hides_text: bool) -> fmt::Result {
        const MOST: usize = 4;
        let cut = |len: usize| if len > MOST { ", …" } else { "" };
        match self {
            Self::Text(_) | Self::Bare(_) if hides_text => f.write_str("…"),
            Self::Null => f.write_str("null"),
            Self::Flag(it) => write!(f, "{it}"),
            Self::Whole(it) => write!(f, "{it}"),
            Self::Float(it) => write!(f, "{it:?}"),
            // Whatever belongs here, it may be a URL.
            Self::Text(it) | Self::Bare(it) => match without_secrets(it) {
                it if it.chars().count() > 64 => {
                    write!(f, "{:?}", it.chars().take(63).chain(['…']).collect::<String>())
                }
                it => write!(f, "{it:?}"),
            },
            Self::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().take(MOST).enumerate() {
                    f.write_str(if i == 0 { "" } else { ", " })?;
                    item.show(f, hides_text)?;
                }
                write!(f, "{}]", cut(items.len()))
            }
            Self::Table(entries) => {
                f.write_str("{")?;
                for (i, (key, value)) in entries.iter().take(MOST).enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    let key = without_secrets(key);
                    write!(f, "{comma}{key} = {:?}", WithoutText(value))?;
                }
                write!(f, "{}}}", cut(entries.len()))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Flag(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Whole(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Whole(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Tree, D::Error> {
        value.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<Tree, D::Error> {
        value.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = vec![];
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut table = vec![];
        while let Some((key, value)) = entries.next_entry::<Tree, Tree>()? {
            let key = match key {
                Tree::Text(key) => key,
                // YAML has other keys too; none of them is a setting's name.
                other => format!("{other:?}"),
            };
            table.push((key, value));
        }
        Ok(Tree::Table(table))
    }
}
