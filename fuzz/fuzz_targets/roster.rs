//! A list of guests, of any text: as libvirt writes it, as an operator does, and on the command line.
#![no_main]

use afferent_fuzz::report::VmId;
use afferent_fuzz::roster::{file, libvirt};
use afferent_fuzz::transport::DialAddress;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(Some(guest)) = libvirt::domain(text) {
        assert_valid(&guest.vm);
        assert!(matches!(guest.address, DialAddress::Vsock { .. }));
    }
    match file::parse(text) {
        Ok(guests) => {
            assert_eq!(file::named_twice(&guests), None);
            for guest in &guests {
                assert_valid(&guest.vm);
                assert_dialed(&guest.address);
            }
        }
        Err(why) => assert!(!why.contains('\n'), "more than one line: {why:?}"),
    }
    for line in text.lines() {
        let _ = line
            .parse::<DialAddress>()
            .map(|address| assert_dialed(&address));
    }
});

/// Whoever reads what was written knows the same guest.
fn assert_valid(vm: &VmId) {
    assert_eq!(vm.as_str().parse::<VmId>().as_ref(), Ok(vm));
}

fn assert_dialed(address: &DialAddress) {
    assert_eq!(address.to_string().parse().as_ref(), Ok(address));
}
