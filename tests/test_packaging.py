"""What is shipped, who owns its names, and that nobody uploads it by mistake."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution, distributions
from pathlib import Path

import pytest
from gates import budgets, wheel

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("embedder", "index", "heads", "api", "permafrost")


@pytest.fixture(scope="module")
def project() -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with zipfile.ZipFile(wheel.build(tmp_path_factory.mktemp("wheel"))) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_rooms_and_the_door_and_nothing_else(shipped: set[str]) -> None:
    rooms = {p.relative_to(ROOT).as_posix() for room in NAMES[:-1] for p in (ROOT / room).rglob("*.py")}
    ours = {name for name in shipped if ".dist-info/" not in name}
    page = {p.relative_to(ROOT).as_posix() for p in (ROOT / "api" / "web").iterdir()}
    assert len(page) >= 10
    assert ours == rooms | page | {"permafrost.py"}
    assert len(rooms) > 50


def test_the_wheel_carries_the_licence_and_the_console_script(shipped: set[str]) -> None:
    facts = {name.split("/", 1)[1] for name in shipped if ".dist-info/" in name}
    assert {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"} <= facts
    scripts = [e for e in distribution("permafrost").entry_points if e.group == "console_scripts"]
    assert [(e.name, e.value) for e in scripts] == [("permafrost", "api.cli:main")]
    assert callable(scripts[0].load())


def test_the_distribution_is_kept_from_being_uploaded(project: dict[str, object]) -> None:
    assert project["name"] == "permafrost"
    assert "Private :: Do Not Upload" in project["classifiers"]  # type: ignore[operator]
    assert "Private :: Do Not Upload" in (distribution("permafrost").metadata.get_all("Classifier") or [])


def test_each_top_level_name_has_exactly_one_owner() -> None:
    owners: dict[str, set[str]] = {name: set() for name in NAMES}
    for found in distributions():
        tops = {file.parts[0].removesuffix(".py") for file in found.files or ()}
        for name in tops & set(NAMES):
            owners[name].add(found.metadata["Name"].lower())
    assert all(who <= {"permafrost"} for who in owners.values()), owners
    for name in NAMES:
        assert places(name) == [home(name)], f"{name} is found in more than one place"


def places(name: str) -> list[Path]:
    """Return each folder or file on the path that `import name` might take, without repeats."""
    found: dict[Path, None] = {}
    for folder in dict.fromkeys(Path(entry or ".").resolve() for entry in sys.path):
        for candidate in (folder / name / "__init__.py", folder / f"{name}.py"):
            if candidate.is_file():
                found[candidate] = None
    return list(found)


def home(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).resolve()


def test_exactly_one_faiss_is_installed() -> None:
    assert len([d for d in distributions() if d.metadata["Name"].lower().startswith("faiss-")]) == 1


def requirements(project: dict[str, object]) -> Iterator[str]:
    yield from project["dependencies"]  # type: ignore[misc]
    for extra in project["optional-dependencies"].values():  # type: ignore[attr-defined]
        yield from extra


def test_constraints_name_every_direct_dependency_and_allow_what_is_installed(project: dict[str, object]) -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {
        canonicalize_name(pin.name): pin for line in lines if line and line[0] != "#" for pin in [Requirement(line)]
    }
    wanted = [Requirement(text) for text in requirements(project)]
    for requirement in wanted:
        if requirement.name != "permafrost":
            pin = pins[canonicalize_name(requirement.name)]
            version = str(next(iter(pin.specifier))).removeprefix("==")
            assert requirement.specifier.contains(version), f"{pin} is outside {requirement}"
    assert not [line for line in lines if "://" in line or line.startswith("-")]


def test_torch_is_capped_nowhere_in_the_project_file(project: dict[str, object]) -> None:
    torch = [r for r in requirements(project) if r.startswith(("torch>", "torch=", "torchvision", "torch<"))]
    assert len(torch) == 2
    assert not [r for r in torch if "<" in r or "==" in r]


def test_budgets_notice_what_is_too_long_and_what_is_left_over(tmp_path: Path) -> None:
    for room in budgets.ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "a.py").write_text("def f():\n    return 1\n", encoding="utf-8")
    (tmp_path / "permafrost.py").write_text("", encoding="utf-8")
    assert budgets.over(tmp_path) == []
    body, note = "\n".join(f"    x = {i}" for i in range(60)), "".join(("TO", "DO"))
    (tmp_path / "index" / "a.py").write_text(
        f"import os\nos.environ\n# {note} later\ndef f():\n{body}\n", encoding="utf-8"
    )
    (tmp_path / "api" / "a.py").write_text("x = 1\n" * 401, encoding="utf-8")
    said = "\n".join(budgets.over(tmp_path))
    for part in (
        "api/a.py: 401 lines",
        "index/a.py:4: f has 61 lines",
        "index/a.py:3: # TO",
        "index/a.py:2: the environment",
    ):
        assert part in said


def test_a_name_that_shadows_a_room_is_refused_by_the_door(tmp_path: Path) -> None:
    (tmp_path / "index.py").write_text("", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", "import permafrost"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert str(tmp_path / "index.py") in done.stderr
    assert "rename" in done.stderr
