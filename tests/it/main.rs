//! One integration binary; each module is named for a behaviour.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failed helper fails its test and says what it saw; its numbers are small"
)]
#![allow(unreachable_pub, reason = "support is public to every module here")]

mod support;

mod cli_pull;
mod conformance;
mod documents_contract;
mod documents_rule;
mod everything_killed;
mod fleet_beside;
mod fleet_commands;
mod fleet_http;
mod fleet_http_addresses;
mod fleet_questions;
mod fleet_stream;
mod hang_up;
mod kube_contract;
mod kube_requests;
mod mirror_beside;
mod mirror_commands;
mod mirror_http;
mod mirror_knobs;
mod mirror_load;
mod mirror_lost;
mod mirror_properties;
mod mirror_pulls;
mod mirror_queries;
mod mirror_rest;
mod mirror_scenarios;
mod mirror_survives;
mod mirror_web;
mod mirror_web_tls;
mod private_authority;
mod queue_policy;
mod rpm_order;
mod rpmdb_chains;
mod rpmdb_nasty;
mod rpmdb_real;
mod rpmdb_sqlite;
mod scan_bom;
mod scan_fire;
mod scan_incremental;
mod scan_live;
mod scan_provenance;
mod scan_root;
mod scan_running;
mod sense_central;
mod sense_changes;
mod sense_delivers;
mod sense_dependency_track;
mod sense_domains;
mod sense_events;
mod sense_facts;
mod sense_faults;
mod sense_guests;
mod sense_kubevirt;
mod sense_nats;
mod sense_nats_bom;
mod sense_nats_identity;
mod sense_reader;
mod sense_reload;
mod sense_roster;
mod sense_sbom;
mod sense_sinks;
mod sense_tls;
mod serve_attacked;
mod serve_blind;
mod serve_faults;
mod serve_killed;
mod serve_kubevirt_tls;
mod serve_ndb;
mod serve_protocol;
mod serve_reload;
mod serve_rescan;
mod serve_rpm;
mod serve_scans;
mod serve_service;
mod skew;
mod support_bundle;
mod v0_1_0;
mod web_described;
mod write_budget;
