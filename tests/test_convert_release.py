"""The conversion of a directory of weights in one command."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from an_jax import zoo
from an_jax.checkpoint import ModelCard
from an_jax.zoo.released import RELEASED
from convert.torch_layout import torch_layout
from tests.test_convert import NAME, arrays, assert_loads, run, state_dict

PUBLISHED = f"{NAME}_imagenet"


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A directory like that of a release, with a small model in place of a published one."""
    entry = RELEASED["resnet_50_an_bn2_imagenet"]._replace(architecture=NAME)
    monkeypatch.setitem(RELEASED, PUBLISHED, entry)
    root = tmp_path / "release"
    folders = {
        f"{PUBLISHED}-top1-78.44%-top1_reallabels-84.44%": ("current.pth", "state_dict"),
        "resnet-20-an-imagenet-200e-lbsmth-mixup": ("model_best.pth.tar", "model"),
    }
    for folder, (file, wrapper) in folders.items():
        (root / folder).mkdir(parents=True)
        torch.save({wrapper: state_dict()}, root / folder / file)
    (root / "mine").mkdir()
    save_file(state_dict(7), root / "mine/fine_tuned.safetensors")
    (root / "mine/._fine_tuned.safetensors").write_bytes(b"of macOS")
    (root / "mine/notes.txt").write_text("no weights")
    return root


def table(report):
    """The cells of a report's table."""
    lines = [line for line in report.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_release(release, tmp_path, capsys):
    """All files become checkpoints, whatever happens to others. A second run only does the rest."""
    (release / "broken.pt").write_bytes(b"accuracy: 77 %")
    torch.save(state_dict(), release / "fine_tuned.pth")
    checkpoints = tmp_path / "checkpoints"
    assert run(release, checkpoints) == 1
    report, errors = capsys.readouterr()
    older, mine = "resnet-20-an-imagenet-200e-lbsmth-mixup", "mine/fine_tuned.safetensors"
    first = f"{PUBLISHED}-top1-78.44%-top1_reallabels-84.44%/current.pth"
    clash = (
        f"failed: 2 files would become fine_tuned: {release}/fine_tuned.pth, {release}/{mine}; "
        "convert them one by one"
    )
    rows = [
        ["broken.pt", "", "", "failed: is not a torch file: it begins with b'accu'"],
        ["fine_tuned.pth", "", "", clash],
        [mine, "", "", clash],
        [f"{older}/model_best.pth.tar", NAME, "0.288", f"converted: {checkpoints}/{older}"],
        [first, NAME, "0.288", f"converted: {checkpoints}/{PUBLISHED}"],
    ]
    assert table(report) == rows
    assert report.endswith("\n2 converted, 0 kept, 3 failed\n")
    assert errors.count("error: ") == 3
    assert "warning" not in report
    assert_loads(checkpoints / older, arrays())
    card = ModelCard.read(checkpoints / PUBLISHED)
    assert card.source["accuracies"] == {"top1": 0.7844, "top1_reallabels": 0.8444}

    (release / "broken.pt").unlink()
    (release / "fine_tuned.pth").unlink()
    shutil.rmtree(checkpoints / older)
    assert run(release, checkpoints) == 0
    report, errors = capsys.readouterr()
    outcomes = [row[-1].split(":")[0] for row in table(report)]
    assert outcomes == ["converted", "converted", "kept"]
    assert [row[1:3] for row in table(report)] == [[NAME, "0.288"]] * 3
    assert report.endswith("\n2 converted, 1 kept, 0 failed\n")
    assert errors == ""
    assert_loads(checkpoints / "fine_tuned", arrays(7), 7)


def test_what_the_folder_says(release, tmp_path, monkeypatch, capsys):
    """It decides between equal architectures, as between resnet_34_se_bn1 and resnet_34_se_bn2.
    Warnings name another architecture or accuracy than the published one."""
    twin = "resnet_20_twin"
    monkeypatch.setitem(zoo.OTHER_ARCHITECTURES, twin, zoo.get_architecture(NAME))
    monkeypatch.setitem(RELEASED, f"{twin}_imagenet", RELEASED[PUBLISHED])
    (older,) = release.glob("resnet-20-an*")
    older.rename(release / f"{twin}_imagenet")
    (first,) = release.glob("*top1*")
    first.rename(release / f"{PUBLISHED}-top1-78.46%-top5-94.05%-top1_reallabels-84.36%")
    assert run(release, tmp_path / "checkpoints") == 1
    report, errors = capsys.readouterr()
    assert f"error: ambiguous: {NAME} and {twin} have the same keys" in errors  # of "mine"
    models = {row[-1].rpartition("/")[2]: row[1] for row in table(report) if row[1]}
    assert models == {f"{twin}_imagenet": twin, PUBLISHED: NAME}
    assert [line for line in report.splitlines() if line.startswith("warning")] == [
        "warning     the folder's name says top1 78.46%, published are 78.4%",
        f"warning     {twin}_imagenet is {NAME}, these weights are {twin}",
    ]


@pytest.mark.slow
def test_all_released_models(tmp_path, capsys):
    """Each tensor has one value in the file, which is therefore small."""
    expected = {}
    for name, released in {**RELEASED, "resnet_34_se_bn1_imagenet": None}.items():
        model, accuracies = "resnet_34_se_bn1", ""
        if released:
            model, sets = released.architecture, ("imagenet-1k", "imagenet-1k-reassessed")
            top1, real = (released.results[test_set][0] for test_set in sets)
            accuracies = f"-top1-{top1:.2%}-top1_reallabels-{real:.2%}"
        folder = tmp_path / "release" / f"{name}{accuracies}"
        folder.mkdir(parents=True)
        tensors = {
            f"module.{tensor.key}": torch.tensor(value / 1000).expand(tensor.shape)
            for value, tensor in enumerate(torch_layout(model, 1000))
        }
        torch.save({"state_dict": tensors}, folder / "current.pth")
        params = f"{released.params_m:.3f}" if released else "22.426"
        result = f"converted: {tmp_path}/checkpoints/{name}"
        expected[f"{folder.name}/current.pth"] = [model, params, result]
    assert run(tmp_path / "release", tmp_path / "checkpoints") == 0
    report = capsys.readouterr().out
    assert {row[0]: row[1:] for row in table(report)} == expected
    assert "warning" not in report
