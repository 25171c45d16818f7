//! Which project of Dependency-Track a guest is: its name, its version, and what else is said when it is made.

use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Longest name, version or tag, in characters: what a column of its database holds.
const LONGEST: usize = 255;

/// Text with the guest (`{vm}`) and its system (`{os}`, such as `rhel-9.4`) where they stand in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let without = text.replace("{vm}", "").replace("{os}", "");
        if text.trim().is_empty() || without.contains(['{', '}']) || !is_value(text) {
            return Err(format!(
                "{text:?} is not 1 to {LONGEST} characters in which {{vm}} and {{os}} stand for the guest and its system"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Template {
    /// The text for one guest, cut where it is too long.
    fn fill(&self, vm: &str, os: &str) -> String {
        // A system that calls itself {vm} stays that.
        let parts = self.0.split("{os}").map(|part| part.replace("{vm}", vm));
        let text = parts.collect::<Vec<_>>().join(os);
        text.chars().take(LONGEST).collect()
    }

    fn names_guest(&self) -> bool {
        self.0.contains("{vm}")
    }
}

/// The project above those of guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParentProject {
    /// By its UUID.
    Uuid(Uuid),
    /// By its name, and its version where it has one.
    Named(String, Option<String>),
}

/// A UUID, `NAME`, or `NAME@VERSION`.
impl FromStr for ParentProject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(uuid) = text.parse() {
            return Ok(Self::Uuid(uuid));
        }
        let (name, version) = match text.rsplit_once('@') {
            Some((name, version)) => (name, Some(version.to_owned())),
            None => (text, None),
        };
        let is_empty = |text: &str| text.trim().is_empty();
        if is_empty(name) || version.as_deref().is_some_and(is_empty) || !is_value(text) {
            return Err(format!(
                "{text:?} is no parent: its UUID, NAME or NAME@VERSION"
            ));
        }
        Ok(Self::Named(name.to_owned(), version))
    }
}

/// How projects are called, and what is said of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Project {
    pub(super) name: Template,
    pub(super) version: Template,
    pub(super) tags: Vec<String>,
    pub(super) parent: Option<ParentProject>,
}

impl Project {
    /// With the guest as the name, and its system as the version, unless something else is given.
    ///
    /// # Errors
    /// Two guests would be one project, or a tag cannot be one.
    pub(super) fn new(
        name: Option<&Template>,
        version: Option<&Template>,
        tags: &[String],
        parent: Option<&ParentProject>,
    ) -> Result<Self, String> {
        let given = |template: Option<&Template>, default: &str| {
            template
                .cloned()
                .unwrap_or_else(|| Template(default.into()))
        };
        let project = Self {
            name: given(name, "{vm}"),
            version: given(version, "{os}"),
            tags: tags.to_vec(),
            parent: parent.cloned(),
        };
        if !project.name.names_guest() && !project.version.names_guest() {
            return Err(format!(
                "project {:?} and version {:?} are the same for every guest, and each would take the place of the \
                 others: put {{vm}} into one of them",
                project.name.0, project.version.0
            ));
        }
        let is_tag = |tag: &&String| !tag.trim().is_empty() && !tag.contains(',') && is_value(tag);
        match tags.iter().find(|tag| !is_tag(tag)) {
            Some(tag) => Err(format!("{tag:?} is no tag: it is text without a comma")),
            None => Ok(project),
        }
    }

    /// The project of a guest, as the fields of a form have it: its name first.
    pub(super) fn fields(&self, vm: &str, os: &str) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("projectName", self.name.fill(vm, os)),
            ("projectVersion", self.version.fill(vm, os)),
            ("autoCreate", "true".to_owned()),
            ("isLatest", "true".to_owned()),
        ];
        if !self.tags.is_empty() {
            fields.push(("projectTags", self.tags.join(",")));
        }
        match &self.parent {
            Some(ParentProject::Uuid(uuid)) => fields.push(("parentUUID", uuid.to_string())),
            Some(ParentProject::Named(name, version)) => {
                fields.push(("parentName", name.clone()));
                fields.extend(version.clone().map(|version| ("parentVersion", version)));
            }
            None => {}
        }
        fields
    }
}

/// Short enough, and without what has a meaning in a form.
fn is_value(text: &str) -> bool {
    text.chars().count() <= LONGEST && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        text.parse().unwrap()
    }

    #[test]
    fn a_guest_is_a_project_and_its_system_the_version_unless_something_else_is_said() {
        let fields = |project: &Project| -> Vec<String> {
            let fields = project.fields("web-1", "rhel-9.4").into_iter();
            fields
                .map(|(name, value)| format!("{name}={value}"))
                .collect()
        };
        let made = "autoCreate=true isLatest=true".split(' ');
        let default = Project::new(None, None, &[], None).unwrap();
        let named = "projectName=web-1 projectVersion=rhel-9.4".split(' ');
        assert_eq!(
            fields(&default),
            named.chain(made.clone()).collect::<Vec<_>>()
        );
        let (name, version) = (template("fleet {os}"), template("{vm}/{vm}"));
        let tags = ["vm".to_owned(), "afferent".to_owned()];
        let parent = "All of them@2".parse().unwrap();
        let given = Project::new(Some(&name), Some(&version), &tags, Some(&parent)).unwrap();
        let fields = fields(&given);
        assert_eq!(
            fields[..2],
            ["projectName=fleet rhel-9.4", "projectVersion=web-1/web-1"]
        );
        let rest = [
            "projectTags=vm,afferent",
            "parentName=All of them",
            "parentVersion=2",
        ];
        assert_eq!(fields[4..], rest);
    }

    #[test]
    fn a_parent_is_a_uuid_or_a_name() {
        let uuid = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let parent = |text: &str| text.parse::<ParentProject>();
        assert_eq!(parent(uuid), Ok(ParentProject::Uuid(uuid.parse().unwrap())));
        assert_eq!(parent("a b"), Ok(ParentProject::Named("a b".into(), None)));
        let named = ParentProject::Named("a@b".into(), Some("1".into()));
        assert_eq!(parent("a@b@1"), Ok(named));
        for wrong in ["", " ", "@1", "a@", "a\nb"] {
            assert!(parent(wrong).is_err(), "{wrong:?}");
        }
    }

    /// Loss prevented: one project that is another guest every minute.
    #[test]
    fn two_guests_are_never_one_project() {
        let both = template("all");
        let error = Project::new(Some(&both), None, &[], None).unwrap_err();
        assert!(error.contains("{vm}"), "{error}");
        let by_version = template("{vm}");
        assert!(Project::new(Some(&both), Some(&by_version), &[], None).is_ok());
    }

    #[test]
    fn what_cannot_be_a_template_or_a_tag_is_said() {
        for wrong in ["", " ", "{guest}", "{vm", "a}b", "a\nb", &"x".repeat(256)] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong:?}");
        }
        for wrong in ["", "a,b", "a\r\nb"] {
            assert!(Project::new(None, None, &[wrong.to_owned()], None).is_err());
        }
    }

    #[test]
    fn what_a_guest_says_of_its_system_is_taken_as_it_is_and_cut() {
        let filled = template("{vm} {os}").fill("web-1", "{vm}");
        assert_eq!(filled, "web-1 {vm}");
        let long = template("{os}").fill("web-1", &"\u{e9}".repeat(1000));
        assert_eq!(long, "\u{e9}".repeat(255));
    }
}
