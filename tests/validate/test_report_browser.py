"""Pages in headless Chromium: no errors, nothing fetched, every figure drawn, tables sorted by a click.

The browser is driven over its DevTools pipe: no port, and no further package.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caloforge.geometry import get_detector
from caloforge.showers import Showers
from caloforge.validate.driver import validate
from caloforge.validate.metrics.base import METRICS
from caloforge.validate.plots.draw import Drawing
from caloforge.validate.plots.families import FAMILIES
from caloforge.validate.plots.panel import Curve, Panel
from caloforge.validate.report.event import view
from caloforge.validate.report.interactive import panel_figure
from caloforge.validate.report.page import Cell, Page, Plot, Section, Table, Text

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
    "--window-size=1300,950",
)


def find_chromium() -> str | None:
    """Return the browser's path: the one that CHROMIUM names, or one on the path."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in _BROWSERS if (found := shutil.which(name))), None)


class Browser:
    """One page; ``errors`` collects console errors, uncaught exceptions and failed or attempted requests."""

    def __init__(self, path: Path, *flags: str) -> None:
        self.path, self.flags = path, flags
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._buffer = b""

    def __enter__(self) -> Browser:
        browser = find_chromium()
        assert browser is not None
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        read_in, self._write = os.pipe()
        self._read, write_out = os.pipe()

        def connect() -> None:  # the browser reads from 3 and writes to 4
            first, second = os.dup(read_in), os.dup(write_out)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self._process = subprocess.Popen(
            [browser, *_FLAGS, *self.flags, f"--user-data-dir={self._profile.name}", "about:blank"],
            preexec_fn=connect,
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_in)
        os.close(write_out)
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(entry["targetId"] for entry in targets if entry["type"] == "page")
        self._session: str | None = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=self.path.resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its answer, noting what else is reported meanwhile."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 60.0) -> None:
        """Wait until a JavaScript condition holds."""
        end = time.monotonic() + seconds
        while not self.evaluate(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"{condition}; errors: {self.errors}")
            time.sleep(0.05)

    def screenshot(self, path: Path, full: bool = True) -> None:
        """Write a PNG of the page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"clip": {**size, "scale": 1}} if full else {}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=full, **clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        """Print the page as PDF."""
        path.write_bytes(
            base64.b64decode(
                self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"]
            )
        )

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._read, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser has gone")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(
            ("data:", "blob:", "file:")
        ):
            self.requests.append(params["request"]["url"])


pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium found; set CHROMIUM to its path"),
]

_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
_DRAWN = "!document.querySelector('.plot:not([data-state=drawn])')"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the report of two made-up samples, without drawings for paper."""
    from caloforge.validate.report import build

    folder = tmp_path_factory.mktemp("report")
    detector = get_detector("atlas-em-barrel")
    made = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        energy = rng.choice([10_000.0, 40_000.0], 120)
        cells = rng.gamma(0.5, 1.0, (120, detector.n_cells)) * (rng.random((120, detector.n_cells)) < 0.3)
        cells *= (0.02 * energy * (1 + 0.2 * seed) / cells.sum(axis=1))[:, None]
        conditions = {name: np.zeros((120, k), np.float32) for name, k in detector.condition_sizes.items()}
        made.append(
            Showers(
                detector, cells.astype(np.float32), energy, None, conditions, "gamma", f"model {seed}", seed
            )
        )
    with pytest.MonkeyPatch.context() as patch:
        METRICS.names()
        kept = {
            name: METRICS._entries[name] for name in ("separation_power", "distances", "moments", "spectrum")
        }
        patch.setattr(METRICS, "_entries", kept)
        few = {name: FAMILIES._entries[name] for name in ("response", "cells", "images", "correlations")}
        patch.setattr(FAMILIES, "_entries", few)
        patch.setattr(build, "Drawing", lambda figures, folder: Drawing([], folder))
        validate(*made, output=folder / "out", limits={"ks.visible_energy": {"max": 1.0}})
    return folder / "out" / "report.html"


def column(browser: Browser, table: str, number: int) -> list[str]:
    """Return a column's sort keys, from top to bottom."""
    cells = f"[...document.querySelectorAll('#{table} tbody tr')].map(row => row.cells[{number}])"
    values: list[str] = browser.evaluate(f"{cells}.map(cell => cell.dataset.sort ?? cell.textContent.trim())")
    return values


def click(browser: Browser, table: str, number: int) -> str:
    """Click on a header and return its aria-sort."""
    browser.evaluate(f"document.querySelectorAll('#{table} th button')[{number}].click()")
    return str(
        browser.evaluate(f"document.querySelectorAll('#{table} th')[{number}].getAttribute('aria-sort')")
    )


@pytest.mark.parametrize("flags", [_WEBGL, ("--disable-3d-apis",)], ids=["with WebGL", "without WebGL"])
def test_every_figure_is_drawn_without_errors(report: Path, flags: tuple[str, ...]) -> None:
    with Browser(report, *flags) as browser:
        browser.wait(_DRAWN)
        shown = browser.evaluate(
            "[...document.querySelectorAll('.plot')].map(p => p.classList.contains('no-webgl')"
            " ? p.querySelector('.still').naturalWidth > 100"
            " : p.querySelectorAll('.main-svg').length > 0 && p.querySelector('.canvas').offsetHeight > 100)"
        )
        drawn = browser.evaluate(
            "[...document.querySelectorAll('.plot:not(.has-still)')].map(p =>"
            " p.querySelectorAll('.main-svg path, .main-svg image').length)"
        )
        assert browser.errors == []
        assert browser.requests == []
        assert len(shown) == 3 + 2 + 3 + 8 + 4
        assert all(shown)
        assert min(drawn) > 3


def test_the_summary_fits_and_no_number_breaks_inside(report: Path) -> None:
    with Browser(report) as browser:
        box = "document.querySelector('#summary-table .scroll')"
        assert browser.evaluate(f"{box}.scrollWidth - {box}.clientWidth") <= 1
        lines = "[...document.querySelectorAll('#summary-table td span')].map(s => s.getClientRects().length)"
        assert set(browser.evaluate(lines)) == {1}


def test_a_table_is_sorted_by_a_click_and_the_summary_keeps_its_order(report: Path) -> None:
    table = "observables-table"
    with Browser(report) as browser:
        assert browser.evaluate("document.querySelectorAll('#summary-table button').length") == 0
        assert click(browser, table, 4) == "ascending"
        up = [float(value) for value in column(browser, table, 4) if value]
        assert len(up) > 10
        assert up == sorted(up)
        assert click(browser, table, 4) == "descending"
        down = [float(value) for value in column(browser, table, 4) if value]
        assert down == sorted(up, reverse=True)
        assert click(browser, table, 0) == "ascending"
        names = column(browser, table, 0)
        assert names == sorted(names)
        marked = f"document.querySelectorAll('#{table} th[aria-sort]').length"
        assert browser.evaluate(marked) == 1
        assert browser.errors == []


def test_numbers_come_before_texts_and_blanks_last(tmp_path: Path) -> None:
    rows = [[Cell("b", 10.0)], [Cell("")], [Cell("text")], [Cell("a", -2.5)], [Cell("c", 9.0)]]
    page = Page("x", [Section("s", [Table(["v"], rows, key="t"), Text("no figure")])]).write(
        tmp_path / "page.html"
    )
    with Browser(page) as browser:
        click(browser, "t", 0)
        assert column(browser, "t", 0) == ["-2.5", "9.0", "10.0", "text", ""]
        click(browser, "t", 0)
        assert column(browser, "t", 0) == ["text", "10.0", "9.0", "-2.5", ""]
        assert browser.errors == []


def test_the_page_is_printed_with_every_figure(tmp_path: Path) -> None:
    curve = Curve(0, "reference", np.arange(1.0, 9.0), np.ones(8))
    panel = Panel("p", "P", "x", "y", np.arange(9.0), (curve,))
    plots = [Plot(panel_figure(panel), key=f"p{number}", wide=number == 0) for number in range(5)]
    folded = Section("Last", [Plot(panel_figure(panel), key="folded")], folded=True)
    page = Page("x", [Section("First", plots), folded]).write(tmp_path / "page.html")
    with Browser(page) as browser:
        browser.wait("window.Plotly !== undefined")
        widths = "[...document.querySelectorAll('.plot:not(.wide) .main-svg')].map(s => s.getBoundingClientRect().width)"
        browser.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        browser.wait(_DRAWN)
        assert max(browser.evaluate(widths)) < 350  # two beside each other on A4
        browser.evaluate("window.dispatchEvent(new Event('afterprint'))")
        browser.wait(f"Math.max(...{widths}) > 400")
        browser.pdf(tmp_path / "page.pdf")
        assert browser.errors == []
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_folded_sections_are_drawn_when_opened(tmp_path: Path) -> None:
    figure = {"data": [{"type": "scatter", "y": [1, 2, 3]}], "layout": {"height": 300}}
    page = Page("x", [Section("s", [Plot(figure, key="hidden")], folded=True)]).write(tmp_path / "page.html")
    with Browser(page) as browser:
        browser.wait("window.Plotly !== undefined")
        assert browser.evaluate("document.querySelector('#hidden').dataset.state") is None
        browser.evaluate("document.querySelector('summary').click()")
        browser.wait("document.querySelector('#hidden').dataset.state === 'drawn'")
        assert browser.errors == []


def test_the_event_display_is_drawn_in_three_dimensions(tmp_path: Path) -> None:
    detector = get_detector("ild-ecal")
    cells = np.zeros((1, detector.n_cells), np.float32)
    cells[0, 13_000:13_400:7] = np.geomspace(0.2, 50.0, 58)
    view(Showers(detector, cells, np.array([5e4])), tmp_path / "event.html")
    with Browser(tmp_path / "event.html", *_WEBGL) as browser:
        browser.wait(_DRAWN)
        assert browser.evaluate("document.querySelectorAll('#event canvas').length") > 0
        assert browser.errors == []
        assert browser.requests == []
