//! Where the bytes come from: anything that can be read at an offset.
//!
//! Nothing in this folder opens a file. A source is as long as it was when it was opened; a reader
//! that finds it shorter reports damage, and the caller, who knows whether the file was changed
//! meanwhile, decides whether to read again.

use std::io;

/// Bytes that can be read at any offset without a cursor, such as an open file or a buffer.
pub trait ReadAt {
    /// Fills the front of `buffer` from `offset`; fewer bytes only at the end of the source.
    ///
    /// # Errors
    /// What the system said when the bytes could not be read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Length in bytes, as of opening.
    fn size(&self) -> u64;
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let tail = usize::try_from(offset)
            .ok()
            .and_then(|at| self.get(at..))
            .unwrap_or_default();
        let n = tail.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), tail.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.as_slice().read_at(buffer, offset)
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buffer, offset)
    }

    fn size(&self) -> u64 {
        (**self).size()
    }
}

/// Reads until the buffer is full or the source ends.
pub(super) fn read_up_to<S: ReadAt + ?Sized>(
    source: &S,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match source.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Fixed-width numbers of foreign bytes: `None` where there are not enough of them.
pub(super) mod number {
    pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
        bytes.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    pub(crate) fn be_u16(bytes: &[u8], at: usize) -> Option<u16> {
        array(bytes, at).map(u16::from_be_bytes)
    }

    pub(crate) fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
        array(bytes, at).map(u32::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_past_the_end_is_short_and_one_beyond_is_empty() {
        let source = vec![1u8, 2, 3];
        let mut buffer = [0; 4];
        assert_eq!(source.read_at(&mut buffer, 1).unwrap(), 2);
        assert_eq!(buffer, [2, 3, 0, 0]);
        assert_eq!(source.read_at(&mut buffer, 9).unwrap(), 0);
        assert_eq!(source.read_at(&mut buffer, u64::MAX).unwrap(), 0);
    }
}
