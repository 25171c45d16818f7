"""Documents of every database of tests/fixtures/rpmdb, as `afferent scan` writes them.

Usage: fixtures.py AFFERENT DIRECTORY      NAME.cdx.json, NAME.spdx.json and NAME.tsv for each
"""

import lzma
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures/rpmdb"
# What is beside the database in the system that it is from; the databases are without.
OS_RELEASE = {
    "amazonlinux-2023": 'ID="amzn"\nVERSION_ID="2023"\nID_LIKE="fedora"\nCPE_NAME="cpe:2.3:o:amazon:amazon_linux:2023"\n',
    "centos-6": 'ID="centos"\nVERSION_ID="6.10"\nCPE_NAME="cpe:/o:centos:linux:6:GA"\n',
    "centos-7": 'ID="centos"\nVERSION_ID="7"\nID_LIKE="rhel fedora"\nCPE_NAME="cpe:/o:centos:centos:7"\n',
    "centos-8": 'ID="centos"\nVERSION_ID="8"\nID_LIKE="rhel fedora"\nCPE_NAME="cpe:/o:centos:centos:8"\n',
    "epoch-one": 'ID="rhel"\nVERSION_ID="10.0"\nCPE_NAME="cpe:/o:redhat:enterprise_linux:10::baseos"\n',
    "fedora-33": "ID=fedora\nVERSION_ID=33\nCPE_NAME=cpe:/o:fedoraproject:fedora:33\n",
    "rhel-8": 'ID="rhel"\nVERSION_ID="8.9"\nCPE_NAME="cpe:/o:redhat:enterprise_linux:8::baseos"\n',
    "rpm-testsuite": None,
    "sle-15": 'ID="sles"\nID_LIKE="suse"\nVERSION_ID="15.3"\nCPE_NAME="cpe:/o:suse:sles:15:sp3"\n',
}
WITHOUT_TABLE = "no-packages-table-sqlite"


def unpack(name, root):
    database = root / "var/lib/rpm"
    database.mkdir(parents=True)
    sources = [FIXTURES / name]
    if name == "amazonlinux-2023-walpending-sqlite":
        # The main file is that of the database before the changes.
        sources.append(FIXTURES / "amazonlinux-2023-sqlite")
    for source in sources:
        for packed in source.glob("*.xz"):
            with lzma.open(packed) as text, open(database / packed.stem, "wb") as out:
                shutil.copyfileobj(text, out)


def main():
    afferent, out = sys.argv[1], pathlib.Path(sys.argv[2])
    names = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())
    environment = dict(os.environ, SOURCE_DATE_EPOCH="1700000000")
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            root = pathlib.Path(scratch)
            unpack(name, root)
            (root / "etc").mkdir()
            kinds = [text for start, text in OS_RELEASE.items() if name.startswith(start)]
            assert len(kinds) == 1 or name == WITHOUT_TABLE, f"{name}: of which distribution is it?"
            if kinds and kinds[0]:
                (root / "etc/os-release").write_text(kinds[0])
            (root / "etc/hostname").write_text(f"{name}.example\n")
            for form, suffix in [("cyclonedx", "cdx.json"), ("spdx", "spdx.json"), ("tsv", "tsv")]:
                command = [afferent, "scan", "--root", scratch, "--format", form]
                done = subprocess.run(command + ["--output", str(out / f"{name}.{suffix}")], env=environment,
                                      stderr=subprocess.PIPE, text=True)
                fails = name == WITHOUT_TABLE
                assert (done.returncode != 0) == fails, f"{name}, {form}: {done.stderr}"
    print(f"fixtures: documents of {len(names) - 1} databases")


if __name__ == "__main__":
    main()
