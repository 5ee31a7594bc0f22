import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from folders import DATASET, begin, config_of, make_run

from dt_jax.analysis import tables
from dt_jax.analysis.page import as_html, as_markdown
from dt_jax.analysis.published import published
from dt_jax.analysis.tables import Table
from dt_jax.cli.report import _show, make, write

HOSTILE = "<script>alert(1)</script> \"&' | `x` $body ${count} \x1b[31m"


class Page(HTMLParser):
    """Collects the tags of a page, its text and what its attributes are."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "meta", "wbr"):  # which have no end
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of seeds, of D4RL's and other data, of a hostile name, and one just begun."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "a", scores=(60.0, 66.0), eval_every=20_000)
    make_run(folder / "b", "hopper-demo", eval_every=2_000)
    hostile = DATASET | {"source": HOSTILE}
    make_run(folder / "c", data_path="x", dataset=hostile, eval_every=50_000)
    begin(folder / "d", config_of("walker2d-medium-v2"))
    return make(sorted(folder.iterdir()))


def test_the_page_is_whole_and_needs_nothing_else(report):
    page = Page(as_html(report))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "base", "form", "a"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert "href" not in attributes
        if tag == "img":
            assert attributes["src"].startswith("data:image/svg+xml;base64,")
            assert attributes["alt"]
    assert "@import" not in page.text
    assert "url(" not in page.text
    # Curves, returns and loss of three; nothing of what has just begun.
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    svgs = [base64.b64decode(source.partition(",")[2]) for source in sources]
    pictures = [picture for each in report.pictures for picture in each]
    assert svgs == [picture.svg for picture in pictures]
    assert len(svgs) == 9
    assert page.text.count("Normalised score over the updates") == 3


def test_text_from_outside_is_text(report):
    text, page = as_html(report), Page(as_html(report))
    assert "<script" not in text
    shown = HOSTILE.replace("\x1b", "\\x1b")
    assert page.text.count(f"{shown} (scored as hopper-medium-v2)") == 3
    markdown = as_markdown(report)
    assert "<script" not in markdown.replace("\\<script", "")
    assert "\x1b" not in text + markdown


def test_both_have_the_same_tables(report):
    html = as_html(report)
    cells = [
        re.sub(r"<[^>]+>", "", cell)
        for cell in re.findall(r"<t[hd][^>]*>.*?</t[hd]>", html)
    ]
    lines = [x for x in as_markdown(report).splitlines() if x.startswith("| ")]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if "| --" not in line]
    assert len(cells) == sum(map(len, rows)) > 80
    assert cells[:5] == [cell.strip() for cell in rows[0]]


def test_what_is_known_of_each_is_there(report):
    text = Page(as_html(report)).text
    for expected in (
        "Report on 4 experiments: 4 runs, 5 seeds",
        "2 seeds (10, 11), 100,000 of 100,000 updates",
        "walker2d-medium-v2",
        "unfinished: 0 of 100,000",
        "1 seed (10), 0 of 100,000 updates",
        "demo data",
        "63.00 ± 3.00",
        "65.10 ± 1.61",
        "69.42 ± 3.64",
        "67.6 ± 1.0",
        "33 min",
        "https://arxiv.org/abs/2106.01345",
        "https://github.com/corl-team/CORL",
    ):
        assert expected in text, expected
        assert expected in as_markdown(report).replace("\\", ""), expected


def test_pictures_are_files_too(report, tmp_path):
    write(report, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert {"index.html", "report.md"} < set(names)
    assert "01-hopper-medium-v2-curves.svg" in names
    assert len(names) == 11
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)
    for path in (tmp_path / "out").glob("*.svg"):
        assert path.read_bytes().startswith(b"<?xml")
        assert path.stat().st_size < 100_000
    before = (tmp_path / "out/index.html").read_bytes()
    write(report, tmp_path / "out")
    assert (tmp_path / "out/index.html").read_bytes() == before


def test_markdown_is_in_line_and_escaped():
    table = Table(("data", "ours"), [("a|b", "1.0"), ("longer", "-12.25")])
    assert tables.markdown(table).splitlines() == [
        "| data   |   ours |",
        "| ------ | -----: |",
        r"| a\|b   |    1.0 |",
        "| longer | -12.25 |",
    ]


def test_the_seconds_of_updates_and_evaluations(report):
    (first, *_) = tables.timings(report.experiments).rows
    # 100,000 updates at 50 a second; six evaluations of 30 s.
    assert first[1:6] == ("10, 11", "100,000", "50", "33 min", "3 min")
    assert "cpu, Linux-6.1, Python 3.12.1, jax 0.10.0, dt_jax 0.1.0 0123456789" in first
    *_, last = tables.timings(report.experiments).rows
    assert first[0] != last[0]
    assert [tables._seconds(s) for s in (48, 720, 11_520)] == [
        "48 s",
        "12 min",
        "3.2 h",
    ]


def test_every_row_of_corls_table_fits_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    longest = max(published(), key=len)
    settings = {"eval_every": 100_000, "batch_size": 64}
    make_run(tmp_path, longest, scores=(100.0, 123.456), **settings)
    _show(make([tmp_path]))
    out = capsys.readouterr().out
    assert longest in out
    assert "111.73 ± 11.73" in out
    assert f"{longest}: batch_size 64 (CORL: 4096)" in out
    assert np.max([len(line) for line in out.splitlines()]) <= 80


def test_without_rliable_it_says_how_to_get_intervals(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("dt_jax.runs.aggregate.import_module", missing)
    make_run(tmp_path, scores=(60.0, 66.0), eval_every=100_000)
    text = as_markdown(make([tmp_path]))
    assert "± 3.00 s.e. over seeds" in text
    assert r"need pip install 'dt_jax\[seeds\]'" in text
    assert "IQM" not in text
