//! `settings!`: the one place that declares the settings of a command.
//!
//! A declaration is one sentence of help, the key, the kind, the range and the default:
//!
//! ```text
//! settings! {
//!     /// Every setting of `afferent serve`.
//!     table pub(super) SETTINGS;
//!     /// Run in a guest.
//!     #[argh(subcommand, name = "serve")]
//!     pub(super) struct ServeArgs {
//!         settings {
//!             /// time between scheduled scans
//!             rescan_interval: duration from "5m" to "168h" = "4h";
//!         }
//!         flags { /* fields as argh wants them, of flags that are no settings */ }
//!     }
//! }
//! ```
//!
//! It becomes a field of the struct that argh parses, with a help text that ends with the range and the
//! default, a [`Setting`](super::Setting) in the table, and a row of `ServeArgs::given`: the values as they
//! were typed. `common { settings {} flags {} }` in front of several structs belongs to each of them.
//!
//! | Declared as | A value is | Read with |
//! |---|---|---|
//! | `duration` | such as `90s` | `Settings::duration`, `optional_duration` |
//! | `number` | whole, from 0 to 4294967295 unless a range says less | `Settings::number`, `optional_number` |
//! | `decimal` | a number | `Settings::decimal` |
//! | `on_off` | `on` or `off` | `Settings::on_off` |
//! | `switch` | the same, off by default; the flag takes no value | `Settings::on_off` |
//! | `one "VALUE"` | anything, called `VALUE` in help | `Settings::one`, `optional`, with a parser |
//! | `many "VALUE"` | the same, several times | `Settings::all`, with a parser |
//! | `per_sink "VALUE"` | the same, once for each sink | `Settings::all`, with a parser |
//!
//! After that may stand, in this order: `from "LEAST" to "GREATEST"`, `= "DEFAULT"`, and `or "WORDS"`, which
//! says what holds where no value is given and there is no default.

/// Declares settings: see the module.
macro_rules! settings {
    // What several commands have.
    (@items $to:tt { include damaged; $($rest:tt)* }) => {
        $crate::cli::options::settings!(@items $to {
            /// longest a damaged database that was moved aside is kept
            damaged_max_age: duration from "1h" to "8760h" = "720h";
            /// damaged databases that are kept, the newest
            damaged_max_count: number from "0" to "100" = "5";
            $($rest)*
        });
    };
    (@items $to:tt { include mirror_state_dir; $($rest:tt)* }) => {
        $crate::cli::options::settings!(@items $to {
            /// directory of mirror.redb
            state_dir: one "DIR" = "/var/lib/afferent";
            $($rest)*
        });
    };

    // Kinds that are values of a certain name.
    (@items $to:tt { $(#[doc = $help:tt])+ $key:ident: duration $($rest:tt)* }) => {
        $crate::cli::options::settings!(@items $to { $(#[doc = $help])+ $key: one "DURATION" $($rest)* });
    };
    (@items $to:tt { $(#[doc = $help:tt])+ $key:ident: number $($rest:tt)* }) => {
        $crate::cli::options::settings!(@items $to { $(#[doc = $help])+ $key: one "NUMBER" $($rest)* });
    };
    (@items $to:tt { $(#[doc = $help:tt])+ $key:ident: decimal $($rest:tt)* }) => {
        $crate::cli::options::settings!(@items $to { $(#[doc = $help])+ $key: one "NUMBER" $($rest)* });
    };
    (@items $to:tt { $(#[doc = $help:tt])+ $key:ident: on_off $($rest:tt)* }) => {
        $crate::cli::options::settings!(@items $to {
            $(#[doc = $help])+ #[doc = ", on or off"] $key: one "on|off" $($rest)*
        });
    };

    // One setting: the field of its flag, the row of what was typed, and its entry of the table.
    (@items ([$($field:tt)*] [$($given:tt)*] [$($entry:tt)*] $then:tt $groups:tt) {
        $(#[doc = $help:tt])+ $key:ident: one $value:tt
            $(from $from:tt to $end:tt)? $(= $default:tt)? $(or $otherwise:tt)?;
        $($rest:tt)*
    }) => {
        $crate::cli::options::settings!(@items ([
            $($field)*
            $(#[doc = $help])+
            $(#[doc = ", "] #[doc = $from] #[doc = " to "] #[doc = $end])?
            $(#[doc = " (default "] #[doc = $default] #[doc = ")"])?
            $(#[doc = " (default: "] #[doc = $otherwise] #[doc = ")"])?
            #[argh(option, arg_name = $value)]
            $key: Option<String>,
        ] [$($given)* $key,] [$($entry)* {
            $key $value [$(Some($default))?] [$(Some($otherwise))?] [$(Some(($from, $end)))?] false false
            [$($help)+]
        }] $then $groups) { $($rest)* });
    };
    (@items ([$($field:tt)*] [$($given:tt)*] [$($entry:tt)*] $then:tt $groups:tt) {
        $(#[doc = $help:tt])+ $key:ident: many $value:tt $(= $default:tt)? $(or $otherwise:tt)?;
        $($rest:tt)*
    }) => {
        $crate::cli::options::settings!(@items ([
            $($field)*
            $(#[doc = $help])+
            #[doc = ", may be repeated"]
            $(#[doc = " (default "] #[doc = $default] #[doc = ")"])?
            $(#[doc = " (default: "] #[doc = $otherwise] #[doc = ")"])?
            #[argh(option, arg_name = $value)]
            $key: Vec<String>,
        ] [$($given)* $key,] [$($entry)* {
            $key $value [$(Some($default))?] [$(Some($otherwise))?] [] true false [$($help)+]
        }] $then $groups) { $($rest)* });
    };
    (@items ([$($field:tt)*] [$($given:tt)*] [$($entry:tt)*] $then:tt $groups:tt) {
        $(#[doc = $help:tt])+ $key:ident: per_sink $value:tt $(or $otherwise:tt)?;
        $($rest:tt)*
    }) => {
        $crate::cli::options::settings!(@items ([
            $($field)*
            $(#[doc = $help])+
            #[doc = ", once for each sink"]
            $(#[doc = " (default: "] #[doc = $otherwise] #[doc = ")"])?
            #[argh(option, arg_name = $value)]
            $key: Vec<String>,
        ] [$($given)* $key,] [$($entry)* {
            $key $value [] [$(Some($otherwise))?] [] true true [$($help)+]
        }] $then $groups) { $($rest)* });
    };
    (@items ([$($field:tt)*] [$($given:tt)*] [$($entry:tt)*] $then:tt $groups:tt) {
        $(#[doc = $help:tt])+ $key:ident: switch;
        $($rest:tt)*
    }) => {
        $crate::cli::options::settings!(@items ([
            $($field)*
            $(#[doc = $help])+
            #[argh(switch)]
            $key: bool,
        ] [$($given)* $key,] [$($entry)* {
            $key "on|off" [Some("off")] [] [] false false [$($help)+]
        }] $then $groups) { $($rest)* });
    };

    // The next group, and after the last one what is made of them all.
    (@items ($field:tt $given:tt $entry:tt $then:tt [$group:tt $($groups:tt)*]) {}) => {
        $crate::cli::options::settings!(@items ($field $given $entry $then [$($groups)*]) $group);
    };
    (@items ($field:tt $given:tt $entry:tt [$then:ident $($to:tt)*] []) {}) => {
        $crate::cli::options::settings!(@$then $field $given $entry $($to)*);
    };

    (@args [$($field:tt)*] [$($key:ident,)*] $entry:tt
        [$(#[$meta:meta])*] [$($vis:tt)*] $name:ident { $($first:tt)* } { $($last:tt)* } { $($shared:tt)* }
    ) => {
        #[derive(::argh::FromArgs)]
        $(#[$meta])*
        $($vis)* struct $name {
            $($first)*
            $($field)*
            $($last)*
            $($shared)*
        }

        impl $name {
            /// The settings that were typed.
            pub(in crate::cli) fn given(&self) -> $crate::cli::options::Flags {
                use $crate::cli::options::Typed as _;
                vec![$((stringify!($key), self.$key.values())),*]
            }
        }
    };

    (@table $field:tt $given:tt [$({
        $key:ident $value:tt [$($default:tt)*] [$($otherwise:tt)*] [$($range:tt)*] $many:tt $per_sink:tt [$($help:tt)+]
    })*] [$(#[$meta:meta])*] [$($vis:tt)*] $name:ident) => {
        $(#[$meta])*
        $($vis)* const $name: &[$crate::cli::options::Setting] = &[$(
            $crate::cli::options::Setting {
                key: stringify!($key),
                value: $value,
                default: $crate::cli::options::settings!(@or_none $($default)*),
                otherwise: $crate::cli::options::settings!(@or_none $($otherwise)*),
                range: $crate::cli::options::settings!(@or_none $($range)*),
                many: $many,
                per_sink: $per_sink,
                help: concat!($($help),+),
            },
        )*];
    };
    (@or_none) => { None };
    (@or_none $($some:tt)+) => { $($some)+ };

    (
        $(#[$table_meta:meta])* table $table_vis:vis $table:ident;
        common { settings $common:tt flags $shared:tt }
        $(
            $(#[$meta:meta])*
            $vis:vis struct $name:ident {
                $(before $first:tt)?
                settings { $($own:tt)* }
                $(flags $last:tt)?
            }
        )+
    ) => {
        $crate::cli::options::settings!(@items ([] [] []
            [table [$(#[$table_meta])*] [$table_vis] $table] [$common]
        ) { $($($own)*)+ });
        $crate::cli::options::settings! {
            common { settings $common flags $shared }
            $($(#[$meta])* $vis struct $name {
                $(before $first)? settings { $($own)* } $(flags $last)?
            })+
        }
    };
    (
        common { settings $common:tt flags $shared:tt }
        $(
            $(#[$meta:meta])*
            $vis:vis struct $name:ident {
                $(before { $($first:tt)* })?
                settings $own:tt
                $(flags { $($last:tt)* })?
            }
        )+
    ) => {
        $($crate::cli::options::settings!(@items ([] [] []
            [args [$(#[$meta])*] [$vis] $name { $($($first)*)? } { $($($last)*)? } $shared] [$common]
        ) $own);)+
    };
    ($(#[$table_meta:meta])* table $table_vis:vis $table:ident; $($structs:tt)+) => {
        $crate::cli::options::settings! {
            $(#[$table_meta])* table $table_vis $table;
            common { settings {} flags {} }
            $($structs)+
        }
    };
}

pub(in crate::cli) use settings;
