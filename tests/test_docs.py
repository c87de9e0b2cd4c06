"""Every command and code block of the README and of docs/, run as written on a small log."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pandas as pd
import pytest
from helpers.cli import environment
from helpers.golden import GOLDEN

from gru4rec_toolkit.data import events
from gru4rec_toolkit.search import space

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
}
TUTORIAL = "docs/tutorial.md"
# of the model that pages begin with
MODEL = "loss=cross-entropy,final_act=softmax,layers=100,constrained_embedding=True,n_epochs=1"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


def lines(block):
    """Return the commands of a block; a backslash at the end of a line continues it."""
    return block.replace("\\\n", "").splitlines()


def commands(page):
    return [line for block in blocks(page, "bash") for line in lines(block)]


TOOL = "python -m gru4rec_toolkit."


def pages_with(begin):
    """Return the pages that have a command which begins so."""
    return [page for page in PAGES if any(line.startswith(begin) for line in commands(page))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A file of a model."""
    path = tmp_path_factory.mktemp("trained") / "model.gru4rec"
    run(path.parent, str(ROOT / "run.py"), str(GOLDEN / "train.tsv"), "-ps", MODEL, "-s", str(path))
    return path


@pytest.fixture
def folder(tmp_path, trained):
    """A working directory with the files that the pages speak of."""
    shutil.copy(GOLDEN / "train.tsv", tmp_path / "train.tsv")
    for name in ("test.tsv", "valid.tsv"):
        shutil.copy(GOLDEN / "test.tsv", tmp_path / name)
    for name in ("paramfiles", "paramspaces"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(trained, tmp_path / "model.gru4rec")
    return tmp_path


def run(folder, *arguments):
    result = subprocess.run(
        *([sys.executable, *arguments],),
        **{"cwd": folder, "env": environment(PYTHONPATH=str(ROOT))},
        **{"capture_output": True, "text": True, "timeout": 600},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_command(folder, line):
    """Run a command of run.py, and look at its output."""
    arguments = shlex.split(line)[2:]
    output = run(folder, str(ROOT / "run.py"), *arguments)
    if "--check" in arguments:
        assert re.search(r"^\d+ warnings?, \d+ notes?$", output, re.MULTILINE)
    elif "--recommend" in arguments:
        assert "Recommendations written to: recommended.tsv" in output
    elif "--export" in arguments:
        assert output.endswith(f"Exporting model to: {arguments[-1]}\n")
        assert (folder / arguments[-1]).exists()
    else:
        n_tests = len(re.findall(r"\.tsv", " ".join(arguments[arguments.index("-t") :])))
        n_seeds = int(arguments[arguments.index("-ns") + 1]) if "-ns" in arguments else 1
        assert output.count("Evaluation took") == n_tests * n_seeds
        assert re.search(r"^Recall@20: \d\.\d{6} MRR@20: \d\.\d{6}$", output, re.MULTILINE)


@pytest.mark.parametrize("page", [p for p in pages_with("python run.py") if p != TUTORIAL])
def test_the_run_commands(folder, page):
    """In the order of the page: a later one may load what an earlier one saved."""
    for line in commands(page):
        if line.startswith(TOOL):
            run(folder, *shlex.split(line)[1:])
        if line.startswith("python run.py"):
            run_command(folder, line)


def test_the_search_commands(folder):
    """One trial each, in a file instead of a server's database."""
    page = "docs/search.md"
    assert pages_with("python paropt.py") == [page]
    searches = [shlex.split(x) for x in commands(page) if x.startswith("python paropt.py")]
    assert len(searches) == 2
    for _, _, *arguments in searches:
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
    (dashboard,) = (x.split() for x in commands(page) if x.startswith("optuna-dashboard"))
    backend = optuna.storages.journal.JournalFileBackend(str(folder / dashboard[1]))
    study = optuna.load_study(study_name="xe", storage=optuna.storages.JournalStorage(backend))
    assert len(study.trials) == 1


def test_the_space_of_the_search(tmp_path):
    (content,) = blocks("docs/search.md", "json")
    path = tmp_path / "space.json"
    path.write_text(content)
    assert [p.name for p in space.read_space(str(path))] == ["layers", "final_act"]


# what a page's code is asked for after its last line
ASKED = {
    "README.md": "assert items.shape == (20,) and len(recall) == len(mrr) == 2",
    TUTORIAL: "assert items.shape == scores.shape == (test.SessionId.nunique(), 20)",
    "docs/evaluation.md": "print(difference, groups, sep='\\n')",
    "docs/sequences.md": "assert len(items) == after.SessionId.nunique() and mrr[0] < recall[0]",
    "docs/serving.md": (
        "found = gru.recommend([[first], [second]]).items\n"
        "assert [[ids[i] for i in row] for row in top_items] == found.tolist()"
    ),
    "docs/training.md": "from pathlib import Path\nassert Path('curves.png').exists()",
}


def run_code(folder, *code):
    """Run Python code that imports from the checkout; return its output."""
    script = folder / "example.py"
    path = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    script.write_text("".join([path, *code]))
    return run(folder, str(script))


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python") and p != TUTORIAL])
def test_the_python_code(folder, page):
    """One block of a page goes on where the one before it ends."""
    output = run_code(folder, *blocks(page, "python"), ASKED[page])
    if page == "docs/evaluation.md":
        assert re.search(r"^NDCG@20 +0\.\d+ +0\.\d+ +-?0\.\d+", output, re.MULTILINE)
        assert re.search(r"^ +low +high +events +recall +mrr +ndcg$", output, re.MULTILINE)


def clicks():
    """Return the log that the tutorial begins with."""
    parts = [pd.read_csv(GOLDEN / name, sep="\t") for name in ("train.tsv", "test.tsv")]
    return pd.concat(parts, ignore_index=True)


def test_the_tutorial_from_top_to_bottom(tmp_path):
    """With nothing but the log: each step makes the files that later ones use."""
    clicks().to_csv(tmp_path / "clicks.tsv", sep="\t", index=False)
    pattern = r"^```(bash|python)\n(.*?)^```"
    steps = re.findall(pattern, PAGES[TUTORIAL], re.MULTILINE | re.DOTALL)
    last = [code for language, code in steps if language == "python"][-1]
    for language, block in steps:
        if language == "python":
            run_code(tmp_path, block, ASKED[TUTORIAL] if block == last else "")
            continue
        for line in lines(block):
            if line.startswith("python run.py"):
                run_command(tmp_path, line)


@pytest.mark.parametrize("form", [None, "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])
def test_the_split_of_the_tutorial(tmp_path, form):
    """By time, whether times are seconds or dates; nobody sees what comes later."""
    log = clicks()
    seconds = log["Time"]
    if form is not None:
        log["Time"] = pd.to_datetime(seconds, unit="s").dt.strftime(form)
    log.to_csv(tmp_path / "clicks.tsv", sep="\t", index=False)
    run_code(tmp_path, blocks(TUTORIAL, "python")[0])
    parts = [pd.read_csv(tmp_path / f"{p}.tsv", sep="\t") for p in ("train", "valid", "test")]
    assert sum(map(len, parts)) == len(log)  # no session of this log goes on past a border
    assert set(parts[0]["Time"]) <= set(log["Time"])
    for part, later in zip(parts, parts[1:]):
        assert len(later) > 100 and part["Time"].max() < later["Time"].min()


@pytest.mark.parametrize("page", PAGES)
def test_the_other_commands_are_targets_of_the_makefile_or_pip(page):
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in commands(page):
        words = line.split()
        known = (
            line.startswith(("python run.py", "python paropt.py", "optuna-dashboard", TOOL))
            or line == "source .venv/bin/activate"
            or words[:2] == ["pip", "install"]
            or (words[0] == "make" and words[1] in targets)
        )
        assert known, line


def test_tables_name_every_option_and_parameter():
    import paropt
    import run as cli
    from gru4rec_toolkit import parameters, split
    from gru4rec_toolkit.data import report

    for program in (cli, paropt, split, report):
        for action in program.build_parser()._actions:
            for option in {*action.option_strings} - {"-h", "--help"}:
                assert f"`{option}`" in PAGES["docs/command-line.md"], option
    for name in parameters.PARAMETERS:
        assert f"`{name}`" in PAGES["docs/parameters.md"], name


def test_the_best_parameters_are_those_of_the_files():
    from gru4rec_toolkit import parameters

    rows = re.findall(r"^\| `(\w+\.py)` \| (.*) \|$", PAGES["docs/parameters.md"], re.MULTILINE)
    assert {name for name, _ in rows} == {p.name for p in (ROOT / "paramfiles").glob("*.py")}
    for name, row in rows:
        kept = parameters.read_file(str(ROOT / "paramfiles" / name))
        loss, *cells = re.split(r" *\| *", row)
        assert loss == f"{kept['loss']}, {kept['final_act']}"
        layers, size, dropout, *numbers = cells
        assert ([int(layers)], int(size)) == (kept["layers"], kept["batch_size"])
        drops = [kept["dropout_p_embed"], kept["dropout_p_hidden"]]
        assert [float(x) for x in dropout.split(", ")] == drops
        names = ("learning_rate", "momentum", "sample_alpha", "bpreg", "logq")
        for key, cell in zip(names, numbers):
            if cell:  # else the loss does not use it
                assert float(cell) == kept[key], (name, key)


def test_the_map_of_files_is_complete():
    for module in ROOT.glob("*.py"):
        assert module.name == "setup.py" or f"`{module.name}`" in PAGES["docs/design.md"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """To files, and to headings of pages; mkdocs does not look at the README."""
    for target in re.findall(r"\]\((?!https?:)([^)]*)\)", PAGES[page]):
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in anchors, target


@pytest.mark.parametrize("page", ["README.md", TUTORIAL])
def test_the_ten_lines_of_a_log_are_read(tmp_path, page):
    (rows,) = (block for block in blocks(page, "text") if block.startswith("SessionId"))
    (tmp_path / "log.tsv").write_text(rows)
    log = events.read_events(str(tmp_path / "log.tsv"), announce=False)
    assert len(rows.splitlines()) == 10 and len(log) == 9
    assert log.ItemId.iloc[-1] == "shoe-42"


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 200
