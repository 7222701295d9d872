//! Names with several spellings, such as hosts: those of two sources that are laid over one another.

use crate::config::file::shape::Kind;
use crate::config::file::tree::Tree;

impl Kind {
    /// Gives the names in `base` the spelling that `over` has for them, so that both are merged.
    pub(super) fn respell(&self, over: &Tree, base: &mut Tree) {
        match self {
            Self::Any(kinds) => kinds.iter().for_each(|it| it.respell(over, base)),
            Self::Table(keys) => {
                for key in keys.iter().copied().flatten() {
                    if let (Some(over), Some(base)) =
                        (over.get(&[key.name]), base.get_mut(&[key.name]))
                    {
                        key.kind.respell(over, base);
                    }
                }
            }
            Self::Hosts(keys) | Self::Urls(keys) => {
                self.rename(over, base);
                let (Tree::Table(over), Tree::Table(base)) = (over, base) else { return };
                for (name, base) in base {
                    if let Some((_, over)) = over.iter().find(|it| it.0 == *name) {
                        Self::Table(keys).respell(over, base);
                    }
                }
            }
            Self::Headers(_) => self.rename(over, base),
            _ => {}
        }
    }

    fn rename(&self, over: &Tree, base: &mut Tree) {
        let (Tree::Table(over), Tree::Table(base), Some((canonical, _))) =
            (over, base, self.names())
        else {
            return;
        };
        for (name, _) in over {
            // A name that is given twice in one source stays so, to be named as a fault.
            if base.iter().any(|it| it.0 == *name) {
                continue;
            }
            let one = canonical(name);
            let is_same = |it: &&mut (String, Tree)| one.is_some() && canonical(&it.0) == one;
            if let Some((other, _)) = base.iter_mut().find(is_same) {
                other.clone_from(name);
            }
        }
    }
}
