"""Tests of the page of the mirror, in a real browser and in front of a real mirror.

    python3 -B tests/page/test_mirror.py PROGRAM [TEST...]

The mirror reads documents as Core exports them (inventory.py). Without Chromium and its driver everything is skipped.
Times are printed and fail nothing.
"""

import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import browser as driver  # noqa: E402
import inventory  # noqa: E402
from browser import HOSTILE, MOST_ROWS, PageTest, Service, check_files, eventually  # noqa: E402

PAGE = HERE.parent.parent / "src/mirror/api/page"
MANY = 5_000
VIEWS = ["#/", "#/rack/hostile", "#/drift", "#/changes", "#/withheld", "#/pulls"]
PROGRAM = None


class Mirror(Service):
    """`afferent mirror run` with the page."""

    def __init__(self, scratch, document):
        scratch.mkdir(parents=True)
        self.scratch = scratch
        self.publish(document)
        super().__init__(PROGRAM, "mirror", scratch, ["mirror", "run", "--core", "file:core.json", "--interval", "2s"])
        eventually("the first cycle", lambda: self.status().get("cycles", 0) > 0)

    def publish(self, document):
        """Puts another document in the place of the one that is read."""
        self.document = document
        with open(self.scratch / "next.json", "w", encoding="utf-8") as file:
            json.dump(document, file)
        os.rename(self.scratch / "next.json", self.scratch / "core.json")

    def status(self):
        """What the control socket answers; nothing, while nobody answers."""
        done = self.run("status", "--json")
        try:
            answer = json.loads(done.stdout)
        except json.JSONDecodeError:
            return {}
        return answer[0] if isinstance(answer, list) and answer else answer


def site():
    """A site of 40 racks, one of them with hostile names."""
    document = inventory.make(40, drift=0.1)
    document["expected_racks"].append(inventory.rack("hostile", 9999, HOSTILE[0]))
    for n, name in enumerate(HOSTILE):
        document["expected_machines"].append(inventory.device("expected_machines", 900_000 + n, "hostile", n + 1, name))
    return document


class MirrorPageTest(PageTest):
    """One browser and one mirror for all tests of a class."""

    document = staticmethod(site)

    @classmethod
    def begin(cls):
        cls.mirror = Mirror(cls.scratch / "mirror", cls.document())
        return cls.mirror

    def show(self, address, title):
        """Goes to a view and waits until its data is there."""
        self.browser.view(address)
        self.browser.wait(title, "return document.querySelector('h1')?.textContent === arguments[0]", title)

    def drifting(self, kind):
        """A component with this kind of drift, as the command shows it, and the name of its rack."""
        drifts = json.loads(self.mirror.run("mirror", "drift", "--json", "--code", kind).stdout)
        components = {row["id"]: row for row in json.loads(self.mirror.run("mirror", "dump").stdout)["component"]}
        component = components[next(drift["component_id"] for drift in drifts if drift["component_type"] == "Compute")]
        return component, component["name"].rsplit("-", 2)[0]


class MirrorTest(MirrorPageTest):
    def test_racks_are_listed_filtered_and_sorted(self):
        self.assertRegex(self.status(), r"^41 racks; \d+ with drift$")
        self.browser.type("main input[type=search]", "dc2-r000")
        self.browser.wait("the filter", "return document.querySelector('main [role=status]').textContent.startsWith('10 of 41 racks')")
        self.assertEqual([row[0] for row in self.rows()], [f"dc2-r000{n}" for n in range(10)])
        self.assertEqual([row[2:5] for row in self.rows()], [["18", "9", "4"]] * 10)
        self.browser.click("main thead th:nth-child(2) button")
        self.assertEqual(self.browser.run("return document.querySelector('main th:nth-child(2)').getAttribute('aria-sort')"), "ascending")

    def test_an_elevation_shows_drift_in_words_and_not_in_colour_alone(self):
        component, rack = self.drifting("mismatch")
        self.show(f"#/rack/{rack}", rack)
        self.wait_for_rows()
        drawn = self.browser.run("""return [...document.querySelectorAll('.elevation g')].map((g) => ({state: g.getAttribute('class'), title: g.querySelector('title').textContent,
            text: [...g.querySelectorAll('text')].map((t) => t.textContent).join(' '), stroke: getComputedStyle(g.querySelector('rect')).stroke, dash: getComputedStyle(g.querySelector('rect')).strokeDasharray}))""")
        slot = component["slot_id"]
        here = next(g for g in drawn if component["name"] in g["title"] and g["state"] == "differs")
        self.assertIn(f"slot_id: {slot} expected, {slot + 30} observed", here["title"])
        self.assertIn("differs", here["text"])
        there = next(g for g in drawn if g["state"] == "elsewhere" and component["name"] in g["title"])
        self.assertIn("observed here", there["text"])
        self.assertNotEqual(there["dash"], "none")
        fine = next(g for g in drawn if g["state"] == "expected")
        self.assertIn("ok", fine["text"])
        self.assertNotEqual(fine["stroke"], here["stroke"])
        label = self.browser.run("return document.querySelector('.elevation').getAttribute('aria-label')")
        self.assertRegex(label, rf"^Elevation of rack {rack}: \d+ ok, \d+ differs")
        words = [row[4] for row in self.rows() if row[2] == component["name"]]
        self.assertEqual(words, [f"slot_id: {slot} expected, {slot + 30} observed"])
        component, rack = self.drifting("missing_in_actual")
        self.show(f"#/rack/{rack}", rack)
        self.wait_for_rows()
        self.browser.wait("the component that is missing", """return [...document.querySelectorAll('.elevation g.missing')]
            .some((g) => g.querySelector('title').textContent.includes(arguments[0]) && g.textContent.includes('expected, not observed'))""", component["name"])

    def test_drift_is_listed_by_age_and_in_words(self):
        self.show("#/drift", "Drift")
        self.wait_for_rows()
        expected = json.loads(self.mirror.run("mirror", "drift", "--json").stdout)
        self.browser.wait("all of it", "return document.querySelector('main [role=status]').textContent.startsWith(arguments[0])", f"{len(expected)} differences, the oldest first")
        times = [row[0] for row in self.rows()]
        self.assertEqual(times, sorted(times))
        self.browser.run("const s = document.querySelectorAll('main select')[1]; s.value = 'mismatch'; s.dispatchEvent(new Event('input'))")
        rows = self.rows()
        self.assertEqual({row[4] for row in rows}, {"differs"})
        self.assertTrue(all(re.fullmatch(r"slot_id: \d+ expected, \d+ observed", row[5]) for row in rows), rows)

    def test_changes_are_a_timeline_and_a_new_cycle_is_seen(self):
        self.show("#/changes", "Changes")
        first = self.browser.wait("the first run", "return document.querySelector('.timeline summary')?.textContent")
        self.assertIn("insert", first)
        document = copy.deepcopy(self.mirror.document)
        document["expected_racks"][0]["metadata"]["name"] = "Renamed"
        before = self.mirror.document
        self.mirror.publish(document)
        audit = lambda: [row for row in json.loads(self.mirror.run("mirror", "audit", "--json", "--code", "update").stdout) if row["new"] == "Renamed"]
        eventually("the change", audit)
        self.browser.view("#/")
        self.show("#/changes", "Changes")
        line = self.browser.wait("its line", "return [...document.querySelectorAll('.timeline li li')].map((li) => li.textContent).find((text) => text.includes('Renamed'))")
        self.assertIn("dc2-r0000 name: Rack dc2-r0000 -> Renamed", line)
        # A view that is open follows.
        self.show("#/rack/dc2-r0000", "dc2-r0000")
        self.browser.wait("its name", "return document.querySelector('dd')?.textContent === 'Renamed'")
        self.mirror.publish(before)
        self.browser.wait("its old name", "return document.querySelector('dd')?.textContent === 'Rack dc2-r0000'")

    def test_hostile_names_are_text(self):
        self.show("#/rack/hostile", "hostile")
        self.wait_for_rows()
        shown = self.browser.run("return document.querySelector('main').textContent")
        for name in HOSTILE:
            self.assertIn(name.replace("\u202e", "\\u202e"), shown)
        self.assertNotIn("\u202e", shown)
        self.show("#/drift", "Drift")
        self.browser.type("main input[type=search]", HOSTILE[1][:12])
        self.browser.wait("the drift of it", "return document.querySelector('main tbody tr[aria-rowindex]')?.textContent.includes(arguments[0])", HOSTILE[1])
        self.browser.view(f"#/changes?row={HOSTILE[0].replace('<', '%3C').replace(' ', '%20')}")
        self.browser.wait("its changes", "return document.querySelector('main [role=status]')?.textContent")
        self.browser.view("#/rack/%3Cscript%3Ewindow.pwned=1%3C%2Fscript%3E")
        self.browser.wait("no such rack", "return document.querySelector('main [role=alert]')")
        self.expect_in_console("404")
        self.assertEqual(self.browser.run("return document.querySelectorAll('main script, main img').length"), 0)
        self.assertIsNone(self.browser.run("return window.pwned ?? null"))

    def test_header_and_pulls_say_how_the_mirror_is(self):
        has = "return document.getElementById('summary').innerText.includes(arguments[0])"
        live = 40 * 18 + len(HOSTILE)
        for text in ("41", f"{live} machines, 360 switches, 160 shelves", "differ", "missing", "nothing is withheld", "all read", "file:core.json"):
            self.browser.wait(f"{text!r} in the header", has, text)
        self.show("#/pulls", "Pulls")
        self.wait_for_rows()
        rows = {(row[0], row[1]): row[2] for row in self.rows()}
        self.assertEqual(len(rows), 7)
        self.assertEqual(set(rows.values()), {"complete"})

    def test_everything_has_a_name_for_assistive_technology(self):
        for address in VIEWS:
            self.browser.view(address)
            self.browser.wait("the view", "return document.querySelector('h1') && !document.querySelector('main [role=alert]')")
            self.browser.wait("its data", "return document.querySelector('main tbody tr[aria-rowindex], .timeline li, main section, main div p')")
            nodes = self.browser.accessible()
            roles = {role for role, _, _ in nodes}
            for landmark in ("banner", "navigation", "main", "region", "heading"):
                self.assertIn(landmark, roles, address)
            named = ("button", "link", "textbox", "searchbox", "checkbox", "combobox", "image", "table", "region", "navigation", "list")
            nameless = [node for node in nodes if node[0] in named and node[0] != "list" and not node[1].strip()]
            self.assertEqual(nameless, [], address)
            if "rack/" in address:
                self.assertTrue(any(role == "image" and name.startswith("Elevation of rack") for role, name, _ in nodes), nodes)
            self.assertEqual(self.browser.run("return document.querySelectorAll('h1').length"), 1)

    def test_a_phone_needs_no_horizontal_scrolling(self):
        self.browser.size(360, 740, is_phone=True)
        for address in VIEWS:
            self.browser.view(address)
            self.browser.wait("its data", "return document.querySelector('main tbody tr[aria-rowindex], .timeline li, main section, main div p')")
            self.assertEqual(self.browser.run("return [document.documentElement.scrollWidth, innerWidth]"), [360, 360], address)

    def test_keyboard_is_enough(self):
        self.browser.keys(driver.TAB)
        self.assertEqual(self.focus(), {"tag": "a", "text": "Skip to content", "label": "", "seen": True})
        self.browser.keys(driver.ENTER)
        self.assertEqual(self.focus()["tag"], "main")

        def tab_to(what, is_there):
            for _ in range(30):
                self.browser.keys(driver.TAB)
                focus = self.focus()
                self.assertTrue(focus["seen"], focus)
                if is_there(focus):
                    return
            self.fail(f"{what} is not reached")

        first, second = self.rows()[0][0], self.rows()[1][0]
        tab_to("the first rack", lambda focus: focus["text"] == first)
        self.browser.keys(driver.DOWN)
        self.assertEqual(self.focus()["text"], second)
        self.browser.keys(driver.ENTER)
        self.browser.wait("the rack", "return document.querySelector('h1')?.textContent === arguments[0] && document.querySelector('.elevation')", second)
        self.assertEqual(self.focus()["text"], second)
        self.show("#/changes", "Changes")
        self.browser.wait("the timeline", "return document.querySelector('.timeline summary')")
        tab_to("a run", lambda focus: focus["tag"] == "summary")
        before = self.browser.run("return document.activeElement.parentElement.open")
        self.browser.keys(driver.ENTER)
        self.browser.wait("the run opens or closes", "return document.activeElement.parentElement.open !== arguments[0]", before)

    def test_nothing_is_loaded_from_elsewhere(self):
        loaded = self.browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        self.assertGreater(len(loaded), 3)
        self.assertEqual([name for name in loaded if not name.startswith(self.mirror.base + "/")], [])

    def test_dark_mode_follows_the_system(self):
        self.show("#/rack/hostile", "hostile")
        self.browser.wait("the drawing", "return document.querySelector('.elevation g text')")
        sums = "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('.elevation g text')).fill].map((c) => c.match(/\\d+/g).reduce((sum, n) => sum + Number(n), 0))"
        back, text = self.browser.run(sums)
        self.assertTrue(back > 600 and text < 150, (back, text))
        self.browser.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        back, text = self.browser.run(sums)
        self.assertTrue(back < 150 and text > 600, (back, text))
        self.browser.cdp("Emulation.setEmulatedMedia", features=[])

    def test_without_a_session_the_page_says_how_to_get_one(self):
        self.browser.ask("DELETE", "/cookie")
        self.browser.open(self.mirror.base + "/")
        self.browser.wait("the way to log in", "return document.querySelector('main code')?.textContent === 'afferent mirror login'")
        self.assertEqual(self.browser.run("return document.querySelectorAll('table').length"), 0)
        self.expect_in_console("401")


class WithheldTest(MirrorPageTest):
    """A site of which most machines are gone."""

    document = staticmethod(lambda: inventory.make(20))

    def test_withheld_deletes_have_a_command_to_copy(self):
        document = copy.deepcopy(self.mirror.document)
        del document["expected_machines"][100:]
        self.mirror.publish(document)
        self.show("#/withheld", "Withheld deletes")
        command = self.browser.wait("the command", "return document.querySelector('.approve code')?.textContent")
        self.assertRegex(command, r"^afferent mirror approve Compute 260 --state-dir '.*'$")
        self.assertIn("260 deletes withheld", self.browser.run("return document.querySelector('main h2').textContent"))
        self.assertTrue(self.rows())
        self.browser.cdp("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        self.browser.click(".approve button")
        self.browser.wait("that it is copied", "return document.querySelector('.approve [role=status]').textContent === 'Copied.'")
        done = subprocess.run(command.replace("afferent", f"'{PROGRAM}'", 1), shell=True, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.browser.wait("that nothing is withheld", "return document.querySelector('main').textContent.includes('Nothing is withheld.')")


class ManyTest(MirrorPageTest):
    document = staticmethod(lambda: inventory.make(MANY, machines=2, switches=1, shelves=1))

    def rows_in_document(self):
        return self.browser.run("return document.querySelectorAll('main tbody tr').length")

    def test_five_thousand_racks_are_shown(self):
        self.browser.open(self.mirror.login())
        begin = time.monotonic()
        self.wait_for_rows()
        first = time.monotonic()
        self.browser.wait("all racks", "return document.querySelector('main [role=status]').textContent.startsWith('5,000 racks')")
        loaded = time.monotonic()
        took = self.browser.run("""const t = performance.now(); const s = document.querySelector('main .scroll');
            s.scrollTop = s.scrollHeight; s.dispatchEvent(new Event('scroll')); s.getBoundingClientRect(); return performance.now() - t""")
        print(f"\n{MANY} racks: the first rows {1000 * (first - begin):.0f} ms after the page was open, all after {1000 * (loaded - begin):.0f} ms; a jump to the end took {took:.0f} ms")
        self.browser.wait("the last rack", "return document.querySelector('main tbody').textContent.includes('dc2-r4999')")
        self.assertLess(self.rows_in_document(), MOST_ROWS)
        self.browser.type("main input[type=search]", "dc2-r1234")
        self.browser.wait("the rack", "return document.querySelector('main [role=status]').textContent.startsWith('1 of 5,000 racks')")


class SizeTest(unittest.TestCase):
    def test_the_page_is_small_and_has_nothing_inline(self):
        check_files(self, PAGE)


if __name__ == "__main__":
    driver.run_tests(sys.modules["__main__"])
