//! Whether virt-handler speaks TLS to an agent: as set, or as it was found to work. Pure policy.
//!
//! The wrong way ends without a byte, as does an agent that is not there: with `auto` the other way is tried once at
//! once, and what worked is remembered. While nothing works, attempts take turns.

use std::collections::HashMap;
use std::str::FromStr;

/// Value of the `tls` parameter of the vsock subresource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsChoice {
    /// Always.
    On,
    /// Never.
    Off,
    /// As it works for each guest; with TLS at first, as KubeVirt does.
    #[default]
    Auto,
}

impl FromStr for TlsChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self::On),
            "false" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            _ => Err(format!("{text:?} is not true, false or auto")),
        }
    }
}

/// What is known of one guest.
#[derive(Clone, Copy, Debug)]
struct Known {
    tls: bool,
    /// It answered this way.
    works: bool,
    /// Neither way worked: no attempt tries both.
    tried_both: bool,
}

const UNKNOWN: Known = Known {
    tls: true,
    works: false,
    tried_both: false,
};

/// What worked, by guest.
#[derive(Debug, Default)]
pub(super) struct TlsMemory(HashMap<String, Known>);

/// Guests that are remembered. Beyond that all are found out anew.
const MOST: usize = 50_000;

impl TlsMemory {
    /// How to dial a guest now.
    pub(super) fn choose(&self, guest: &str, choice: TlsChoice) -> bool {
        match choice {
            TlsChoice::On => true,
            TlsChoice::Off => false,
            TlsChoice::Auto => self.0.get(guest).unwrap_or(&UNKNOWN).tls,
        }
    }

    /// The guest answered, dialed as [`TlsMemory::choose`] said.
    pub(super) fn worked(&mut self, guest: &str) {
        let known = self.known(guest);
        (known.works, known.tried_both) = (true, false);
    }

    /// The stream ended without a byte, or with a TLS alert. Whether to dial again at once, the other way.
    pub(super) fn ended_empty(&mut self, guest: &str, choice: TlsChoice) -> bool {
        if choice != TlsChoice::Auto {
            return false;
        }
        let known = self.known(guest);
        let try_other = !known.works && !known.tried_both;
        *known = Known {
            tls: !known.tls,
            works: false,
            tried_both: true,
        };
        try_other
    }

    fn known(&mut self, guest: &str) -> &mut Known {
        if self.0.len() >= MOST && !self.0.contains_key(guest) {
            self.0.clear();
        }
        self.0.entry(guest.to_owned()).or_insert(UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_worked_is_remembered_and_the_other_way_is_tried_once() {
        let mut memory = TlsMemory::default();
        let auto = TlsChoice::Auto;
        assert!(memory.choose("a", auto));
        assert!(memory.ended_empty("a", auto));
        assert!(!memory.choose("a", auto));
        memory.worked("a");
        assert!(!memory.choose("a", auto));
        assert!(memory.choose("b", auto), "another guest is not concerned");
        // It is gone: not two dials for each attempt, but the ways take turns.
        let tried: Vec<_> = (0..4)
            .map(|_| {
                let tls = memory.choose("a", auto);
                (tls, memory.ended_empty("a", auto))
            })
            .collect();
        assert_eq!(
            tried,
            [(false, false), (true, false), (false, false), (true, false)]
        );
    }

    #[test]
    fn a_way_that_is_set_is_never_left() {
        let mut memory = TlsMemory::default();
        for (choice, tls) in [(TlsChoice::On, true), (TlsChoice::Off, false)] {
            assert!(!memory.ended_empty("a", choice));
            assert_eq!(memory.choose("a", choice), tls);
        }
        assert_eq!("auto".parse(), Ok(TlsChoice::Auto));
        assert!("yes".parse::<TlsChoice>().is_err());
    }
}
