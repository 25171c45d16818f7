"""A headless Chromium, driven over HTTP as the W3C's WebDriver has it, and what tests of all pages begin with."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

# What can be observed is waited for this long: far longer than it takes on a busy machine.
LONGEST_WAIT = 90
# Rows that the document may hold of a table, whatever its length.
MOST_ROWS = 160
HOSTILE = ['<script>window.pwned = 1</script>', '"><img src=x onerror="window.pwned = 2">', "a'b&amp;c", "png\u202eexe.cod"]
SHELL = pathlib.Path(__file__).resolve().parent.parent.parent / "src/web/page"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
# Keys as WebDriver writes them.
TAB, ENTER, SPACE, DOWN, UP, END, HOME = "\ue004", "\ue007", " ", "\ue015", "\ue013", "\ue010", "\ue011"


def program():
    """Debian's Chromium, or Fedora's."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def is_here():
    return bool(program() and shutil.which("chromedriver"))


def run_tests(module):
    """Runs the tests of a script whose first argument is the program."""
    arguments = sys.argv[1:]
    module.PROGRAM = os.path.abspath(arguments.pop(0))
    if not is_here():
        print("page: skipped, chromium and chromedriver are not here; packaging/install-deps.sh page installs them")
        return
    unittest.main(module=module, argv=[sys.argv[0], *arguments], verbosity=2)


def eventually(what, look, timeout=LONGEST_WAIT):
    """Looks again and again until there is something to see."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        seen = look()
        if seen:
            return seen
        time.sleep(0.02)
    raise AssertionError(f"waited in vain: {what}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Browser:
    def __init__(self, downloads, width=1280, height=900):
        # The browser leaves directories of its own behind.
        environment = dict(os.environ, TMPDIR=str(downloads))
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True, env=environment)
        self.session = None
        try:
            for line in self.driver.stdout:
                found = re.search(r"successfully on port (\d+)", line)
                if found:
                    break
            self.base = f"http://127.0.0.1:{found.group(1)}/session"
            arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
                         "--disable-component-update", "--disable-background-networking", "--no-proxy-server",
                         f"--window-size={width},{height}"]
            options = {"args": arguments, "binary": program(),
                       "prefs": {"download.default_directory": str(downloads)}}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            answer = self._send("POST", self.base, {"capabilities": {"alwaysMatch": wanted}})
            self.session = f"{self.base}/{answer['sessionId']}"
            self.ask("POST", "/timeouts", {"script": LONGEST_WAIT * 1000})
            self.cdp("Emulation.setTimezoneOverride", timezoneId="UTC")
        except BaseException:
            self.close()
            raise

    def _send(self, method, url, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=2 * LONGEST_WAIT) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise AssertionError(f"{method} {url}: {value['error']}: {value['message']}") from None

    def ask(self, method, path, body=None):
        return self._send(method, self.session + path, body)

    def close(self):
        if self.session:
            self.ask("DELETE", "")
            self.session = None
        self.driver.terminate()
        self.driver.wait()
        self.driver.stdout.close()

    def cdp(self, command, **parameters):
        """A command of the browser's own protocol."""
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width, height, is_phone=False):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone)

    def open(self, url):
        self.ask("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, what, script, *arguments):
        """Waits until a script returns something that is true, and gives it."""
        return eventually(what, lambda: self.run(script, *arguments))

    def view(self, address):
        """Goes to a view of the page as a link of it would."""
        self.run("location.hash = arguments[0]", address)

    def find(self, selector):
        return self.ask("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.ask("POST", f"/element/{self.find(selector)}/click", {})

    def type(self, selector, text):
        element = self.find(selector)
        self.ask("POST", f"/element/{element}/clear", {})
        self.ask("POST", f"/element/{element}/value", {"text": text})

    def keys(self, *keys):
        """Presses keys, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def console(self):
        """What the console got since this was last asked."""
        return self.ask("POST", "/se/log", {"type": "browser"})

    def accessible(self):
        """The accessibility tree: role, name and properties of every node that is not ignored."""
        nodes = self.cdp("Accessibility.getFullAXTree")["nodes"]
        value = lambda node, key: node.get(key, {}).get("value", "")
        return [(value(node, "role"), value(node, "name"), {p["name"]: p["value"].get("value") for p in node.get("properties", [])})
                for node in nodes if not node["ignored"]]


class Service:
    """A service with a page, in a directory of its own. `page` is the command that logs in, and the first word of its settings."""

    def __init__(self, program, page, scratch, arguments):
        self.program, self.page, self.scratch, self.state = program, page, scratch, scratch / "state"
        scratch.mkdir(parents=True, exist_ok=True)
        self.log = open(scratch / "log", "a", encoding="utf-8")
        listen = f"127.0.0.1:{free_port()}"
        self.base = f"http://{listen}"
        self.command = [program, *arguments, "--state-dir", self.state, f"--{page}-listen", listen]
        self.start()

    def start(self):
        command = [str(part) for part in self.command]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=self.scratch)

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def close(self):
        self.stop()
        self.log.close()

    def run(self, *arguments):
        """A command beside the service."""
        command = [self.program, *arguments, "--state-dir", str(self.state)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def login(self):
        """The address that opens a session."""
        address = lambda: re.search(r"https?://\S+", self.run(self.page, "login").stdout)
        return eventually("an address to log in", address).group()


class PageTest(unittest.TestCase):
    """One browser and one service for all tests of a class."""

    @classmethod
    def setUpClass(cls):
        cls.scratch = pathlib.Path(tempfile.mkdtemp(prefix="afferent-page-"))
        cls.addClassCleanup(shutil.rmtree, cls.scratch, ignore_errors=True)
        cls.service = cls.begin()
        cls.addClassCleanup(cls.service.close)
        cls.downloads = cls.scratch / "downloads"
        cls.downloads.mkdir()
        cls.browser = Browser(cls.downloads)
        cls.addClassCleanup(cls.browser.close)

    @classmethod
    def begin(cls):
        """Starts the service."""
        raise NotImplementedError

    def setUp(self):
        self.expected = []
        self.browser.size(1280, 900)
        self.browser.open(self.service.login())
        self.wait_for_rows()

    def tearDown(self):
        self.check_console()

    def check_console(self):
        """Takes the messages of the console; all must be expected."""
        messages = [message["message"] for message in self.browser.console()]
        strange = [message for message in messages if not any(text in message for text in self.expected)]
        self.assertEqual(strange, [], "messages in the console")
        return messages

    def expect_in_console(self, text):
        """Waits for a message with this in it; more of them may follow."""
        self.expected.append(text)
        eventually("a message in the console", self.check_console)

    def wait_for_rows(self):
        self.browser.wait("rows", "return document.querySelectorAll('main tbody tr[aria-rowindex]').length > 0")

    def status(self):
        return self.browser.run("return document.querySelector('main [role=status]')?.textContent")

    def rows(self):
        script = "return [...document.querySelectorAll('main tbody tr[aria-rowindex]')].map((r) => [...r.cells].map((c) => c.textContent))"
        return self.browser.run(script)

    def focus(self):
        """The element that has the focus: its text, and whether that can be seen."""
        return self.browser.run("""const e = document.activeElement; const s = getComputedStyle(e);
            return {tag: e.localName, text: e.textContent, label: e.labels?.[0]?.textContent ?? '', seen: s.outlineStyle !== 'none' && s.outlineWidth !== '0px'}""")


def check_files(test, page):
    """The files of a page and of the shell are small, and nothing in them reads text as HTML."""
    files = [*page.iterdir(), *SHELL.iterdir()]
    test.assertEqual(sorted(file.name for file in files), ["app.js", "index.html", "shell.css", "shell.js", "style.css"])
    test.assertLess(sum(file.stat().st_size for file in files), 60_000)
    script = "".join(file.read_text(encoding="utf-8") for file in files if file.suffix == ".js")
    for door in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser", "setHTML"):
        test.assertNotIn(door, script)
