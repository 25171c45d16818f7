//! What happens to the directories of a database, and that the agent goes on seeing it: by its
//! watches (the poll is an hour away where nothing else is said), or else by the poll, which it says.

use crate::support::agent::{Agent, Launch, is_root};
use crate::support::eventually;
use crate::support::rpm_root::{RpmRoot, Spec, rpm_qa};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

fn package(root: &RpmRoot, name: &str) -> PathBuf {
    root.build(&Spec {
        name,
        ..Spec::default()
    })
}

fn served(root: &RpmRoot) -> (Launch, Agent) {
    let launch = Launch::on(root.path()).flag("safety-poll", "1h");
    let agent = launch.start();
    agent.wait_for_rpm(root);
    (launch, agent)
}

fn run(command: &str, args: &[&str]) {
    let status = Command::new(command).args(args).status().unwrap();
    assert!(status.success(), "{command} {args:?}");
}

// The loss, here and below: a guest whose changes nobody hears of any more.
#[test]
fn a_database_that_appears_later_is_seen() {
    let root = RpmRoot::new();
    let file = package(&root, "later");
    fs::remove_dir_all(root.path().join("var")).unwrap();
    let launch = Launch::on(root.path()).flag("safety-poll", "1h");
    let agent = launch.start();
    assert!(agent.get().refusal().is_some());
    fs::create_dir_all(root.dbpath()).unwrap();
    root.rpmdb(["--initdb"]);
    root.install(&[file]);
    agent.wait_for_rpm(&root);
}

#[test]
fn a_directory_that_is_removed_and_made_anew_is_seen() {
    let root = RpmRoot::new();
    let (one, two) = (package(&root, "one"), package(&root, "two"));
    root.install(&[&one]);
    let (_launch, agent) = served(&root);
    for file in [&two, &one, &two] {
        // It comes back unseen, and where the file system allows with the very inode of the one
        // that went: nothing but the event tells that it is another.
        let inode = fs::metadata(root.dbpath()).unwrap().ino();
        agent.signal("STOP");
        fs::remove_dir_all(root.dbpath()).unwrap();
        for _ in 0..100 {
            fs::create_dir(root.dbpath()).unwrap();
            if fs::metadata(root.dbpath()).unwrap().ino() == inode {
                break;
            }
            fs::remove_dir(root.dbpath()).unwrap();
        }
        fs::create_dir_all(root.dbpath()).unwrap();
        agent.signal("CONT");
        root.rpmdb(["--initdb"]);
        root.install(&[file]);
        agent.wait_for_rpm(&root);
    }
    root.erase(&["two"]);
    root.install(&[one]);
    agent.wait_for_rpm(&root);
}

#[test]
fn a_database_behind_a_link_is_seen_also_when_what_it_leads_to_is_replaced() {
    let root = RpmRoot::new();
    let files = ["one", "two", "three"].map(|name| package(&root, name));
    root.install(&[&files[0]]);
    let data = root.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::rename(root.dbpath(), data.join("packages")).unwrap();
    symlink("../../data/packages", root.dbpath()).unwrap();
    let (_launch, agent) = served(&root);
    root.install(&[&files[1]]);
    agent.wait_for_rpm(&root);

    // Another directory of the same name, as after a restore.
    run(
        "cp",
        &[
            "-a",
            data.join("packages").to_str().unwrap(),
            data.join("new").to_str().unwrap(),
        ],
    );
    fs::rename(data.join("packages"), data.join("old")).unwrap();
    fs::rename(data.join("new"), data.join("packages")).unwrap();
    let inode = fs::metadata(root.dbpath()).unwrap().ino();
    eventually("the new directory is watched", || {
        agent.watched_inodes().contains(&inode).then_some(())
    });
    root.install(&[&files[2]]);
    agent.wait_for_rpm(&root);

    // The link leads elsewhere.
    fs::remove_file(root.dbpath()).unwrap();
    symlink("../../data/old", root.dbpath()).unwrap();
    agent.wait_for_rpm(&root);
    root.erase(&["one"]);
    agent.wait_for_rpm(&root);
}

/// A root in which the database is `data/packages` and `var/lib/rpm` a link to it with this target.
fn linked(target: &str, file: &Path) -> RpmRoot {
    let root = RpmRoot::new();
    root.install(&[file]);
    let data = root.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::rename(root.dbpath(), data.join("packages")).unwrap();
    symlink(target, root.dbpath()).unwrap();
    root
}

// The root of an image means the image: the machine that runs the agent has no /data.
#[test]
fn an_absolute_link_and_an_absolute_dbpath_are_watched_below_the_root() {
    let builder = RpmRoot::new();
    let [one, two, three] = ["one", "two", "three"].map(|name| package(&builder, name));
    let database = |root: &RpmRoot| root.path().join("data/packages");
    for (target, dbpath) in [
        ("/data/packages", None),
        ("../../../../../../data/packages", None),
        ("/data/packages", Some("/data/packages")),
        ("/data/packages", Some("/var/lib/rpm")),
    ] {
        let root = linked(target, &one);
        let mut launch = Launch::on(root.path()).flag("safety-poll", "1h");
        if let Some(dbpath) = dbpath {
            launch = launch.flag("dbpath", dbpath);
        }
        let agent = launch.start();
        let list = || rpm_qa(&database(&root));
        agent.wait_for_list(&list());
        install(&database(&root), &two);
        agent.wait_for_list(&list());
        // Another directory of the same name, as after a restore.
        let data = root.path().join("data");
        let (packages, new) = (data.join("packages"), data.join("new"));
        run(
            "cp",
            &["-a", packages.to_str().unwrap(), new.to_str().unwrap()],
        );
        fs::rename(&packages, data.join("old")).unwrap();
        fs::rename(&new, &packages).unwrap();
        let inode = fs::metadata(&packages).unwrap().ino();
        eventually("the new directory is watched", || {
            agent.watched_inodes().contains(&inode).then_some(())
        });
        install(&packages, &three);
        agent.wait_for_list(&list());
    }
}

#[test]
fn an_absolute_link_to_a_database_file_is_watched_and_compared_below_the_root() {
    let polls: &[&str] = if is_root() { &["1h", "1s"] } else { &["1h"] };
    for poll in polls {
        let root = RpmRoot::new();
        let files = ["one", "two"].map(|name| package(&root, name));
        root.install(&[&files[0]]);
        let data = root.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::rename(root.dbpath().join("rpmdb.sqlite"), data.join("packages.db")).unwrap();
        symlink("/data/packages.db", root.dbpath().join("rpmdb.sqlite")).unwrap();
        let launch = Launch::on(root.path()).flag("safety-poll", poll);
        let launch = match *poll {
            "1h" => launch,
            _ => launch.under([
                "unshare",
                "-Ur",
                "sh",
                "-c",
                "echo 0 > /proc/sys/user/max_inotify_instances; exec \"$0\" \"$@\"",
            ]),
        };
        let agent = launch.start();
        // rpm itself would follow the link out of the root, so it works on a copy.
        let copy = tempfile::tempdir().unwrap();
        let database = copy.path().join("rpmdb.sqlite");
        fs::copy(data.join("packages.db"), &database).unwrap();
        agent.wait_for_list(&rpm_qa(copy.path()));
        install(copy.path(), &files[1]);
        fs::copy(&database, data.join("packages.db")).unwrap();
        agent.wait_for_list(&rpm_qa(copy.path()));
    }
}

/// Installs into this database directory.
fn install(dbpath: &Path, file: &Path) {
    let flags = ["--justdb", "--nodeps", "--nosignature", "-i"];
    let args = [
        &["--dbpath", dbpath.to_str().unwrap()],
        &flags[..],
        &[file.to_str().unwrap()],
    ];
    run("rpm", &args.concat());
}

#[test]
fn a_file_system_that_is_unmounted_and_mounted_again_is_seen() {
    if !is_root() || !Path::new("/dev/loop-control").exists() {
        return;
    }
    let root = RpmRoot::new();
    let file = package(&root, "one");
    let disk = root.path().join("disk");
    fs::rename(root.dbpath(), &disk).unwrap();
    fs::create_dir(root.dbpath()).unwrap();
    let image = root.path().join("image");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let (image, place) = (image.to_str().unwrap(), root.dbpath());
    let place = place.to_str().unwrap();
    run("mkfs.ext4", &["-q", "-d", disk.to_str().unwrap(), image]);
    run("mount", &["-o", "loop", image, place]);
    let _unmount = Unmount(place);
    let launch = Launch::on(root.path()).flag("safety-poll", "2s");
    let agent = launch.start();
    root.rpmdb(["--initdb"]);
    agent.wait_for_rpm(&root);
    let inode = fs::metadata(place).unwrap().ino();
    assert!(agent.watched_inodes().contains(&inode));
    // Between two polls: neither the device nor the inode tells of it.
    agent.signal("STOP");
    run("umount", &[place]);
    run("mount", &["-o", "loop", image, place]);
    agent.signal("CONT");
    eventually("the same file system is watched again", || {
        agent.watched_inodes().contains(&inode).then_some(())
    });
    root.install(&[file]);
    agent.wait_for_rpm(&root);
    drop(agent);
}

struct Unmount<'a>(&'a str);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", self.0]).status();
    }
}

#[test]
fn events_that_the_kernel_dropped_are_made_up_for() {
    let root = RpmRoot::new();
    let (one, two) = (package(&root, "one"), package(&root, "two"));
    root.install(&[one]);
    let (_launch, agent) = served(&root);
    agent.signal("STOP");
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // Two files in turn, or the kernel makes one event of equal neighbours.
    let files = ["-shm", "-wal"].map(|side| root.dbpath().join(format!("rpmdb.sqlite{side}")));
    for _ in 0..limit / 4 + 1 {
        for file in &files {
            drop(fs::File::open(file).unwrap());
        }
    }
    root.install(&[two]);
    agent.signal("CONT");
    agent.wait_for_rpm(&root);
}

/// In a user namespace of its own, where the limits of inotify can be set for it alone.
fn limited(root: &RpmRoot, limits: &str) -> Launch {
    let script = format!("{limits}; exec \"$0\" \"$@\"");
    Launch::on(root.path())
        .flag("safety-poll", "1s")
        .under(["unshare", "-Ur", "sh", "-c", &script])
}

const WARNING: &str = "changes may be noticed only by comparing files every 1s";

#[test]
fn without_inotify_instances_files_are_compared_until_there_are_some() {
    if !is_root() {
        return;
    }
    let root = RpmRoot::new();
    let files = ["one", "two"].map(|name| package(&root, name));
    let limit = "/proc/sys/user/max_inotify_instances";
    let launch = limited(&root, &format!("echo 0 > {limit}"));
    let agent = launch.start();
    root.install(&[&files[0]]);
    agent.wait_for_rpm(&root);
    agent.wait_until_said(WARNING);
    agent.wait_until_said("max_user_instances");

    let pid = agent.pid().to_string();
    let more = format!("echo 100 > {limit}");
    run("nsenter", &["-U", "-t", &pid, "sh", "-c", &more]);
    let inode = fs::metadata(root.dbpath()).unwrap().ino();
    eventually("the directory is watched", || {
        agent.watched_inodes().contains(&inode).then_some(())
    });
    agent.wait_until_said("watched again");
    root.install(&[&files[1]]);
    agent.wait_for_rpm(&root);
}

#[test]
fn where_watches_run_out_files_are_compared() {
    if !is_root() {
        return;
    }
    let root = RpmRoot::new();
    let file = package(&root, "one");
    let launch = limited(&root, "echo 1 > /proc/sys/user/max_inotify_watches");
    let agent = launch.start();
    root.install(&[file]);
    agent.wait_for_rpm(&root);
    agent.wait_until_said(WARNING);
    // Said once, not every second.
    let said = || agent.log().matches(WARNING).count();
    root.erase(&["one"]);
    root.add(&Spec::default());
    agent.wait_for_rpm(&root);
    assert_eq!(said(), 1, "{}", agent.log());
}

#[test]
fn a_file_system_that_is_mounted_over_the_directory_is_seen() {
    if !is_root() {
        return;
    }
    let root = RpmRoot::new();
    let files = ["one", "two", "three"].map(|name| package(&root, name));
    root.install(&[&files[0]]);
    let other = RpmRoot::new();
    other.install(&[&files[1]]);
    let launch = Launch::on(root.path())
        .flag("safety-poll", "1s")
        .under(["unshare", "-m"]);
    let agent = launch.start();
    agent.wait_for_rpm(&root);

    let inside = |args: &[&str]| {
        let pid = agent.pid().to_string();
        run("nsenter", &[&["-m", "-t", &pid], args].concat());
    };
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (place, source) = (text(&root.dbpath()), text(&other.dbpath()));
    inside(&["mount", "--bind", &source, &place]);
    agent.wait_for_rpm(&other);
    let inode = fs::metadata(other.dbpath()).unwrap().ino();
    eventually("what is mounted is watched", || {
        agent.watched_inodes().contains(&inode).then_some(())
    });
    other.install(&[&files[2]]);
    agent.wait_for_rpm(&other);
    inside(&["umount", &place]);
    agent.wait_for_rpm(&root);

    // An empty file system: the last good report stays.
    inside(&["mount", "-t", "tmpfs", "none", &place]);
    eventually("it is noticed", || {
        agent.log().contains("scan failed").then_some(())
    });
    assert_eq!(agent.get().list(), root.rpm_qa());
    inside(&["umount", &place]);
    root.install(&[&files[2]]);
    agent.wait_for_rpm(&root);
}
