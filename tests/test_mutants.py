"""`make mutants`: the sample, the changes, and the fate of each, in a project of one module."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from helpers.cli import ROOT, complaint, python

sys.path.insert(0, str(ROOT))

from tools import mutants

pytest.importorskip("mutmut", reason="it is installed for Python 3.11 and later")

SOURCE = """def total(numbers, start=0):
    for number in numbers:
        start = start + number
    while start > 100:
        start -= 100
    return start
"""
TESTS = """from module import total

def test_total():
    assert total([1, 2]) == 3
    assert total([], 4) == 4
    assert total([150]) == 50
"""
# the fate of each mutant that a sample can have
FATES = {
    "line 1\n- def total(numbers, start=0):\n+ def total(numbers, start=1):": "killed",
    "line 3\n-         start = start + number\n+         start = start - number": "killed",
    "line 3\n-         start = start + number\n+         start = None": "killed",
    "line 4\n-     while start > 100:\n+     while start >= 100:": "survived",
    "line 4\n-     while start > 100:\n+     while start > 101:": "survived",
    "line 5\n-         start -= 100\n+         start += 100": "killed",  # it runs for ever
    "line 5\n-         start -= 100\n+         start = 100": "killed",
    "line 5\n-         start -= 100\n+         start -= 101": "killed",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one module, in the place of this one."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "module.py").write_text(SOURCE)
    (root / "test_module.py").write_text(TESTS)
    (root / ".gitignore").write_text("build/\n*.log\n")
    (root / "some.log").touch()
    for command in (["init", "-q"], ["add", "module.py"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    monkeypatch.setattr(mutants, "ROOT", root)
    monkeypatch.setattr(mutants, "WORK", root / "build" / "mutants")
    monkeypatch.setattr(mutants, "RESULTS", root / "build" / "mutants" / "results.json")
    monkeypatch.setattr(mutants, "EXPLAINED", root / "explained.json")
    monkeypatch.setattr(mutants, "MODULES", {"module.py": ["test_module.py"]})
    monkeypatch.setattr(mutants, "PATIENCE", 10)
    (root / "explained.json").write_text("{}")
    return root


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mutants.py", *arguments])
    mutants.main()


def test_the_sample_follows_from_the_seed():
    everything = mutants.sample("module.py", SOURCE, 100, seed=0)
    assert set(everything) == FATES.keys() and len(everything) == len(FATES)
    five = mutants.sample("module.py", SOURCE, 5, seed=0)
    assert five == everything[:5] and five != mutants.sample("module.py", SOURCE, 5, seed=1)[:5]


def test_what_is_no_program_is_no_mutant():
    """mutmut makes [/list] of [*list]."""
    changes = mutants.sample("module.py", "def f(x):\n    return [*x, 1]\n", 100, seed=0)
    assert [change.splitlines()[2] for change in changes] == ["+     return [*x, 2]"]


def test_a_change_is_found_where_its_line_has_moved_to():
    for change in FATES:
        mutant = mutants.apply_change(SOURCE, change)
        assert mutants.change_of(SOURCE, mutant) == change
        assert mutants.apply_change("# a comment\n\n" + SOURCE, change).endswith(mutant)
    assert mutants.apply_change("\n" * 9, change) is None


def test_mutants_are_tested_in_a_copy(project, monkeypatch, capsys):
    run(monkeypatch, "-n", "100")
    assert (project / "module.py").read_text() == SOURCE
    tree = project / "build" / "mutants" / "tree"
    names = {path.name for path in tree.iterdir()}
    assert names == {"module.py", "test_module.py", ".gitignore", "explained.json"}
    assert (tree / "module.py").read_text() == SOURCE
    results = json.loads((project / "build" / "mutants" / "results.json").read_text())
    assert results == {"module.py": FATES}
    out = capsys.readouterr().out
    for change, fate in FATES.items():
        assert (f"survived: module.py, {change}\n" in out) == (fate == "survived")
    row = ["module.py", "8", "6", "0", "2"]
    assert [line.split() for line in out.splitlines()][-2:-1] == [["all", *row[1:]]]
    assert row in [line.split() for line in out.splitlines()]
    assert out.splitlines()[-1] == "killed: 75% of 8"

    # a better test kills one of the two; the other one is explained
    better = TESTS + "    assert total([101]) == 1\n"
    (project / "test_module.py").write_text(better)
    change = "-     while start > 100:\n+     while start >= 100:"
    (project / "explained.json").write_text(json.dumps({"module.py": {change: "a reason"}}))
    (project / "module.py").write_text("# sums\n" + SOURCE)
    run(monkeypatch, "--again")
    out = capsys.readouterr().out
    assert "module.py: 1 mutants" in out and "survived:" not in out
    assert ["module.py", "8", "7", "1", "0"] in [line.split() for line in out.splitlines()]
    assert out.splitlines()[-1] == "killed: 100% of 7"


def test_what_is_gone_does_not_count():
    fates = {"a": "killed", "b": "gone", "c": "survived", "d": "explained", "e": "killed"}
    *_, row, whole, share = mutants.table({"x.py": fates}).splitlines()
    assert row.split() == ["x.py", "4", "2", "1", "1"]
    assert whole.split() == ["all", "4", "2", "1", "1"] and share == "killed: 67% of 3"


def test_tests_that_fail_anyway_say_nothing_about_mutants(project, monkeypatch):
    (project / "test_module.py").write_text("assert False")
    with pytest.raises(mutants.InputError, match=r"module.py: its tests fail without a mutant"):
        run(monkeypatch)
    assert not (project / "build" / "mutants" / "results.json").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["losses"], "losses: not among the modules, which are model/optimizers.py, "),
        (["-n", "0"], "-n: expected 1 mutant or more, got 0"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, words):
    assert words in complaint(python(ROOT / "tools" / "mutants.py", *arguments, cwd=tmp_path))


def test_again_needs_results(project, monkeypatch):
    with pytest.raises(mutants.InputError, match=r"--again: module.py has no results yet"):
        run(monkeypatch, "module.py", "--again")


def test_modules_and_their_tests_exist():
    for module, arguments in mutants.MODULES.items():
        assert mutants.path_of(ROOT, module).is_file()
        tests = [name for name in arguments if name.startswith("tests/")]
        assert tests and all((ROOT / name).is_file() for name in tests)


def test_what_is_explained_is_still_there():
    explained = json.loads(mutants.EXPLAINED.read_text())
    for module, changes in explained.items():
        source = mutants.path_of(ROOT, module).read_text()
        for change, reason in changes.items():
            assert mutants.apply_change(source, f"line 1\n{change}") is not None, change
            assert reason
