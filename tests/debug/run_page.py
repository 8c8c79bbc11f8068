#!/usr/bin/env python3
"""The debug page in a real browser: content, sorting, filter, refresh, hostile names, both schemes.

Chromium is driven through its debugging pipe (descriptors 3 and 4), so nothing listens anywhere.
Understands --gtest_output=json:FILE and --gtest_filter. With --screenshots FOLDER the page is kept
as pictures, to be looked at.
"""

import argparse
import base64
import fnmatch
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SCALE = int(os.environ.get("PM_TEST_SCALE", "1"))
PATIENCE = 20 * SCALE


class Failed(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Failed(what)


class Host:
    """A program with a debug server."""

    def __init__(self, program, folder):
        self.process = subprocess.Popen([program, str(folder), "pods & <b>sessions</b>", "arguments"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip()
        check(self.address.startswith("http://127.0.0.1:"), f"the host said {self.address!r}")

    def do(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        check(answer == "PM_OK", f"{command}: {answer}")

    def start(self, owner, *more):
        owner = owner if isinstance(owner, bytes) else owner.encode()
        self.do(" ".join(["start", owner.hex(), *more]))

    def close(self):
        self.process.stdin.close()
        return self.process.wait(PATIENCE)


class Browser:
    """Chromium without a window, spoken to in its debugging protocol."""

    def __init__(self, program, folder):
        to_read, self.write_fd = os.pipe()
        self.read_fd, to_write = os.pipe()

        def give_pipes():
            # Above what is to be replaced first: one of them may be 3 or 4 itself.
            a, b = os.dup(to_read), os.dup(to_write)
            high = [os.dup2(a, 100), os.dup2(b, 101)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
             "--disable-component-update", "--no-proxy-server", "--disable-sync", "--mute-audio",
             "--window-size=1400,900",
             f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=give_pipes, start_new_session=True,
            env=dict(os.environ, HOME=str(folder), XDG_CONFIG_HOME=str(folder)))
        os.close(to_read)
        os.close(to_write)
        self.buffer = b""
        self.number = 0
        self.session = None
        self.problems = []  # What the page said on its console, and exceptions.
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t for t in targets if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page["targetId"],
                                 flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(domain + ".enable")
        self.requests = []

    def receive(self, deadline):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read_fd], [], [], max(0, deadline - time.monotonic()))
            check(ready, "the browser does not answer")
            data = os.read(self.read_fd, 1 << 20)
            check(data, "the browser has ended")
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def note(self, message):
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Log.entryAdded":
            self.problems.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))
        elif method == "Network.requestWillBeSent" and hasattr(self, "requests"):
            self.requests.append(params["request"]["url"])

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_fd, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self.receive(deadline)
            if answer.get("id") == self.number:
                check("error" not in answer, f"{method}: {answer.get('error')}")
                return answer["result"]
            self.note(answer)

    def js(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)
        check("exceptionDetails" not in result, f"{expression}: {result.get('exceptionDetails')}")
        return result["result"].get("value")

    def until(self, expression, what):
        deadline = time.monotonic() + PATIENCE
        while True:
            value = self.js(expression)
            if value:
                return value
            if time.monotonic() > deadline:  # A page that is on its way has no body yet.
                text = self.js("document.body === null ? '' : document.body.innerText")
                check(False, f"{what} does not come; the page: {text[:1500]}")
            self.js("new Promise((resolve) => setTimeout(resolve, 30))")

    def click(self, selector):
        box = self.js(f"""(() => {{ const n = document.querySelector({json.dumps(selector)});
            n.scrollIntoView({{block: "center"}}); const r = n.getBoundingClientRect();
            return [r.x + r.width / 2, r.y + r.height / 2]; }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left",
                      clickCount=1)

    def key(self, key, text=""):
        code = {"Tab": 9, "Enter": 13, " ": 32}.get(key, ord(key[0].upper()))
        more = {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key,
                  windowsVirtualKeyCode=code, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key,
                  windowsVirtualKeyCode=code)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": name}])

    def picture(self, path, width=1400, height=900):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)
        data = self.call("Page.captureScreenshot", format="png")["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))
        self.call("Emulation.clearDeviceMetricsOverride")

    def open(self, url):
        self.requests.clear()
        self.problems.clear()
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && "
                   "document.querySelector('#status') !== null && "
                   "document.querySelector('#status').textContent === 'Live'", "the page")

    def close(self):
        # Of a session of its own: with all that it has started.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        os.close(self.read_fd)
        os.close(self.write_fd)


COLUMN = """(name) => { const heads = [...document.querySelectorAll('#head th')];
    const i = heads.findIndex((h) => h.dataset.name === name);
    return [...document.querySelectorAll('#rows tr')].map((r) => r.children[i].textContent); }"""

EVERY_BYTE = bytes(range(1, 256))
HOSTILE = [
    b"<script>window.broken = 1</script>",
    b"\"><img src=x onerror=window.broken=1>",
    b"{{nonce}} </script> <!-- & &lt; &#60;",
    b"javascript:window.broken=1",
    b"\xe2\x80\xaegnp.exe",  # Turned round: exe.png.
    b"a\nb\rc\td\x1b[31mred\x7f\xc2\x9b31m",
    b"\xff\xfe not UTF-8 \xc3\x28",
    EVERY_BYTE,
]


class Cases:
    def __init__(self, host, browser, screenshots):
        self.host, self.browser, self.screenshots = host, browser, screenshots

    def column(self, name):
        return self.browser.js(f"({COLUMN})({json.dumps(name)})")

    def rows(self, count):
        self.browser.until(f"document.querySelectorAll('#rows tr').length === {count}",
                           f"{count} rows")

    def open(self):
        self.browser.open(self.host.address + "/debug/processes")

    # The order matters: each case goes on with what the one before has started.

    def an_empty_page_says_so(self):
        self.open()
        check(self.browser.js("document.querySelector('#empty').checkVisibility()"), "no notice")
        check(self.browser.js("document.querySelector('#zombies .number').textContent") == "0",
              "the zombie counter")
        check(self.browser.js("document.title") == "pods & <b>sessions</b>: processes", "the title")

    def shows_what_is_there(self):
        for owner in ("pod:2", "pod:10", "acp agent"):
            self.host.start(owner)
        self.host.start("session", "daemon")
        self.open()
        self.rows(4)
        check(self.column("owner") == ["pod:2", "pod:10", "acp agent", "session"],
              f"owners: {self.column('owner')}")
        check(self.column("mode") == ["normal"] * 3 + ["daemon"], "modes")
        check(self.column("state") == ["running"] * 4, "states")
        check(self.column("key") == ["", "", "", "key-1"], f"keys: {self.column('key')}")
        check(all(a == "--nap --password=***" for a in self.column("arguments")),
              f"arguments: {self.column('arguments')}")
        check(self.browser.js("document.querySelector('#live .number').textContent") == "4", "live")
        check(self.browser.js("document.querySelector('#shown').textContent") == "4 processes",
              "how many")

    def sorts_by_each_column(self):
        order = lambda: self.column("owner")
        self.browser.click("#head th[data-name=owner] button")
        up = order()
        check(up == sorted(up, key=str.lower), f"up: {up}")
        check(self.browser.js("document.querySelector('#head th[data-name=owner]')"
                              ".getAttribute('aria-sort')") == "ascending", "aria-sort")
        self.browser.click("#head th[data-name=owner] button")
        check(order() == up[::-1], f"down: {order()}")
        check(self.browser.js("document.querySelector('#head th[data-name=owner]')"
                              ".getAttribute('aria-sort')") == "descending", "aria-sort")
        self.browser.click("#head th[data-name=pid] button")
        pids = [int(pid) for pid in self.column("pid")]
        check(pids == sorted(pids), f"pids are numbers: {pids}")
        check(self.browser.js("document.querySelectorAll('#head [aria-sort]').length") == 1,
              "one column sorts")
        self.browser.click("#head th[data-name=uptime_ms] button")
        check(order()[0] == "session", f"the youngest first: {order()}")

    def filters(self):
        self.open()
        self.rows(4)
        self.browser.js("document.querySelector('#filter').focus()")
        self.browser.call("Input.insertText", text="AGENT acp")
        self.rows(1)
        check(self.column("owner") == ["acp agent"], "both words")
        check(self.browser.js("document.querySelector('#shown').textContent") == "1 of 4 process",
              "how many: " + self.browser.js("document.querySelector('#shown').textContent"))
        self.browser.js("(() => { const f = document.querySelector('#filter'); f.value = ''; "
                        "f.dispatchEvent(new Event('input')); "
                        "const m = document.querySelector('#mode'); m.value = 'daemon'; "
                        "m.dispatchEvent(new Event('input')); })()")
        self.rows(1)
        check(self.column("owner") == ["session"], "the mode")
        self.browser.js("(() => { document.querySelector('#filter').value = 'nothing like that'; "
                        "document.querySelector('#filter').dispatchEvent(new Event('input')); })()")
        self.rows(0)
        check(self.browser.js("document.querySelector('#empty').textContent") ==
              "None of them matches.", "the notice")

    def refreshes_by_itself_and_pauses(self):
        self.open()
        self.rows(4)
        self.browser.js("document.querySelector('#rows tr').dataset.mark = 'kept'")
        self.host.start("newcomer")
        self.rows(5)
        check(self.browser.js("document.querySelector('#rows tr').dataset.mark") == "kept",
              "a row that stays is not made again")
        self.browser.until("document.querySelectorAll('#live svg polyline').length === 1",
                           "the sparkline")
        label = self.browser.js("document.querySelector('#live svg').getAttribute('aria-label')")
        check(label == "from 4 to 5, now 5", f"the sparkline's words: {label}")
        self.browser.click("#pause")
        check(self.browser.js("document.querySelector('#pause').getAttribute('aria-pressed')") ==
              "true", "pressed")
        self.browser.js("new Promise((r) => setTimeout(r, 100))")
        before = len(self.browser.requests)
        self.host.start("unseen")
        self.browser.js("new Promise((r) => setTimeout(r, 2500))")
        check(len(self.browser.requests) == before, "it asks while it pauses")
        self.browser.click("#pause")
        self.rows(6)
        self.host.do("kill")
        self.rows(5)
        check(self.browser.problems == [], f"the console: {self.browser.problems}")

    def is_worked_by_the_keyboard(self):
        self.open()
        self.browser.js("document.querySelector('#head th[data-name=owner] button').focus()")
        self.browser.key("Enter", "\r")
        check(self.browser.js("document.querySelector('#head th[data-name=owner]')"
                              ".getAttribute('aria-sort')") == "ascending", "Enter sorts")
        check(self.browser.js("document.activeElement.textContent") == "Owner", "focus stays")
        self.browser.key("Tab")
        check(self.browser.js("document.activeElement.textContent") == "Key", "Tab goes on")
        outline = self.browser.js("getComputedStyle(document.activeElement).outlineStyle")
        check(outline == "solid", f"the focus is seen: {outline}")

    def tells_a_screen_reader_what_it_shows(self):
        self.open()
        nodes = self.browser.call("Accessibility.getFullAXTree")["nodes"]
        said = [(n.get("role", {}).get("value"), n.get("name", {}).get("value", ""))
                for n in nodes if not n.get("ignored")]
        for role, name in (("columnheader", "Owner"), ("button", "Pause"), ("searchbox", "Filter"),
                           ("combobox", "Mode"), ("combobox", "Refresh"), ("link", "To the table"),
                           ("heading", "Zombies")):
            check(any(r == role and name in n for r, n in said), f"no {role} {name!r} in {said}")
        check(any(r == "table" and n.startswith("Tracked processes") for r, n in said), "the table")
        check(any(r in ("image", "img") and n.startswith("from ") for r, n in said), "sparklines")
        check(sum(r == "rowheader" for r, n in said) == 5, "row headers")

    def hostile_names_are_text(self):
        for owner in HOSTILE:
            self.host.start(owner)
        self.open()
        self.rows(5 + len(HOSTILE))
        check(self.browser.js("window.broken") is None, "a name was run")
        check(self.browser.js("document.querySelectorAll('#rows script, #rows img, #rows b').length")
              == 0, "a name became an element")
        owners = self.column("owner")[5:]
        check(owners[0] == "<script>window.broken = 1</script>", owners[0])
        check(owners[2] == "{{nonce}} </script> <!-- & &lt; &#60;", owners[2])
        check(owners[4] == "\\u202egnp.exe", owners[4])
        check(owners[5] == "a\\x0ab\\x0dc\\x09d\\x1b[31mred\\x7f\\x9b31m", owners[5])
        check(owners[6] == "\\xff\\xfe not UTF-8 \\xc3(", owners[6])
        every = "".join(chr(c) if 0x20 <= c < 0x7f else f"\\x{c:02x}" for c in range(1, 256))
        check(owners[7] == every, owners[7])
        check(self.browser.problems == [], f"the console: {self.browser.problems}")

    def nothing_comes_from_elsewhere(self):
        self.open()
        check(self.browser.requests, "no request was seen")
        for url in self.browser.requests:
            check(url.startswith(self.host.address + "/debug/processes") or url == "data:,", url)
        # What a hole in the page would try to do is forbidden by its policy.
        self.browser.js("(() => { const s = document.createElement('script'); "
                        "s.textContent = 'window.broken = 2'; document.body.append(s); "
                        "const i = document.createElement('img'); i.src = '/metrics'; "
                        "document.body.append(i); "
                        "const d = document.createElement('div'); "
                        "d.innerHTML = '<p onclick=\"window.broken=3\">x</p>'; "
                        "document.body.append(d); d.firstChild.click(); })()")
        check(self.browser.js("window.broken") is None, "a script without the nonce has run")
        check(self.browser.js("fetch('http://127.0.0.1:1/').then(() => 'yes', () => 'no')") == "no",
              "it connects elsewhere")

    def a_zombie_is_in_plain_sight(self):
        self.host.do("leak")
        self.open()
        check(self.browser.js("document.querySelector('#zombies').className") == "tile bad", "colour")
        check(self.browser.js("document.querySelector('#zombies .number').textContent") == "1", "one")
        check("nobody waits for it" in
              self.browser.js("document.querySelector('#zombies .note').textContent"), "the note")
        check(self.browser.js("document.title").startswith("(1 zombies)"), "the title")
        if self.screenshots:
            self.shoot("zombie")
        self.host.do("collect")
        self.browser.until("document.querySelector('#zombies').className === 'tile warn'",
                           "that it is over")
        check(self.browser.js("document.querySelector('#zombies .note').textContent") ==
              "1 found, 0 reaped since the start", "found before")

    def shoot(self, name):
        for scheme in ("light", "dark"):
            self.browser.scheme(scheme)
            self.browser.picture(self.screenshots / f"{name}-{scheme}.png")
        self.browser.scheme("light")

    def both_schemes_are_readable(self):
        """Every text against what is behind it: WCAG's 4.5 to 1."""
        self.host.do("fail")
        self.open()
        if self.screenshots:
            self.shoot("page")
            self.browser.picture(self.screenshots / "narrow-light.png", 420, 900)
        for scheme in ("light", "dark"):
            self.browser.scheme(scheme)
            worst = self.browser.js("""(() => {
                const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
                const lum = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255;
                    return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
                    return .2126 * r + .7152 * g + .0722 * b; };
                const ground = (n) => { for (; n; n = n.parentElement) {
                    const c = parse(getComputedStyle(n).backgroundColor);
                    if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
                let worst = [99, ''];
                for (const n of document.querySelectorAll('body *')) {
                    if (n.children.length || !n.textContent.trim() || !n.checkVisibility() ||
                        ['SCRIPT', 'STYLE', 'NOSCRIPT', 'OPTION'].includes(n.tagName)) continue;
                    const a = lum(parse(getComputedStyle(n).color)), b = lum(ground(n));
                    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
                    if (ratio < worst[0]) worst = [ratio, n.outerHTML.slice(0, 90)];
                }
                return worst; })()""")
            check(worst[0] >= 4.5, f"{scheme}: {worst}")
            body = self.browser.js("getComputedStyle(document.body).backgroundColor")
            light = body == "rgb(245, 246, 248)"
            check(light == (scheme == "light"), f"{scheme}: {body}")
        self.browser.scheme("light")

    def a_server_that_is_gone_is_told(self):
        self.open()
        check(self.host.close() == 0, "the host's exit code")
        self.browser.until("document.querySelector('#status').textContent.startsWith('No answer')",
                           "the notice")
        check(self.browser.js("document.querySelectorAll('#rows tr').length") > 0,
              "the last state stays")


ORDER = ["an_empty_page_says_so", "shows_what_is_there", "sorts_by_each_column", "filters",
         "refreshes_by_itself_and_pauses", "is_worked_by_the_keyboard",
         "tells_a_screen_reader_what_it_shows", "hostile_names_are_text",
         "nothing_comes_from_elsewhere", "a_zombie_is_in_plain_sight", "both_schemes_are_readable",
         "a_server_that_is_gone_is_told"]


def title(name):
    return "".join(word.capitalize() for word in name.split("_"))


def run(args, wanted):
    results = []
    browser_program = args.chromium or shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory(prefix="pm-page-") as folder:
        folder = pathlib.Path(folder)
        (folder / "browser").mkdir()
        if browser_program is None:
            for name in wanted:
                print(f"[ RUN      ] DebugPage.{title(name)}\nrun_page.py: Skipped\n"
                      f"no chromium here (ci/dependencies debug)\n"
                      f"[  SKIPPED ] DebugPage.{title(name)} (0 ms)")
            return [{"name": title(n), "status": "RUN", "result": "SKIPPED"} for n in wanted]
        host = browser = None
        try:
            host = Host(args.host, folder / "registry")
            browser = Browser(browser_program, folder / "browser")
            cases = Cases(host, browser, args.screenshots)
            for name in wanted:
                print(f"[ RUN      ] DebugPage.{title(name)}", flush=True)
                entry = {"name": title(name), "status": "RUN", "result": "COMPLETED"}
                begin = time.monotonic()
                try:
                    getattr(cases, name)()
                except Failed as problem:
                    entry["failures"] = [{"failure": str(problem)}]
                    print(problem)
                print(f"[ {' FAILED ' if 'failures' in entry else '      OK'} ] "
                      f"DebugPage.{title(name)} ({(time.monotonic() - begin) * 1000:.0f} ms)",
                      flush=True)
                results.append(entry)
        except Failed as problem:
            print(problem)
            results.append({"name": "Setup", "status": "RUN", "result": "COMPLETED",
                            "failures": [{"failure": str(problem)}]})
        finally:
            if browser is not None:
                browser.close()
            if host is not None and host.process.poll() is None:
                host.close()
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True, help="the program pm-debug-host")
    parser.add_argument("--chromium")
    parser.add_argument("--screenshots", type=pathlib.Path)
    parser.add_argument("--gtest_output", default="")
    parser.add_argument("--gtest_filter", default="*")
    args, _ = parser.parse_known_args()
    positive, _, negative = args.gtest_filter.partition("-")

    def selected(name):
        full = "DebugPage." + title(name)
        return any(fnmatch.fnmatch(full, p) for p in (positive or "*").split(":")) and not any(
            fnmatch.fnmatch(full, p) for p in negative.split(":") if p)

    if args.screenshots:
        args.screenshots.mkdir(parents=True, exist_ok=True)
    # They go on from each other: if one is wanted, those before it are run as well.
    wanted = [name for name in ORDER if selected(name)]
    if wanted:
        wanted = ORDER[:ORDER.index(wanted[-1]) + 1]
    results = run(args, wanted)
    if args.gtest_output.startswith("json:"):
        report = {"testsuites": [{"name": "DebugPage", "testsuite": results}]}
        pathlib.Path(args.gtest_output[len("json:"):]).write_text(json.dumps(report))
    failed = sum("failures" in r for r in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
