# /// script
# requires-python = ">=3.9"
# dependencies = ["playwright>=1.40"]
# ///
"""The report of an experiment in headless Chromium: test_report.py REPORTTOOL DATA MAKE_REPORT"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from playwright.sync_api import sync_playwright

tool, data, maker = sys.argv[1:4]
PATIENCE_MS = 240_000  # on a machine with other work; nothing waits that long for a result
failed = 0


def check(what, holds, shown=""):
    global failed
    failed += not holds
    print(f"[{'       OK' if holds else '  FAILED '}] {what.replace(' ', '_')}", flush=True)
    if not holds:
        print(f"    {what}: {shown}")


def opened(browser, folder, complaints, **options):
    """The report of a folder, with everything that it should not do written down."""
    page = browser.new_page(viewport={"width": 1400, "height": 900}, **options)
    page.set_default_timeout(PATIENCE_MS)
    page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:"))
            or complaints.append("request: " + r.url))
    page.goto((folder / "report.html").as_uri())
    page.wait_for_function(
        "[...document.querySelectorAll('button.cell img')].every(i => i.complete)")
    return page


def shown(page):
    return page.locator("button.cell").count()


def settle(page):
    """After the next frame the grid shows what was chosen."""
    page.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


def test_fixture(browser, folder):
    complaints = []
    page = opened(browser, folder, complaints)
    check("all 12 cells are shown", shown(page) == 12, shown(page))
    widths = page.evaluate(
        "[...document.querySelectorAll('button.cell img')].map(i => i.naturalWidth)")
    check("10 pictures are decoded", widths == [48] * 10, widths)
    check("a failed cell shows its error",
          "ran out of memory" in page.locator("[data-status=failed]").inner_text())
    check("a missing cell is shown", page.locator("[data-status=missing]").count() == 1)

    def rows():
        return page.eval_on_selector_all("tr[data-row]", "r => r.map(e => e.dataset.row)")
    check("rows are those of the first axis", rows() == ["off", "on"] * 2, rows())
    page.locator("details.filter[data-axis=think] summary").click()
    page.locator("input[data-axis=think][data-value=on]").uncheck()
    settle(page)
    check("a filter hides rows", rows() == ["off", "off"], rows())
    page.locator("input[data-axis=think][data-value=on]").check()
    settle(page)
    check("and brings them back", rows() == ["off", "on"] * 2 and shown(page) == 12, rows())
    page.keyboard.press("Escape")
    page.fill("#search", "YELLOW straight")
    settle(page)
    check("search finds prompts", shown(page) == 4, shown(page))
    page.click("#reset")
    page.select_option("#only", "failed")
    settle(page)
    check("failed cells alone", shown(page) == 2, shown(page))
    page.select_option("#only", "differs")
    settle(page)
    check("cells that differ from the baseline", shown(page) == 3, shown(page))
    page.click("#reset")
    page.select_option("#rows", "1")
    settle(page)
    check("rows of another axis", rows() == ["red-circle", "green-square", "white-triangle"] * 2,
          rows())
    page.select_option("#rows", "0")
    settle(page)

    # Thinking on, red-circle, seed 1: 16 x 8 of 48 x 40 pixels are 40 redder than the baseline.
    page.locator("button.cell[aria-label^='Thinking on, prompt red-circle, Seed 1:']").click()
    page.locator("[data-number=psnr]").wait_for()
    numbers = {k: page.locator(f"[data-number={k}]").inner_text()
               for k in ("psnr", "mean", "largest")}
    check("the numbers are right", numbers == {"psnr": "32.62 dB", "mean": "0.8889 of 255",
                                               "largest": "40 of 255"}, numbers)
    page.click("[data-mode=slider]")
    handle = page.locator("[role=slider]")
    handle.wait_for()
    clip = "document.querySelector('.slider .top').style.clipPath"
    before = page.evaluate(clip)
    box = page.locator(".slider").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    after = page.evaluate(clip)
    at = float(handle.get_attribute("aria-valuenow"))
    check("dragging the slider moves the clip", before != after and abs(at - 25) <= 1, after)
    handle.press("ArrowRight")
    check("so does the keyboard",
          abs(float(handle.get_attribute("aria-valuenow")) - at - 1) <= 1
          and page.evaluate(clip) != after, page.evaluate(clip))
    page.click("[data-mode=difference]")
    page.locator("#gain").select_option("4")
    page.wait_for_function("document.getElementById('gain').value === '4'")
    settle(page)
    pixel = ("([x, y]) => [...document.getElementById('heat').getContext('2d')"
             ".getImageData(x, y, 1, 1).data]")
    # 40 times 4 of 255 is 0.627 of the scale, two hundredths beyond 5/8 (40, 174, 128).
    inside, outside = page.evaluate(pixel, [10, 8]), page.evaluate(pixel, [30, 30])
    check("the heat map is dark where nothing differs", outside == [68, 1, 84, 255], outside)
    check("and has the colour of the difference times the gain",
          all(abs(a - b) <= 2 for a, b in zip(inside, [41, 175, 127, 255])), inside)
    page.click("#close")
    check("nothing complains, nothing is requested", complaints == [], complaints[:5])
    if os.environ.get("LW_SCREENSHOT"):
        page.screenshot(path=os.environ["LW_SCREENSHOT"], full_page=True)
    page.close()


def test_hostile(browser, folder):
    complaints = []
    page = opened(browser, folder, complaints)
    check("1000 hostile cells are shown", shown(page) == 1000, shown(page))
    check("nothing of theirs became an element", page.evaluate(
        "document.querySelectorAll('img[onerror], svg, main b b, [onmouseover], [onload]').length")
        == 0)
    check("nor ran", page.title().startswith("</script><img"), page.title())
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    check("long labels do not widen the page", wide <= 0, wide)
    check("nothing complains about them", complaints == [], complaints[:5])
    page.close()


def main():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        print("skipped: no chromium is installed")
        return 77
    with tempfile.TemporaryDirectory() as t, sync_playwright() as p:
        fixture, hostile = pathlib.Path(t, "fixture"), pathlib.Path(t, "hostile")
        shutil.copytree(data, fixture)
        subprocess.run([sys.executable, maker, "--hostile", hostile], check=True)
        for folder in (fixture, hostile):
            subprocess.run([tool, folder], check=True)
        # A test runs as any user, also in a container: the page itself is ours.
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"],
                                    timeout=PATIENCE_MS)
        test_fixture(browser, fixture)
        test_hostile(browser, hostile)
        browser.close()
    return 1 if failed else 0


sys.exit(main())
