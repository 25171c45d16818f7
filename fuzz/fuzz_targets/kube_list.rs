//! A list of an API server, of any content, however it is cut.
#![no_main]

use afferent_fuzz::kube::items::{ItemSplitter, SplitFault};
use libfuzzer_sys::fuzz_target;

fn split(bytes: &[u8], part: usize) -> Result<(Vec<Vec<u8>>, Vec<u8>), SplitFault> {
    let (mut splitter, mut items) = (ItemSplitter::default(), Vec::new());
    for bytes in bytes.chunks(part) {
        splitter.push(bytes, |item| {
            items.push(item.to_vec());
            Ok::<_, SplitFault>(())
        })?;
    }
    Ok((items, splitter.finish()?))
}

fuzz_target!(|data: &[u8]| {
    assert_eq!(split(data, data.len().max(1)), split(data, 3));
});
