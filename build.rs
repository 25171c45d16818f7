//! Gives the binary its git id for `--version`; a source archive without git builds too.

use std::process::Command;

fn main() {
    // The second changes with every commit. A path that is not there would mean "always".
    for path in [".git/HEAD", ".git/logs/HEAD"] {
        if std::path::Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
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
