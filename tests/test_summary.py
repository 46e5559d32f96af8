"""Summaries: costs compared with timm's published counts, places of norms, published results."""

import functools
import hashlib
import itertools
import json
import re

import pytest

import an_jax
from an_jax import summary
from an_jax.zoo import cost
from an_jax.zoo.released import RELEASED, Recipe
from tests import reference

# Of the same networks in timm's benchmark tables (results/benchmark-infer-amp-nchw-pt113-cu117-
# rtx3090.csv), at 224 px: GMACs, millions of activations.
TIMM = {
    "resnet_34_bn": (3.67, 3.74),
    "resnet_50_bn": (4.11, 11.11),
    "resnet_101_bn": (7.83, 16.23),
    "resnetv1d_50_bn": (4.35, 11.92),
    "resnetv1d_101_bn": (8.08, 17.04),
    "densenet_121_bn": (2.87, 6.90),
    "mobilenetv2_bn": (0.31, 6.68),
}
# One of each kind of block and norm; the others are slow tests.
FAST = {
    "resnet_34_an_bn12",
    "resnet_50_se_bn3",
    "resnetv1d_50_an",
    "mobilenetv2_an",
    "densenet_121_bn",
}
FAST |= {"resnet_50_an_all", "aognet_12m_an"}
# All configurations of the original -> the architecture that each trains.
CONFIGURATIONS = {
    f"{architecture}_{recipe}": architecture
    for recipes, architectures in (
        (("imagenet", "imagenet_200e_ls_mixup"), ["aognet_12m_bn", "aognet_12m_an"]),
        (("imagenet", "imagenet_200e_ls_mixup"), ["aognet_40m_bn", "aognet_40m_an"]),
        (("imagenet", "imagenet_200e_ls_mixup"), ["resnetv1d_50_bn", "resnetv1d_50_an"]),
        (("imagenet_200e_ls_mixup",), ["resnetv1d_101_bn", "resnetv1d_101_an"]),
        (
            ("imagenet",),
            [
                *("densenet_121_bn", "densenet_121_an", "mobilenetv2_bn", "mobilenetv2_an"),
                *("resnet_34_bn", "resnet_34_an_bn1", "resnet_34_an_bn2", "resnet_34_an_bn12"),
                *("resnet_34_se_bn1", "resnet_34_se_bn2", "resnet_34_se_bn12"),
                *("resnet_50_bn", "resnet_50_an_bn2", "resnet_50_an_bn3", "resnet_50_an_bn123"),
                *("resnet_50_an_all", "resnet_50_se_bn2", "resnet_50_se_bn3"),
                *("resnet_50_se_bn123", "resnet_101_bn", "resnet_101_an"),
            ],
        ),
    )
    for recipe, architecture in itertools.product(recipes, architectures)
}


# Tracing an AOGNet takes seconds.
summarize = functools.cache(cost.summarize)


@pytest.fixture(autouse=True)
def cached_summaries(monkeypatch):
    monkeypatch.setattr(summary, "summarize", summarize)


def models(names, fast=FAST):
    return pytest.mark.parametrize(
        "name", [pytest.param(n, marks=[] if n in fast else pytest.mark.slow) for n in names]
    )


def total(parts, quantity):
    return sum(getattr(part, quantity) for part in parts)


@models(TIMM, fast={"resnet_50_bn", "densenet_121_bn", "mobilenetv2_bn"})
def test_costs_are_timms(name):
    parts = summarize(name)
    assert round(total(parts, "macs") / 1e9, 2) == TIMM[name][0]
    assert round(total(parts, "activations") / 1e6, 2) == TIMM[name][1]


@models(an_jax.list_models())
def test_parts_make_up_the_model(name):
    parts = summarize(name)
    names = [part.name for part in parts]
    assert names == ["stem", *(f"layer{i}" for i in range(1, len(parts) - 1)), "head"]
    assert parts[-1].output == (1000,)
    assert total(parts, "params") == reference.manifest(name)["num_params"]
    params = reference.abstract_split(name).params
    mixtures = {
        path.removesuffix(".weight"): array.shape[0]
        for path, array in params.items()
        if path.endswith(".weight")
    }
    norms = {path: norm for part in parts for path, norm in part.norms.items()}
    assert {path: norm for path, norm in norms.items() if norm != "BN"} == mixtures
    plain = [path for path in params if path.endswith(".scale") and ".attention." not in path]
    assert {path for path, norm in norms.items() if norm == "BN"} == {p[:-6] for p in plain}
    described = summary.compress(path for part in parts for path in part.norms)
    assert {p for pattern in described for p in expand(pattern)} == norms.keys()


def expand(pattern):
    """Expands braces as a shell does."""
    choices = []
    for text in re.split(r"(\{[^}]*\})", pattern):
        if match := re.fullmatch(r"\{(\d+)\.\.(\d+)\}", text):
            choices.append([str(n) for n in range(int(match[1]), int(match[2]) + 1)])
        else:
            choices.append(text.strip("{}").split(","))
    return ["".join(parts) for parts in itertools.product(*choices)]


@pytest.mark.parametrize(
    ("paths", "patterns"),
    [
        (["a.0.norm2", "a.1.norm2", "a.2.norm2"], ["a.{0..2}.norm2"]),
        (["a.1.b", "a.3.b"], ["a.{1,3}.b"]),
        (["a.1.b2", "a.1.b3", "a.2.b2"], ["a.1.b2", "a.1.b3", "a.2.b2"]),
        (["a.1", "b.1"], ["a.1", "b.1"]),
        (["norm"], ["norm"]),
        ([], []),
    ],
)
def test_compress(paths, patterns):
    assert summary.compress(paths) == patterns


def test_description(capsys):
    assert summary.main(["resnet_50_an_bn2"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("resnet_50_an_bn2: 25.755 M parameters, 4.11 GMACs, 11.12 M activations")
    assert "| 13 BN; 6 AN (K = 20): layer3.{0..5}.norm2 |" in text
    assert re.search(r"\| imagenet-1k +\| +78.4 / 94.1 \|", text)
    assert summary.main(["resnet_20_an_bn1", "--image_size", "32"]) == 0
    text = capsys.readouterr().out
    assert "at 32 px" in text
    assert "32x32x16" in text
    assert "top-1" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet_50"], "unknown model 'resnet_50'; the nearest names are"),
        (["aognet_12m_an", "--image_size", "20"], "maps of 1x1 are too small"),
        (["resnet_50_bn", "--image_size", "-1"], "image_size must be at least 1"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    assert summary.main(arguments) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_documentation_has_the_tables(capsys, monkeypatch):
    """Architectures that are slow to summarize have their documented rows here."""
    document = (reference.FIXTURES.parents[1] / "docs" / "models.md").read_text()
    rows = {
        cells[0]: cells
        for line in document.splitlines()
        if (cells := [cell.strip() for cell in line.strip("|").split("|")])
    }
    architecture = summary._architecture
    monkeypatch.setattr(
        summary, "_architecture", lambda name: architecture(name) if name in FAST else rows[name]
    )
    check_documentation(document, capsys)


@pytest.mark.slow
def test_documentation_has_the_tables_of_all_models(capsys):
    check_documentation((reference.FIXTURES.parents[1] / "docs" / "models.md").read_text(), capsys)


def check_documentation(document, capsys):
    assert summary.main([]) == 0
    tables = capsys.readouterr().out
    assert all(name in tables for name in (*an_jax.list_models(), *RELEASED))
    for table in tables.split("\n\n"):
        assert table.strip() in document, "paste the output of `python -m an_jax.summary`"


def test_configurations():
    assert len(CONFIGURATIONS) == 35
    assert set(CONFIGURATIONS.values()) == set(an_jax.list_models())
    assert len(an_jax.list_models()) == 29


def test_released():
    """Parameters agree with our architectures to the third decimal, as published."""
    assert len(RELEASED) == 27
    for name, released in RELEASED.items():
        assert CONFIGURATIONS[name] == released.architecture
        assert name == f"{released.architecture}_{released.recipe.name}"
        count = reference.manifest(released.architecture)["num_params"]
        assert round(count / 1e6, 3) == released.params_m
        assert len(released.results) == 8
        assert all(0 < top1 < top5 < 1 for top1, top5 in released.results.values())
    assert RELEASED["resnet_50_an_bn2_imagenet"].recipe == Recipe("imagenet", 120, 0, 0)
    assert RELEASED["mobilenetv2_bn_imagenet"].recipe == Recipe("imagenet", 150, 0, 0)
    advanced = [r for r in RELEASED.values() if r.recipe[1:] == (200, 0.1, 0.2)]
    assert len(advanced) == 8
    assert {released.recipe.name for released in advanced} == {"imagenet_200e_ls_mixup"}


def test_published_results_are_as_published():
    """Compares some with values typed by hand, and all with a digest of the first entry."""
    best = RELEASED["aognet_40m_an_imagenet_200e_ls_mixup"].results
    assert best["imagenet-1k"] == (0.818, 0.957)
    assert best["imagenet-o"] == (0.017, 0.052)
    assert RELEASED["resnet_34_an_bn1_imagenet"].results["imagenet-sketch"] == (0.24, 0.415)
    text = json.dumps({name: released.results for name, released in RELEASED.items()})
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "960ad5810a410e6a"
