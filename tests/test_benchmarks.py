"""The benchmarks run; what they measure depends on the machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.cli import TEST, TRAIN, own_signals

from benchmarks import threads, training
from gru4rec_toolkit.ops import library

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--events", "3000", "--items", "200"]


def start(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600
    )


def run(*arguments):
    done = start(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_beside_the_limit():
    assert library.usable()
    table = run("benchmarks.training", *SMALL, "--rounds", "1", "rsc15")
    row = table.splitlines()[-1]
    spread = r" +\d+% \(\d+% to \d+%\)"
    number = r" +(\d+\.\d)"
    found = re.fullmatch(
        rf"rsc15 +32 x 100{number}{number}{number}{spread}{spread}{number}{spread}", row
    )
    assert found, table
    limit, merged, _, _ = map(float, found.groups())
    assert merged > limit  # 200 items: hardly a tenth of the columns are left


OTHER = """
import runpy, sys
settings = runpy.run_path(sys.argv[2])["gru4rec_params"]
assert settings["n_epochs"] == 1
unknown = settings.keys() - {known}
if unknown:
    sys.exit(f"unknown: {{unknown}}")
events = len(open(sys.argv[1]).readlines()) - 1
speed = events + settings.get("elu_param", 0)
print(f"Epoch1 --> loss: 1.0 (1.00s) [{{speed}} mb/s | 9 e/s]")
"""
# what the official PyTorch port takes
PORT = (
    "loss", "constrained_embedding", "embedding", "elu_param", "layers", "n_epochs", "batch_size",
    "dropout_p_embed", "dropout_p_hidden", "learning_rate", "momentum", "n_sample", "sample_alpha",
    "bpreg", "logq",
)  # fmt: skip


def test_training_beside_other_implementations(tmp_path):
    """The reference's parameters, those of its port, and one that does not know the other's."""
    (tmp_path / "reference.py").write_text(OTHER.format(known={*PORT, "final_act"} - {"elu_param"}))
    (tmp_path / "port.py").write_text(OTHER.format(known=set(PORT)))
    others = []
    for program, file in (("reference", "parameters"), ("port", "port_parameters")):
        command = f"{sys.executable} {tmp_path / program}.py {{data}} {{{file}}}"
        others += ["--other", command]
    table = run("benchmarks.training", *SMALL, "--rounds", "1", *others, "retailrocket")
    percent = r"\d+% \(\d+% to \d+%\)"
    assert re.search(rf"3000\.0 +{percent} +3000\.5 +{percent}$", table.splitlines()[-1]), table


def test_another_implementation_that_fails(tmp_path):
    """The table of the others is printed, then what the program said."""
    (tmp_path / "port.py").write_text(OTHER.format(known=set(PORT)))
    command = f"{sys.executable} {tmp_path / 'port.py'} {{data}} {{parameters}}"
    others = ["--other", command, "--other", "/no/such/program"]
    done = start("benchmarks.training", *SMALL, "--rounds", "2", *others, "rsc15")
    row = done.stdout.splitlines()[-1]
    assert re.match(r"rsc15 +32 x 100 .*\d%\) +failed +failed$", row), done.stdout
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "exit code 1:\nunknown: {'final_act'}\n" in done.stderr, done.stderr
    assert done.stderr.endswith("/no/such/program: No such file or directory\n")


BESIDE = """
import os
from pathlib import Path
for folder in Path("/proc").glob("[0-9]*"):
    parent, nice = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1:17:15]
    if int(parent) == os.getppid() and b"os.getppid() ==" in (folder / "cmdline").read_bytes():
        Path(__file__).with_name("process").write_text(folder.name)
        print(f"{int(nice) - os.nice(0)}.25 mb/s")
"""


def test_training_beside_a_busy_process(tmp_path):
    (tmp_path / "beside.py").write_text(BESIDE)
    options = ["--beside", "7", "--other", f"{sys.executable} {tmp_path / 'beside.py'}"]
    table = run("benchmarks.training", *SMALL, "--rounds", "1", *options, "rsc15")
    assert re.search(r" 7\.2 +\d+% \(\d+% to \d+%\)$", table.splitlines()[-1]), table
    assert not Path("/proc", (tmp_path / "process").read_text()).exists()


def test_the_busy_process_does_not_outlive_a_killed_benchmark():
    code = "from benchmarks.training import busy_process\nwith busy_process(19): "
    code += "print('ready', flush=True); import time; time.sleep(60)"
    benchmark = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert benchmark.stdout.readline() == "ready\n"
    children = Path(f"/proc/{benchmark.pid}/task/{benchmark.pid}/children").read_text().split()
    benchmark.kill()
    benchmark.wait()
    benchmark.stdout.close()
    (busy,) = children

    def lives() -> bool:
        try:
            return Path("/proc", busy, "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    end = time.monotonic() + 30
    while lives() and time.monotonic() < end:
        time.sleep(0.01)
    assert not lives()


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


INTERVAL = r"(-?0\.\d{4}) \((-?0\.\d{4}) to (-?0\.\d{4})\)"


def baseline_rows(*options: str) -> list[list[str]]:
    lines = run("benchmarks.baselines", *options).splitlines()
    return [line.strip("|\n").split("|") for line in lines if line.startswith("| ")]


def test_baselines_on_several_data_sets():
    data = ["--data", str(TRAIN), str(TEST)]
    rows = baseline_rows(*data, *data, "--rounds", "1", "markov", "vsknn")
    rows = [[cell.strip() for cell in row] for row in rows]
    names = ["method", "---", "markov", "vsknn", "vsknn idf_weighting=1"]
    assert [row[0] for row in rows] == 2 * names
    for _, *metrics, optimist, fit, evaluation in rows[2:5]:
        for cell in metrics:
            value, low, high = map(float, re.fullmatch(INTERVAL, cell).groups())
            assert 0 < low < value < high <= float(optimist) + 0.05 <= 1.05
        assert all(re.fullmatch(r"\d+\.\d\d", text) for text in (fit, evaluation))
    done = start("benchmarks.baselines", *data, "knn")
    assert done.returncode == 2 and "unknown: knn; known: random, popularity" in done.stderr


def test_baselines_beside_gru4rec(tmp_path):
    file = tmp_path / "p.py"
    file.write_text("gru4rec_params = OrderedDict([('layers', [8]), ('n_epochs', 1)])")
    options = ["--data", str(TRAIN), str(TEST), "--rounds", "1", "random"]
    rows = [[c.strip() for c in row] for row in baseline_rows(*options, "--gru4rec", str(file))]
    assert [row[0] for row in rows] == ["method", "---", "random", "GRU4Rec"]
    difference, low, high = map(float, re.fullmatch(INTERVAL, rows[2][4]).groups())
    assert low <= difference <= high and rows[3][4] == ""
    # it is that of the two recalls
    recalls = [float(row[1].split()[0]) for row in rows[2:]]
    assert abs(recalls[1] - recalls[0] - difference) < 2e-4 and recalls[1] > recalls[0]
    text = "layers=8,n_epochs=1"
    again = [[c.strip() for c in row] for row in baseline_rows(*options, "--gru4rec", text)]
    assert again[3][:4] == rows[3][:4]
    done = start("benchmarks.baselines", *options, "--gru4rec", text, "--gru4rec", text)
    assert done.returncode == 2 and "give it as often as --data" in done.stderr


def test_gru4rec_is_trained_with_what_is_given(tmp_path):
    from benchmarks.baselines import gru4rec_model

    file = tmp_path / "p.py"
    file.write_text("gru4rec_params = OrderedDict([('layers', [8]), ('n_epochs', 3)])")
    for given in (str(file), "layers=8,n_epochs=3"):
        gru = gru4rec_model(given, {"item_key": "thing"})
        assert (gru.layers, gru.n_epochs, gru.item_key) == ([8], 3, "thing")


def test_serving_of_two_sizes():
    lines = run("benchmarks.serving", "60x4", "90x3", "--rounds", "1").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[0] for row in rows] == ["60 x 4", "90 x 3"]
    for _, *single, recommend, batches in rows:
        for cell in single:
            middle, late = map(float, re.fullmatch(r"(\d+\.\d{3}) \((\d+\.\d{3})\)", cell).groups())
            assert 0 < middle <= late
        assert float(recommend) > 0 and float(batches) > 0
    done = start("benchmarks.serving", "60x0")
    assert done.returncode == 2 and "expected ITEMSxUNITS, such as 40000x100" in done.stderr


def test_gradients_through_time(tmp_path):
    """Enough of the process to see that the state is taught to carry the key."""
    file = tmp_path / "rows.json"
    sizes = ["--rounds", "1", "--steps", "8"]
    table = run("benchmarks.bptt", *SMALL, *sizes, "--lengths", "1", "8", "--json", str(file))
    rows = json.loads(file.read_text())
    recall = {row["bptt"]: row["recall"] for row in rows if "recall" in row}
    assert recall[1] < 0.3 and recall[8] > 0.6, table
    assert [row["bptt"] for row in rows if "microseconds" in row] == [1, 8]


def test_modes_beside_the_plain_step():
    table = run("benchmarks.modes", *SMALL, "--rounds", "1", "--steps", "5")
    assert re.search(r"^cross-entropy +\d+ +1\.00 \(1\.00 to 1\.00\)$", table, re.MULTILINE)
    for mode in ("bpr", "top1", "top1-max", "xe_logit", "one-hot input", "two layers", "adam"):
        assert re.search(rf"^{mode} +\d+ +\d+\.\d\d \(", table, re.MULTILINE), table


def test_more_threads_than_there_are(tmp_path):
    options = ["--rounds", "2", "--seconds", "0.05", "--json", tmp_path / "rows.json", "rsc15"]
    *_, heading, _, line = run("benchmarks.threads", *SMALL, *options).splitlines()
    assert heading.count("modelled") == 5 and line.startswith("| rsc15 | 32 x 100 |")
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    alone, *more = map(statistics.median, row["modelled"].values())
    assert 0 < min(more) < alone and row["bytes"] > 10**6
    assert len(row["measured"]) == len(row["modelled"]["32"]) == 2


class SimulatedKernels:
    """A team whose step takes 1 s alone and 6 s that can be shared out, by a clock of its own."""

    def __init__(self, threads: int) -> None:
        self.threads, self.simulated, self.saved, self.now = threads, 0, 9e9, 0.0
        self.steps: list[int] = []
        self.gk_nanoseconds_saved = lambda: self.take_saved()

    def take_saved(self) -> float:
        saved, self.saved = self.saved, 0.0
        return saved

    def gk_threads(self) -> int:
        return self.threads

    def gk_set_threads(self, threads: int) -> None:
        self.threads = threads

    def gk_simulate_team(self, on: int) -> None:
        self.simulated = on

    def run_steps(self, n: int) -> None:
        self.steps.append(n)
        self.now += n * (7 if self.simulated else 1 + 6 / self.threads)
        self.saved += n * 1e9 * (6 - 6 / self.threads) if self.simulated else 0


def test_simulated_threads_take_what_they_do_not_save(monkeypatch):
    kernels = SimulatedKernels(3)
    monkeypatch.setattr(library, "load", lambda: kernels)
    monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: kernels.now))
    monkeypatch.setattr(threads, "bytes_of_a_step", lambda trainer: 8)
    rewound = []
    trainer = SimpleNamespace(
        prepare_block=lambda n: (lambda: rewound.append(n), kernels.run_steps, n),
        model=SimpleNamespace(batch_size=32, layers=[100]),
    )
    row = threads.measure(trainer, 2, seconds=30)
    assert (row["threads"], row["measured"], row["bytes"]) == (3, [3.0] * 2, 8)
    assert row["modelled"] == {n: [pytest.approx(1 + 6 / n)] * 2 for n in threads.THREADS}
    assert (kernels.threads, kernels.simulated) == (3, 0)
    # those of 30 s, each time from the beginning of the block
    assert kernels.steps[2:] == [10] * 14 and len(rewound) == len(kernels.steps)


def test_bytes_of_a_step_are_those_of_the_rows_that_it_looks_up():
    def variable(*shape: int):
        return SimpleNamespace(get_value=lambda borrow: np.zeros(shape))

    training = SimpleNamespace(
        network=SimpleNamespace(variables=lambda: [variable(50, 4), variable(4, 12)]),
        optimizer_state=lambda: {"table": variable(50, 4), "dense": variable(4, 12)},
    )
    trainer = SimpleNamespace(
        model=SimpleNamespace(batch_size=3), n_columns=lambda: 7,
        log=SimpleNamespace(n_items=50), training=training,
    )  # fmt: skip
    assert threads.bytes_of_a_step(trainer) == 4 * (5 + 2) * (10 * 4 + 4 * 12)


# ---------------------------------------------------------------------------- mistakes, endings

WHOLE = "expected a whole number, 1 or more (up to 1000000000)"
NO_COMMAND = "--other: expected a command"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *(
            ([module, "--rounds", text], f"--rounds: {WHOLE}, got '{text}'")
            for module in ("training", "threads", "modes", "start", "ranking", "reading", "serving")
            for text in ("0", "-1", "two")
        ),
        (["modes", "--steps", "0"], f"--steps: {WHOLE}, got '0'"),
        (["threads", "--seconds", "x"], "--seconds: expected a number above 0, got 'x'"),
        (["data", "0"], f"events: {WHOLE}, got '0'"),
        (["training", "--other", ""], f"{NO_COMMAND}, got nothing"),
        *(
            (["training", "--other", text], f"{NO_COMMAND} as a shell takes it, with {{data}}, ")
            for text in ("{foo}", "echo {", "echo 'x", "{}", "{0}", "{data.x}")
        ),
        (["training", "--data", ""], "the path of a click log is empty"),
        (["threads", "--data", "none.tsv"], "none.tsv: there is no such file"),
        (["start", "--events", "9" * 23], f"--events: {WHOLE}, got '{'9' * 20}'"),
        (["ranking", "--activation", "elu-abc"], "expected one of linear, relu, tanh, leaky, elu,"),
        (["ranking", "--activation", "softmax"], "with numbers as in elu-0.5, got 'softmax'"),
        (["gpu", "-d", "cpu"], "-d cpu: this measures a GPU"),
        (["training", "--events", "1", "rsc15"], "needs a session with two events"),
        (["modes", "--events", "1"], "needs a session with two events"),
    ],
)
def test_mistakes_are_one_sentence(arguments, said):
    done = start(f"benchmarks.{arguments[0]}", *arguments[1:])
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_cold_start_ends_with_its_measurement(tmp_path, ending):
    """The training, its compilers and the temporary directory."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.start", *SMALL],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=own_signals,
    )  # fmt: skip

    def working() -> set[str]:
        """Return the programs of which a command line or the environment names the directory."""
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(tmp_path).encode() in (folder / "environ").read_bytes():
                    found.add((folder / "cmdline").read_bytes().split(b"\0")[0].decode())
        return found

    while not any(name.endswith("cc1plus") for name in working()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(ending)
    out, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[ending]
    assert "Traceback" not in err and out == ""
    until = time.monotonic() + 10  # a process that was killed is there for a moment
    while working() and time.monotonic() < until:
        time.sleep(0.05)
    assert working() == set() and list(tmp_path.iterdir()) == []


class Ways:
    """Products of which a step takes so many seconds on the team, and by BLAS's threads."""

    def __init__(self, on_team: float, by_itself: float) -> None:
        self.of_a_step, self.spent = {True: on_team, False: by_itself}, 0.0

    def seconds(self, team: bool, n_steps: int, sizes: tuple[int, int, int]) -> float:
        seconds = n_steps * self.of_a_step[team]
        self.spent += seconds
        return seconds


@pytest.mark.parametrize(
    ("on_team", "by_itself"), [(1e-3, 1.2e-3), (1.2e-3, 1e-3), (1e-3, 0.5), (0.5, 1e-3)]
)
def test_the_limit_is_the_faster_way(on_team, by_itself):
    """A way that takes 500 times as long is not tried for the time of the other."""
    ways = Ways(on_team, by_itself)
    limit = training.Limit(ways, (32, 100, 200))
    assert limit.team == (on_team < by_itself) and limit.n_steps == 100
    assert ways.spent < 10
    limit.run()
    assert limit.rate() == pytest.approx(1 / min(on_team, by_itself))


# ---------------------------------------------------------------------------- benchmarks.gpu_check


PORT_OF_THE_TESTS = """
class GRU4Rec:
    def __init__(self, device):
        self.device = device
    def set_params(self, **settings):
        self.settings = settings
    def fit(self, data):
        assert list(data) == ["SessionId", "ItemId", "Time"] and "final_act" not in self.settings
        for epoch in range(self.settings["n_epochs"]):
            print(f"Epoch{epoch} on {self.device} [{100 * epoch}.5 mb/s | 9 e/s]")
"""


@pytest.fixture
def port(tmp_path):
    """A folder of a PyTorch port, and a PyTorch."""
    (tmp_path / "port").mkdir()
    (tmp_path / "port" / "gru4rec_pytorch.py").write_text(PORT_OF_THE_TESTS)
    (tmp_path / "port" / "torch.py").write_text("device = str\n")
    return tmp_path / "port"


def test_the_port_warms_up_before_its_last_epoch(tmp_path, port):
    data = tmp_path / "data.tsv"
    data.write_text("SessionId\tItemId\tTime\n1\t2\t3\n")
    settings = tmp_path / "settings.py"
    settings.write_text("gru4rec_params = {'loss': 'bpr-max', 'n_epochs': 1}\n")
    out = run("benchmarks.pytorch_port", str(port), str(data), str(settings), "cuda:1")
    assert out.splitlines()[-1] == "Epoch2 on cuda:1 [200.5 mb/s | 9 e/s]"


def gpu_check(tmp_path, *arguments):
    """No machine has a card of this number."""
    report = tmp_path / "report.md"
    done = start(*("benchmarks.gpu_check", "-d", "cuda99", "-o", str(report), *SMALL, *arguments))
    return done, report.read_text()


def test_a_part_that_fails_is_reported_and_the_rest_goes_on(tmp_path, port):
    done, report = gpu_check(tmp_path, "--parts", "training", "speed", "--port", str(port), "rsc15")
    assert done.returncode == 1 and "3 part(s) failed" in done.stderr
    for part in ("a small training", "compilation for rsc15", "speed of rsc15"):
        assert re.search(rf"^\| {part} \| failed: exit code \d \| \d+ \|$", report, re.M), report
        assert f"\n{part}: failed: exit code " in report
    assert f", Python {platform.python_version()}, Theano 1.0.5, numpy {np.__version__}, " in report
    assert report.count("device cuda99 (asked for) cannot be opened") == 3
    assert "| PyTorch port, rsc15 | passed |" in report
    assert "events on 200 items:" in report and "| port, mini-batches/s |" in report


def test_a_check_that_has_no_time_left(tmp_path):
    done, report = gpu_check(tmp_path, "--parts", "training", "kernels", "--minutes", "1e-9")
    assert done.returncode == 1
    # the training, and the list of the kernels' tests
    assert report.count("left out: no time was left") == 2 * 2
    _, report = gpu_check(tmp_path, "--parts", "training", "--minutes", "0.005")
    assert "| a small training | stopped after 0 s |" in report


def test_the_kernels_are_tested_in_groups(tmp_path):
    from benchmarks import gpu_check

    sizes = argparse.Namespace(data=None, events=1000, items=10, device="cpu", minutes=5)
    sizes.parts, sizes.names = ["kernels"], []
    check = gpu_check.Check(sizes, tmp_path)
    listed, groups = check.kernel_tests()
    assert listed == [] and len(groups) == gpu_check.KERNEL_PARTS
    names = [name for group in groups for name in group]
    assert len(set(names)) == len(names) > 100
    parts = check.checks(groups, 60)
    assert [part.command[-len(group) :] for part, group in zip(parts, groups)] == groups
    assert len({part.name for part in parts}) == len(parts)


def test_the_rows_of_speeds_and_of_the_port(tmp_path):
    from benchmarks import gpu_check

    sizes = argparse.Namespace(data=None, events=1000, items=10, device="cuda0", minutes=1)
    check = gpu_check.Check(sizes, tmp_path)
    rows = {
        "rsc15": ["| rsc15 | 32 x 100 | 300.0 (290.0 to 310.0) | 9600 | 40 | 0 |"],
        "coveo": ["| coveo | 144 x 512 | 200.0 (1.0 to 2.0) | 9600 | 40 | 0 |"],
        "rees46": [],
    }
    title, _, header, line, *table = check.table(rows, {"rsc15": 200.0, "coveo": None})
    assert title == "Training on 1000 synthetic events on 10 items:"
    assert header.count("|") == line.count("|") == 9
    assert table == [f"{rows['rsc15'][0]} 200.0 | 1.50 |", f"{rows['coveo'][0]} | |"]
    assert check.table(rows, {})[4:] == [rows["rsc15"][0], rows["coveo"][0]]


def test_the_check_without_pytest(tmp_path, monkeypatch):
    from benchmarks import gpu_check

    sizes = argparse.Namespace(data=None, events=1000, items=10, device="cuda0", minutes=1)
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: None)
    part = gpu_check.Part("tests", ["python", "-m", "pytest"], 10)
    result = gpu_check.Check(sizes, tmp_path).run_part(part)
    assert result.problem == "left out: pytest is not installed"


def test_a_report_that_cannot_be_written(tmp_path):
    done = start(*("benchmarks.gpu_check", "-d", "cuda99", "-o", str(tmp_path / "none" / "x.md")))
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: cannot write the report to ")


def test_an_interrupt_ends_the_parts_and_writes_what_is_known(tmp_path):
    report = tmp_path / "report.md"
    command = ["benchmarks.gpu_check", "-d", "cpu", "-o", str(report), *SMALL, "rsc15"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--parts", "speed"], cwd=ROOT, preexec_fn=own_signals,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    threads = Path(f"/proc/{process.pid}/task")

    def started():
        return [c for t in threads.iterdir() for c in (t / "children").read_text().split()]

    while not started():
        assert process.poll() is None
        time.sleep(0.1)
    parts = started()
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=300)
    assert (process.returncode, error.strip()) == (130, "interrupted")
    assert "compilation for rsc15: failed: exit code -9" in out and "speed of" not in out
    assert not any(Path("/proc", part).exists() for part in parts)
    assert report.read_text().startswith("### cpu\n")


def test_a_port_that_is_not_there(tmp_path):
    done = start("benchmarks.gpu_check", "--port", str(tmp_path))
    assert done.returncode == 2 and "has no gru4rec_pytorch.py" in done.stderr


# ---------------------------------------------------------------------------- benchmarks.gpu_model


def test_the_model_of_a_gpu_by_hand():
    from benchmarks import gpu_model

    card = gpu_model.Card("made up", bandwidth=1e12, fp32=1e13, tf32=4e13)
    # 40 us of launches, 30 of bytes, 20 of products, 10 of Theano's VM
    step = gpu_model.Step(20, 10, moved=3e7, needed=2e7, floor=1e7, operations=2e8)
    times = gpu_model.estimate(step, card, 4e-6, 0.5e-6)
    parts = [times.launches, times.bytes, times.operations, times.host]
    assert parts == pytest.approx([40e-6, 30e-6, 20e-6, 10e-6])
    assert times.one_after_the_other == pytest.approx(90e-6)
    assert times.all_at_once == pytest.approx(50e-6)
    assert gpu_model.gains(step, card, 4e-6, 0.5e-6) == pytest.approx(
        {
            "half the launches": 20 / 90,
            "only the bytes of the floor": 20 / 90,
            "products in TF32": 15 / 90,
            "only the bytes that are needed": 10 / 90,
            "half the nodes": 0,
        }
    )
    # a VM that is slower than the GPU: its time is all that counts, beside the launches
    slow = gpu_model.estimate(step, card, 4e-6, 5e-6)
    assert slow.one_after_the_other == slow.all_at_once == pytest.approx(140e-6)
    assert gpu_model.gains(step, card, 4e-6, 5e-6)["half the nodes"] == pytest.approx(50 / 140)
    assert next(iter(gpu_model.gains(step, card, 4e-6, 5e-6))) == "half the nodes"
    row = gpu_model.table_row("retailrocket", "2 x 3", step, gpu_model.CARDS[0], times)
    assert row == (
        "| retailrocket | 2 x 3 | A30 | 10 | 40 | 30 | 20 | 10 | 11111 to 20000 | 1027 |"
    )


def test_the_model_counts_in_the_compiled_step(opencl):
    """Launches and multiplications of a step with one layer, for M sessions, L units, N columns."""
    counted = opencl.program(
        """
        from gru4rec_toolkit.theano_setup import theano
        theano.config.allow_gc = False
        from benchmarks import gpu_model
        from benchmarks.training import Trainer, synthetic_log
        settings = {"layers": [16], "batch_size": 8, "n_sample": 32, "loss": "cross-entropy",
                    "final_act": "softmax", "constrained_embedding": True}
        trainer = Trainer(settings, synthetic_log(600, 90), merge=True)
        step = gpu_model.count(trainer)
        fgraph = trainer.training.step_function
        storage = fgraph.fn.storage_map
        loss = next(n for n in fgraph.maker.fgraph.apply_nodes if "GpuLoss" in str(n.op))
        columns = storage[loss.inputs[1]][0].shape[0]
        print("COUNTED", step.launches, int(step.operations), columns, step.moved > step.floor > 0)
        """
    ).split("COUNTED")[1]
    launches, operations, columns, ordered = counted.split()
    m, n, columns = 8, 16, int(columns)
    # x Wx, h Wrz, (r h) Wh and two gradients of each, but not that of h, where the step ends
    cell = 3 * (m * n * 3 * n) + 2 * (m * n * 2 * n) + 3 * (m * n * n)
    of_scores = 3 * m * n * columns
    assert int(operations) == 2 * (cell + of_scores)
    assert (launches, ordered) == ("20", "True") and m < columns <= 40


def test_the_model_of_a_gpu_as_a_table(opencl):
    table = run("benchmarks.gpu_model", *SMALL, "retailrocket")
    row = r"\| retailrocket \| 80 x 224 \| (A30|H200) \| 21 \| 105 (\| \d+ ){3}\| \d+ to \d+ \|"
    assert re.findall(row, table) and "| 1027 |" in table
    gains = [line for line in table.splitlines() if "half the launches" in line]
    assert len(gains) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--launch", "-5"], "expected a number above 0, got '-5'"),
        (["--launch", "nan"], "expected a number above 0, got 'nan'"),
        (["--items", "0"], f"{WHOLE}, got '0'"),
        (["-d", "cpu"], "-d cpu: launches and bytes are those of a GPU's step"),
        (["--data", "no-such-file.tsv"], "error: no-such-file.tsv: there is no such file"),
        (["-d", "cuda99"], "error: device cuda99 (asked for) cannot be opened"),
    ],
)
def test_what_the_model_of_a_gpu_does_not_take(arguments, said):
    if arguments[0] == "--data":
        pytest.importorskip("pygpu")
    done = start("benchmarks.gpu_model", *arguments, "rsc15")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
