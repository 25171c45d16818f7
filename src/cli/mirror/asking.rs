//! The flags of every command that asks Core: they are settings too, so the names are those of `settings.rs`.

/// The flags of every command that asks Core, beside its own.
macro_rules! asking {
    ($(#[$meta:meta])* $name:ident { $($own:tt)* }) => {
        #[derive(FromArgs)]
        $(#[$meta])*
        struct $name {
            $($own)*
            /// TOML file with settings
            #[argh(option, arg_name = "FILE", from_str_fn(crate::cli::native::path))]
            config: Option<PathBuf>,
            /// directory of mirror.redb (default /var/lib/afferent)
            #[argh(option, arg_name = "DIR")]
            state_dir: Option<String>,
            /// where inventory comes from: file:PATH or an http(s) address
            #[argh(option, arg_name = "file:PATH|URL")]
            core: Option<String>,
            /// organisation; with it the address speaks REST, without it serves one document
            #[argh(option, arg_name = "NAME")]
            org: Option<String>,
            /// the one site whose entries count
            #[argh(option, arg_name = "UUID")]
            site_id: Option<String>,
            /// file with a bearer token
            #[argh(option, arg_name = "FILE")]
            token_file: Option<String>,
            /// PEM file with the only certificate authorities to trust
            #[argh(option, arg_name = "FILE")]
            ca_file: Option<String>,
            /// longest time until there is a connection (default 5s)
            #[argh(option, arg_name = "DURATION")]
            connect_timeout: Option<String>,
            /// longest time for one answer (default 60s)
            #[argh(option, arg_name = "DURATION")]
            request_deadline: Option<String>,
            /// longest time for all lists of a cycle together, over REST (default 10m)
            #[argh(option, arg_name = "DURATION")]
            core_deadline: Option<String>,
            /// longest list in MiB (default 128)
            #[argh(option, arg_name = "MIB")]
            core_list_cap: Option<String>,
            /// where observed devices come from, if not from --core: file:PATH or an http(s) address
            #[argh(option, arg_name = "file:PATH|URL")]
            observed: Option<String>,
            /// REST: ask for the DPUs of each host, one request per host
            #[argh(switch)]
            observe_dpus: bool,
            /// REST: read switches, shelves and power states from Flow's trays
            #[argh(switch)]
            observe_trays: bool,
            /// REST: read power states from the site explorer
            #[argh(switch)]
            observe_endpoints: bool,
            /// natural-key (default) or host-mac: presets for all that follow
            #[argh(option, arg_name = "natural-key|host-mac")]
            profile: Option<String>,
            /// how a component is recognised: pair or host-mac
            #[argh(option, arg_name = "pair|host-mac")]
            identity: Option<String>,
            /// a complete but empty response: skip, authoritative or guarded
            #[argh(option, arg_name = "skip|authoritative|guarded")]
            empty: Option<String>,
            /// live racks that Core never knew: exempt or delete
            #[argh(option, arg_name = "exempt|delete")]
            legacy: Option<String>,
            /// chassis labels of racks: required or optional
            #[argh(option, arg_name = "required|optional")]
            labels: Option<String>,
            /// rack names: unique or free
            #[argh(option, arg_name = "unique|free")]
            names: Option<String>,
            /// two entries with one pair: last or both
            #[argh(option, arg_name = "last|both")]
            duplicates: Option<String>,
            /// what an absent position is stored as
            #[argh(option, arg_name = "INTEGER")]
            unknown_position: Option<String>,
            /// what an absent description does: clear or preserve
            #[argh(option, arg_name = "clear|preserve")]
            clear: Option<String>,
            /// deletes of one type that are always allowed (default 10)
            #[argh(option, arg_name = "NUMBER")]
            max_deletes: Option<String>,
            /// the same in percent of its live rows (default 10)
            #[argh(option, arg_name = "NUMBER")]
            max_delete_percent: Option<String>,
            /// deletes of one type allowed this time; one more is refused
            #[argh(option, arg_name = "NUMBER")]
            approve_deletes: Option<u32>,
            /// complete pulls in a row that must lack a row before it is deleted (default 1)
            #[argh(option, arg_name = "NUMBER")]
            delete_grace: Option<String>,
            /// longest a damaged database that was moved aside is kept, 1h to 8760h (default 720h)
            #[argh(option, arg_name = "DURATION")]
            damaged_max_age: Option<String>,
            /// damaged databases that are kept, the newest, 0 to 100 (default 5)
            #[argh(option, arg_name = "NUMBER")]
            damaged_max_count: Option<String>,
            /// print JSON
            #[argh(switch)]
            json: bool,
        }

        impl $name {
            /// What was typed, by setting.
            fn config(&self, more: Flags) -> Result<Config, ConfigError> {
                let flags = vec![
                    ("state-dir", &self.state_dir),
                    ("core", &self.core),
                    ("org", &self.org),
                    ("site-id", &self.site_id),
                    ("token-file", &self.token_file),
                    ("ca-file", &self.ca_file),
                    ("connect-timeout", &self.connect_timeout),
                    ("request-deadline", &self.request_deadline),
                    ("core-deadline", &self.core_deadline),
                    ("core-list-cap", &self.core_list_cap),
                    ("observed", &self.observed),
                    ("profile", &self.profile),
                    ("identity", &self.identity),
                    ("empty", &self.empty),
                    ("legacy", &self.legacy),
                    ("labels", &self.labels),
                    ("names", &self.names),
                    ("duplicates", &self.duplicates),
                    ("unknown-position", &self.unknown_position),
                    ("clear", &self.clear),
                    ("max-deletes", &self.max_deletes),
                    ("max-delete-percent", &self.max_delete_percent),
                    ("delete-grace", &self.delete_grace),
                    ("damaged-max-age", &self.damaged_max_age),
                    ("damaged-max-count", &self.damaged_max_count),
                ];
                let switches = [
                    ("observe-dpus", self.observe_dpus),
                    ("observe-trays", self.observe_trays),
                    ("observe-endpoints", self.observe_endpoints),
                ];
                let switches = switches.map(|(name, on)| (name, on.then(|| "on".into()).into_iter().collect()));
                let flags = flags
                    .into_iter()
                    .map(|(name, value)| (name, value.iter().cloned().collect()))
                    .chain(switches)
                    .chain(more)
                    .collect();
                Config::gather(flags, self.config.as_deref(), self.approve_deletes)
            }
        }
    };
}
