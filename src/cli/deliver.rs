//! Settings of `afferent sense` for its sinks: one is given by flags, several with a name each, or as tables
//! `[[deliver]]` of the configuration file.
//!
//! ```text
//! --deliver https://central --token-file /t --deliver siem=nats://n?stream=R --rate siem=5
//! ```

use super::options::{ConfigError, SettingOrigin, Settings, parse};
use crate::sense::deliver::sink::{
    DepartedFiles, EventOptions, ParentProject, SinkAddress, SinkOptions, Template,
};
use crate::sense::fleet::FleetLimits;
use crate::sense::queue::policy::Rate;
use crate::sense::{SinkConfig, SinkName};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Table of a configuration file that gives a sink.
pub(super) const TABLE: &str = "deliver";

/// Most sinks of a sensor: each has 20 threads of its own while it delivers.
const MOST: usize = 8;

/// What a sensor delivers to; `fleet` is how much of the fleet's history it keeps, if it has a fleet store.
pub(super) fn sinks(
    settings: &Settings,
    fleet: Option<FleetLimits>,
) -> Result<Vec<SinkConfig>, ConfigError> {
    let (given, origin) = settings.text("deliver");
    let tables = match given.is_empty() {
        true => tables(settings)?,
        false => Vec::new(),
    };
    let typed = given.iter().map(|text| {
        let (name, to) = SinkName::cut(text);
        Ok(SinkTable {
            name: name.unwrap_or_default().to_string(),
            to: to.to_owned(),
            ..SinkTable::default()
        })
    });
    let sinks: Vec<SinkTable> = typed
        .chain(tables.into_iter().map(Ok))
        .collect::<Result<_, ConfigError>>()?;
    let origin = match given.is_empty() {
        true => settings
            .file()
            .map_or(origin, |path| SettingOrigin::File(path.to_owned())),
        false => origin,
    };
    let wrong = |message: String| ConfigError::new(origin.clone(), "deliver", message);
    if sinks.is_empty() {
        return Err(settings.missing("deliver", "is needed and not given"));
    }
    if sinks.len() > MOST {
        return Err(wrong(format!(
            "{} sinks, and at most {MOST} are possible",
            sinks.len()
        )));
    }
    let mut named = Vec::new();
    for sink in sinks {
        let name: SinkName = sink.name.parse().map_err(&wrong)?;
        if named.iter().any(|(held, _)| *held == name) {
            return Err(wrong(format!(
                "the sink {name} is there twice: give each a name of its own, as in siem={}",
                sink.to
            )));
        }
        named.push((name, sink));
    }
    let names: Vec<&SinkName> = named.iter().map(|(name, _)| name).collect();
    let tokens = by_sink(settings, "token_file", &names, parse::path)?;
    let roots = by_sink(settings, "ca_file", &names, parse::path)?;
    let state_dir = settings.path("state_dir")?;
    let events = EventSettings::read(settings, fleet)?;
    let departed = settings.one("sbom_departed", parse::any::<DepartedFiles>)?;
    let rates = by_sink(settings, "rate", &names, parse::decimal(RATE))?;
    let bursts = by_sink(settings, "burst", &names, parse::decimal(BURST))?;
    let sinks = named.iter().map(|(name, sink)| {
        let to = sink.to.parse::<SinkAddress>().map_err(&wrong)?;
        let rate = rates.get(name).copied().or(sink.rate);
        let burst = bursts.get(name).copied().or(sink.burst);
        let burst = burst.unwrap_or(DEFAULT_BURST);
        for (key, number, range) in [("rate", rate, RATE), ("burst", Some(burst), BURST)] {
            if number.is_some_and(|number| !range.contains(&number)) {
                let (from, to) = (range.start(), range.end());
                return Err(wrong(format!(
                    "{name}: {key} is not between {from} and {to}"
                )));
            }
        }
        let project = sink.project_options(&to);
        let project = project.map_err(|error| wrong(format!("{name}: {error}")))?;
        Ok(SinkConfig {
            name: name.clone(),
            to,
            options: SinkOptions {
                token_file: tokens.get(name).or(sink.token_file.as_ref()).cloned(),
                ca_file: roots.get(name).or(sink.ca_file.as_ref()).cloned(),
                departed,
                memory: Some(state_dir.join(format!("sink-{name}"))),
                ..project
            },
            rate: rate.map(|per_second| Rate {
                per_second,
                burst,
                reserve: burst * Rate::RESERVE,
            }),
        })
    });
    let mut sinks = sinks.collect::<Result<Vec<_>, ConfigError>>()?;
    events.apply(&mut sinks).map_err(|error| {
        let (_, origin) = settings.text("events");
        ConfigError::new(origin, "events", error)
    })?;
    let written = sinks
        .iter()
        .find(|sink| matches!(sink.to, SinkAddress::File { events: true, .. }));
    if let (Some(sink), None) = (written, events.max_age) {
        return Err(wrong(format!("{}: {}", sink.to, EventSettings::NO_FLEET)));
    }
    Ok(sinks)
}

/// Where events go, beside the sinks.
struct EventSettings {
    /// The stream.
    stream: Option<String>,
    /// How long it keeps them: as long as the change log does; `None`: there is no change log.
    max_age: Option<Duration>,
}

impl EventSettings {
    const NO_FLEET: &'static str =
        "events come from the fleet store: leave `fleet = \"off\"` out, or the events";

    fn read(settings: &Settings, fleet: Option<FleetLimits>) -> Result<Self, ConfigError> {
        Ok(Self {
            stream: settings.optional("events", EventOptions::stream_name)?,
            max_age: fleet.map(|limits| limits.age),
        })
    }

    /// Gives the stream to the one sink on whose server it is.
    fn apply(&self, sinks: &mut [SinkConfig]) -> Result<(), String> {
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        let max_age = self.max_age.ok_or(Self::NO_FLEET)?;
        let nats = sinks.iter_mut().filter_map(|sink| match &sink.to {
            SinkAddress::Nats(address) => Some((address.stream.clone(), &mut sink.options)),
            _ => None,
        });
        let mut nats: Vec<_> = nats.collect();
        let count = nats.len();
        let [(reports, options)] = nats.as_mut_slice() else {
            return Err(format!(
                "the stream is on the server of the one nats:// sink, and there are {count}"
            ));
        };
        if *reports == *stream {
            return Err(format!(
                "{stream} is the stream of the sink itself, which keeps the newest message of a guest alone: name another one"
            ));
        }
        options.events = Some(EventOptions {
            stream: stream.clone(),
            max_age,
        });
        Ok(())
    }
}

/// Reports a second that a sink takes.
const RATE: std::ops::RangeInclusive<f64> = 0.001..=1e6;

/// Reports that a sink takes at once after a pause.
const BURST: std::ops::RangeInclusive<f64> = 1.0..=1e6;

const DEFAULT_BURST: f64 = 200.0;

/// A table `[[deliver]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SinkTable {
    #[serde(default = "unnamed")]
    name: String,
    to: String,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    rate: Option<f64>,
    burst: Option<f64>,
    project: Option<String>,
    version: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    parent: Option<String>,
}

impl SinkTable {
    /// What only Dependency-Track needs.
    ///
    /// # Errors
    /// A value is none, or the sink is another.
    fn project_options(&self, to: &SinkAddress) -> Result<SinkOptions, String> {
        let is_given = self.project.is_some() || self.version.is_some() || self.parent.is_some();
        if (is_given || !self.tags.is_empty()) && !matches!(to, SinkAddress::DependencyTrack(_)) {
            return Err(
                "project, version, tags and parent are for dependency-track+https:// alone".into(),
            );
        }
        let template =
            |text: &Option<String>| text.as_deref().map(str::parse::<Template>).transpose();
        let parent = self.parent.as_deref().map(str::parse::<ParentProject>);
        Ok(SinkOptions {
            project: template(&self.project)?,
            version: template(&self.version)?,
            tags: self.tags.clone(),
            parent: parent.transpose()?,
            ..SinkOptions::default()
        })
    }
}

fn unnamed() -> String {
    SinkName::UNNAMED.to_owned()
}

fn tables(settings: &Settings) -> Result<Vec<SinkTable>, ConfigError> {
    let Some(tables) = settings.table(TABLE) else {
        return Ok(Vec::new());
    };
    let path = settings.file().unwrap_or(Path::new(""));
    let read = tables.clone().try_into();
    read.map_err(|error: toml::de::Error| {
        let error = error.message();
        ConfigError::in_file(path, format!("[[{TABLE}]]: {error}"))
    })
}

/// The values `[NAME=]VALUE` of a setting, by the sink that each is for.
fn by_sink<T>(
    settings: &Settings,
    key: &str,
    sinks: &[&SinkName],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<BTreeMap<SinkName, T>, ConfigError> {
    let values = settings.all(key, |text| {
        let (name, value) = SinkName::cut(text);
        let name = name.unwrap_or_default();
        if !sinks.contains(&&name) {
            return Err(match name.is_default() {
                true => format!(
                    "every sink has a name: write which one {text:?} is for, as in NAME={text}"
                ),
                false => format!("there is no sink {name}"),
            });
        }
        Ok((name, parse(value)?))
    });
    Ok(values?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use crate::cli::sense::tests::configured;
    use crate::sense::SinkConfig;

    fn sinks(args: &[&str]) -> Result<Vec<SinkConfig>, String> {
        let args = [&["--vm", "a=unix:/a"], args].concat();
        let config = configured(&args).map_err(|error| error.to_string())?;
        Ok(config.deliver)
    }

    #[test]
    fn values_go_to_the_sink_that_they_name_and_without_a_name_to_the_one_without() {
        let args = "--deliver https://c --deliver siem=nats://n?stream=R --token-file /t \
                    --token-file siem=/s --ca-file siem=/ca --rate 2 --rate siem=5 --burst siem=7";
        let args: Vec<&str> = args.split_whitespace().collect();
        let [central, siem] = &sinks(&args).unwrap()[..] else {
            unreachable!("two were given")
        };
        assert_eq!(
            (central.name.as_str(), siem.name.as_str()),
            ("default", "siem")
        );
        let paths = |sink: &SinkConfig| {
            let options = [&sink.options.token_file, &sink.options.ca_file];
            options.map(|path| path.as_ref().map(|path| path.display().to_string()))
        };
        assert_eq!(paths(central), [Some("/t".into()), None]);
        assert_eq!(paths(siem), [Some("/s".into()), Some("/ca".into())]);
        let rates = [central, siem].map(|sink| sink.rate.map(|rate| (rate.per_second, rate.burst)));
        assert_eq!(rates, [Some((2.0, 200.0)), Some((5.0, 7.0))]);
    }

    #[test]
    fn sinks_stand_in_the_file_as_tables_and_flags_come_before_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[[deliver]]\nto = 'https://c'\n[[deliver]]\nname = 'bom'\nto = 'sbom:/d'\nrate = 3\ntoken_file = '/t'\n";
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap();
        let [central, bom] = &sinks(&["--config", path, "--rate", "bom=4"]).unwrap()[..] else {
            unreachable!("two were given")
        };
        assert!(central.rate.is_none());
        assert_eq!(bom.rate.unwrap().per_second, 4.0);
        assert_eq!(
            bom.options.token_file.as_ref().unwrap().to_str(),
            Some("/t")
        );
        let typed = sinks(&["--config", path, "--deliver", "file:/o"]).unwrap();
        assert_eq!(typed.len(), 1, "what is typed stands for all");
    }

    #[test]
    fn events_go_to_the_server_of_the_one_nats_sink_and_are_kept_as_long_as_the_change_log() {
        let args = "--deliver file:/a?events=on --deliver n=nats://n?stream=R --events E --fleet-history 7d";
        let args: Vec<&str> = args.split_whitespace().collect();
        let [file, nats] = &sinks(&args).unwrap()[..] else {
            unreachable!("two were given")
        };
        assert_eq!(file.to.to_string(), "file:/a?events=on");
        assert!(file.options.events.is_none());
        let events = nats.options.events.as_ref().unwrap();
        assert_eq!(
            (&*events.stream, events.max_age.as_secs()),
            ("E", 7 * 86_400)
        );
    }

    #[test]
    fn a_table_takes_every_value_of_a_sink() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[[deliver]]\nname = 'dt'\nto = 'dependency-track+https://d'\ntoken_file = '/t'\nca_file = '/ca'\n\
                    rate = 3\nburst = 7\nproject = 'vm {vm}'\nversion = 'of {os}'\ntags = ['a', 'b']\n\
                    parent = '0f3b2a10-0000-4000-8000-000000000001'\n";
        std::fs::write(file.path(), text).unwrap();
        let [sink] = &sinks(&["--config", file.path().to_str().unwrap()]).unwrap()[..] else {
            unreachable!("one was given")
        };
        let rate = sink.rate.unwrap();
        assert_eq!((rate.per_second, rate.burst), (3.0, 7.0));
        let shown = format!("{:?}", sink.options);
        for value in [
            "/t",
            "/ca",
            "vm {vm}",
            "of {os}",
            r#"["a", "b"]"#,
            "0f3b2a10-0000-4000-8000-000000000001",
        ] {
            assert!(shown.contains(value), "{value} in {shown}");
        }
    }

    #[test]
    fn what_is_wrong_with_sinks_is_said() {
        for (args, said) in [
            (
                &["--deliver", "file:/a", "--deliver", "file:/b"][..],
                "is there twice",
            ),
            (
                &["--deliver", "a=file:/a", "--deliver", "a=file:/b"],
                "is there twice",
            ),
            (
                &["--deliver", "a=file:/a", "--token-file", "/t"],
                "every sink has a name",
            ),
            (
                &["--deliver", "file:/a", "--token-file", "b=/t"],
                "no sink b",
            ),
            (
                &["--deliver", "file:/a", "--rate", "0"],
                "not a number between 0.001",
            ),
            (&["--deliver", "A=file:/a"], "no place to deliver to"),
            (
                &["--deliver", "file:/a", "--events", "E"],
                "one nats:// sink, and there are 0",
            ),
            (
                &[
                    "--deliver",
                    "nats://a?stream=R",
                    "--deliver",
                    "b=nats://b?stream=R",
                    "--events",
                    "E",
                ],
                "one nats:// sink, and there are 2",
            ),
            (
                &["--deliver", "nats://a?stream=R", "--events", "R"],
                "name another one",
            ),
            (
                &["--deliver", "nats://a?stream=R", "--events", "a.b"],
                "no name of a stream",
            ),
            (
                &[
                    "--deliver",
                    "nats://a?stream=R",
                    "--events",
                    "E",
                    "--fleet",
                    "off",
                ],
                "events come from the fleet store",
            ),
            (
                &["--deliver", "file:/a?events=on", "--fleet", "off"],
                "events come from the fleet store",
            ),
        ] {
            let error = sinks(args).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        for (text, said) in [
            ("[[deliver]]\nname = 'a'\n", "missing field `to`"),
            (
                "[[deliver]]\nto = 'file:/a'\nrates = 1\n",
                "unknown field `rates`",
            ),
            (
                "[[deliver]]\nto = 'file:/a'\nburst = 0\n",
                "burst is not between",
            ),
            (
                "[[deliver]]\nto = 'file:/a'\nname = 'A b'\n",
                "no name of a sink",
            ),
            (
                "[[deliver]]\nto = 'file:/a'\ntags = ['x']\n",
                "dependency-track+https:// alone",
            ),
            (
                "[[deliver]]\nto = 'dependency-track+https://d'\nproject = '{host}'\n",
                "stand for the guest",
            ),
            ("deliver = []\n", "is needed"),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let error = sinks(&["--config", file.path().to_str().unwrap()]).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
