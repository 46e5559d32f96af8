"""report.html: the data in the page, and the command."""

import dataclasses
import json
import re

import pytest
from etils import epath

from an_jax.errors import InputError
from an_jax.evaluation.output import write_output
from an_jax.evaluation.results_file import to_json
from an_jax.report.__main__ import main
from an_jax.report.page import build_page
from an_jax.report.results import collect_results, read_evaluation
from tests.made_up_results import made_up_results

RESULTS = [r for r in made_up_results() if r.model.startswith("resnet_50_")]


@pytest.fixture
def outputs(tmp_path):
    """Two output directories; both have a model of the same name."""
    directories = [epath.Path(tmp_path / name) for name in ("one", "two")]
    (other,) = (
        r for r in RESULTS if (r.model, r.dataset) == ("resnet_50_bn_imagenet", "imagenet-1k")
    )
    other = dataclasses.replace(other, scores={"top1": 0.5, "top5": 0.75})
    for directory, results in zip(directories, (RESULTS, [other]), strict=True):
        directory.mkdir()
        (directory / "results.json").write_text(to_json(results))
    return directories


def data_of(path):
    """Returns the data of a page."""
    text = path.read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(data)


def test_cells(outputs):
    data = collect_results([read_evaluation(outputs[0])])
    models = {model["name"]: model for model in data["models"]}
    datasets = [dataset["name"] for dataset in data["datasets"]]
    bn = data["models"][models["resnet_50_an_bn2_imagenet"]["bn"]]
    assert (bn["name"], bn["bn"], bn["norm"]) == ("resnet_50_bn_imagenet", None, "bn")
    assert datasets[data["datasets"][datasets.index("imagenet-a")]["clean"]] == "imagenet-a-clean"
    metrics = data["metrics"]
    assert metrics["mce"] == {"title": "mCE", "lowerIsBetter": True, "isFraction": True}
    assert metrics["nll"] == {"title": "NLL", "lowerIsBetter": True, "isFraction": False}
    cells = {(data["models"][c["model"]]["name"], datasets[c["dataset"]]): c for c in data["cells"]}
    assert len(cells) == len(RESULTS)
    for result in RESULTS:
        assert cells[result.model, result.dataset]["scores"] == result.scores
    cell = cells["resnet_50_an_bn2_imagenet", "imagenet-1k"]
    assert cell["published"] == {"top1": 0.784, "top5": 0.941}
    low, high = cell["intervals"]["top1"]
    assert cells["resnet_50_an_bn2_imagenet", "imagenet-c"]["intervals"] == {}  # no sample
    assert (low, high) == (pytest.approx(0.78037, abs=1e-5), pytest.approx(0.78759, abs=1e-5))


def test_models_of_the_same_name(outputs):
    data = collect_results([*map(read_evaluation, outputs)])
    names = [model["name"] for model in data["models"]]
    assert names.count(f"resnet_50_bn_imagenet ({outputs[0]})") == 1
    assert names[-1] == f"resnet_50_bn_imagenet ({outputs[1]})"
    an = data["models"][names.index("resnet_50_an_bn2_imagenet")]
    assert names[an["bn"]] == f"resnet_50_bn_imagenet ({outputs[0]})"  # of the same directory


def test_bn_of_another_directory(outputs):
    by_norm = {norm: [r for r in RESULTS if f"_{norm}_" in r.model] for norm in ("an", "bn")}
    for directory, results in zip(outputs, by_norm.values(), strict=True):
        (directory / "results.json").write_text(to_json(results))
    models = collect_results([*map(read_evaluation, outputs)])["models"]
    (an,) = (model for model in models if model["name"] == "resnet_50_an_bn2_imagenet")
    assert models[an["bn"]]["name"] == "resnet_50_bn_imagenet"


def test_macs_of_a_later_result(outputs):
    first, *others = (r for r in RESULTS if r.model == "resnet_50_bn_imagenet")
    results = [dataclasses.replace(first, macs=None), *others]  # None from an earlier version
    (outputs[0] / "results.json").write_text(to_json(results))
    (model,) = collect_results([read_evaluation(outputs[0])])["models"]
    assert model["macs"] == next(r.macs for r in others)


def test_throughput(outputs):
    (outputs[0] / "benchmark.csv").write_text(
        "model,infer_samples_per_sec\nresnet_50_an_bn2,1234.50\nother,1.00\n"
    )
    models = {m["name"]: m for m in collect_results([read_evaluation(outputs[0])])["models"]}
    assert models["resnet_50_an_bn2_imagenet"]["rate"] == 1234.5  # by its architecture
    assert models["resnet_50_bn_imagenet"]["rate"] is None


def test_command(outputs, capsys):
    assert main([*map(str, outputs), str(outputs[0])]) == 0  # the same again adds nothing
    assert capsys.readouterr().out == f"written to {outputs[0] / 'report.html'}\n"
    assert len(data_of(outputs[0] / "report.html")["results"]["models"]) == 8
    assert main([str(outputs[1]), "--output", str(outputs[1] / "page.html")]) == 0
    page = outputs[1] / "page.html"
    assert len(data_of(page)["results"]["models"]) == 1
    before = page.read_bytes()
    assert main([str(outputs[1]), "--output", str(page)]) == 0  # a page may be replaced
    assert page.read_bytes() == before


def test_refusals(outputs, capsys):
    def error(*arguments):
        assert main([*map(str, arguments)]) == 1
        return capsys.readouterr().err

    assert "has no results.json: give an --output_dir" in error(outputs[0].parent)
    (outputs[0] / "notes.html").write_text("<p>mine</p>")
    assert "is not a page written by an_jax" in error(
        outputs[0], "--output", outputs[0] / "notes.html"
    )
    assert (outputs[0] / "notes.html").read_text() == "<p>mine</p>"
    (outputs[0] / "benchmark.csv").write_text("model,train_samples_per_sec\na,1\n")
    assert "benchmark.csv is not a table of" in error(outputs[0])
    (outputs[1] / "results.json").write_text("[{")
    assert "results.json is damaged" in error(outputs[1])


def test_a_foreign_report_is_kept(outputs, tmp_path):
    (outputs[0] / "report.html").write_text("<p>mine</p>")
    with pytest.raises(InputError, match=r"report\.html is not a page written by an_jax"):
        write_output(RESULTS[:1], outputs[0])
    (tmp_path / "report.html").write_text("<p>mine</p>")
    with pytest.raises(InputError, match=r"has a report\.html but no results\.json"):
        write_output(RESULTS[:1], epath.Path(tmp_path))


def test_page_escapes_its_data():
    hostile = "</script><!--<script>\u2028&"
    page = build_page(hostile, {"name": hostile, "n": [float("nan"), 0.1]}, [])
    assert page.count("<script") == 2  # the data's and the page's own
    assert "<title>&lt;/script&gt;" in page
    (data,) = re.findall(r'id="data">(.*?)</script>', page)
    assert json.loads(data) == {"name": hostile, "n": [None, 0.1]}
