"""Do a module's own tests notice small faults in it? `make mutants`, from Python 3.11 on.

mutmut makes the faults (mutants): another operator, number, comparison, word or value in one place.
A random sample of them is tested, one at a time, in a copy of the project below `build/mutants/`;
the project's own files are never touched. A mutant is killed if one of the module's tests fails or
takes far longer than it does without the mutant. One that survives is printed as a diff: it asks
for a better test, unless no test could tell it from the original (`mutants_explained.json`).

The same seed and number give the same mutants as long as the module is the same. Results are kept
in `build/mutants/results.json`; `--again` tests only the mutants that survived there.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gru4rec_toolkit import arguments, files
from gru4rec_toolkit.errors import InputError, run_cli

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mutants"
RESULTS = WORK / "results.json"
# survivors that no test can kill, with the reason: by module, then by the change as it is printed
EXPLAINED = Path(__file__).with_name("mutants_explained.json")
# seconds that tests may take beyond three times what they take without a mutant: it is slower where
# code has to be compiled
PATIENCE = 60

# what is mutated, and the tests that have to notice it (arguments of pytest, the fastest first)
MODULES = {
    "model/optimizers.py": ["tests/model/test_optimizers.py"],
    "model/losses.py": ["tests/model/test_losses.py"],
    "ops/losses/op.py": [
        "tests/ops/test_library.py", "tests/ops/test_ops.py", "-k", "loss or codes or kernels_know",
    ],
    "data/schedule.py": ["tests/data/test_sessions.py"],
    "data/sessions.py": ["tests/data/test_sessions.py"],
    "data/ids.py": ["tests/data/test_sessions.py"],
    "data/sequences.py": ["tests/data/test_sequences.py"],
    "data/splits.py": ["tests/data/test_splits.py"],
    "data/histories.py": ["tests/test_histories.py", "-k", "not elsewhere and not run_py"],
    "model/replay.py": ["tests/test_histories.py", "-k", "not elsewhere and not run_py"],
    "model/dropout.py": ["tests/model/test_bptt.py", "-k", "mask or same_steps"],
    "baselines/counting.py": [
        "tests/baselines/test_baselines.py",
        "tests/baselines/test_counting.py",
    ],
    "baselines/lists.py": ["tests/baselines/test_baselines.py"],
    "baselines/pairs.py": ["tests/baselines/test_baselines.py"],
    "baselines/neighbours.py": ["tests/baselines/test_baselines.py"],
    "evaluation.py": ["tests/test_evaluation.py"],
    "model/ranking.py": ["tests/test_evaluation.py", "tests/test_ties.py"],
    "model/negatives.py": ["tests/model/test_negatives.py"],
    "parameters/table.py": ["tests/test_parameters.py"],
    "parameters/text.py": ["tests/test_parameters.py", "tests/test_security.py"],
    "parameters/values.py": ["tests/test_parameters.py"],
    "data/checks.py": ["tests/data/test_events.py", "tests/test_event_times.py"],
    "data/events.py": ["tests/data/test_events.py"],
    "data/text.py": [
        "tests/data/test_events.py", "tests/data/test_text.py", "tests/test_security.py",
    ],
    "modelfile.py": ["tests/test_modelfile.py"],
    "container.py": ["tests/test_modelfile.py", "tests/test_security.py"],
    "tracking/history.py": ["tests/tracking/test_logfile.py", "tests/tracking/test_plot.py"],
    "tracking/logfile.py": ["tests/tracking/test_logfile.py"],
    "tracking/output.py": ["tests/tracking/test_logfile.py", "tests/tracking/test_plot.py"],
    "tracking/plot.py": ["tests/tracking/test_plot.py"],
    "tracking/tensorboard.py": ["tests/tracking/test_tensorboard.py"],
    "tracking/mlflow.py": ["tests/tracking/test_mlflow.py"],
    "tracking/options.py": ["tests/test_run_tracking.py"],
    "model/validation.py": ["tests/model/test_validation.py"],
    "ranks.py": ["tests/test_evaluation.py"],
    "seeds.py": ["tests/test_run_tracking.py"],
    "model/checkpoint.py": ["tests/model/test_checkpoint.py"],
}  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = arguments.Parser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("modules", metavar="MODULE", nargs="*", help=f"of {', '.join(MODULES)} (default: all)")
    add("-n", "--mutants", metavar="N", type=int, default=20, help="of each module (default: 20)")
    add("--seed", type=int, default=0, help="of the sample (default: 0)")
    add("--again", action="store_true", help="test those again that survived the last time")
    return parser


def main() -> None:
    """Run the command line program."""
    args = build_parser().parse_args()
    for module in args.modules:
        if module not in MODULES:
            raise InputError(f"{module}: not among the modules, which are {', '.join(MODULES)}")
    if args.mutants < 1:
        raise InputError(f"-n: expected 1 mutant or more, got {args.mutants}")
    explained = json.loads(EXPLAINED.read_text())
    tree = copy_project()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    modules = args.modules or ([m for m in MODULES if m in results] if args.again else [*MODULES])
    for module in modules:
        if args.again and module not in results:
            raise InputError(f"--again: {module} has no results yet; leave the option out")
        source = path_of(tree, module).read_text()
        if args.again:
            known = results[module]
        else:
            known = dict.fromkeys(sample(module, source, args.mutants, args.seed), "")
        to_test = [change for change, fate in known.items() if fate not in ("killed", "gone")]
        results[module] = {**known, **try_all(tree, module, source, to_test, explained)}
        with files.replacing(RESULTS) as stream:
            stream.write(json.dumps(results, indent=1).encode())
    print(table({module: results[module] for module in modules}))


# --- the copy of the project ----------------------------------------------------------------------


def copy_project() -> Path:
    """Copy what belongs to the project, and return where to.

    It is the same place every time, since Theano's modules are compiled for it.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        raise InputError(f"{ROOT}: this is no git checkout, so what belongs to it is not known")
    tree = WORK / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    return tree


def path_of(tree: Path, module: str) -> Path:
    """Return where a module lies: at the top, or in the package."""
    return tree / module if (tree / module).exists() else tree / "gru4rec_toolkit" / module


def run_tests(tree: Path, tests: list[str], limit: float | None = None) -> tuple[str, str]:
    """Run tests in the copy; return "passed", "failed" or "too long", and what they printed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore", *tests]
    env = {
        **os.environ,
        "XDG_CACHE_HOME": str(WORK / "cache"),  # compiled mutants stay apart
        # else a mutant of the same size and second would be taken for what was compiled before
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(tree),
    }
    process = subprocess.Popen(
        command, cwd=tree, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return "too long", ""
    finally:
        # what the tests started, too
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return ("failed" if process.returncode else "passed"), output


# --- mutants --------------------------------------------------------------------------------------


def sample(module: str, source: str, n: int, seed: int) -> list[str]:
    """Draw n mutants of a module at random, each as its change (see `change_of`)."""
    try:
        import mutmut
    except ImportError:
        raise InputError(
            "the package mutmut is missing; `make setup` installs it on Python 3.11 and later"
        ) from None
    names = mutmut.list_mutations(mutmut.Context(source=source, filename=module))
    random.Random(f"{seed} {module}").shuffle(names)
    changes = []
    for name in names:
        context = mutmut.Context(source=source, filename=module, mutation_id=name)
        mutant, _ = mutmut.mutate(context)
        try:
            ast.parse(mutant)
        except SyntaxError:  # such as [/list]: not a program
            continue
        change = change_of(source, mutant)
        if change not in changes:
            changes.append(change)
        if len(changes) == n:
            break
    return changes


def change_of(source: str, mutant: str) -> str:
    """Say how a mutant differs: the number of the line, the lines that go, those that come."""
    old, new = source.splitlines(), mutant.splitlines()
    start = _n_equal(old, new)
    end = _n_equal(old[start:][::-1], new[start:][::-1])
    gone, come = old[start : len(old) - end], new[start : len(new) - end]
    lines = [f"- {line}" for line in gone] + [f"+ {line}" for line in come]
    return "\n".join([f"line {start + 1}", *lines])


def _n_equal(a: list[str], b: list[str]) -> int:
    """Count the equal lines that two lists begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def apply_change(source: str, change: str) -> str | None:
    """Return the mutant that `change_of` describes; None if the module has no such line any more.

    The line may have moved since.
    """
    where, *lines = change.splitlines()
    old, at = source.splitlines(), int(where.split()[1]) - 1
    gone = [line[2:] for line in lines if line.startswith("- ")]
    come = [line[2:] for line in lines if line.startswith("+ ")]
    found = [i for i in range(len(old)) if old[i : i + len(gone)] == gone]
    if not found:
        return None
    at = min(found, key=lambda i: abs(i - at))
    return "\n".join([*old[:at], *come, *old[at + len(gone) :], ""])


def try_all(
    tree: Path, module: str, source: str, changes: list[str], explained: dict
) -> dict[str, str]:
    """Test mutants of one module.

    Returns
    -------
    dict of str to str
        The fate of each: killed, survived, explained, or gone with its line.
    """
    # an explanation holds wherever the line has moved to
    known = explained.get(module, {})
    fates = {c: "explained" for c in changes if c.partition("\n")[2] in known}
    changes = [change for change in changes if change not in fates]
    if not changes:
        return fates
    path, tests = path_of(tree, module), MODULES[module]
    began = time.perf_counter()
    outcome, output = run_tests(tree, tests)
    if outcome != "passed":
        raise InputError(
            f"{module}: its tests fail without a mutant, too ({output.splitlines()[-1:]}); see "
            f"`pytest {' '.join(tests)}`"
        )
    seconds = time.perf_counter() - began
    print(f"\n{module}: {len(changes)} mutants, {seconds:.0f} s without one", flush=True)
    for change in changes:
        mutant = apply_change(source, change)
        if mutant is None:
            fates[change] = "gone"
            continue
        path.write_text(mutant)
        try:
            outcome, _ = run_tests(tree, tests, 3 * seconds + PATIENCE)
        finally:
            path.write_text(source)
        fates[change] = "survived" if outcome == "passed" else "killed"
        if outcome == "passed":
            print(f"survived: {module}, {change}", flush=True)
    return fates


def table(results: dict[str, dict[str, str]]) -> str:
    """Say how many mutants of each module were killed."""
    text = io.StringIO()
    print(f"\n{'':<22}{'mutants':>8}{'killed':>8}{'explained':>11}{'survived':>10}", file=text)
    totals = [0, 0, 0, 0]
    for module, fates in results.items():
        counts = [list(fates.values()).count(f) for f in ("killed", "explained", "survived")]
        counts = [sum(counts), *counts]
        totals = [total + count for total, count in zip(totals, counts)]
        print(_row(module, counts), file=text)
    print(_row("all", totals), file=text)
    tested = totals[0] - totals[2]
    print(f"killed: {100 * totals[1] / max(tested, 1):.0f}% of {tested}", end="", file=text)
    return text.getvalue()


def _row(name: str, counts: list[int]) -> str:
    mutants, killed, explained, survived = counts
    return f"{name:<22}{mutants:>8}{killed:>8}{explained:>11}{survived:>10}"


if __name__ == "__main__":
    run_cli(main)
