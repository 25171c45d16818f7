//! Package headers made up in memory, for databases of any size without building a package.
//!
//! Laid out as rpmbuild and an installation leave them: a signed region in the order of tags, then
//! what the installation adds, its digest among it, so that rpm checks and accepts them.
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "headers made here are small"
)]

use sha2::{Digest as _, Sha256};

/// As many as an ordinary package has.
const REQUIRES: usize = 15;
const CHANGES: usize = 20;

const INT16: u32 = 3;
const INT32: u32 = 4;
const STRING: u32 = 6;
const BIN: u32 = 7;
const STRING_ARRAY: u32 = 8;
const I18N: u32 = 9;
const IMMUTABLE: u32 = 63;
const MAGIC: [u8; 8] = [0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0];

/// What a header says; the strings are bytes, as they are in a header.
#[derive(Clone)]
pub struct Fields {
    pub name: Vec<u8>,
    pub version: Vec<u8>,
    pub release: Vec<u8>,
    pub epoch: Option<u32>,
    pub arch: Option<Vec<u8>>,
    pub source_rpm: Option<Vec<u8>>,
    pub modularity_label: Option<Vec<u8>>,
    /// Makes a header long: about 125 bytes a file.
    pub files: u32,
    pub install_time: u32,
    /// Tags that are not there.
    pub without: Vec<u32>,
}

impl Fields {
    /// Of a small package of that name.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            version: b"1".into(),
            release: b"1".into(),
            epoch: None,
            arch: Some(b"noarch".into()),
            source_rpm: Some(format!("{name}-1-1.src.rpm").into()),
            modularity_label: None,
            files: 1,
            install_time: 1_700_000_000,
            without: Vec::new(),
        }
    }

    /// The header as a database stores it.
    pub fn blob(&self) -> Vec<u8> {
        let mut region = Store {
            without: self.without.clone(),
            ..Store::default()
        };
        region.text(1000, &self.name);
        region.text(1001, &self.version);
        region.text(1002, &self.release);
        if let Some(epoch) = self.epoch {
            region.int32(1003, &[epoch]);
        }
        region.texts(1004, I18N, [b"A summary".to_vec()]);
        region.texts(1005, I18N, [vec![b'd'; 300]]);
        region.int32(1006, &[1_690_000_000]);
        region.text(1007, b"builder.example");
        region.int32(1009, &[self.files * 100]);
        region.text(1014, b"MIT");
        region.texts(1016, I18N, [b"Unspecified".to_vec()]);
        region.text(1021, b"linux");
        if let Some(arch) = &self.arch {
            region.text(1022, arch);
        }
        let each = |value: u32| vec![value; self.files as usize];
        region.int32(1028, &each(100));
        region.int16(1030, &vec![0o100_644; self.files as usize]);
        region.int16(1033, &vec![0; self.files as usize]);
        region.int32(1034, &each(1_700_000_000));
        let digest = |i: u32| hex(&Sha256::digest(i.to_be_bytes())).into_bytes();
        region.texts(1035, STRING_ARRAY, (0..self.files).map(digest));
        region.texts(1036, STRING_ARRAY, (0..self.files).map(|_| Vec::new()));
        region.int32(1037, &each(0));
        region.texts(
            1039,
            STRING_ARRAY,
            (0..self.files).map(|_| b"root".to_vec()),
        );
        region.texts(
            1040,
            STRING_ARRAY,
            (0..self.files).map(|_| b"root".to_vec()),
        );
        if let Some(source) = &self.source_rpm {
            region.text(1044, source);
        }
        region.texts(1047, STRING_ARRAY, [self.name.clone()]);
        region.int32(1048, &[0; REQUIRES]);
        let require = |i: usize| format!("libsomething-{i}.so.6(LIBSOMETHING_2.{i})(64bit)");
        region.texts(1049, STRING_ARRAY, (0..REQUIRES).map(|i| require(i).into()));
        region.texts(1050, STRING_ARRAY, (0..REQUIRES).map(|_| Vec::new()));
        region.text(1064, b"4.18.0");
        region.int32(1080, &[1_690_000_000; CHANGES]);
        let author = |_| b"A Packager <packager@example.com> - 1-1".to_vec();
        region.texts(1081, STRING_ARRAY, (0..CHANGES).map(author));
        region.texts(1082, STRING_ARRAY, (0..CHANGES).map(|_| vec![b'c'; 90]));
        region.int32(1095, &each(1));
        region.int32(1096, &each(7));
        region.texts(1097, STRING_ARRAY, (0..self.files).map(|_| Vec::new()));
        region.int32(1112, &[8]);
        region.texts(1113, STRING_ARRAY, [self.version.clone()]);
        region.int32(1116, &each(0));
        let base = |i: u32| format!("file{i:05}").into_bytes();
        region.texts(1117, STRING_ARRAY, (0..self.files).map(base));
        let directory = [b"/usr/share/", &self.name[..], b"/"].concat();
        region.texts(1118, STRING_ARRAY, [directory]);
        region.int32(5011, &[8]);
        if let Some(label) = &self.modularity_label {
            region.text(5096, label);
        }
        region.install(self.install_time)
    }

    /// The header as `rpmdb --importdb` takes it.
    pub fn export(&self) -> Vec<u8> {
        [&MAGIC[..], &self.blob()].concat()
    }
}

#[derive(Default)]
struct Store {
    without: Vec<u32>,
    entries: Vec<[u32; 4]>,
    data: Vec<u8>,
}

impl Store {
    fn text(&mut self, tag: u32, text: &[u8]) {
        self.texts(tag, STRING, [text.to_vec()]);
    }

    fn texts(&mut self, tag: u32, kind: u32, texts: impl IntoIterator<Item = Vec<u8>>) {
        if self.without.contains(&tag) {
            return;
        }
        let (start, mut count) = (self.data.len(), 0);
        for text in texts {
            self.data.extend(text);
            self.data.push(0);
            count += 1;
        }
        if count > 0 {
            self.entry(tag, kind, start, count);
        }
    }

    fn int32(&mut self, tag: u32, numbers: &[u32]) {
        let bytes = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
        self.numbers(tag, INT32, 4, bytes, numbers.len());
    }

    fn int16(&mut self, tag: u32, numbers: &[u16]) {
        let bytes = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
        self.numbers(tag, INT16, 2, bytes, numbers.len());
    }

    fn numbers(&mut self, tag: u32, kind: u32, align: usize, bytes: Vec<u8>, count: usize) {
        if count > 0 && !self.without.contains(&tag) {
            self.data.resize(self.data.len().next_multiple_of(align), 0);
            self.entry(tag, kind, self.data.len(), count);
            self.data.extend(bytes);
        }
    }

    fn entry(&mut self, tag: u32, kind: u32, offset: usize, count: usize) {
        self.entries.push([tag, kind, offset as u32, count as u32]);
    }

    /// Closes the region and adds what an installation adds.
    fn install(mut self, time: u32) -> Vec<u8> {
        let signed = self.entries.len() as u32 + 1;
        let trailer = [IMMUTABLE, BIN, (signed * 16).wrapping_neg(), 16];
        let at = self.data.len() as u32;
        self.data
            .extend(trailer.iter().flat_map(|n| n.to_be_bytes()));
        self.entries.insert(0, [IMMUTABLE, BIN, at, 16]);
        let digest = Sha256::new()
            .chain_update(MAGIC)
            .chain_update(self.bytes())
            .finalize();
        // Of header and payload in truth; rpm checks it only where it has the payload.
        self.numbers(261, BIN, 1, digest[..16].to_vec(), 16);
        self.text(273, hex(&digest).as_bytes());
        self.int32(1008, &[time]);
        self.int32(1128, &[time]);
        self.bytes()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((self.entries.len() as u32).to_be_bytes());
        bytes.extend((self.data.len() as u32).to_be_bytes());
        bytes.extend(self.entries.iter().flatten().flat_map(|n| n.to_be_bytes()));
        bytes.extend(&self.data);
        bytes
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
