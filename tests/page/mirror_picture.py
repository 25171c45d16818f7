"""Takes the picture of the mirror's page in docs/: a rack of a site of 240.

    python3 -B tests/page/mirror_picture.py PROGRAM FILE
"""

import base64
import os
import pathlib
import sys
import tempfile

import inventory
import test_mirror
from browser import Browser
from picture import small


def main():
    test_mirror.PROGRAM, file = os.path.abspath(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        scratch = pathlib.Path(scratch)
        mirror = test_mirror.Mirror(scratch / "mirror", inventory.make(240, drift=0.04))
        try:
            take(mirror, scratch, file)
        finally:
            mirror.close()


def take(mirror, scratch, file):
    browser = Browser(scratch)
    try:
        browser.size(1280, 900)
        browser.open(mirror.login())
        browser.wait("the racks", "return document.querySelector('main [role=status]')?.textContent.startsWith('240 racks')")
        rack = browser.run("""return known.racks.find((r) => r.drift.mismatch && r.drift.missing_in_actual && r.location)?.external_id""")
        browser.view(f"#/rack/{rack}")
        browser.wait("the drawing", "return document.querySelector('.elevation .elsewhere') && document.querySelector('#summary')?.checkVisibility()")
        browser.run("document.activeElement.blur()")
        with open(file, "wb") as out:
            out.write(small(base64.b64decode(browser.ask("GET", "/screenshot"))))
    finally:
        browser.close()


if __name__ == "__main__":
    main()
