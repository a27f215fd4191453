"""The folder of a bench: what is kept, measured again, told, and refused."""

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_runs import CASE, PLAN, bench, references, row, rows

from logsnr.bench import job
from logsnr.bench.results import Results, fingerprint, versions
from logsnr.bench.work_precision import measure


@pytest.fixture(scope="module", autouse=True)
def no_page():
    """Pages take most of the time of a small bench."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "write_report", lambda *args: None)
        yield


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    return out, bench(out)


def test_a_second_run_measures_nothing(report, monkeypatch):
    """Rows that are there are used again."""
    monkeypatch.setattr(job, "measure", lambda *args: pytest.fail("measured again"))
    before = rows(report[0])
    bench(report[0])
    assert rows(report[0]) == before


def test_an_interrupted_run_goes_on_where_it_stopped(report, tmp_path, monkeypatch):
    """After a stop in the middle of a line, only what is missing is measured."""
    lines = (report[0] / "results.csv").read_text().splitlines(keepends=True)
    (tmp_path / "results.csv").write_text("".join(lines[:8]) + lines[8][:30])
    measured = []
    monkeypatch.setattr(job, "measure", lambda *args: measured.append(args) or measure(*args))
    bench(tmp_path)
    assert len(measured) == len(lines) - 8
    assert len(rows(tmp_path)) == len(lines) - 1


@pytest.mark.parametrize("file", ["code.py", "inner/code.py", "inner/data/deep/table.json"])
def test_every_file_of_a_package_is_in_its_fingerprint(file: str, tmp_path: Path, monkeypatch) -> None:
    """Those of its folders, too; compiled ones are not."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "some_package", raising=False)
    package = tmp_path / "some_package"
    path = package / file
    path.parent.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    found = []
    for text, compiled in (("1", "1"), ("1", "2"), ("2", "2")):
        path.write_text(text)
        (package / "code.pyc").write_text(compiled)
        fingerprint.cache_clear()
        found.append(fingerprint("some_package"))
    fingerprint.cache_clear()
    assert found[0] == found[1] != found[2]


def test_rows_of_other_versions_stay_and_are_not_used(report, tmp_path):
    """Numbers of another torch are kept in the file, a line says so, and all is measured again."""
    text = (report[0] / "results.csv").read_text()
    (tmp_path / "results.csv").write_text(text.replace("torch ", "torch 0."))
    said = bench(tmp_path)
    assert re.search(r"12 rows of other versions stay in it and are not used", " ".join(said.split()))
    assert len(rows(tmp_path)) == 24
    assert [row["versions"] for row in rows(tmp_path)].count(rows(report[0])[0]["versions"]) == 12


def test_opening_takes_out_the_cases_that_are_dropped(report, tmp_path):
    """The cases named are measured again, the others stay."""
    path, text = tmp_path / "results.csv", (report[0] / "results.csv").read_text()
    path.write_text(text)
    cases = list(Results(path)._rows)
    for drop in (cases[:3], cases[1:], cases):
        path.write_text(text)
        assert set(Results(path, drop=drop)._rows) == set(cases) - set(drop)


def test_fresh_keeps_what_is_not_asked_for(tmp_path):
    """--fresh measures again what this run asks for; rows of other problems and budgets stay in the CSV."""
    bench(tmp_path)
    before = rows(tmp_path)
    bench(tmp_path, plan=replace(PLAN, nfes=PLAN.nfes[:1], solvers=("ddim",), rtols=()), fresh=True)
    after = rows(tmp_path)
    key = ("problem", "solver", "startup", "grid", "nfe", "rtol")
    assert sorted(tuple(r[k] for k in key) for r in after) == sorted(tuple(r[k] for k in key) for r in before)


def test_a_damaged_reference_is_made_again(report, tmp_path):
    """A reference that is no archive is computed again."""
    shutil.copytree(report[0], tmp_path / "out")
    shutil.copytree(references().name, tmp_path / "out" / "cache")
    for path in (tmp_path / "out" / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    bench(tmp_path / "out", fresh=True, kept=tmp_path / "out" / "cache")
    assert [r["median"] for r in rows(tmp_path / "out")] == [r["median"] for r in rows(report[0])]


def damaged(text, how):
    lines = text.splitlines(keepends=True)
    if how == "a torn line":
        lines[3] = lines[3][:40] + "\n"
    elif how == "an open quote":
        lines[3] = '"' + lines[3]
    elif how == "no text":
        lines[3] = "\x00\ufffd,\n"
    else:
        lines[0] = "problem,sol\n"
    return "".join(lines)


@pytest.mark.parametrize("how", ["a torn line", "an open quote", "no text", "the head"])
def test_a_damaged_csv_is_told_and_kept_aside(how, report, tmp_path):
    """One line says where the damage is; the file as it was is kept, never over another, and other rows are used."""
    text, path = (report[0] / "results.csv").read_text(), tmp_path / "results.csv"
    number = 1 if how == "the head" else 4
    for count in (1, 2):
        path.write_text(damaged(text, how))
        results = Results(path)
        kept = list(tmp_path.glob("results.damaged-*.csv"))
        assert re.fullmatch(rf".*: no row in line {number}, left out; .* is the file as it was", results.notes[0])
        assert [aside.read_text() for aside in kept] == count * [damaged(text, how)]
        assert len(results._rows) == 12 - (how != "the head")
    assert not Results(path).notes


def test_a_bench_goes_on_with_a_damaged_csv(report, tmp_path):
    """What the damage has taken is measured again, and the line is shown."""
    (tmp_path / "results.csv").write_text(damaged((report[0] / "results.csv").read_text(), "an open quote"))
    assert "no row in line 4" in " ".join(bench(tmp_path).split())
    assert len(rows(tmp_path)) == 12


@pytest.mark.parametrize("name", ["results.csv", "index.html"])
def test_files_of_others_are_not_overwritten(name, tmp_path):
    """A table or a page that this bench has not written is refused by its name, and stays."""
    (tmp_path / name).write_text("year,rain\n1998,3\n")
    with pytest.raises(ValueError, match=rf"{name} (was|is) not .*; move it away, or give another folder"):
        bench(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "year,rain\n1998,3\n"


def test_a_row_survives_the_csv(tmp_path):
    """A row read back equals the row written, an adaptive one too."""
    written = [replace(row(), versions=versions()), replace(row(), versions=versions())]
    written[1] = replace(written[1], case=replace(CASE, nfe=None, rtol=1e-3, grid="adaptive"))
    written[1].statistics["median"] = np.pi
    results = Results(tmp_path / "results.csv")
    for each in written:
        results.add(each)
    again = Results(tmp_path / "results.csv")
    assert [again.get(each.case) for each in written] == written
