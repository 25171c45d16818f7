//! Flags and settings of the commands that ask Core: `run`, `plan`, `apply` and `explain`.

use crate::cli::native;
use crate::cli::options::settings;
use std::path::PathBuf;

settings! {
    /// Every setting of `afferent mirror`.
    table pub(in crate::cli) SETTINGS;
    common {
        settings {
            include mirror_state_dir;
            /// where inventory comes from: file:PATH or an http(s) address
            core: one "file:PATH|URL";
            /// organisation; with it the address speaks REST, without it serves one document
            org: one "NAME";
            /// the one site whose entries count
            site_id: one "UUID";
            /// file with a bearer token
            token_file: one "FILE";
            /// PEM file with the only certificate authorities to trust
            ca_file: one "FILE" or "those of the system";
            /// longest time until there is a connection
            connect_timeout: duration from "1s" to "1m" = "5s";
            /// longest time for one answer, retries included
            request_deadline: duration from "1s" to "10m" = "60s";
            /// longest time for all lists of a cycle together, over REST
            core_deadline: duration from "1s" to "24h" = "10m";
            /// longest list (a document may be eleven times as long), in MiB
            core_list_cap: one "MIB" from "1" to "4096" = "128";
            /// where observed devices come from, if not from --core: file:PATH or an http(s) address
            observed: one "file:PATH|URL";
            /// REST: ask for the DPUs of each host, one request per host
            observe_dpus: switch;
            /// REST: read switches, shelves and power states from Flow's trays
            observe_trays: switch;
            /// REST: read power states from the site explorer
            observe_endpoints: switch;
            /// presets for all that follow: natural-key or host-mac
            profile: one "natural-key|host-mac" = "natural-key";
            /// how a component is recognised: pair or host-mac
            identity: one "pair|host-mac";
            /// what a complete but empty response means: skip, authoritative or guarded
            empty: one "skip|authoritative|guarded";
            /// live racks that Core never knew: exempt or delete
            legacy: one "exempt|delete";
            /// chassis labels of racks: required or optional
            labels: one "required|optional";
            /// rack names: unique or free
            names: one "unique|free";
            /// two entries with one pair: last or both
            duplicates: one "last|both";
            /// what an absent position is stored as
            unknown_position: one "INTEGER";
            /// what an absent description does: clear or preserve
            clear: one "clear|preserve";
            /// deletes of one type that are always allowed
            max_deletes: number = "10";
            /// the same in percent of its live rows
            max_delete_percent: number from "0" to "100" = "10";
            /// complete pulls in a row that must lack a row before it is deleted
            delete_grace: number from "0" to "1000000" = "1";
            include damaged;
        }
        flags {
            /// deletes of one type allowed this time; one more is refused
            #[argh(option, arg_name = "NUMBER")]
            pub(super) approve_deletes: Option<u32>,
            /// TOML file with settings
            #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
            pub(super) config: Option<PathBuf>,
            /// print JSON
            #[argh(switch)]
            pub(super) json: bool,
        }
    }

    /// Mirror once or at intervals, then look at drift.
    #[argh(subcommand, name = "run")]
    pub(super) struct RunArgs {
        before {
            /// one cycle, then exit
            #[argh(switch)]
            pub(super) once: bool,
            /// print what would be done instead of doing it
            #[argh(switch)]
            pub(super) plan: bool,
            /// save the plan to this file; implies --plan
            #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
            pub(super) plan_out: Option<PathBuf>,
            /// carry out this saved plan if it still holds
            #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
            pub(super) apply: Option<PathBuf>,
        }
        settings {
            /// time between cycles
            interval: duration from "1s" to "24h" = "5m";
            /// where Prometheus reads metrics: PORT (on 127.0.0.1) or ADDRESS:PORT
            metrics: one "ADDR";
            /// where the inventory is answered for over HTTP, with a page: unix:PATH, localhost:PORT or ADDRESS:PORT
            mirror_listen: one "ADDR" or "nowhere";
            /// certificate of that address (PEM), needed where other machines reach it
            mirror_tls_cert: one "FILE";
            /// private key of that certificate (PEM)
            mirror_tls_key: one "FILE";
            /// a name of that server, beside its address and localhost
            mirror_host: many "NAME";
            /// file with the token that programs show there
            mirror_token_file: one "FILE";
            /// longest time that a row of the audit log is kept
            audit_max_age: duration from "1s" to "87600h" or "for ever";
            /// most room for the rows of the audit log, in MiB
            audit_max_size: one "MIB" from "1" to "1048576" or "no bound";
        }
    }

    /// Print what a run would do now, without doing it.
    #[argh(subcommand, name = "plan")]
    pub(super) struct PlanArgs {
        before {
            /// save the plan to this file, the whole of it
            #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
            pub(super) plan_out: Option<PathBuf>,
            /// only changes and warnings of this type
            #[argh(option, arg_name = "TYPE")]
            pub(super) kind: Option<String>,
            /// only changes of this sort, such as soft_delete, and warnings of this code
            #[argh(option, arg_name = "CODE")]
            pub(super) code: Option<String>,
            /// at most as many changes
            #[argh(option, arg_name = "NUMBER")]
            pub(super) limit: Option<usize>,
            /// only changes behind the one with this number
            #[argh(option, arg_name = "NUMBER")]
            pub(super) cursor: Option<usize>,
        }
        settings {}
    }

    /// Carry out a saved plan, if neither the tables nor Core changed since.
    #[argh(subcommand, name = "apply")]
    pub(super) struct ApplyArgs {
        before {
            /// the saved plan
            #[argh(positional, from_str_fn(native::path))]
            pub(super) file: PathBuf,
        }
        settings {}
    }

    /// Say which rule decides about an entry or row: why it matched, was skipped, deleted, withheld or evicted.
    #[argh(subcommand, name = "explain")]
    pub(super) struct ExplainArgs {
        before {
            /// a rack_id, serial number, MANUFACTURER/SERIAL, MAC address, name or id
            #[argh(positional)]
            pub(super) key: String,
            /// at most as many lines
            #[argh(option, arg_name = "NUMBER")]
            pub(super) limit: Option<usize>,
            /// only lines behind the one with this number
            #[argh(option, arg_name = "NUMBER")]
            pub(super) cursor: Option<usize>,
        }
        settings {}
    }
}
