"""The wheel, and a machine that has nothing but it: no compiler, no binding of FUSE."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from email import message_from_bytes
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from support.cli import PASSWORD
from support.source_tree import ROOT, modules


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what a checkout holds, by the installed build tools."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    left_out = shutil.ignore_patterns(".*", "*.so", "build", "dist", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, source, symlinks=True, ignore=left_out)
    pip(sys.executable, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", place, source)
    [built] = place.glob("*.whl")
    return built


def pip(python: str | Path, *args: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", *args]
    done = subprocess.run([*command, "--no-index"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def needed(requirements: Iterable[str], found: dict[str, Distribution]) -> dict[str, Distribution]:
    """The distributions that are required without extras, with all that those require."""
    for text in requirements:
        requirement = Requirement(text)
        there = requirement.name in found
        if not there and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found[requirement.name] = one = distribution(requirement.name)
            needed(one.requires or (), found)
    return found


def requirements_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The program in an environment with the wheel and what it needs, but no extra."""
    place = tmp_path_factory.mktemp("bare") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    pip(place / "bin/python", "install", "--no-deps", wheel)
    [packages] = place.glob("lib/python*/site-packages")
    present = needed(requirements_of(wheel), {})
    assert "click" in present
    assert not {"pyfuse3", "trio"} & set(present)
    for one in present.values():
        tops = {path.parts[0] for path in one.files or () if path.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            (packages / top).symlink_to(str(one.locate_file(top)))
    yield place / "bin/holdfast"
    shutil.rmtree(place)


def test_one_wheel_is_for_every_python(wheel: Path) -> None:
    name, version, python, interface, platform = wheel.stem.split("-")
    assert (name, python, interface) == ("holdfast", "cp311", "abi3")
    assert version
    assert platform.startswith("linux_")


def test_it_holds_the_program_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    extensions = sorted(name for name in names if name.endswith(".so"))
    assert extensions == [
        "holdfast/formats/dumps/lexer/_lexer.abi3.so",
        "holdfast/repo/chunks/_kernel.abi3.so",
    ]
    assert "holdfast/py.typed" in names
    shipped = {name.removeprefix("holdfast/") for name in names if name.endswith(".py")}
    assert shipped - {"__init__.py"} == {str(path.relative_to(ROOT)) for path in modules().values()}
    others = {name for name in names if not name.endswith((".py", ".pyi", ".so"))}
    assert {name for name in others if ".dist-info/" not in name} == {"holdfast/py.typed"}


def test_all_but_the_mount_works_without_the_binding_of_fuse(program: Path, tmp_path: Path) -> None:
    source = tmp_path / "one.txt"
    source.write_text("one\n" * 1000)
    (tmp_path / "mnt").mkdir()
    own = {
        "HOLDFAST_REPOSITORY": str(tmp_path / "repo"),
        "HOLDFAST_PASSWORD": PASSWORD,
        "HOLDFAST_CACHE_DIR": str(tmp_path / "cache"),
    }
    foreign = ("PYTHON", "HOLDFAST")
    env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)} | own

    def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
        command = [program, *args]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)

    for args in (
        ("version",),
        ("init",),
        ("backup", source, "--name", "etc"),
        ("restore", "etc:one.txt", "--target", tmp_path / "back.txt"),
        ("check",),
        ("mount", "--help"),
    ):
        done = run(*args)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "back.txt").read_bytes() == source.read_bytes()
    refused = run("mount", tmp_path / "mnt")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[0] == (
        "holdfast: mounting needs pyfuse3, which is not installed here or cannot be loaded: "
        "No module named 'pyfuse3'"
    )
    assert "pip install 'holdfast[mount]'" in refused.stderr
