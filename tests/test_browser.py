"""A real browser opens what a study leaves: MLflow's pages of it, and our own.

Screenshots of ours are written into the folder that ``DGM_RAY_SCREENSHOTS`` names, if it does.
"""

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import pytest
from rich.console import Console

from dgm_ray.training import write_text
from dgm_ray.tune.report.leaderboard import leaderboard, page_of
from dgm_ray.tune.report.standings import leaderboard as standings
from dgm_ray.tune.report.study_page import write_report

from .tune.conftest import ENVIRONMENT
from .tune.test_leaderboard import METHODS, benchmark, comparison
from .tune.test_study_page import study as made

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = "--headless=new --no-sandbox --disable-dev-shm-usage --disable-gpu --no-first-run --disable-component-update"
HERE_ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # what a page loads from elsewhere is an error
WAIT = 60  # seconds until a page shows what is asked for, at most

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs a browser: apt-get install --no-install-recommends chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS.split(), HERE_ALONE, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chromium = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))  # both are named: Selenium fetches nothing
    try:
        yield chromium
    finally:
        chromium.quit()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``results/wine`` of three trials, beside their ``mlflow.db``."""
    there = tmp_path_factory.mktemp("study")
    line = [sys.executable, "-m", "dgm_ray.tune", ROOT / "search_spaces" / "autoencoder.yaml", "--name", "wine"]
    line += ["--samples", "3", "--set", "trial.arguments.data.source={factory: Wine}"]
    line += ["--set", "trial.arguments.epochs=4", "--set", "tune.scheduler.arguments.grace_period=2"]
    subprocess.run(line, cwd=there, env=ENVIRONMENT, timeout=300, check=True, capture_output=True)
    return there / "results" / "wine"


@pytest.fixture(scope="module")
def server(study: Path) -> Iterator[str]:
    """The address of a real MLflow server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    database, log = study.parents[1] / "mlflow.db", study.parents[1] / "log"
    line = [Path(sys.executable).with_name("mlflow"), "server", "--backend-store-uri", f"sqlite:///{database}"]
    line += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = ENVIRONMENT | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with log.open("w") as file:
        running = subprocess.Popen(line, stdout=file, stderr=file, env=environment, start_new_session=True)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 180
    try:
        while not answers(f"{address}/health"):
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(running.pid, signal.SIGKILL)  # it and its worker: a session of their own
        running.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, TimeoutError, ConnectionError):
        return False


def script_errors(browser: Any, *sources: str) -> list[str]:
    """Return the errors since the last call: those of scripts ("javascript") or other sources, or of all."""
    entries = [one for one in browser.get_log("browser") if one["level"] == "SEVERE"]
    return [one["message"] for one in entries if not sources or one["source"] in sources]


def test_two_trials_are_compared_in_mlflow(browser: Any, server: str, study: Path) -> None:
    from mlflow import MlflowClient
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    client = MlflowClient(f"sqlite:///{study.parents[1] / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["wine", "wine 000", "wine 001", "wine 002"]
    compared = [runs["wine 000"], runs["wine 002"]]
    wait = WebDriverWait(browser, WAIT, ignored_exceptions=[WebDriverException])  # not there yet, covered, drawn anew

    def click(selector: str) -> None:
        wait.until(lambda _: browser.find_element(By.CSS_SELECTOR, selector).click() is None, selector)

    def lines() -> list[str]:
        return [line.strip() for line in browser.execute_script("return document.body.innerText").splitlines()]

    browser.set_window_size(1600, 1000)
    browser.get(f"{server}/#/experiments/{experiment.experiment_id}/runs")
    click(f"[row-id='{runs['wine'].info.run_id}'] [col-id*='Run Name'] button")  # its trials are folded
    for run in compared:
        click(f"[row-id='{run.info.run_id}'] .ag-selection-checkbox input")
    click("[data-testid='runs-compare-button']")

    expected = {"Comparing 2 Runs from 1 Experiment", "wine 000", "wine 002", "val_imputation_rmse"}
    expected |= {f"{run.data.metrics['val_imputation_rmse']:.3f}".rstrip("0") for run in compared}
    wait.until(lambda _: expected <= set(lines()), f"{expected}")
    assert "/compare-runs?" in browser.current_url
    assert "wine 001" not in lines()
    assert script_errors(browser, "javascript") == []


class Own(NamedTuple):
    """A page of ours. write: makes it from a study's folder and an empty one. rows: of its tables, in order."""

    write: Callable[[Path, Path], Path]
    rows: list[int]
    figures: int


def of_many(study: Path, folder: Path) -> Path:
    """``dgm-ray leaderboard`` of a benchmark and a comparison."""
    benchmark(folder / "grid", 3)
    comparison(folder / "few", {name: [one, one + 0.02] for name, one in {"dae": 0.08, **METHODS}.items()})
    standings([str(folder / "grid"), str(folder / "few")], None, folder, Console(quiet=True))
    return folder / "leaderboard.html"


def of_one(study: Path, folder: Path) -> Path:
    """The page of ``dgm-ray compare``, with a failure whose reason has a word longer than a line."""
    searched: dict[str, dict[str, Any]] = {name: {"trials": 3, "seconds": 9.0} for name in METHODS}
    searched["gain"]["error"] = f"there is no {folder}/{'a_long_name_of_a_folder/' * 6}configuration.json"
    repeats = {
        name: [{"validation": one, "test": one * (1 + seed / 50), "seconds": 1 / one} for seed in range(3)]
        for name, one in METHODS.items()
    }
    write_text(folder / "leaderboard.html", page_of(leaderboard(searched, repeats), "RMSE", 3).html())
    return folder / "leaderboard.html"


def of_study(study: Path, folder: Path) -> Path:
    """``dgm-ray report`` of a study with all that a study can have."""
    return write_report(made(folder / "s"))


PAGES = {
    "leaderboard": Own(of_many, [3, 3, 3, 3, 4, 1], 5),
    "comparison": Own(of_one, [3], 1),
    "report": Own(of_study, [11, 2, 1, 6, 1, 1, 2, 8, 5, 1, 3], 8),
}


@pytest.fixture(scope="module", params=PAGES)
def page(
    request: pytest.FixtureRequest, browser: Any, study: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Own]:
    own = PAGES[request.param]
    return request.param, own.write(study, tmp_path_factory.mktemp(request.param)), own


def look(browser: Any, path: Path, scheme: str = "light", width: int = 1280) -> None:
    """Open a file as a person with such a setting and such a window does."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    script_errors(browser)  # those of the page before
    browser.get(path.as_uri())


def test_our_page_is_whole(browser: Any, page: tuple[str, Path, Own]) -> None:
    _, path, own = page
    look(browser, path)
    assert script_errors(browser) == []
    assert browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)") == []
    rows = "return [...document.querySelectorAll('table')].map(one => one.tBodies[0].rows.length)"
    assert browser.execute_script(rows) == own.rows
    assert browser.execute_script("return [...document.querySelectorAll('td')].every(one => one.offsetHeight > 0)")
    drawn = browser.execute_script(FIGURES)
    assert len(drawn) == own.figures
    for figure in drawn:
        assert figure["width"] > 200, figure["label"]
        assert figure["height"] > 50, figure["label"]
        assert figure["shapes"] > 3, figure["label"]
        assert figure["cut"] == [], figure["label"]


# Of each figure its size, how many shapes are to be seen, and which texts its edges cut.
FIGURES = """
return [...document.querySelectorAll('svg')].map(svg => {
  const edge = svg.getBoundingClientRect()
  const outside = text => {
    const at = text.getBoundingClientRect()
    return at.left < edge.left - 1 || at.right > edge.right + 1 || at.top < edge.top - 1 || at.bottom > edge.bottom + 1
  }
  const size = one => one.getBoundingClientRect().width + one.getBoundingClientRect().height
  return {
    label: svg.getAttribute('aria-label'), width: edge.width, height: edge.height,
    shapes: [...svg.querySelectorAll('path, text, use, rect')].filter(one => size(one) > 0).length,
    cut: [...svg.querySelectorAll('text')].filter(outside).map(one => one.textContent),
  }
})
"""


@pytest.mark.parametrize("width", [1280, 400])
def test_our_page_is_as_wide_as_its_window(browser: Any, page: tuple[str, Path, Own], width: int) -> None:
    look(browser, page[1], width=width)
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_our_page_is_readable(browser: Any, page: tuple[str, Path, Own], scheme: str) -> None:
    name, path, _ = page
    look(browser, path, scheme)
    if folder := os.environ.get("DGM_RAY_SCREENSHOTS"):
        for width in (1280, 400):
            look(browser, path, scheme, width)
            shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
            Path(folder, f"{name}_{scheme}_{width}.png").write_bytes(base64.b64decode(shot["data"]))
    texts = browser.execute_script(COLOURS)
    assert len(texts) > 20
    grounds = {luminance(one["ground"]) < 0.2 for one in texts}
    assert grounds == {scheme == "dark"}
    faint = [(one["text"], contrast(one["colour"], one["ground"])) for one in texts]
    assert [one for one in faint if one[1] < 4.5] == []


# Of each text its colour and that of what lies below it, as red, green and blue: painted, so that any notation is read.
COLOURS = """
const paint = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true})
const fill = colour => { paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1) }
const read = () => [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3)
const texts = []
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
while (walk.nextNode()) {
  const element = walk.currentNode.parentElement, style = getComputedStyle(element)
  if (!walk.currentNode.data.trim() || !element.getClientRects().length || element.closest('style, title')) continue
  const above = []
  for (let one = element; one; one = one.parentElement) above.unshift(getComputedStyle(one))
  fill('white')
  above.forEach(one => fill(one.backgroundColor))
  const ground = read()
  paint.globalAlpha = above.reduce((product, one) => product * one.opacity, 1)
  fill(element.closest('svg') ? style.fill : style.color)
  paint.globalAlpha = 1
  texts.push({text: walk.currentNode.data, colour: read(), ground})
}
return texts
"""


def luminance(colour: list[int]) -> float:
    """WCAG 2's relative luminance of red, green and blue in [0, 255]: 0 is black, 1 is white."""
    red, green, blue = ((v / 3294.6 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4) for v in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: list[int], other: list[int]) -> float:
    """WCAG 2's contrast of two colours, in [1, 21]."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrasts_are_those_of_wcag() -> None:
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([0x76, 0x76, 0x76], [255, 255, 255]) == pytest.approx(4.54, abs=0.005), "the known least grey"
    assert contrast([255, 0, 0], [255, 255, 255]) == pytest.approx(4.0, abs=0.005)
