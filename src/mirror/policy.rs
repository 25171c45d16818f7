//! The knobs: what the mirror does where installations differ.
//!
//! A profile sets all of them; each can be set alone. Some habits belong to the profile itself
//! and have no knob: see [`Profile`].

/// An enum with one name per value, as it is typed in flags and files.
macro_rules! knob {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $value:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$doc])* $value),+ }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$value),)+
                    _ => Err(format!("{text:?} is not one of {}", [$($text),+].join(", "))),
                }
            }
        }
    };
}

knob! {
    /// Which habits apply as a whole.
    ///
    /// | | `natural-key` | `host-mac` |
    /// |---|---|---|
    /// | rack without rack_id | kept, found by its pair | skipped: nothing identifies it |
    /// | pair of a rack that is there | never rewritten | follows Core, released by who loses it |
    /// | location label `data_center` | not read | read, and the key that is written |
    /// | negative position | a value | malformed |
    /// | description of a component | not mirrored | kept under `expected_description` |
    /// | devices found by | serial, else Host BMC, else the id they gave | Host BMC |
    /// | a position within an observed one that says nothing of it | not compared | `<missing>` |
    /// | gate that is set but empty | off, with a warning | unset |
    Profile {
        /// Hardware is recognised by manufacturer and serial number.
        NaturalKey = "natural-key",
        /// Hardware is recognised by the address of its Host BMC.
        HostMac = "host-mac",
    }
}

knob! {
    /// How a component is recognised.
    Identity {
        /// By its pair.
        Pair = "pair",
        /// By its Host BMC; the pair only finds rows that nobody claimed.
        HostMac = "host-mac",
    }
}

knob! {
    /// What a complete but empty response means.
    Empty {
        /// Nothing: no deletes.
        Skip = "skip",
        /// Everything of the type is gone.
        Authoritative = "authoritative",
        /// The same, as far as the delete guard lets it.
        Guarded = "guarded",
    }
}

knob! {
    /// Live racks without external_id that no Core rack adopts.
    Legacy {
        /// Stay, with a warning.
        Exempt = "exempt",
        /// Are deleted like any other.
        Delete = "delete",
    }
}

knob! {
    /// Racks without both chassis labels.
    Labels {
        /// Are skipped.
        Required = "required",
        /// Are stored without them.
        Optional = "optional",
    }
}

knob! {
    /// Rack names.
    Names {
        /// One row per name, tombstones included.
        Unique = "unique",
        /// As Core has them.
        Free = "free",
    }
}

knob! {
    /// Two entries with one pair.
    Duplicates {
        /// One row; the last one wins.
        Last = "last",
        /// Both rows; one keeps the pair.
        Both = "both",
    }
}

knob! {
    /// What an absent Core description does.
    Clear {
        /// Clears the stored one.
        Clear = "clear",
        /// Leaves it.
        Preserve = "preserve",
    }
}

/// All knobs and limits of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Policy {
    /// Habits without a knob.
    pub profile: Profile,
    /// How a component is recognised.
    pub identity: Identity,
    /// What an empty response means.
    pub empty: Empty,
    /// What happens to racks Core never knew.
    pub legacy: Legacy,
    /// Whether racks need chassis labels.
    pub labels: Labels,
    /// Whether rack names are unique.
    pub names: Names,
    /// What happens to two entries with one pair.
    pub duplicates: Duplicates,
    /// What an absent position is stored as.
    pub unknown_position: i64,
    /// What an absent description does.
    pub clear: Clear,
    /// Deletes of one type that are always allowed.
    pub max_deletes: u32,
    /// Deletes of one type, in percent of its live rows, that are always allowed.
    pub max_delete_percent: u32,
    /// Deletes of one type allowed in this run whatever the two say; one more is refused.
    pub approve_deletes: Option<u32>,
    /// Complete pulls in a row that must lack a row before it is deleted; 0 is 1.
    pub delete_grace: u32,
}

impl Policy {
    /// What `profile` says, with the default limits.
    pub fn of(profile: Profile) -> Self {
        let natural = profile == Profile::NaturalKey;
        Self {
            profile,
            identity: if natural {
                Identity::Pair
            } else {
                Identity::HostMac
            },
            empty: if natural {
                Empty::Skip
            } else {
                Empty::Authoritative
            },
            legacy: if natural {
                Legacy::Exempt
            } else {
                Legacy::Delete
            },
            labels: if natural {
                Labels::Required
            } else {
                Labels::Optional
            },
            names: if natural { Names::Unique } else { Names::Free },
            duplicates: if natural {
                Duplicates::Last
            } else {
                Duplicates::Both
            },
            unknown_position: if natural { 0 } else { -1 },
            clear: Clear::Clear,
            max_deletes: 10,
            max_delete_percent: 10,
            approve_deletes: None,
            delete_grace: 1,
        }
    }
}
