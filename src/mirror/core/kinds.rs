//! What sources call the lists of each kind.

use crate::inventory::Kind;

/// Names of the lists of one kind.
pub(super) struct ListNames {
    /// The expected list of a document, in both spellings.
    pub(super) expected: [&'static str; 2],
    /// The observed list of a document; `None` where the kind is not observed.
    pub(super) observed: Option<[&'static str; 2]>,
    /// The expected list over REST.
    pub(super) path: &'static str,
    /// The order in which REST is asked for it.
    pub(super) order: &'static str,
    /// The type that Flow's trays have for it.
    pub(super) tray: Option<&'static str>,
}

/// The names for `kind`.
pub(super) fn names(kind: Kind) -> ListNames {
    match kind {
        Kind::Rack => ListNames {
            expected: ["expected_racks", "expectedRacks"],
            observed: None,
            path: "expected-rack",
            order: "RACK_ID_ASC",
            tray: None,
        },
        Kind::Compute => ListNames {
            expected: ["expected_machines", "expectedMachines"],
            observed: Some(["actual_machines", "actualMachines"]),
            path: "expected-machine",
            order: "BMC_MAC_ADDRESS_ASC",
            tray: None,
        },
        Kind::NVSwitch => ListNames {
            expected: ["expected_switches", "expectedSwitches"],
            observed: Some(["actual_switches", "actualSwitches"]),
            path: "expected-switch",
            order: "BMC_MAC_ADDRESS_ASC",
            tray: Some("switch"),
        },
        Kind::PowerShelf => ListNames {
            expected: ["expected_power_shelves", "expectedPowerShelves"],
            observed: Some(["actual_power_shelves", "actualPowerShelves"]),
            path: "expected-power-shelf",
            order: "BMC_MAC_ADDRESS_ASC",
            tray: Some("powershelf"),
        },
    }
}
