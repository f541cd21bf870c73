"""The report: its numbers are the library's, its page needs nobody, and a real browser draws it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import offline, open_report, requests, screenshot
from support import FEATURES, OUTPUTS, quantized, quantized_graph, sequences

import rindle
from rindle import RindleError, cli
from rindle.cli.bench import rivals_of
from rindle.engines import reference
from rindle.file.dataset import dataset
from rindle.measure.analysis import analyse
from rindle.report.collect import activity, collect
from rindle.report.figures import FIGURES, figures
from rindle.report.page import image, render
from rindle.report.style import DARK, LIGHT, PALETTE

LENGTHS = np.array([14, 3, 9, 14, 1, 7, 14, 12])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    x = sequences(8, 14)
    for row, length in zip(x, LENGTHS):
        row[length:] = np.nan  # padding that would be noticed
    return dataset(x, LENGTHS, rng.integers(0, OUTPUTS, 8), "data/some.npz")


def with_front(model, data):
    """A model with thresholds, and a front in its provenance as `rindle delta` writes it."""
    from rindle.search.choose_thresholds import choose_thresholds

    return choose_thresholds(model, data, 20.0).model


@pytest.fixture(scope="module")
def models(data):
    dense = quantized("gru", "int8", head="last")
    return {
        "gru-int8": dense,
        "gru-delta": with_front(dense, data),
        "<b>lstm</b> & 'w4'": quantized("lstm", "w4a8", head="last"),
        "sru": quantized("sru", "int8", head="last"),
    }


@pytest.fixture(scope="module")
def collected(models, data):
    return collect(models, data, command="rindle report a b --data <d>", rivals=rivals_of, slices=3)


def test_the_error_along_the_sequence_is_of_states_and_outputs():
    model, frames = quantized("lstm", "int8"), dataset(sequences(4, 12))
    (one,) = collect({"lstm": model}, frames)["models"]
    followed = ["rnn.l0/c", "rnn.l0/h", "rnn.l1/c", "rnn.l1/h", "last/y"]
    assert list(dict.fromkeys(row["path"] for row in one["growth"])) == followed
    wanted = {path.name.removesuffix(".next"): path for path in analyse(model.artifact, frames).paths}
    for row in one["growth"]:
        assert row["snr_db"] in wanted[row["path"]].growth


@pytest.fixture(scope="module")
def page(collected, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(collected), encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------------- numbers


def test_the_numbers_are_those_of_the_library(collected, models, data):
    assert [model["name"] for model in collected["models"]] == list(models)
    for found, model in zip(collected["models"], models.values()):
        measured = model.measure(data.x, data.lengths)
        assert found["score"] == (measured.output.argmax(1) == data.y).mean()
        assert found["bytes"] == len(model.data) == sum(found["bytes_by_kind"].values())
        assert found["eliminated"] == measured.eliminated() and found["id"] == model.id
        assert [one["density"] for one in found["inputs"]] == [one.density for one in measured.inputs]
        counted = {key: count for key, count in measured.saturations.items()}
        for key in counted:
            paths = [p for p in found["paths"] if (p["node"], p["path"]) == key]
            if paths and counted[key] == 0:
                assert paths[0]["saturated"] == 0
    assert collected["data"]["frames"] == LENGTHS.sum() and collected["data"]["sha256"] == data.sha256
    assert json.loads(json.dumps(collected)) == collected


def test_activity_along_the_sequence_is_what_the_reference_counts(models, data):
    """Span by span, and together what the whole run counted."""
    model = models["gru-delta"]
    spans = activity(model, data, points=5)
    measured = {one.name: one for one in model.measure(data.x, data.lengths).inputs}
    keys = model.artifact.held_codes()
    for name, one in measured.items():
        mine = [span for span in spans if span["input"] == name]
        assert mine[0]["from"] == 0 and mine[-1]["to"] == LENGTHS.max()
        assert [a["to"] for a in mine[:-1]] == [b["from"] for b in mine[1:]]
        assert sum(span["frames"] for span in mine) == LENGTHS.sum()
        whole = sum(span["density"] * span["frames"] for span in mine) / LENGTHS.sum()
        assert whole == pytest.approx(one.density)
        for span in mine:
            ends = [np.minimum(LENGTHS, end) for end in (span["from"], span["to"])]
            counts = [reference_changes(model, data, rows)[keys[name]] for rows in ends]
            changed, frames = counts[1][0] - counts[0][0], counts[1][1] - counts[0][1]
            assert span["frames"] == frames
            assert span["density"] == pytest.approx(changed / (one.size * frames))


def test_what_looks_ahead_has_one_span():
    """A reversed layer, and what stands behind one: a row cut off is another row to them."""
    model, data = (
        quantized_graph("mixed", "int8"),
        dataset(sequences(6, 12), np.array([12, 3, 7, 12, 1, 9]), None, "some.npz"),
    )
    spans = activity(model, data, points=4)
    counted = model.with_thresholds(dict.fromkeys(model.thresholds, 0)).measure(data.x, data.lengths)
    whole = {one.name: one.density for one in counted.inputs}
    ahead = {one["input"]: one for one in spans if not one["input"].startswith("gru.")}
    assert {"lstm.l0/x", "lstm.l0_reverse/x", "lstm.l0_reverse/h", "sru.l0/x"} <= set(ahead)
    assert len([one for one in spans if one["input"] == "gru.l0/x"]) == 4
    for name in ("lstm.l0_reverse/x", "lstm.l0_reverse/h", "sru.l0/x"):
        assert (ahead[name]["from"], ahead[name]["to"]) == (0, 12)
        assert ahead[name]["density"] == whole[name]
    assert all(0 <= one["density"] <= 1 for one in spans)


def reference_changes(model, data, lengths):
    if not lengths.any():
        return {key: (0, 0) for key in model.artifact.held_codes().values()}
    return reference.run(model.artifact, data.x[:, : lengths.max()], lengths).changes


def test_at_the_first_frame_what_is_not_zero_has_changed(models, data):
    """A dense model is looked at with θ = 0: states start at zero, so none of h has changed, and x wherever it is not 0."""
    first = {one["input"]: one["density"] for one in activity(models["gru-int8"], data, points=14) if one["from"] == 0}
    assert first["rnn.l0/h"] == first["rnn.l1/h"] == 0.0 < first["rnn.l0/x"] <= 1.0


def test_without_targets_the_first_model_is_the_reference(models, data):
    bare = replace(data, y=None)
    found = collect({name: models[name] for name in ("gru-int8", "sru")}, bare)
    assert found["metric"] == {"name": "agreement", "higher_is_better": True, "reference": "gru-int8"}
    assert found["models"][0]["score"] == 1.0 and found["models"][0]["bench"] is None
    wanted = (
        models["sru"].run(data.x, data.lengths).argmax(1) == models["gru-int8"].run(data.x, data.lengths).argmax(1)
    ).mean()
    assert found["models"][1]["score"] == wanted


@pytest.mark.fast(0)
def test_sequences_with_targets_for_every_frame_are_shown(data):
    model = quantized("lstm", "int8")
    y = np.random.default_rng(0).normal(size=(8, 14, OUTPUTS)).astype(np.float32)
    found = collect({"m": model}, dataset(data.x, LENGTHS, y))
    assert found["metric"]["name"] == "MSE" and not found["metric"]["higher_is_better"]
    assert "MSE" in render(found)


def test_data_that_do_not_fit_are_refused(models):
    with pytest.raises(RindleError, match=rf"gru-int8: .*the model takes float32 \[N, T, {FEATURES}\]"):
        collect(models, dataset(np.zeros((2, 3, FEATURES + 1), np.float32)))


# ------------------------------------------------------------------------------------------------------- the page


class Page(HTMLParser):
    """Every address in an attribute that makes a browser fetch something, and the summary table's cells."""

    def __init__(self, text: str):
        super().__init__()
        self.fetched, self.cells, self.tags, self._row, self._cell = [], {}, [], None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        for name in ("src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"):
            if name in found:
                self.fetched.append((tag, name, found[name]))
        if tag in ("link", "iframe", "object", "embed", "base") and found.get("rel") != "icon":
            self.fetched.append((tag, "", ""))
        self._row = found.get("data-model", self._row)
        self._cell = found.get("data-column")

    def handle_endtag(self, tag):
        self._cell = None if tag == "td" else self._cell

    def handle_data(self, text):
        if self._cell:
            self.cells.setdefault(self._row, {})[self._cell] = text.strip()


def test_the_page_is_one_file_that_fetches_nothing(page):
    text = page.read_text(encoding="utf-8")
    assert 500_000 < page.stat().st_size < 5_000_000
    assert Page(text).fetched == [("link", "href", "data:,")]
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, re.S))
    assert styles and "url(" not in styles and "@import" not in styles
    assert "default-src 'none'" in text and "<script src" not in text


def test_names_and_paths_are_data_not_markup(page, collected):
    text = page.read_text(encoding="utf-8")
    assert "<b>lstm" not in text and "&lt;b&gt;lstm&lt;/b&gt;" in text
    inside = json.loads(
        re.search(r'<script type="application/json" id="data"[^>]*>(.*?)</script>', text, re.S).group(1)
    )
    assert inside == collected


def check_cells(cells, collected):
    """The table's numbers, read back, are the JSON's."""
    models = {model["name"]: model for model in collected["models"]}
    assert cells.keys() == models.keys()
    for name, row in cells.items():
        model = models[name]
        assert float(row["accuracy"].rstrip("%")) == pytest.approx(100 * model["score"], abs=0.051)
        assert int(row["bytes"].replace(",", "")) == model["bytes"]
        assert float(row["at θ = 0"].rstrip("%")) == pytest.approx(100 * model["eliminated_at_zero"], abs=0.051)
        held = row.get("eliminated", "")
        assert bool(held) == model["held"]
        if held:
            assert float(held.rstrip("%")) == pytest.approx(100 * model["eliminated"], abs=0.051)
            for one in model["inputs"]:
                assert f"{one['name']} {one['theta']}" in row["θ"]
        step = model["bench"]["step"]
        ours = next(r["median"] for r in step["rows"] if r["kind"] == "rindle")
        assert float(row["µs per step"]) == pytest.approx(ours, abs=0.051)
        ratio = step["speedup"].get("torch float")
        assert bool(row.get("× float", "")) == (ratio is not None)
        if ratio:
            assert float(row["× float"].rstrip("× ")) == pytest.approx(ratio, abs=0.051)


def test_the_table_shows_the_numbers_of_the_data(page, collected):
    check_cells(Page(page.read_text(encoding="utf-8")).cells, collected)


def test_what_torch_cannot_do_is_said_on_the_page(page):
    assert "sru: no comparison with torch" in page.read_text(encoding="utf-8")


def test_every_figure_has_a_title_axes_with_units_and_hover(collected):
    found = figures(collected)
    assert {one.name.split("-")[0] for one in found} == set(FIGURES)
    assert len({one.name for one in found}) == len(found)
    for one in found:
        spec = one.spec()
        assert len(one.title) > 15 and len(one.note) > 15 and spec["config"]
        for layer in spec.get("layer", [spec]):
            encoding = layer["encoding"]
            assert encoding.get("tooltip"), one.name
            for axis in ("x", "y"):
                title = encoding[axis].get("title") or (encoding[axis].get("axis") or {}).get("title")
                assert title or encoding[axis]["type"] == "nominal", (one.name, axis)


def test_figures_without_data_are_left_out(models, data):
    found = collect({"a": models["gru-int8"]}, data)
    names = {one.name for one in figures(found)}
    assert "bytes" in names and not names & {"operations", "time", "bound"}
    assert "<th" in render(found)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("page_colour", [LIGHT, DARK])
@pytest.mark.parametrize("colour", PALETTE)
def test_colours_stand_out_from_the_page(colour, page_colour):
    """Contrast of at least 3 to 1, as WCAG 2 asks of graphics."""
    a, b = sorted((luminance(colour), luminance(page_colour)))
    assert (b + 0.05) / (a + 0.05) >= 3


def test_a_figure_can_be_saved_alone(collected):
    svg = image(collected, "operations", "svg").decode()
    assert svg.startswith("<svg") and "currentColor" not in svg and "eliminated recurrent" in svg and len(svg) < 200_000
    assert image(collected, "bytes", "png").startswith(b"\x89PNG")
    with pytest.raises(RindleError, match="no figure 'byte'; there are bytes, operations"):
        image(collected, "byte", "svg")


# --------------------------------------------------------------------------------------------------- in a browser


@pytest.mark.fast(1)
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_a_browser_without_network_draws_everything(page, collected, width, dark, tmp_path):
    with offline(width, 900, dark) as driver:
        drawn = open_report(driver, page)
        names = [one.name for one in figures(collected)]
        assert sorted(drawn) == sorted(names) and set(drawn.values()) == {"yes"}
        marks = driver.execute_script(
            "return Object.fromEntries([...document.querySelectorAll('figure')].map(f => [f.id, "
            "f.querySelectorAll('svg .mark-symbol path, svg .mark-line path, svg .mark-rect path').length]))"
        )
        assert min(marks.values()) > 0, marks
        entries = driver.get_log("browser")
        assert entries == [], entries
        assert requests(driver, page) == [page.resolve().as_uri()]
        cells = driver.execute_script(
            "return Object.fromEntries([...document.querySelectorAll('#summary-table tbody tr')].map(r => [r.dataset.model, "
            "Object.fromEntries([...r.querySelectorAll('td')].map(c => [c.dataset.column, c.textContent.trim()]))]))"
        )
        check_cells(cells, collected)
        # innerWidth would not do: a phone's grows with a page that is too wide
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        edge = (
            "return Math.max(...[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect().right))"
        )
        assert driver.execute_script(edge) <= width, "a figure is wider than its place"
        look = "const s = getComputedStyle(document.body); return [s.backgroundColor, getComputedStyle(document.querySelector('.plot')).color]"
        background, ink = driver.execute_script(look)
        levels = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in (background, ink)]
        assert levels[0] < 0.2 and levels[1] > 0.8 if dark else levels[0] > 0.9 and levels[1] < 0.2
        labels = driver.execute_script("return getComputedStyle(document.querySelector('figure svg text')).fill")
        assert labels == ink, "the text of a figure takes the page's colour"
        screenshot(driver, tmp_path / "report.png")
        assert (tmp_path / "report.png").stat().st_size > 50_000


@pytest.mark.fast(0)
def test_pointing_at_a_mark_shows_its_numbers(page, collected):
    with offline() as driver:
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.by import By

        open_report(driver, page)
        mark = driver.find_element(By.CSS_SELECTOR, "#bytes svg .mark-symbol.role-mark path")
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
        ActionChains(driver).move_to_element(mark).pause(0.5).perform()
        said = driver.execute_script("return document.getElementById('vg-tooltip-element').textContent")
        assert "gru-int8" in said and f"{collected['models'][0]['bytes']:,}" in said


# ------------------------------------------------------------------------------------------------ the command line


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["rindle", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.fixture
def folder(tmp_path, models, data):
    for name in ("gru-int8", "gru-delta"):
        rindle.save(models[name], tmp_path / f"{name}.rindle")
    data.save(tmp_path / "d.npz")
    return tmp_path


def test_the_command_writes_the_page_and_the_plot(call, folder):
    given = [folder / "gru-int8.rindle", folder / "gru-delta.rindle", "--data", folder / "d.npz"]
    outputs = ["-o", folder / "r.html", "--plot", f"operations={folder}/p.svg", "--no-bench", "--json"]
    code, out, err = call(*given, *outputs)
    assert code == 0, err
    found = json.loads(out)
    assert [model["name"] for model in found["models"]] == ["gru-int8", "gru-delta"]
    assert found["command"].startswith("rindle report ") and found["models"][0]["bench"] is None
    assert "µs per step" not in (folder / "r.html").read_text(encoding="utf-8").split('<h2 id="figures"')[0]
    assert (folder / "p.svg").read_text(encoding="utf-8").startswith("<svg")
    code, _, err = call(*given, *outputs)
    assert code == 2 and "--force" in err
    assert call(*given, *outputs, "--force")[0] == 0


def test_the_command_names_files_apart_and_refuses_what_it_cannot_show(call, folder):
    (folder / "b").mkdir()
    twin = folder / "b" / "gru-int8.rindle"
    twin.write_bytes((folder / "gru-delta.rindle").read_bytes())
    common = ["--data", folder / "d.npz", "-o", folder / "r.html", "--no-bench"]
    code, out, err = call(folder / "gru-int8.rindle", twin, *common, "--json")
    assert code == 0, err
    assert [model["name"] for model in json.loads(out)["models"]] == [f"{folder.name}/gru-int8", "b/gru-int8"]
    before = sorted(folder.iterdir())
    for arguments, words in (
        ([twin, twin, *common, "--force"], "given twice"),
        ([twin, *common, "--force", "--plot", "bytes"], "FIGURE=FILE.svg"),
        ([twin, *common, "--force", "--plot", f"cake={folder}/p.svg"], "no figure 'cake'"),
        ([twin, "--data", twin, "-o", folder / "x.html"], "readable"),
    ):
        code, _, err = call(*arguments)
        assert code == 2 and words in err, err
    assert sorted(folder.iterdir()) == before
