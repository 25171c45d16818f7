//! What only a bill of materials shows of a package, beside the report: it neither travels nor counts as
//! content.

/// Further tags of a package's header; texts are [escaped](super::escape).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageDetails {
    /// `SUMMARY`: one line about the package.
    pub summary: Option<String>,
    /// `URL` of the project.
    pub url: Option<String>,
    /// `PACKAGER`: who made the package, where the vendor is not enough.
    pub packager: Option<String>,
    /// `BUILDTIME`, in seconds since 1970.
    pub built_at: Option<u32>,
    /// `INSTALLTIME`, in seconds since 1970.
    pub installed_at: Option<u32>,
}
