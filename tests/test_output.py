"""Reports of made-up results, all of whose numbers are known."""

import csv
import dataclasses
import json

import pytest
from PIL import Image

from an_jax.data.sets.test_sets import TEST_SETS
from an_jax.errors import InputError
from an_jax.evaluation import output, plots, published, timm_csv
from an_jax.evaluation.output import write_output
from an_jax.evaluation.result import Result
from an_jax.evaluation.results_file import check_comparable_rows, to_json
from an_jax.zoo.released import RELEASED

ARCHITECTURES = {"a": "resnet_50_bn", "b": "resnet_50_an_bn2", "c": "resnet_50_se_bn2"}
CORRUPTED = {
    **{"top1": 0.4, "top5": 0.6, "mce": 0.75, "relative_mce": 1.0625},
    "errors": {"fog": [0.25, 0.375, 0.5, 0.625, 0.75], "snow": [0.5] * 5},
}
PERTURBED = {
    **{"mean_flip_probability": 0.0625, "mean_top5_distance": 1.5},
    "flip_probability": {"tilt": 0.03125, "zoom_blur": 0.09375},
    "top5_distance": {"tilt": 1.0, "zoom_blur": 2.0},
}


def result(model="a", dataset="imagenet-1k", top1=0.75, top5=0.9375, n=1000, **changes):
    fields = {
        "architecture": ARCHITECTURES.get(model, "resnet_50_bn"),
        "expected": 1000,
        "scores": {"top1": top1, "top5": top5},
        "num_params": 25_557_032,
        **{"image_size": 224, "crop_pct": 0.875, "interpolation": "bilinear", "dtype": "float32"},
        "weights_digest": "0123",
    }
    return Result(model=model, dataset=dataset, n=n, **fields | changes)


def released_results():
    """All published numbers as measured results."""
    return [
        result(model, d, *pair, architecture=r.architecture, num_params=int(r.params_m * 1e6))
        for model, r in RELEASED.items()
        for d, pair in r.results.items()
    ]


def rows_of(results, dataset):
    """Reads a test set's CSV file; the header is the first row."""
    text = timm_csv.csv_files(results)[TEST_SETS[dataset].csv]
    return list(csv.reader(text.splitlines()))


def test_table():
    results = [
        result("a"),
        result("a", "imagenet-c", scores=CORRUPTED),
        result("b", top1=0.7841, top5=0.9416, num_params=25_755_000, n=30),
        result("b", "imagenet-p", scores=PERTURBED),
    ]
    heads = "imagenet-1k | imagenet-c (mCE) | imagenet-p (mean flip probability)"
    assert output.markdown(results).splitlines() == [
        f"| Model | Params (M) | {heads} |",
        "| --- | ---: | :---: | :---: | :---: |",
        "| a | 25.557 | (0.750, 0.938) | 0.750 |  |",
        "| b | 25.755 | (0.784, 0.942) n=30 |  | 0.062 |",
        "",
        "Each pair is (top-1, top-5) accuracy.",
        "",
        "imagenet-1k: n = 30 of 1000 images.",
        "",
        "| Model | Test set | relative mCE | mean top-5 distance |",
        "| --- | --- | ---: | ---: |",
        "| a | imagenet-c | 1.062 |  |",
        "| b | imagenet-p |  | 1.500 |",
    ]


def test_table_of_other_scores():
    calibration = {"unrestricted_top1": 0.0125, "rms_calibration_error": 0.5, "aurra": 0.25}
    results = [
        result("a", scores={"top1": 0.1, "top5": 0.2, "nll": 1.25, "rms_calibration_error": 0.125}),
        result("a", "imagenet-a", scores={"top1": 0.1, "top5": 0.2, **calibration}),
        result("b", "imagenet-o", scores={"top1": 0.016, "top5": 0.05, "aupr": 0.2}),
    ]
    assert output.markdown(results).splitlines()[-5:] == [
        "| Model | Test set | NLL | RMS calibration error | unrestricted top-1 | AURRA | AUPR |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        "| a | imagenet-1k | 1.250 | 0.125 |  |  |  |",
        "| a | imagenet-a |  | 0.500 | 0.013 | 0.250 |  |",
        "| b | imagenet-o |  |  |  |  | 0.200 |",
    ]


def test_files(tmp_path):
    results = [result(), result(dataset="imagenet-c", scores=CORRUPTED)]
    assert write_output(results, tmp_path) == (tmp_path / "results.md").read_text()
    names = {"results.md", "results.json", "model_metadata.csv"}
    names |= {"results-imagenet.csv", "results-imagenet-c.csv"}
    names |= {f"{name}.png" for name in ("accuracy_by_test_set", "accuracy_by_parameters")}
    assert {path.name for path in tmp_path.iterdir()} == names | {"shifted_accuracy.png"}
    first, corrupted = json.loads((tmp_path / "results.json").read_text())
    assert first == {
        **{"model": "a", "architecture": "resnet_50_bn", "dataset": "imagenet-1k"},
        **{"n": 1000, "expected": 1000, "top1": 0.75, "top5": 0.9375, "num_params": 25_557_032},
        **{"image_size": 224, "crop_pct": 0.875, "interpolation": "bilinear", "dtype": "float32"},
        **{"weights_digest": "0123", "macs": None},
    }
    assert corrupted.items() >= CORRUPTED.items()


def test_results_of_earlier_commands_are_kept(tmp_path):
    """A second report in the same directory has the files of one with all results."""
    first = [result("a"), result("b"), result("a", "imagenet-sketch", top1=0.5)]
    second = [result("b", top1=0.8), result("b", "imagenet-sketch", top1=0.25)]
    write_output(first, tmp_path / "twice")
    write_output(second, tmp_path / "twice")
    write_output([first[0], second[0], first[2], second[1]], tmp_path / "once")
    names = {path.name for path in (tmp_path / "once").iterdir()}
    assert {path.name for path in (tmp_path / "twice").iterdir()} == names
    for name in names:
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "once" / name).read_bytes()
    assert (
        "| b | 25.557 | (0.800, 0.938) | (0.250, 0.938) |"
        in (tmp_path / "twice/results.md").read_text()
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_size": 256}, "image_size"),
        ({"weights_digest": "4567"}, "weights_digest"),
        ({"dtype": "bfloat16", "crop_pct": 1.0}, "crop_pct, dtype"),
    ],
)
def test_a_row_does_not_mix_settings_or_weights(tmp_path, changes, named):
    (tmp_path / "results.json").write_text(to_json([result("a"), result("b")]))
    described = {
        key: value
        for key, value in dataclasses.asdict(result("a", **changes)).items()
        if key in {"image_size", "crop_pct", "interpolation", "dtype", "weights_digest"}
    }
    check_comparable_rows(tmp_path, "a", ["imagenet-1k"], described)  # replaces the row
    check_comparable_rows(tmp_path, "new", ["imagenet-a"], described)
    with pytest.raises(InputError, match=f"a on imagenet-1k with another {named};"):
        check_comparable_rows(tmp_path, "a", ["imagenet-a"], described)


@pytest.mark.parametrize("name", ["accuracy_by_test_set.png", "results.md", "results.json"])
def test_directory_is_not_replaced(tmp_path, name):
    (tmp_path / "results.json").write_text(to_json([result()]))
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name} is a directory"):
        write_output([result()], tmp_path)
    assert (tmp_path / name).is_dir()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", "[", "JSONDecodeError"),
        ("results.json", '{"accuracy": 0.5}', "TypeError"),
        ("results.json", '[{"model": "a", "dataset": "imagenet-1k"}]', "missing 9"),
        ("results.json", '[{"model": "a", "dataset": "../cifar"}]', "'../cifar' is not a test set"),
        ("results.md", "mine", "has a results.md but no results.json"),
        ("results-imagenet.csv", "model,top1", "has a results-imagenet.csv but no results.json"),
        ("bn_against_an.png", "mine", "has a bn_against_an.png but no results.json"),
    ],
)
def test_files_of_another_origin_are_not_replaced(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        write_output([result()], tmp_path)
    assert (tmp_path / name).read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_csv_of_a_clean_set():
    results = [result("a"), result("b", top1=0.8, num_params=1_014_450_000, crop_pct=1.0)]
    assert timm_csv.csv_files(results)["results-imagenet.csv"] == (
        "model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation\n"
        'b,224,80.000,20.000,93.750,6.250,"1,014.45",1.000,bilinear\n'
        "a,224,75.000,25.000,93.750,6.250,25.56,0.875,bilinear\n"
    )


def test_csv_of_a_shift_ranks_both_sides_sorted():
    clean = {"a": (0.75, 0.9), "b": (0.75, 0.9), "c": (0.75, 0.95), "d": (0.5, 0.9)}  # c a b d
    shifted = {"d": (0.5, 0.75), "new": (0.3, 0.5), "b": (0.25, 0.5), "c": (0.25, 0.5)}
    results = [result(m, "imagenet-sketch", *pair) for m, pair in reversed(shifted.items())]
    results += [result(m, "imagenet-1k", *pair) for m, pair in clean.items()]
    header, *rows = rows_of(results, "imagenet-sketch")
    assert (len(header), header[9:]) == (12, ["top1_diff", "top5_diff", "rank_diff"])
    assert [(row[0], *row[-3:]) for row in rows] == [
        ("d", "+0.000", "-15.000", "+3"),
        ("new", "", "", ""),
        ("b", "-50.000", "-40.000", "0"),
        ("c", "-50.000", "-45.000", "-3"),
    ]


def test_csv_files_with_columns_of_their_own():
    results = [
        result("a"),
        result("a", "imagenet-o", scores={"top1": 0.5, "top5": 0.75, "aupr": 0.2}),
        result("a", "imagenet-c", scores=CORRUPTED),
        result("b", "imagenet-c", scores={"mce": 0.5, "errors": {"fog": [0.1, 0.2]}}),
        result("a", "imagenet-p", scores=PERTURBED),
    ]
    header, row = rows_of(results, "imagenet-o")
    assert header[-4:] == ["param_count", "crop_pct", "interpolation", "aupr"]  # no differences
    assert row[-4:] == ["25.56", "0.875", "bilinear", "20.000"]
    assert rows_of(results, "imagenet-c") == [
        ["model", "mce", "relative_mce", "fog", "snow"],
        ["b", "50.000", "", "15.000", ""],
        ["a", "75.000", "106.250", "50.000", "50.000"],
    ]
    assert rows_of(results, "imagenet-p") == [
        ["model", "mean_flip_probability", "mean_top5_distance", "tilt", "zoom_blur"],
        ["a", "6.250", "1.500", "3.125", "9.375"],
    ]


def test_model_metadata():
    name = "aognet_12m_an_imagenet_200e_ls_mixup"
    results = [
        *(result("c"), result("b"), result("b", "imagenet-a")),
        result(name, architecture="aognet_12m_an"),
        result("ten", "digits", architecture="resnet_20_bn"),
    ]
    assert timm_csv.csv_files(results)["model_metadata.csv"] == (
        "model,pretrain,recipe,norm,architecture\n"
        f"{name},in1k,imagenet_200e_ls_mixup,an,aognet_12m_an\n"
        "b,in1k,,an,resnet_50_an_bn2\n"
        "c,in1k,,se,resnet_50_se_bn2\n"
        "ten,,,bn,resnet_20_bn\n"
    )


def test_pictures(tmp_path):
    results = released_results()[:-3]  # the last model is incomplete
    write_output(results, tmp_path)
    pictures = sorted(tmp_path.glob("*.png"))
    kinds = ["accuracy_by_parameters", "accuracy_by_test_set", "bn_against_an", "shifted_accuracy"]
    assert [path.stem for path in pictures] == kinds
    assert {path.name for path in pictures} == set(plots.FILES)
    for path in pictures:
        with Image.open(path) as image:
            assert min(image.size) > 400
            assert len(image.convert("RGB").getcolors(2**24)) > 50


@pytest.mark.parametrize(
    ("bn", "an", "is_pair"),
    [
        ("resnet_50_bn_imagenet", "resnet_50_an_all_imagenet", True),
        ("digits_bn_30", "digits_an_30", True),
        ("aognet_12m_bn_imagenet", "aognet_12m_an_imagenet_200e_ls_mixup", False),
        ("resnet_50_bn_imagenet", "resnet_50_se_bn2_imagenet", False),
        ("orbnge", "orange", False),
    ],
)
def test_pairs_of_bn_and_an(bn, an, is_pair):
    results = [result(bn), result(an, top1=0.8), result(an, "imagenet-sketch")]
    figure = plots.figures(results).get("bn_against_an.png")
    assert (figure is not None) == is_pair
    if is_pair:
        (points,) = figure.axes[0].collections
        assert points.get_offsets().tolist() == [[pytest.approx(5), 0]]


def test_published_numbers_are_ok():
    results = released_results()
    text, ok = published.compare_published([*results, result("mine")])
    assert (ok, "mine" in text) == (True, False)
    assert f"{2 * len(results)} ok, 0 differs, 0 partial" in text


@pytest.mark.parametrize(
    ("change", "n", "verdict"),
    [(0.0015, 50, "ok"), (-0.0015, 50, "ok"), (-0.00152, 50, "differs"), (0.1, 49, "partial")],
)
def test_comparison_with_published(change, n, verdict):
    name = "resnet_50_an_bn2_imagenet"
    top1, top5 = RELEASED[name].results["imagenet-1k"]
    measured = result(name, top1=top1 + change, top5=top5, n=n, expected=50)
    text, ok = published.compare_published([measured])
    assert ok == (verdict != "differs")
    row = text.splitlines()[2].split(" | ")
    assert row[2:6] == ["top-1", f"{top1 + change:.5f}", "0.784", f"{change:+.5f}"]
    assert row[-1] == f"{verdict} |"
    assert text.splitlines()[3].endswith(" partial |" if verdict == "partial" else " ok |")


@pytest.mark.parametrize("other", [("x", "imagenet-1k"), ("resnet_50_bn_imagenet", "digits")])
def test_nothing_to_compare(other):
    with pytest.raises(InputError, match=r"resnet_50_an_bn2_imagenet.* imagenet-sketch"):
        published.compare_published([result(*other)])


def test_wilson_interval():
    assert published.wilson_interval(0.5, 100) == pytest.approx((0.4038315, 0.5961685), abs=1e-7)
    assert published.wilson_interval(0, 10) == pytest.approx((0, 0.2775328), abs=1e-7)
