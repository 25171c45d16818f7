//! Gives the binary its git id for `--version`; a source archive without git builds too.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-env-changed=AFFERENT_GIT_ID");
    let id = std::env::var("AFFERENT_GIT_ID").ok().or_else(|| {
        let out = Command::new("git")
            .args(["rev-parse", "--short=12", "HEAD"])
            .output()
            .ok()?;
        out.status
            .success()
            .then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    });
    println!(
        "cargo:rustc-env=AFFERENT_GIT_ID={}",
        id.unwrap_or_else(|| "unknown".into())
    );
}
