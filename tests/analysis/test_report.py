import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import run_folders
from run_folders import DATASET, make_config, make_run, start_run

from dt_jax.analysis.published import PUBLISHED
from dt_jax.analysis.report import build_report, to_html, to_markdown, write_report
from dt_jax.cli import report as command
from dt_jax.config import default_config
from dt_jax.utils.files import temporary_path

HOSTILE = "<script>alert(1)</script> \"&' | `x` {{ 7*7 }} ${count} \x1b[31m"


class Page(HTMLParser):
    """Collects the tags of a page with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open_tags, self.text = [], [], ""
        self.feed(html)
        assert not self.open_tags

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "meta", "wbr"):  # void elements
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report on several seeds, demo data, data with a hostile name, a new run."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "a", scores=(60.0, 66.0), eval_every=20_000)
    make_run(folder / "b", "hopper-demo", eval_every=2_000)
    hostile = DATASET | {"source": HOSTILE}
    make_run(folder / "c", data_path="x", dataset=hostile, eval_every=50_000)
    start_run(folder / "d", make_config("walker2d-medium-v2"))
    return build_report(sorted(folder.iterdir()))


def test_page_is_well_formed_and_self_contained(report):
    page = Page(to_html(report))
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


def test_page_has_the_plots_of_each_evaluated_experiment(report):
    page = Page(to_html(report))
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    svgs = [base64.b64decode(source.partition(",")[2]) for source in sources]
    assert svgs == [plot.svg for each in report.sections for plot in each.plots]
    assert len(svgs) == 9  # curves, returns and loss of three; the new run has none
    assert page.text.count("Normalised score over the updates") == 3


def test_foreign_text_is_escaped(report):
    html, markdown = to_html(report), to_markdown(report)
    assert "<script" not in html
    shown = HOSTILE.replace("\x1b", "\\x1b")
    assert Page(html).text.count(f"{shown} (scored as hopper-medium-v2)") == 3
    assert "<script" not in markdown.replace("\\<script", "")
    assert "\x1b" not in html + markdown


def test_html_and_markdown_have_the_same_tables(report):
    html = to_html(report)
    cells = [
        re.sub(r"<[^>]+>", "", cell)
        for cell in re.findall(r"<t[hd][^>]*>.*?</t[hd]>", html)
    ]
    lines = [x for x in to_markdown(report).splitlines() if x.startswith("| ")]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if "| --" not in line]
    assert len(cells) == sum(map(len, rows)) > 80
    assert cells[:5] == [cell.strip() for cell in rows[0]]


def test_report_has_scores_seeds_and_sources(report):
    text = Page(to_html(report)).text
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
        assert expected in to_markdown(report).replace("\\", ""), expected


def test_report_is_written_with_its_plots_as_files(report, tmp_path):
    (tmp_path / "out").mkdir()
    temporary_path(tmp_path / "out" / "index.html").touch()  # as a killed one leaves
    write_report(report, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert {"index.html", "report.md"} < set(names)
    assert "01-hopper-medium-v2-curves.svg" in names
    assert max(map(len, names)) <= 60
    assert len(names) == 11
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)
    for path in (tmp_path / "out").glob("*.svg"):
        assert path.read_bytes().startswith(b"<?xml")
        assert path.stat().st_size < 100_000


def test_equal_runs_have_equal_reports(tmp_path):
    make_run(tmp_path, eval_every=50_000)
    assert to_html(build_report([tmp_path])) == to_html(build_report([tmp_path]))


def test_timing_of_updates_and_evaluations(report):
    first, *_, last = report.sections[-1].tables[0].rows
    # 100,000 updates at 50 per second; six evaluations of 30 s.
    assert first[1:6] == ("2", "100,000", "50", "33 min", "3 min")
    assert first[-1] == (
        "device cpu, platform Linux-6.1, python 3.12.1, jax 0.10.0, dt_jax 0.1.0, "
        "git_revision 0123456789abcdef"
    )
    assert first[0] != last[0]


def test_timing_has_a_row_for_each_stage(tmp_path):
    make_run(tmp_path / "run" / "critic", eval_every=50_000)
    config = default_config("qdt", env_name="hopper-medium-v2", holdout_fraction=0.0)
    start_run(tmp_path / "run", config.lock())
    rows = build_report([tmp_path / "run"]).sections[-1].tables[0].rows
    assert [row[0] for row in rows] == [f"{tmp_path}/run/critic", f"{tmp_path}/run"]
    assert rows[0][2] == "100,000"


def test_runs_without_scores_are_compared_by_their_returns(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folders, "normalized_score", lambda spec, returns: None)
    same = {"data_path": "x", "eval_every": 50_000}
    make_run(tmp_path / "a", seq_len=5, **same)
    make_run(tmp_path / "b", seq_len=6, scores=(60.0, 66.0), **same)
    first = build_report([tmp_path / "a", tmp_path / "b"]).sections[0]
    assert first.title == "Returns at the last evaluation"
    (table,) = first.tables
    settings = [row[0].rpartition(", ")[2] for row in table.rows]
    assert settings == ["seq_len=5", "seq_len=5", "seq_len=6", "seq_len=6"]
    assert [row[3] for row in table.rows] == ["1", "1", "2", "2"]
    assert [float(row[1]) for row in table.rows] == [3600, 1800] * 2
    assert all(" ± " in row[2] for row in table.rows)


def test_returns_of_all_runs_have_the_same_decimals(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folders, "normalized_score", lambda spec, returns: None)
    same = {"data_path": "x", "eval_every": 50_000}
    make_run(tmp_path / "a", seq_len=5, **same)
    make_run(tmp_path / "b", seq_len=6, scores=(0.7,), **same)  # returns below 10
    first = build_report([tmp_path / "a", tmp_path / "b"]).sections[0]
    returns = [row[2] for row in first.tables[0].rows]
    assert all(re.fullmatch(r"-?\d+\.\d{3} ± \d+\.\d{3}", x) for x in returns)


def test_plot_files_are_named_by_the_data_and_not_by_the_settings(tmp_path):
    make_run(tmp_path / "a", eval_every=50_000, init_from=f"/{'x' * 90}/a")
    make_run(tmp_path / "b", eval_every=50_000, init_from=f"/{'x' * 90}/b")
    report = build_report([tmp_path / "a", tmp_path / "b"])
    names = [plot.file_name for each in report.sections for plot in each.plots]
    kinds = "curves", "returns", "loss"
    assert names == [f"0{i}-hopper-medium-v2-{k}.svg" for i in (1, 2) for k in kinds]


def test_runs_of_other_agents(tmp_path):
    """They may have no training loss, a negative one, and no target returns."""
    make_run(tmp_path / "a", loss="critic_loss", eval_every=50_000)
    make_run(tmp_path / "b", "hopper-demo", scores=(60.0, 62.0), without_targets=True)
    start_run(tmp_path / "c", make_config("walker2d-medium-v2"))
    log = tmp_path / "c/metrics.jsonl"
    log.write_text('{"step": 10, "train_loss": -2.5, "entropy": NaN}\n')
    report = build_report([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    kinds = {
        section.title: [re.search(r"(\w+)\.svg", p.file_name)[1] for p in section.plots]
        for section in report.sections
        if section.text
    }
    assert kinds == {
        "hopper-medium-v2": ["curves", "returns"],
        "walker2d-medium-v2": ["loss"],
        "hopper-demo": ["curves", "loss"],
    }
    (row,) = report.sections[-2].tables[0].rows
    assert (row[0], row[2]) == ("-", "61.0 ± 1.0")
    assert to_html(report)
    assert to_markdown(report)


def test_report_on_held_out_errors_only_starts_with_them(tmp_path, capsys):
    for name in "ab":
        config = make_config("hopper-demo", data_path=name)
        start_run(tmp_path / name, config, DATASET | {"sha256": name * 64})
        log = tmp_path / name / "metrics.jsonl"
        log.write_text('{"step": 10, "eval/holdout_action_mse": 0.25}\n')
    out = tmp_path / "out"
    command.main([str(tmp_path / "a"), str(tmp_path / "b"), f"--out={out}"])
    printed = capsys.readouterr().out
    assert printed.count("0.25") == 4  # last and lowest of both
    assert printed.count("sha256=") == 2
    titles = re.findall("^## (.*)", (out / "report.md").read_text(), re.MULTILINE)
    assert titles[-1] == "Timing"
    assert [title.partition(",")[0] for title in titles[:-1]] == [DATASET["source"]] * 2


def test_every_row_of_corls_table_fits_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    longest = max(PUBLISHED, key=len)
    settings = {"eval_every": 100_000, "batch_size": 64}
    make_run(tmp_path, longest, scores=(100.0, 123.456), **settings)
    command.main([str(tmp_path), f"--out={tmp_path / 'out'}"])
    out = capsys.readouterr().out.partition("\nreport ")[0]
    assert longest in out
    assert "111.73 ± 11.73" in out
    assert f"{longest}: batch_size 64 (CORL: 4096)" in out
    assert np.max([len(line) for line in out.splitlines()]) <= 80
