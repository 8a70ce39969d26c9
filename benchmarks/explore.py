"""The time from a stroke to all feature maps in the page of `xpnet explore`, in a real browser:
`python -m benchmarks.explore`.

The network is `bilici` with inputs of 28 x 28, and all its layers are in view. The page measures
from the stroke until the last map is drawn again. Needs the extras `explore` and `browser`, and a
Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys

from playwright.sync_api import sync_playwright

import xpnet as xn
from benchmarks.facts import cpu_model, load_average

VIEW = {"width": 1600, "height": 900}
MEASURED = "performance.getEntriesByName('stroke to all maps')[0]?.duration"     # the last one
PAUSE = 500                             # milliseconds between two strokes


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explore", description=__doc__)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--strokes", type=int, default=40)
    options = parser.parse_args(arguments)
    net = xn.models.bilici((1, 28, 28), backend=options.backend)
    with xn.explore.Explorer(net) as explorer:
        times = stroke_times(explorer.url, options.strokes)
    print(f"{cpu_model()}, load average {load_average()}, {net.backend.name}, {len(times)} "
          f"strokes: median {statistics.median(times):.0f} ms, {min(times):.0f} to "
          f"{max(times):.0f} ms")
    return 0


def stroke_times(url: str, strokes: int) -> list[float]:
    """Milliseconds, of dots at different places; the first two strokes are not counted."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=VIEW)
        page.goto(url)
        page.locator("#pictures canvas").first.wait_for()
        pad = page.locator("#pad").bounding_box()
        times = []
        for number in range(strokes + 2):
            page.evaluate("performance.clearMeasures()")
            page.mouse.move(pad["x"] + 20 + 37 * number % (pad["width"] - 40), pad["y"] + 90)
            page.mouse.down()
            page.mouse.up()
            page.wait_for_timeout(PAUSE)
            page.wait_for_function(MEASURED)
            times.append(page.evaluate(MEASURED))
        browser.close()
    return times[2:]


if __name__ == "__main__":
    sys.exit(main())
