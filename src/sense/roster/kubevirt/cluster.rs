//! The virtual machines of a cluster, made of two kinds of objects, as guests. Pure policy.
//!
//! ```text
//! VirtualMachine           it exists, running or not: its UID is the guest's identity
//! VirtualMachineInstance   it runs: node, CID, phase, addresses; it is another object after every start
//! ```

use super::super::RosterEntry;
use super::kept::{KeptObjects, ObjectKey};
use super::objects::{VirtualMachine, VirtualMachineInstance};
use super::{DialRoute, Idle, KubevirtSource, MachineFacts};
use crate::kube::{ObjectMeta, Told};
use crate::report::VmId;
use crate::transport::DialAddress;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// Ids up to here are the host's own.
const RESERVED_CIDS: u32 = 2;

/// A running machine, without what is not needed.
#[derive(Debug)]
pub(super) struct Instance {
    uid: Uuid,
    /// UID of this run.
    run: Uuid,
    /// Why it cannot be asked.
    idle: Option<Idle>,
    facts: Arc<MachineFacts>,
}

/// All that is known of a cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    source: KubevirtSource,
    /// In boxes, since objects come in order, which leaves the nodes of a tree half empty.
    pub(super) instances: KeptObjects<Box<Instance>>,
    pub(super) machines: KeptObjects<Uuid>,
    /// Guests as they were last; those in `dirty` are made anew.
    entries: BTreeMap<ObjectKey, Arc<RosterEntry>>,
    dirty: BTreeSet<ObjectKey>,
    /// CIDs that several machines of this node have.
    shared_cids: HashSet<u32>,
    /// Texts that many machines have: one copy.
    texts: HashSet<Arc<str>>,
}

/// Guests of a cluster at a moment.
#[derive(Debug, Default)]
pub(in super::super) struct ClusterReading {
    /// Whether anything is another than at the reading before.
    pub(in super::super) has_changed: bool,
    /// All guests.
    pub(in super::super) entries: Vec<Arc<RosterEntry>>,
    /// Why the API server cannot be asked.
    pub(in super::super) error: Option<String>,
    /// Objects that cannot be read.
    pub(in super::super) remarks: BTreeSet<String>,
    /// Whether everything was listed since the start.
    pub(in super::super) is_listed: bool,
    /// Whether lists must confirm that many are gone: of instances, of machines.
    pub(in super::super) confirm: (bool, bool),
}

impl Cluster {
    pub(super) fn new(source: KubevirtSource) -> Self {
        Self {
            source,
            instances: KeptObjects::default(),
            machines: KeptObjects::default(),
            entries: BTreeMap::new(),
            dirty: BTreeSet::new(),
            shared_cids: HashSet::new(),
            texts: HashSet::new(),
        }
    }

    /// The name of an object: a machine and its instance share one text.
    fn key_of(&self, meta: &ObjectMeta) -> ObjectKey {
        let key = format!("{}/{}", meta.namespace, meta.name);
        let known = self.machines.key(&key).or_else(|| self.instances.key(&key));
        known.cloned().unwrap_or_else(|| key.into())
    }

    /// Takes what the API tells of instances.
    pub(super) fn take_instance(&mut self, told: Told<VirtualMachineInstance>, now: Instant) {
        match told {
            Told::Listed(object) | Told::Changed(object) => {
                let key = self.key_of(&object.metadata);
                match self.instance(&object) {
                    Ok(instance) => self.instances.insert(key.clone(), Box::new(instance)),
                    Err(error) => self.instances.note_unreadable(key.clone(), error),
                }
                self.dirty.insert(key);
            }
            Told::Deleted(object) => {
                let key = self.key_of(&object.metadata);
                self.instances.delete(&key, now);
                self.dirty.insert(key);
            }
            Told::Unreadable(meta, error) => {
                let key = self.key_of(&meta);
                self.instances.note_unreadable(key, error);
            }
            Told::Begun => self.instances.begin_list(),
            Told::Complete => {
                self.dirty.extend(self.instances.end_list(now));
                // Those that nobody has any more.
                self.texts.retain(|text| Arc::strong_count(text) > 1);
            }
            Told::Well => self.instances.trouble = None,
            Told::Trouble(error) => {
                self.instances.trouble = Some(format!("virtualmachineinstances: {error}"));
            }
        }
    }

    /// Takes what the API tells of machines.
    pub(super) fn take_machine(&mut self, told: Told<VirtualMachine>, now: Instant) {
        match told {
            Told::Listed(object) | Told::Changed(object) => {
                let key = self.key_of(&object.metadata);
                match object.metadata.uid.parse() {
                    Ok(uid) => self.machines.insert(key.clone(), uid),
                    Err(error) => {
                        let error = format!("its UID is none: {error}");
                        self.machines.note_unreadable(key.clone(), error);
                    }
                }
                self.dirty.insert(key);
            }
            Told::Deleted(object) => {
                let key = self.key_of(&object.metadata);
                self.machines.delete(&key, now);
                self.dirty.insert(key);
            }
            Told::Unreadable(meta, error) => {
                let key = self.key_of(&meta);
                self.machines.note_unreadable(key, error);
            }
            Told::Begun => self.machines.begin_list(),
            Told::Complete => self.dirty.extend(self.machines.end_list(now)),
            Told::Well => self.machines.trouble = None,
            Told::Trouble(error) => {
                self.machines.trouble = Some(format!("virtualmachines: {error}"));
            }
        }
    }

    fn instance(&mut self, object: &VirtualMachineInstance) -> Result<Instance, String> {
        let uid = |text: &str| {
            let parsed = text.parse::<Uuid>();
            parsed.map_err(|error| format!("its UID is none: {error}"))
        };
        let status = &object.status;
        let mut addresses: Vec<&str> = Vec::new();
        for interface in &status.interfaces {
            let all = std::iter::once(&interface.ip_address).chain(&interface.ip_addresses);
            for address in all.filter(|address| !address.is_empty()) {
                if !addresses.contains(&address.as_str()) {
                    addresses.push(address);
                }
            }
        }
        let attached = object.spec.domain.devices.autoattach_vsock;
        let idle = match status.phase.as_str() {
            _ if attached != Some(true) => Some(Idle::NoVsock),
            "Running" if object.is_paused() => Some(Idle::Paused),
            "Running" => None,
            phase => Some(Idle::Phase(self.shared(phase))),
        };
        Ok(Instance {
            uid: uid(object.machine_uid())?,
            run: uid(&object.metadata.uid)?,
            idle,
            facts: Arc::new(MachineFacts {
                cid: status.vsock_cid,
                node: self.shared(&status.node_name),
                phase: self.shared(&status.phase),
                addresses: addresses.join(",").into(),
                os: self.shared(&status.guest_os.pretty_name),
                kernel: self.shared(&status.guest_os.kernel_release),
            }),
        })
    }

    fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        let text: Arc<str> = text.into();
        self.texts.insert(text.clone());
        text
    }

    /// All guests now. Those that left are gone for good.
    pub(super) fn read(&mut self, now: Instant) -> ClusterReading {
        let (left, confirm_instances) = self.instances.settle(now);
        self.dirty.extend(left);
        let (left, confirm_machines) = self.machines.settle(now);
        self.dirty.extend(left);
        self.note_shared_cids();
        let has_changed = !self.dirty.is_empty();
        for key in std::mem::take(&mut self.dirty) {
            match self.entry(&key) {
                Some(entry) => self.entries.insert(key, Arc::new(entry)),
                None => self.entries.remove(&key),
            };
        }
        let is_listed = self.instances.is_listed()
            && (self.source.is_node_local() || self.machines.is_listed());
        let troubles = [&self.instances.trouble, &self.machines.trouble];
        let unreadable = [&self.instances.unreadable, &self.machines.unreadable];
        let remarks = unreadable.into_iter().flatten();
        ClusterReading {
            has_changed,
            entries: self.entries.values().cloned().collect(),
            error: troubles.into_iter().flatten().next().cloned(),
            remarks: remarks
                .map(|(key, error)| format!("{key} cannot be read: {error}"))
                .collect(),
            is_listed,
            confirm: (confirm_instances, confirm_machines),
        }
    }

    /// Where each machine has a VSOCK namespace of its own, a CID says nothing on the node.
    fn note_shared_cids(&mut self) {
        if self.source.dialing != DialRoute::Node || self.dirty.is_empty() {
            return;
        }
        let mut count: HashMap<u32, u32> = HashMap::new();
        for (_, instance) in self.instances.present() {
            if let Some(cid) = instance.facts.cid {
                *count.entry(cid).or_default() += 1;
            }
        }
        count.retain(|_, count| *count > 1);
        let shared: HashSet<u32> = count.into_keys().collect();
        if shared != self.shared_cids {
            self.shared_cids = shared;
            self.dirty.extend(self.entries.keys().cloned());
        }
    }

    /// The guest of this name; `None`: there is none any more.
    fn entry(&self, key: &ObjectKey) -> Option<RosterEntry> {
        let machine = self.machines.get(key);
        let instance = self.instances.get(key);
        // The last run of a machine that was deleted may outlive it: the name is another's by now.
        let instance = instance.filter(|(instance, _)| match machine {
            Some((uid, false)) => instance.uid == *uid,
            _ => true,
        });
        let (namespace, name) = key.split_once('/')?;
        let port = self.source.port;
        let (uid, run, idle, facts) = match (instance, machine) {
            (Some((instance, is_gone)), machine) => {
                let idle = match (is_gone, machine) {
                    (true, Some((_, false))) => Some(Idle::Stopped),
                    (true, _) => Some(Idle::Gone),
                    (false, _) => self.idle(instance),
                };
                let facts = Some(instance.facts.clone());
                (instance.uid, Some(instance.run), idle, facts)
            }
            (None, Some((uid, is_gone))) => {
                let idle = match is_gone {
                    true => Idle::Gone,
                    false => Idle::Stopped,
                };
                (*uid, None, Some(idle), None)
            }
            (None, None) => return None,
        };
        let address = match (
            self.source.dialing,
            instance.and_then(|(it, _)| it.facts.cid),
        ) {
            (DialRoute::Node, Some(cid)) => DialAddress::Vsock { cid, port },
            _ => DialAddress::Kubevirt {
                machine: key.clone(),
                port,
            },
        };
        Some(RosterEntry {
            domain: Some(uid),
            run,
            idle,
            facts,
            ..RosterEntry::new(self.id(namespace, name, uid)?, address)
        })
    }

    /// Why a running machine cannot be asked.
    fn idle(&self, instance: &Instance) -> Option<Idle> {
        if instance.idle.is_some() || self.source.dialing == DialRoute::Api {
            return instance.idle.clone();
        }
        match instance.facts.cid {
            None => Some(Idle::NoCid),
            Some(cid) if cid <= RESERVED_CIDS => Some(Idle::NoCid),
            Some(cid) if self.shared_cids.contains(&cid) => Some(Idle::SharedCid),
            Some(_) => None,
        }
    }

    /// `CLUSTER:NAMESPACE:NAME`, or where that is too long `CLUSTER:UID`.
    fn id(&self, namespace: &str, name: &str, uid: Uuid) -> Option<VmId> {
        let cluster = &self.source.cluster;
        let long = format!("{cluster}:{namespace}:{name}").parse();
        long.or_else(|_| format!("{cluster}:{uid}").parse()).ok()
    }
}

#[cfg(test)]
mod tests;
