"""Every command and code block of the README, run as written on a small log."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from helpers.golden import GOLDEN

from gru4rec_toolkit.search import space

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the files that the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(GOLDEN / "train.tsv", folder / "train.tsv")
    for name in ("test.tsv", "valid.tsv"):
        shutil.copy(GOLDEN / "test.tsv", folder / name)
    for name in ("paramfiles", "paramspaces"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run(folder, *arguments):
    result = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_run_commands(folder):
    """In the order of the README: the second one loads what the first one saved."""
    commands = [shlex.split(line) for line in COMMANDS if line.startswith("python run.py")]
    assert len(commands) >= 4
    for _, _, *arguments in commands:
        output = run(folder, str(ROOT / "run.py"), *arguments)
        if "--check" in arguments:
            assert re.search(r"^\d+ warnings?, \d+ notes?$", output, re.MULTILINE)
            continue
        if "--recommend" in arguments:
            assert "Recommendations written to: recommended.tsv" in output
            continue
        if "--export" in arguments:
            assert output.endswith(f"Exporting model to: {arguments[-1]}\n")
            assert (folder / arguments[-1]).exists()
            continue
        n_tests = len(re.findall(r"\.tsv", " ".join(arguments[arguments.index("-t") :])))
        n_seeds = int(arguments[arguments.index("-ns") + 1]) if "-ns" in arguments else 1
        assert output.count("Evaluation took") == n_tests * n_seeds
        assert re.search(r"^Recall@20: \d\.\d{6} MRR@20: \d\.\d{6}$", output, re.MULTILINE)


def test_the_search_commands(folder):
    """One trial each, in a file instead of a server's database."""
    commands = [shlex.split(line) for line in COMMANDS if line.startswith("python paropt.py")]
    assert len(commands) == 2
    for _, _, *arguments in commands:
        arguments[arguments.index("-nt") + 1] = "1"
        if "--storage" in arguments:
            arguments[arguments.index("--storage") + 1] = "sqlite:///study.db"
        fixed = arguments.index("-fp") + 1
        arguments[fixed] = arguments[fixed].replace("n_epochs=5", "n_epochs=1")
        output = run(folder, str(ROOT / "paropt.py"), *arguments)
        assert "TRIALS 1 of 1 done" in output
        name = arguments[arguments.index("--study") + 1]
        files = {path.name for path in (folder / "searches" / name).iterdir()}
        assert {"results.tsv", "best_parameters.py", "logs"} <= files
    # what the dashboard opens
    (dashboard,) = (line.split() for line in COMMANDS if line.startswith("optuna-dashboard"))
    backend = optuna.storages.journal.JournalFileBackend(str(folder / dashboard[1]))
    study = optuna.load_study(study_name="xe", storage=optuna.storages.JournalStorage(backend))
    assert len(study.trials) == 1


def test_the_space_of_the_readme(tmp_path):
    (lines,) = blocks("json")
    path = tmp_path / "space.json"
    path.write_text(lines)
    assert [p.name for p in space.read_space(str(path))] == ["layers", "final_act"]


def test_the_python_code(folder):
    """One block goes on where the one before it ends."""
    code = "".join(blocks("python"))
    script = folder / "example.py"
    path = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    shown = "print(items, scores, recall)\nprint(difference, groups, sep='\\n')"
    shown += "\nfound = gru.recommend([[first], [second]]).items"
    shown += "\nassert [[ids[i] for i in row] for row in top_items] == found.tolist()"
    script.write_text(f"{path}{code}\n{shown}")
    output = run(folder, str(script))
    assert "Epoch3 --> loss" in output
    assert re.search(r"^NDCG@20 +0\.\d+ +0\.\d+ +-?0\.\d+", output, re.MULTILINE)
    assert re.search(r"^ +low +high +events +recall +mrr +ndcg$", output, re.MULTILINE)


def test_the_other_commands_are_targets_of_the_makefile_or_pip():
    run_above = ("python run.py", "python paropt.py", "optuna-dashboard")
    others = [line for line in COMMANDS if not line.startswith(run_above)]
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in others:
        words = line.split()
        assert words[:2] == ["pip", "install"] or (words[0] == "make" and words[1] in targets), line


def test_tables_name_every_option_and_parameter():
    import paropt
    import run as cli
    from gru4rec_toolkit import parameters

    for action in cli.build_parser()._actions + paropt.build_parser()._actions:
        for option in action.option_strings:
            assert (
                option in ("-h", "--help")
                or f"`{option}`" in README
                or (option.lstrip("-").endswith("_key") and option.startswith("--"))
            ), option
    for name in parameters.PARAMETERS:
        assert f"`{name}`" in README, name


def test_the_map_of_files_is_complete():
    for module in ROOT.glob("*.py"):
        assert module.name == "setup.py" or f"`{module.name}`" in README
