//! Lists a database with the crate `rpmdb`, for `benches/rpmdb.rs`. It opens the database for
//! writing: give it a copy.

fn main() {
    let path = std::env::args().nth(1).expect("path of a database file");
    let packages = rpmdb::read_packages(path.into()).expect("readable database");
    for package in packages {
        println!("{}\t{}\t{}", package.name, package.version, package.release);
    }
}
