//! The token of programs, from a file that is read again when it changes.

use super::secret::SecretHash;
use crate::file_stamp::FileStamp;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Longest token file, in bytes.
const LONGEST: u64 = 4096;

/// Shortest token: shorter ones can be guessed.
const SHORTEST: usize = 20;

/// The token of programs, and whether there is one.
pub(super) struct TokenFile {
    path: PathBuf,
    held: Mutex<HeldToken>,
}

struct HeldToken {
    stamp: Option<FileStamp>,
    hash: Result<SecretHash, String>,
}

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, everybody may read it, or it holds no token.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let stamp = FileStamp::of(path);
        let hash = Ok(read(path)?);
        Ok(Self {
            path: path.to_owned(),
            held: Mutex::new(HeldToken { stamp, hash }),
        })
    }

    /// Whether a program that shows this may ask. Without a readable file none may: who takes it away means it.
    pub(super) fn is(&self, shown: &str) -> bool {
        let hash = self.current().hash.as_ref().ok().copied();
        hash.is_some_and(|hash| hash.is(&SecretHash::of(shown)))
    }

    /// Why programs cannot ask.
    pub(super) fn trouble(&self) -> Option<String> {
        self.current().hash.as_ref().err().cloned()
    }

    fn current(&self) -> MutexGuard<'_, HeldToken> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = FileStamp::of(&self.path);
        if stamp != held.stamp {
            let hash = read(&self.path);
            match &hash {
                Ok(_) => {
                    tracing::info!(file = %self.path.display(), "token of programs read again");
                }
                Err(error) => tracing::warn!(error, "programs have no access to the API"),
            }
            *held = HeldToken { stamp, hash };
        }
        held
    }
}

fn read(path: &Path) -> Result<SecretHash, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let (text, mode) = content(path).map_err(|error| wrong(&error))?;
    if mode & 0o007 != 0 {
        return Err(wrong(&"a token that everybody may read; chmod o= it"));
    }
    let token = text.trim();
    if token.len() < SHORTEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = format!(
            "holds no token: {SHORTEST} or more letters, digits and signs, such as `openssl rand -hex 32` prints"
        );
        return Err(wrong(&what));
    }
    Ok(SecretHash::of(token))
}

fn content(path: &Path) -> io::Result<(String, u32)> {
    // A FIFO would wait for whoever writes to it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("is no regular file"));
    }
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok((text, mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        // A new file each time: a change within one tick of the clock shows in the inode.
        let _ = fs::rename(path, path.with_extension("old"));
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_token_that_is_renewed_or_taken_away_holds_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let (old, new) = ("o".repeat(20), "n".repeat(20));
        write(&path, &format!("{old}\n"), 0o600);
        let token = TokenFile::load(&path).unwrap();
        assert!(token.is(&old) && !token.is(&new) && !token.is(""));
        write(&path, &new, 0o640);
        assert!(token.is(&new) && !token.is(&old) && token.trouble().is_none());
        fs::remove_file(&path).unwrap();
        assert!(!token.is(&new) && token.trouble().is_some());
        write(&path, &new, 0o600);
        assert!(token.is(&new) && token.trouble().is_none());
    }

    #[test]
    fn what_is_no_secret_is_refused_with_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for (text, mode, said) in [
            ("", 0o600, "holds no token"),
            ("short", 0o600, "holds no token"),
            ("two words are not a token", 0o600, "holds no token"),
            ("12345678901234567890", 0o644, "everybody may read"),
        ] {
            write(&path, text, mode);
            let error = TokenFile::load(&path).err().unwrap();
            assert!(error.contains(said) && !error.contains("short"), "{error}");
        }
        assert!(
            TokenFile::load(dir.path())
                .err()
                .unwrap()
                .contains("no regular file")
        );
    }
}
