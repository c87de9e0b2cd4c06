"""The laws of the house that import-linter does not know: those of the faces, and of the wheel."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers.cli import ROOT, python

# each face with those that it may import; all of them may import the package
FACES = {
    "run": {"evaluation", "gru4rec"},
    "paropt": set(),
    "evaluation": {"gru4rec"},
    "gru4rec": {"custom_opt"},
    "custom_opt": {"gpu_ops"},
    "gpu_ops": set(),
}
PACKAGE = "gru4rec_toolkit"


def imported(path: Path) -> set[str]:
    """Return the top-level names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_the_faces_are_all_that_stands_beside_the_package():
    # setup.py is for pip alone: nothing imports it, and it is not installed
    assert {path.stem for path in ROOT.glob("*.py")} == {*FACES, "setup"}


@pytest.mark.parametrize("face", FACES)
def test_faces_import_one_way(face):
    assert imported(ROOT / f"{face}.py") & FACES.keys() <= FACES[face]


def test_gpu_ops_without_pygpu(tmp_path):
    """The only face that not every machine can import says what is missing."""
    code = "import sys; sys.modules['pygpu'] = None; import gpu_ops"
    done = python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    message = done.err.splitlines()[-1]
    assert message.startswith("ImportError: gpu_ops needs pygpu") and "`make gpu`" in message


def test_the_package_imports_no_face():
    for path in (ROOT / PACKAGE).rglob("*.py"):
        assert not imported(path) & FACES.keys(), path


def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = {*sys.modules}; import gru4rec_toolkit; "
    command = [sys.executable, "-c", code + "print(*{*sys.modules} - before)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [PACKAGE]


def private_names_of_others(path: Path) -> set[str]:
    """Return the private names that a file takes from other modules, or from their objects."""
    tree = ast.parse(path.read_text())
    names, others = set(), {"gru", "model", "network"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            others |= {alias.asname or alias.name for alias in node.names}
            names |= {alias.name for alias in node.names if alias.name.startswith("_")}
    for node in ast.walk(tree):
        of_other = isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in others
        if of_other and node.attr.startswith("_") and not node.attr.startswith("__"):
            names.add(f"{node.value.id}.{node.attr}")
    return names


def test_no_module_uses_the_private_names_of_another():
    for path in [*ROOT.glob("*.py"), *(ROOT / PACKAGE).rglob("*.py")]:
        assert not private_names_of_others(path), path


# an end of a statement or of a block's line, and operators that sentences and patterns do not have
CPP = re.compile(r"[;{}][ \t]*(?:\n|$)|&&|\|\||\w::\w|\w->\w")


def cpp_in_strings(path: Path) -> list[int]:
    """Return the lines where strings begin that hold more than two lines of C++."""
    tree, found = ast.parse(path.read_text()), []
    parents = (ast.Module, ast.ClassDef, ast.FunctionDef)
    # what is no string of its own: docstrings, and the parts of formatted strings
    others = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, parents) and isinstance(node.body[0], ast.Expr)
    }
    others |= {
        part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
    }
    for node in ast.walk(tree):
        if not isinstance(node, (ast.JoinedStr, ast.Constant)) or node in others:
            continue
        parts = getattr(node, "values", [node])
        text = "".join(str(v.value) if isinstance(v, ast.Constant) else "x" for v in parts)
        n_lines = max(node.end_lineno - node.lineno + 1, len(text.strip().splitlines()))
        if n_lines > 2 and CPP.search(text):
            found.append(node.lineno)
    return found


def test_cpp_stands_in_files_of_its_own():
    """An editor colours it there, and the compiler's messages name its line."""
    for path in [*ROOT.glob("*.py"), *(ROOT / PACKAGE).rglob("*.py")]:
        assert not cpp_in_strings(path), path


@pytest.mark.parametrize(
    "code",
    [
        'f"""\n{{\nint n = {n};\nf(n);\n}}"""',
        '"if (a) {\\n" "f(n);\\n" "}"',
        '("m != n || "\n"k != m || "\n"k != n")',
        'f"{a}\\nf({b});\\n{c}"',
    ],
)
def test_cpp_in_strings_is_found(tmp_path, code):
    file = tmp_path / "module.py"
    file.write_text(f'"""A module;\nwith\na docstring;"""\nshort = "f(n);"\ncode = {code}\n')
    assert cpp_in_strings(file) == [5]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """The names of the files in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("this is no git checkout, so what belongs to it is not known")
    for name in listed.stdout.splitlines():
        if name.startswith(("tests/", "examples/", "benchmarks/")) or not (ROOT / name).exists():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(folder), str(source)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built).namelist()


def test_what_lands_in_site_packages(wheel):
    tops = {name.partition("/")[0] for name in wheel}
    (metadata,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops == {f"{face}.py" for face in FACES} | {PACKAGE, metadata}


def test_the_wheel_has_what_is_compiled_and_read(wheel):
    kinds, names = (".py", ".cpp", ".h", ".cl"), (".theanorc_gru4rec", "py.typed")
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / PACKAGE).rglob("*")
        if path.suffix in kinds or path.name in names
    }
    assert len(sources) > 80 and f"{PACKAGE}/py.typed" in sources
    assert sources <= set(wheel)
