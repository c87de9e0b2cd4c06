"""The project's own files: forms for issues, checks before commits, and its version."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FORMS = [path for path in FORMS if path.name != "config.yml"]

# what GitHub takes in a form: keys of the file, and the attributes of each type of element with
# those that have to be there
KEYS = {"name", "description", "body", "title", "labels", "assignees", "projects", "type"}
ELEMENTS = {
    "markdown": ({"value"}, {"value"}),
    "textarea": ({"label"}, {"label", "description", "placeholder", "value", "render"}),
    "input": ({"label"}, {"label", "description", "placeholder", "value"}),
    "dropdown": (
        {"label", "options"},
        {"label", "description", "multiple", "options", "default"},
    ),
    "checkboxes": ({"label", "options"}, {"label", "description", "options"}),
}


def faults(form: object) -> list[str]:
    """Return what GitHub would refuse in a form."""
    if not isinstance(form, dict):
        return ["no mapping"]
    found = [f"key {key}" for key in form.keys() - KEYS]
    found += [f"no {key}" for key in {"name", "description", "body"} - form.keys()]
    body = form.get("body", [])
    if all(element.get("type") == "markdown" for element in body):
        found.append("nothing to fill in")
    for part in ("id", "label"):
        names = [{**element, **element.get("attributes", {})}.get(part) for element in body]
        names = [name for name in names if name is not None]
        found += [f"{part} {name} twice" for name in {*names} if names.count(name) > 1]
    for element in body:
        kind = element.get("type")
        if kind not in ELEMENTS:
            found.append(f"type {kind}")
            continue
        needed, known = ELEMENTS[kind]
        attributes = element.get("attributes", {})
        found += [f"{kind} without {name}" for name in needed - attributes.keys()]
        found += [f"{kind} with {name}" for name in attributes.keys() - known]
        outer = {"type", "attributes"} | ({"id", "validations"} if kind != "markdown" else set())
        found += [f"{kind} with {name}" for name in element.keys() - outer]
        if not re.fullmatch(r"[A-Za-z0-9_-]+", element.get("id", "x")):
            found.append(f"id {element['id']}")
        found += [f"{name} is no text" for name in ("label", "description", "value", "placeholder")
                  if not isinstance(attributes.get(name, ""), str)]  # fmt: skip
        rules = element.get("validations", {})
        if rules.keys() - {"required"} or type(rules.get("required", True)) is not bool:
            found.append(f"validations {rules}")
        options = attributes.get("options", [])
        if kind == "checkboxes":
            found += [f"option {o}" for o in options if o.keys() - {"label", "required"}]
            options = [option.get("label") for option in options]
        if kind in ("checkboxes", "dropdown"):
            # YAML turns yes and no into booleans, which GitHub refuses
            bad = [o for o in options if not isinstance(o, str) or o.lower() == "none"]
            found += [f"option {o}" for o in bad] + ["no options"] * (not options)
            found += ["options twice"] * (len({*map(str, options)}) < len(options))
    return found


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_are_what_github_takes(path):
    assert faults(yaml.safe_load(path.read_text())) == []


def test_the_forms_ask_for_what_is_needed():
    asked = {path.stem: path.read_text() for path in FORMS}
    assert asked.keys() == {"wrong_number", "crash", "installation", "idea"}
    for name in ("wrong_number", "crash"):
        for words in ("first line on standard error", "gru4rec_toolkit.data.report", "`-ps`"):
            assert words in asked[name], (name, words)
    for name in ("wrong_number", "crash", "installation"):
        assert "python --version" in asked[name] and "pip list" in asked[name], name


@pytest.mark.parametrize(
    ("form", "fault"),
    [
        ("- a", "no mapping"),
        ("{name: a, body: [{type: input, attributes: {label: b}}]}", "no description"),
        ("{name: a, description: b, body: []}", "nothing to fill in"),
        ("{name: a, description: b, about: c, body: []}", "key about"),
        ("{name: a, description: b, body: [{type: text}]}", "type text"),
        ("{name: a, description: b, body: [{type: input}]}", "input without label"),
        (
            "{name: a, description: b, body: [{type: dropdown, attributes: "
            "{label: c, options: [yes, maybe]}}]}",
            "option True",
        ),
        (
            "{name: a, description: b, body: [{type: input, id: c, attributes: {label: d}},"
            "{type: input, id: c, attributes: {label: e}}]}",
            "id c twice",
        ),
        (
            "{name: a, description: b, body: [{type: input, required: true, "
            "attributes: {label: c}}]}",
            "input with required",
        ),
    ],
)
def test_faults_of_forms_are_found(form, fault):
    assert fault in faults(yaml.safe_load(form))


# ---------------------------------------------------------------------------- before a commit


HOOKS = {
    hook["id"]: hook
    for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repo["hooks"]
}


def test_hooks_need_no_network():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    assert {hook["language"] for hook in HOOKS.values()} == {"system", "pygrep"}
    assert not any("additional_dependencies" in hook for hook in HOOKS.values())


@pytest.mark.parametrize(
    ("hook", "good", "bad"),
    [
        ("end-of-file", [b"", b"a\n", b"a\n\nb\n"], [b"a", b"a\n\n", b"\n\n"]),
        ("trailing-blanks", [b"a b\n\n"], [b"a \nb\n", b"\t\n"]),
        ("merge-markers", [b"<<\n=======\n"], [b"<<<<<<< HEAD\n", b"a\n>>>>>>> b\n"]),
    ],
)
def test_what_hooks_look_for(hook, good, bad):
    """As pre-commit searches: bytes, and the whole file at once with --multiline."""
    hook = HOOKS[hook]
    pattern = hook["entry"].encode()

    def found(content: bytes) -> bool:
        if hook.get("args") == ["--multiline"]:
            return bool(re.search(pattern, content, re.MULTILINE | re.DOTALL))
        return any(re.search(pattern, line.rstrip(b"\r\n")) for line in content.splitlines(True))

    assert not any(map(found, good)) and all(map(found, bad))


# ---------------------------------------------------------------------------- the version


def test_one_version():
    project = (ROOT / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.*)"$', project, re.MULTILINE)
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest.group(1) == version
