"""docs/quickstart.md: every command and program runs as it stands there, with a small model."""

import re
import shlex

import pytest
from PIL import Image

import evaluate
from an_jax import predict
from convert import __main__ as convert
from convert.bridge import to_torch
from tests.processes import ROOT
from tests.small_model import save
from tests.suite import entries

COMMANDS = {
    "python -m convert": convert.main,
    "python -m an_jax.predict": predict.main,
    "python evaluate.py": evaluate.main,
}
BLOCK = re.compile(r"^```python\n(.*?)^```|^    (python [^\n]*)$", re.MULTILINE | re.DOTALL)


def test_the_first_day(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    to_torch(save(tmp_path / "small"), "resnet50_an.pth")
    text = (ROOT / "docs/quickstart.md").read_text()
    printed = []
    for program, command in BLOCK.findall(text):
        if program:
            exec(program, {})
        else:
            (main,) = (main for name, main in COMMANDS.items() if command.startswith(name))
            words = shlex.split(command)
            assert main(words[2 + ("-m" in words) :]) == 0
        printed.append(capsys.readouterr().out)
    conversion, _, prediction, evaluation, probabilities = printed
    assert "recognized  resnet_20_bn, 1000 classes" in conversion
    assert "pictures/palace/china.jpg\n" in prediction
    assert "note: mine: 998 of the 1000 classes have no folder" in evaluation
    first, *_, same = re.findall(r"^0\.\d+", probabilities, re.MULTILINE)
    assert float(first) == pytest.approx(float(same), abs=6e-4)  # one is rounded
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 400
    assert entries(tmp_path / "results")["mine"]["n"] == 2
    files = text[text.index("| file |") :]
    for path in re.findall(r"`(results/\S+)`", files):
        assert (tmp_path / path).is_file()
    folder = tmp_path / "results/classes/resnet_50_an_bn2_imagenet/mine"
    names = set(re.findall(r"`(?:\S+/)?(\w+\.csv|\w+\.png)`", files)) | {"confusion_matrix.csv"}
    assert names == {path.name for path in folder.iterdir()}
