"""The page in a real browser."""

import base64
import csv
import io
import json
from xml.etree import ElementTree

import pytest

from genbench_jax.report.page import write_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def url(rows, galleries, run, tmp_path_factory):
  return write_report(rows, galleries, run, tmp_path_factory.mktemp("report")).as_uri()


@pytest.fixture
def page(browser, url):
  browser.get_log("browser")
  browser.get_log("performance")
  browser.get(url)
  # The window counts as active even while the browser is still starting.
  browser.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
  yield browser
  assert browser.get_log("browser") == []


def texts(page, css):
  return page.execute_script(
    "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", css
  )


def column(page, name):
  """Return a column of the table of cells: the main value of each visible row."""
  heads = [text.strip() for text in texts(page, "#cells-table thead th")]
  return page.execute_script(
    "return [...document.querySelectorAll('#cells-table tbody tr')]"
    ".map(row => row.children[arguments[0]].childNodes[0].textContent)",
    heads.index(name),
  )


def click(page, css):
  page.execute_script("document.querySelector(arguments[0]).click()", css)


def sort(page, name):
  page.execute_script(
    "[...document.querySelectorAll('#cells-table thead button')]"
    ".find(b => b.textContent === arguments[0]).click()",
    name,
  )


def choose(page, name, text):
  page.execute_script(
    "const s = document.querySelector(`[data-name=cells] select[name=${arguments[0]}]`);"
    "s.selectedIndex = [...s.options].findIndex(o => o.text === arguments[1]);"
    "s.dispatchEvent(new Event('change'))",
    name,
    text,
  )


def test_nothing_is_fetched(page, url):
  events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
  asked = [
    e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
  ]
  # The browser's own start page may still be loading.
  own = ("data:", "chrome:", "chrome-untrusted:")
  assert [address for address in asked if not address.startswith(own)] == [url]


def test_hostile_names_are_inert(page):
  assert page.execute_script("return window.pwned") is None
  assert any("window.pwned = 1" in text for text in texts(page, ".wall th[scope=row]"))
  # The page's policy would stop even markup that was not escaped.
  page.execute_script(
    "document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"window.pwned = 9\">')"
  )
  assert page.execute_async_script("setTimeout(() => arguments[0](window.pwned), 300)") is None
  assert any("Content Security Policy" in entry["message"] for entry in page.get_log("browser"))


def test_answer_shows_the_right_numbers(page, rows):
  def mean_gain(source, strategy):
    values = {
      (r["dataset"], r["source"], r["strategy"], r["shots"], r["quantity"]): r["value"]
      for r in rows
    }
    zero = {r["dataset"]: r["value"] for r in rows if r["quantity"] == "zero_shot"}
    return sum(values[d, source, strategy, 16, "linear_probe"] - zero[d] for d in zero) / len(zero)

  shown = texts(page, ".findings .number")
  expected = [mean_gain("generative", "defined_template"), mean_gain("original", "")]
  assert shown[:2] == [f"{100 * value:+.1f}".replace("-", "−") for value in expected]
  assert "on average over 3 datasets" in texts(page, ".answer")[0]


def test_choosing_a_budget_changes_the_figure(page):
  def visible():
    return page.execute_script(
      "return [...document.querySelectorAll('#figure-gains [data-choice]')]"
      ".filter(e => e.getClientRects().length).map(e => e.dataset.choice)"
    )

  assert visible() == ['["linear probe","16"]']
  click(page, "#figure-gains input[value='4']")
  click(page, "#figure-gains input[value='CLER']")
  assert visible() == ['["CLER","4"]']


def test_legend_fades_the_other_series(page):
  click(page, "#figure-accuracy-against-shots .variant:not([hidden]) .keys button")
  faded = "#figure-accuracy-against-shots .variant:not([hidden]) .dim"
  classes = page.execute_script(
    "return [...document.querySelectorAll(arguments[0])].map(e => e.getAttribute('class'))", faded
  )
  assert classes
  assert not any("s-generative t-0" in name for name in classes)
  click(page, "#figure-accuracy-against-shots .variant:not([hidden]) .keys button")
  page.execute_script("document.activeElement.blur()")
  assert texts(page, faded) == []


def test_table_sorts(page, rows):
  sort(page, "linear probe")
  shown = [float(text) for text in column(page, "linear probe")]
  best = sorted((r["value"] for r in rows if r["quantity"] == "linear_probe"), reverse=True)
  assert shown == [float(f"{100 * value:.1f}") for value in best[:50]]
  sort(page, "linear probe")
  assert float(column(page, "linear probe")[0]) == float(f"{100 * best[-1]:.1f}")
  assert texts(page, "#cells-table [aria-sort=ascending] button") == ["linear probe"]


def test_table_filters_and_shows_more(page):
  assert len(column(page, "dataset")) == 50
  choose(page, "dataset", "shapes")
  choose(page, "source", "original")
  assert set(column(page, "dataset")) == {"shapes"}
  assert column(page, "shots") == ["1", "2", "4", "8", "16"]
  assert texts(page, "[data-name=cells] .count") == ["5 of 5 rows shown, 150 in all."]
  choose(page, "dataset", "all")
  choose(page, "source", "all")
  page.find_element("css selector", "[data-name=cells] input[type=search]").send_keys(
    "hard negative 16"
  )
  assert texts(page, "[data-name=cells] .count") == ["2 of 2 rows shown, 150 in all."]
  page.find_element("css selector", "[data-name=cells] input[type=search]").clear()
  page.execute_script(
    "document.querySelector('[data-name=cells] input').dispatchEvent(new Event('input'))"
  )
  click(page, "[data-name=cells] .more")
  assert len(column(page, "dataset")) == 150


def test_table_sorts_from_the_keyboard(page):
  from selenium.webdriver.common.keys import Keys

  page.find_element("css selector", "#cells-table thead th:nth-child(4) button").send_keys(
    Keys.ENTER
  )
  assert column(page, "shots") == ["1"] * 30 + ["2"] * 20


def test_focus_shows_the_prompt(page):
  caption = "return getComputedStyle(document.querySelector('.pictures figcaption')).opacity"
  assert page.execute_script(caption) == "0"
  page.execute_script("document.querySelector('.pictures figure').focus()")
  assert page.execute_script(caption) == "1"
  assert "a photo of a circle" in texts(page, ".pictures figcaption")[0]


def test_a_click_enlarges_an_image_and_keys_move_on(page):
  from selenium.webdriver.common.keys import Keys

  click(page, ".pictures figure")
  assert page.execute_script("return document.getElementById('large').open")
  assert "a photo of a circle" in texts(page, "#large .words")[0]
  assert "seed 0" in texts(page, "#large .words")[0]
  page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
  assert "seed 1" in texts(page, "#large .words")[0]
  page.switch_to.active_element.send_keys(Keys.ESCAPE)
  assert not page.execute_script("return document.getElementById('large').open")


def test_a_click_enlarges_a_panel_with_unique_ids(page):
  from selenium.webdriver.common.keys import Keys

  page.execute_script(
    "document.querySelector('#figure-accuracy-against-shots .variant:not([hidden]) .panel')"
    ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
  )
  assert page.execute_script("return document.querySelector('#large svg').ariaLabel.length") > 10
  assert page.execute_script(
    "const ids = [...document.querySelectorAll('[id]')].map(e => e.id);"
    "return ids.length - new Set(ids).size"
  ) == 0  # fmt: skip
  click(page, "#large .close")
  panel = page.find_element(
    "css selector", "#figure-accuracy-against-shots .variant:not([hidden]) .panel[tabindex='0']"
  )
  panel.send_keys(Keys.ARROW_RIGHT)
  page.switch_to.active_element.send_keys(Keys.ENTER)
  assert "digits" in page.execute_script("return document.querySelector('#large svg').ariaLabel")
  click(page, "#large .close")


def test_gallery_filters_by_prediction_and_sorts_worst_first(page):
  """The third image of each class is classified as another class."""

  def seen():
    return page.execute_script(
      "return [...document.querySelector('.pictures').querySelectorAll('figure')]"
      ".filter(f => !f.hidden).map(f => f.dataset.place)"
    )

  assert seen() == ["0", "1", "2", "3"]
  click(page, "#judged input[value=wrong]")
  assert seen() == ["2"]
  assert (
    "Classified as disc by zero-shot" in texts(page, ".pictures figure:not([hidden]) figcaption")[0]
  )
  click(page, "#judged input[value=all]")
  click(page, "#judged input[value=worst]")
  assert seen() == ["2", "3", "1", "0"]
  click(page, "#judged input[value=index]")
  assert seen() == ["0", "1", "2", "3"]


def test_ranking_sorts_by_any_heading(page):
  def places():
    return texts(page, "#ranking .sortable tbody th")

  before = places()
  page.execute_script(
    "[...document.querySelectorAll('#ranking .sortable thead button')].at(-1).click()"
  )
  column = [
    float(text.replace("−", "-"))
    for text in texts(page, "#ranking .sortable tbody td:last-child")
    if text != "–"
  ]
  assert column == sorted(column, reverse=True)
  assert sorted(before) == sorted(places())


def test_tables_and_figures_can_be_saved(page):
  """The files that the buttons create, intercepted before they are saved."""
  caught = page.execute_async_script(
    "const done = arguments[0]; const found = {};"
    "const make = URL.createObjectURL; URL.createObjectURL = (blob) => { blob.text().then((text) => {"
    " found[blob.type] = text; if (Object.keys(found).length === 2) { URL.createObjectURL = make; done(found); } });"
    " return 'data:,'; };"
    "HTMLAnchorElement.prototype.click = () => {};"
    "document.querySelector('[data-name=cells] .save').click();"
    "document.querySelector('#figure-gains .save').click();"
  )
  lines = caught["text/csv"].lstrip("\ufeff").splitlines()
  assert len(lines) == 151
  assert lines[0].startswith("dataset,source,strategy,shots,zero-shot,zero-shot low")
  assert caught["image/svg+xml"].startswith("<svg")


def test_saved_tables_hold_numbers_and_no_formulas(page):
  formulas = ["=1+1", "+SUM(A1)", "-cmd|'/c'!A0", "@x", "\t=1"]
  others = [
    "−4.8",
    -4.8e-7,
    "+85.0 (+69.9 to +92.3)",
    "-0.5 (3)",
    "+1.0 better",
    'a"b',
    "x\ry",
    None,
  ]
  line = page.execute_script("return csvOf([arguments[0]])", [*formulas, *others])
  (found,) = csv.reader(io.StringIO(line, newline=""))
  assert found[: len(formulas)] == [f"'{text}" for text in formulas]
  assert found[len(formulas) :] == ["-4.8", "-4.8e-7", *others[2:7], ""]


def test_print_has_every_cell_and_no_json(page):
  page.execute_script("dispatchEvent(new Event('beforeprint'))")
  assert len(column(page, "dataset")) == 150
  assert page.execute_script("return document.querySelector('.unprinted').open") is False
  page.execute_script("dispatchEvent(new Event('afterprint'))")
  assert len(column(page, "dataset")) == 50


def test_arrow_keys_go_through_a_gallery(page):
  from selenium.webdriver.common.keys import Keys

  assert (
    page.execute_script(
      "return document.querySelectorAll('.wall [tabindex=\"0\"]:not(.scroll)').length"
    )
    == 3
  )
  page.execute_script("document.querySelector('.pictures figure').focus()")
  page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
  assert "seed 2" in page.switch_to.active_element.text


def test_figure_is_saved_as_displayed(page):
  svg = page.execute_script("return svgOf(document.getElementById('figure-all-metrics'))")
  root = ElementTree.fromstring(svg)
  shown = page.execute_script(
    "return document.querySelectorAll('#figure-all-metrics .panel').length"
  )
  assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == shown > 4
  assert "var(" not in svg


def test_every_figure_and_image_has_a_description(page):
  assert page.execute_script("return [...document.images].every(i => i.alt)")
  assert page.execute_script(
    "return [...document.querySelectorAll('svg[role=img]')].every("
    "s => document.getElementById(s.getAttribute('aria-labelledby')).textContent.length > 10)"
  )
  assert (
    page.execute_script(
      "const ids = [...document.querySelectorAll('[id]')].map(e => e.id);"
      "return ids.length - new Set(ids).size"
    )
    == 0
  )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_phone_has_no_horizontal_scroll(page, theme):
  features = [{"name": "prefers-color-scheme", "value": theme}]
  page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
  size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
  page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
  try:
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert page.execute_script("return document.documentElement.scrollWidth") == 390
    cut = (
      "return [...document.querySelectorAll('caption span')].map(e => e.getBoundingClientRect())"
      ".filter(box => box.left < 0 || box.right > 390).length"
    )
    assert page.execute_script(cut) == 0
    ground = page.execute_script(
      "return getComputedStyle(document.documentElement).backgroundColor"
    )
    assert ground == {"light": "rgb(253, 252, 250)", "dark": "rgb(22, 23, 26)"}[theme]
  finally:
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_prints(page):
  pdf = page.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
  assert base64.b64decode(pdf["data"]).startswith(b"%PDF")


def test_full_benchmark_opens_fast(browser, full_page):
  """Measured in CPU seconds of the renderer, independent of the load of the machine."""

  def cpu_seconds():
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "ProcessTime")

  browser.get_log("browser")
  browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
  before = cpu_seconds()
  browser.get(full_page.as_uri())
  assert cpu_seconds() - before < 2
  browser.execute_cdp_cmd("Performance.disable", {})
  assert texts(browser, "[data-name=cells] .count")[0].startswith("50 of ")
  # All of its cells can be sorted and filtered.
  sort(browser, "linear probe")
  shown = [float(text) for text in column(browser, "linear probe")]
  assert shown == sorted(shown, reverse=True) and len(shown) == 50
  choose(browser, "dataset", "dataset_07")
  choose(browser, "source", "retrieved")
  assert texts(browser, "[data-name=cells] .count") == ["45 of 45 rows shown, 3960 in all."]
  assert browser.get_log("browser") == []
