"""The benchmarks run; what they measure depends on the machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from gru4rec_toolkit.ops import library

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--events", "3000", "--items", "200"]


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_beside_the_limit():
    assert library.usable()
    table = run("benchmarks.training", *SMALL, "--rounds", "1", "rsc15")
    row = table.splitlines()[-1]
    assert re.match(r"rsc15 +32 x 100 +\d+\.\d +\d+\.\d +\d+% \(\d+% to \d+%\)", row), table


def test_training_beside_another_implementation(tmp_path):
    other = tmp_path / "other.py"
    other.write_text(
        "import sys\n"
        "events = len(open(sys.argv[1]).readlines()) - 1\n"
        "epochs = '(\"n_epochs\", 1)' in open(sys.argv[2]).read()\n"
        "print(f'Epoch1 --> loss: 1.0 (1.00s) [{events + epochs}.5 mb/s | 9 e/s]')\n"
    )
    command = f"{sys.executable} {other} {{data}} {{parameters}}"
    table = run("benchmarks.training", *SMALL, "--rounds", "1", "--other", command, "rsc15")
    assert re.search(r"3001\.5 +\d+% \(\d+% to \d+%\)$", table.splitlines()[-1]), table


def test_ranking_beside_the_score_product():
    table = run("benchmarks.ranking", "--rounds", "1", "--seconds", "0.01")
    assert len(re.findall(r" x \d+ +\d+ +\d+ +\d+% \(\d+% to \d+%\)", table)) == 4, table


def test_profile_by_op():
    table = run("benchmarks.profile", *SMALL, "--steps", "20", "rsc15")
    assert re.match(r"\d+\.\d us a step, \d+ nodes", table)
    for op in ("Product", "Loss", "Update", "Gather", "GRU", "Outputs"):
        assert op in table


def test_data_from_the_file_to_the_first_block():
    rows = run("benchmarks.data", "3000", "20000", "--items", "500").splitlines()[1:]
    stages = ["read", "index", "schedule", "weights", "training"]
    for n_events, found in (("3000", rows[:7]), ("20000", rows[7:])):
        assert [row.split()[0] for row in found] == [n_events] * 7
        assert [row.split()[1] for row in found[:5]] == stages
        assert float(found[5].split()[1]) > 0
        assert re.search(r"whole process, peak: [1-9]\d+ MB$", found[6])


def test_reading_beside_the_reader_underneath():
    rows = run("benchmarks.reading", "2000", "--items", "50", "--rounds", "1").splitlines()[1:]
    formats = ["tsv", "tsv.gz", "csv", "pickle", "parquet", "feather"]
    assert [row.split()[:2] for row in rows] == [["2000", kind] for kind in formats]
    assert all(re.search(r" \d+\.\d\d +\d+\.\d\d +\d+% +\d+$", row) for row in rows), rows


def test_preprocessing_of_raw_files():
    rows = run("benchmarks.preprocessing", "20000").splitlines()[1:]
    assert [row.split()[:2] for row in rows] == [["yoochoose", "20000"], ["rees46", "20000"]]
    assert all(float(row.split()[-2]) > 10 for row in rows)


def test_modes_beside_the_plain_step():
    table = run("benchmarks.modes", *SMALL, "--rounds", "1", "--steps", "5")
    assert re.search(r"^cross-entropy +\d+ +1\.00 \(1\.00 to 1\.00\)$", table, re.MULTILINE)
    for mode in ("bpr", "top1", "top1-max", "xe_logit", "one-hot input", "two layers", "adam"):
        assert re.search(rf"^{mode} +\d+ +\d+\.\d\d \(", table, re.MULTILINE), table
