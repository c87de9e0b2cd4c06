"""Everything that a release measures runs, is reported and drawn; its figures do not matter."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

import pytest
from helpers.cli import TRAIN, complaint, environment, own_signals, python

from benchmarks import pictures, release, results, start, tables
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.tracking import plot

matplotlib = pytest.importorskip("matplotlib")

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments, **env):
    path = {"PYTHONPATH": os.pathsep.join([*env.pop("path", []), str(ROOT)])}
    command = ["-m", "benchmarks.release", "--quick", *arguments]
    return python(*command, cwd=env.pop("cwd", ROOT), **path, **env)


def table(report: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, those of its columns first."""
    lines = report.split(f"\n### {heading}\n")[1].split("\n### ")[0].splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    assert set(rows.pop(1)) == {" --- "}
    return [[cell.strip() for cell in row] for row in rows]


def size_of_png(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content[:16] == b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
    return struct.unpack(">II", content[16:24])


# ---------------------------------------------------------------------------- from end to end


PORT = """
class GRU4Rec:
    def __init__(self, device):
        assert device == "cpu"
    def set_params(self, **settings):
        pass
    def fit(self, data):
        print(f"Epoch1 [{len(data)} mb/s | 9 e/s]")
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "new" / "folder"
    (folder.parent.parent / "tmp").mkdir()
    port = folder.parent.parent / "a {port}"
    port.mkdir()
    (port / "gru4rec_pytorch.py").write_text(PORT)
    (port / "torch.py").write_text("device = str\n")
    done = run(
        *("-o", folder, "--parts", "data", "training", "start", "--port", "a {port}"),
        cwd=port.parent, path=[str(port)], TMPDIR=str(folder.parent.parent / "tmp"),
    )  # fmt: skip
    assert done.code == 0, f"{done.out}\n{done.err}"
    return done, folder


def test_the_report_has_all_tables(finished):
    done, folder = finished
    report = (folder / "release.md").read_text()
    assert done.out == report and report.startswith(f"{release.HEADING}\n\n20")
    for words in (r"\d+ cores, \d+ GB", r"Theano 1\.0\.5, numpy \d", r"g\+\+ \d"):
        assert re.search(words, report), report
    assert re.findall(r"^\| (\w+) \| done \| \d+ \|$", report, re.M) == [
        *("start", "training", "data"),
    ]
    (_, *columns), empty, filled = table(report, "Cold and warm start")
    assert (empty[0], filled[0]) == ("empty", "filled") and columns[0] == "to the first step, s"
    cold, warm = ([float(cell.split()[0]) for cell in row[1:]] for row in (empty, filled))
    # a compiled step is not compiled again
    assert cold[4] > 1 and warm[4] == 0
    for first_step, to_metric, whole, *_ in (cold, warm):
        assert 0 < first_step + to_metric <= whole + 0.1
    columns, *rows = table(report, "Training")
    assert [row[:2] for row in rows] == [["rsc15", "32 x 100"]]
    assert columns[9:] == ["official PyTorch port", "of the limit"]
    ((_, _, limit, merged_limit, speed, *others),) = rows
    assert float(merged_limit) > float(limit) and float(speed) > 0
    for cell in (*others[:2], others[3], others[5]):
        assert re.fullmatch(r"\d+% \(\d+ to \d+\)", cell)
    assert others[4] == "3000"
    assert "'python -m benchmarks.pytorch_port '\"'\"'a {{port}}'" in report
    columns, *rows = table(report, "Data")
    assert [row[0] for row in rows] == ["2,000", "10,000"]
    assert all(re.fullmatch(r"\d+\.\d s, -?\d+, -?\d+", cell) for row in rows for cell in row[1:6])
    assert "`python -m benchmarks.data 2000 10000 --items 500`" in report and "--json" not in report


def test_the_pictures_can_be_looked_at(finished):
    _, folder = finished
    names = {"limit", "speed", "data"}
    assert {path.name for path in folder.iterdir()} == {
        "release.md", *(f"{name}.{kind}" for name in names for kind in ("png", "svg")),
    }  # fmt: skip
    for name in names:
        width, height = size_of_png(folder / f"{name}.png")
        assert 1000 < width < 2000 and 500 < height < 1200
        root = xml.etree.ElementTree.parse(folder / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert f"]({name}.png)" in (folder / "release.md").read_text()


def test_progress_names_the_parts_and_nothing_is_left(finished):
    done, folder = finished
    said = done.err.splitlines()
    for i, part in enumerate(("start", "training", "data"), 1):
        assert re.fullmatch(rf"{i} of 3: {part}; about \d+ (s|min) left", said[2 * i - 2]), said
        assert re.fullmatch(rf"{part}: done \(\d+ s\)", said[2 * i - 1]), said
    assert not [*(folder.parent.parent / "tmp").iterdir()]


# ---------------------------------------------------------------------------- what goes wrong


def test_a_part_that_fails_is_reported_and_the_rest_goes_on(tmp_path):
    """No machine has a card of this number; the folder has a report and a picture of ours."""
    (tmp_path / "release.md").write_text(f"{release.HEADING}\nan old one\n")
    flags = {"THEANO_FLAGS": "device=cuda99", "OMP_NUM_THREADS": "2"}
    done = run("-o", tmp_path, "--parts", "serving", "gpu", "-d", "cuda99", **flags)
    report = (tmp_path / "release.md").read_text()
    assert done.code == 1 and "1 part(s) failed" in done.err and "Traceback" not in done.err
    assert ". OMP_NUM_THREADS=2, THEANO_FLAGS=device=cuda99.\n" in report
    assert re.search(r"^\| serving \| done \| \d+ \|$", report, re.M)
    assert re.search(r"^\| gpu \| failed: exit code 2 \| \d+ \|$", report, re.M)
    said = report.split("\ngpu: failed: exit code 2\n\n")[1]
    assert said.startswith("    error: device cuda99 (asked for) cannot be opened")
    assert [row[0] for row in table(report, "Serving")[1:]] == ["60 x 4", "90 x 3"]


def test_an_interrupt_writes_what_is_known(tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.release", "--quick", "-o", str(tmp_path / "out"),
         "--parts", "data", "serving"],
        cwd=ROOT, preexec_fn=own_signals, env=environment(TMPDIR=str(temporary)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    rows = '"events": 2000'
    while not any(rows in path.read_text() for path in temporary.glob("*/data.json")):
        assert process.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 130 and error.splitlines()[-1] == "interrupted" and not out
    assert children and not any(Path("/proc", child).exists() for child in children)
    assert not [*temporary.iterdir()]
    report = (tmp_path / "out" / "release.md").read_text()
    assert "| data | interrupted |  |\n| serving | not run |  |" in report
    assert [row[0] for row in table(report, "Data")[1:]] == ["2,000"]
    assert size_of_png(tmp_path / "out" / "data.png")[0] > 1000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--parts", "speed"], "got 'speed'"),
        (["--port", "."], "--port: . has no gru4rec_pytorch.py"),
        (
            ["--port", "port", "--parts", "data"],
            "--port: the port is measured in the part training",
        ),
        (["--data", "none.tsv"], "none.tsv: there is no such file"),
        (["--data", ""], "the path of a click log is empty"),
        (["--parts", "data", "-d", "foo"], "device 'foo' is not known; give auto, cpu, cuda0"),
        (["-o", "file"], "-o file: File exists; give a writable directory"),
        (["-o", "file/below"], "-o file/below: Not a directory; give a writable directory"),
        (["-o", f"new/{300 * 'x'}"], ": File name too long; give a writable directory"),
        (["-o", "theirs"], "it exists and is not the report of a release; give another path, or "),
        (["-o", "drawn"], "it exists and is not a picture of a release; give another path, or "),
    ],
)
def test_bad_arguments_end_before_anything_is_measured(tmp_path, arguments, said):
    (tmp_path / "file").write_text("theirs\n")
    for name in ("theirs/release.md", "drawn/limit.png", "port/gru4rec_pytorch.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("theirs\n")
    before = sorted(tmp_path.rglob("*"))
    if "-o" not in arguments:
        arguments = [*arguments, "-o", "new/folder"]
    done = run(*arguments, cwd=tmp_path)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err and not done.out
    assert "1 of " not in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_without_matplotlib(tmp_path):
    (tmp_path / "matplotlib.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'matplotlib'\", name='matplotlib')\n"
    )
    done = run("-o", tmp_path / "out", path=[str(tmp_path)])
    assert "needs the package matplotlib; install it with `pip install" in complaint(done)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------- tables, pictures


def training_rows():
    rounds = {"limit": [100.0, 200.0, 150.0], "merged_limit": [200.0, 200.0, 200.0]}
    rounds.update(training=[90.0, 220.0, 150.0], without_merging=[50.0, 50.0, 50.0])
    first = {"parameters": "rsc15", "batch_size": 32, "units": 100, **rounds}
    second = {**first, "parameters": "coveo"}
    return [
        {**first, "others": [[25.0, 25.0, 30.0]]},
        {**second, "others": [[25.0, None, None]]},
    ]


def test_ratios_are_those_of_each_round():
    columns, _, first, second = tables.training(training_rows(), ["port"])
    assert columns.endswith("| without merging | of the limit | port | of the limit |")
    ours = "150 | 200 | 150 | 100% (90 to 110) | 75% (45 to 110) | 50 | 33% (25 to 50)"
    assert first == f"| rsc15 | 32 x 100 | {ours} | 25 | 20% (12 to 25) |"
    assert second == f"| coveo | 32 x 100 | {ours} | failed |  |"
    rows = [
        {"mode": "plain", "microseconds": [100.0, 200.0, 300.0]},
        {"mode": "adam", "microseconds": [110.0, 260.0, 360.0]},
    ]
    assert tables.modes(rows)[2:] == [
        "| plain | 200 | 1.00 (1.00 to 1.00) |",
        "| adam | 260 | 1.20 (1.30 to 1.10) |",
    ]


def test_threads_beside_one():
    modelled = {"1": [0.004, 0.002, 0.004], "2": [0.002, 0.002, 0.001], "32": [0.0005] * 3}
    row = {"parameters": "rsc15", "batch_size": 32, "units": 100, "threads": 4, "bytes": 10**7}
    assert tables.threads([{**row, "measured": [0.001] * 3, "modelled": modelled}]) == [
        "| parameters | mini-batch x units | 1 thread, us a step | 4 threads, measured "
        "| 2, modelled | 32, modelled | GB/s with 32 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| rsc15 | 32 x 100 | 2000 | 2.00 | 2.00 | 4.00 | 20 |",
    ]


def test_formats_beside_each_other():
    def row(events, kind, reader):
        numbers = {"reader": reader, "read_events": 2 * reader, "peak": 3e6 * events}
        return {"events": events, "format": kind, **numbers}

    rows = [row(10**6, "tsv", 0.1), row(10**6, "csv", 0.2), row(1500, "tsv", 0.3)]
    assert tables.reading(rows) == [
        "| format | 1,500: reader, read_events | 1 million | of the reader | peak, MB |",
        "| --- | --- | --- | --- | --- |",
        "| .tsv | 0.30, 0.60 | 0.10, 0.20 | 200% | 3000000 |",
        "| .csv |  | 0.20, 0.40 | 200% | 3000000 |",
    ]


def test_bars_of_both_limits_and_their_spread():
    with plot.style():
        axes = pictures.limit(training_rows()).axes[0]
    heights = [[bar.get_height() for bar in bars.patches] for bars in axes.containers[1::2]]
    assert heights == [pytest.approx([100, 100]), pytest.approx([75, 75])]
    hatches = [bars.patches[0].get_hatch() for bars in axes.containers[1::2]]
    assert hatches == [None, "///"]
    (spread, *_), _ = (bars.lines[2][0].get_segments() for bars in axes.containers[::2])
    assert spread[:, 1] == pytest.approx([90, 110])
    assert "%" in axes.get_ylabel() and axes.get_ylim()[0] == 0


def test_speed_beside_others_on_one_axis():
    with plot.style():
        axes = pictures.beside(training_rows(), ["port"]).axes[0]
        alone = pictures.beside(training_rows(), []).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["training", "without merging equal negatives", "port"]
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "Speed (mini-batches/s)")
    # one that has failed has no point
    assert [list(bars.lines[0].get_ydata()) for bars in axes.containers] == [
        *([150, 150], [50, 50], [25]),
    ]
    assert alone.get_yscale() == "linear" and "% of the limit" in alone.get_ylabel()
    assert len({bars.lines[0].get_marker() for bars in axes.containers}) == 3
    rows = [{**row, "others": [[None, None, None]]} for row in training_rows()]
    for kind in pictures.FORMATS:  # there is a picture nevertheless
        picture = pictures.drawn(pictures.beside, kind, rows, ["port"])
        assert picture.startswith(plot.FORMATS[kind][0])


def test_rows_do_not_replace_the_log(tmp_path):
    log = tmp_path / "log.tsv"
    shutil.copy(TRAIN, log)
    for file in (log, tmp_path):
        command = ["-m", "benchmarks.modes", "--data", log, "--json", file]
        said = complaint(python(*command, cwd=ROOT))
        assert said.startswith(f"cannot write rows to {file}: it is ")
    assert log.read_bytes() == TRAIN.read_bytes()


@pytest.mark.parametrize(
    "theirs", [b"notes", b"\xff", b"{}", b"[1]", b'[{"name": "me"}]', b"[" * 100_000]
)
def test_rows_do_not_replace_other_files(tmp_path, theirs):
    path = tmp_path / "theirs.json"
    path.write_bytes(theirs)
    with pytest.raises(InputError) as said:
        results.Results(argparse.Namespace(json=str(path)))
    assert str(said.value).endswith("it exists and is not a file of rows; give another path")
    assert path.read_bytes() == theirs


@pytest.mark.parametrize("earlier", [None, "", json.dumps([{"events": 7}], indent=1)])
def test_rows_are_there_after_each(tmp_path, earlier):
    """Until the first one, those of an earlier measurement are."""
    path = tmp_path / "rows.json"
    if earlier is not None:
        path.write_text(earlier)
    found = results.Results(argparse.Namespace(json=str(path)))
    assert earlier is None or path.read_text() == earlier
    for i in range(2):
        found.add(events=i, rounds=[0.1, None])
        assert json.loads(path.read_text())[i] == {"events": i, "rounds": [0.1, None]}


def test_processor_seconds_of_a_process_and_of_its_children():
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    for program, (least, most) in ((code, (0, 0.25)), (busy, (0.25, 5))):
        process = subprocess.Popen([sys.executable, "-c", program])
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        own, children = start.processor_seconds(process.pid)
        assert process.wait() == 0
        assert least <= own <= most and (children > 0.25) == (program == code)
