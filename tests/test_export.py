"""`python -m an_jax.export`: the programs run without the package."""

import subprocess
import sys

import jax
import numpy as np
from etils import epath

import an_jax
from an_jax.export import main, why_not_exported
from tests.small_model import CARD

# A process with jax and numpy alone.
PROGRAM = """
import sys
import jax, jax.export
import numpy as np

for name in sys.argv[1:]:
    with open(name + ".stablehlo", "rb") as file:
        program = jax.export.deserialize(bytearray(file.read()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    np.save(name + "_logits.npy", jax.jit(program.call)(np.load(name + ".npy")))
assert not {"an_jax", "flax", "orbax", "tensorflow"} & sys.modules.keys()
"""


def test_programs_run_without_the_package(small_checkpoint, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    mean, std = CARD.preprocessing.mean, CARD.preprocessing.std
    inputs = {"uint8": pixels, "normalized": np.float32((pixels / 255 - mean) / std)}
    for name, images in inputs.items():
        np.save(tmp_path / f"{name}.npy", images)
        output = str(tmp_path / f"{name}.stablehlo")
        assert main([str(small_checkpoint), output, "--input", name]) == 0
        line = capsys.readouterr().out
        assert f"{name}.stablehlo: {images.dtype}[n,16,16,3] -> float32[n,1000]" in line
        assert why_not_exported(epath.Path(output)) is None  # so a second run may replace it
    done = subprocess.run([sys.executable, "-c", PROGRAM, *inputs], cwd=tmp_path)
    assert done.returncode == 0
    model = an_jax.load_model(small_checkpoint)
    expected = jax.jit(lambda images: model(images))(inputs["normalized"])
    for name in inputs:
        logits = np.load(tmp_path / f"{name}_logits.npy")
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_other_files_are_kept(small_checkpoint, tmp_path, capsys):
    for output, content in (("notes.txt", "text"), ("model.json", "{}"), ("empty", "")):
        (tmp_path / output).write_text(content)
        assert main([str(small_checkpoint), str(tmp_path / output)]) == 1
        assert "exists and is not an exported model" in capsys.readouterr().err
        assert (tmp_path / output).read_text() == content
    assert main([str(small_checkpoint), str(tmp_path)]) == 1
    assert "exists and is not an exported model" in capsys.readouterr().err
    assert main([str(tmp_path / "missing"), str(tmp_path / "out")]) == 1
    assert "no checkpoint at" in capsys.readouterr().err
