"""Buckets: training, resumption and data in gs://, and the faults of their servers."""

import io
import re
import signal
import sys
import time

import google.cloud
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

import an_jax
from an_jax import buckets, functional
from an_jax.buckets import check_bucket
from an_jax.data.folders import check_data_directory
from an_jax.data.sets.opening import open_image_set
from an_jax.data.sets.train_sets import open_train_set
from an_jax.data.train_pipeline import Augmentation, train_batches
from an_jax.errors import InputError
from an_jax.training import loop
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.log_files import read_lines
from an_jax.zoo import Preprocessing
from tests import fake_archives
from tests.digits_runs import CHANGES, NUM_STEPS, assert_same_end, config, new_state, read_last
from tests.fake_gcs import CUT, FOREVER
from tests.fake_tfds import prepare
from tests.processes import finish, start, start_two


def wait_for(condition, process):
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def train_flags(workdir, **changes):
    fields = {**CHANGES, **changes}
    return [
        "--config=configs/digits.py:bn",
        *(f"--config.{name}={value}" for name, value in fields.items()),
        f"--workdir={workdir}",
    ]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((401, 1), "no access to gs://bucket-"),
        ((403, 1), "no permission to use gs://bucket-.* needs storage.buckets.get"),
        ((404, 1), "there is no bucket gs://bucket-.* `gcloud storage buckets create"),
        ((503, FOREVER), "gs://bucket-.* does not answer: .*try again later"),
        ((CUT, FOREVER), "gs://bucket-.* does not answer: .*try again later"),
        ((429, 1), ""),
        ((503, 1), ""),
        ((CUT, 1), ""),
    ],
)
def test_the_bucket_is_checked(bucket, monkeypatch, fault, message):
    """Each fault is a line within a stated time, or is overcome."""
    monkeypatch.setattr(buckets, "TIMEOUT", 2)
    bucket.fail("^GET /storage/v1/b/bucket-", *fault)
    began = time.monotonic()
    if message:
        with pytest.raises(InputError, match=f"^{message}"):
            check_bucket(bucket.path / "run")
    else:
        check_bucket(bucket.path / "run")
    assert time.monotonic() - began < 4


def test_a_bucket_is_slow_or_has_no_name(bucket, monkeypatch):
    with pytest.raises(InputError, match="gs:// begins with no name of a bucket"):
        check_bucket("gs://")
    bucket.delay(0.4)
    check_bucket(bucket.path)
    monkeypatch.setattr(buckets, "TIMEOUT", 0.6)
    with pytest.raises(InputError, match="does not answer"):
        check_bucket(bucket.path)


def test_what_buckets_need_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(InputError, match=r"no access to gs://b: .*application-default login"):
        check_bucket("gs://b/run")
    monkeypatch.delattr(google.cloud, "storage")
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    with pytest.raises(InputError, match=r"gs://b/run: a package .* `pip install -e '\.\[gcs\]'`"):
        check_bucket("gs://b/run")
    check_bucket(tmp_path)


def test_train_names_a_missing_bucket(bucket):
    ((status, out, err),) = finish(start("train.py", *train_flags("gs://none/run")))
    assert (status, out) == (1, "")
    assert err.startswith("error: there is no bucket gs://none; ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((403, 1), "cannot be read: .*403"),
        ((404, FOREVER), "no data directory gs://bucket-"),
        ((503, 2), ""),
        ((429, 2), ""),
        ((CUT, 2), ""),
    ],
)
def test_the_data_directory_is_checked(bucket, fault, message):
    (bucket.path / "data/x").write_text("")
    bucket.fail("data", *fault)
    if message:
        with pytest.raises(InputError, match=message):
            check_data_directory(str(bucket.path / "data"))
    else:
        check_data_directory(str(bucket.path / "data"))


def upload(local, destination):
    for path in local.rglob("*"):
        if path.is_file():
            target = destination / path.relative_to(local)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def batches_of(data_dir):
    source = open_train_set("folder", str(data_dir)).source
    preprocessing = Preprocessing(image_size=8, crop_pct=1.0)
    augmentation = Augmentation((0.3, 1.0), True)
    whole = slice(0, 4)
    return list(
        train_batches(source, 4, whole, preprocessing, augmentation, seed=0, epoch=0, first_step=0)
    )


def test_images_are_read_from_class_folders(bucket, tmp_path):
    """They are those of the local folders, although some requests fail."""
    for i in range(6):
        for part in ("train", "val"):
            fake_archives.write(tmp_path / f"{part}/{'ab'[i % 2]}/{i}.jpg", fake_archives.jpeg(i))
    upload(tmp_path, bucket.path / "data")
    bucket.fail("jpg", 503, 2)
    bucket.fail("jpg", CUT, 2)
    for batch, expected in zip(batches_of(bucket.path / "data"), batches_of(tmp_path), strict=True):
        np.testing.assert_equal(vars(batch), vars(expected))
    bucket.fail("5.jpg", 403)
    with pytest.raises(InputError, match=r"cannot be read: .*403"):
        batches_of(bucket.path / "data")


def test_images_are_read_from_tfds(bucket, tmp_path):
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "file_name": tfds.features.Text(),
        "label": tfds.features.ClassLabel(num_classes=1000),
    }
    examples = [
        {"image": io.BytesIO(fake_archives.jpeg(i)), "label": i, "file_name": f"{i}.JPEG"}
        for i in range(3)
    ]
    prepare(tmp_path, "imagenet2012", "5.1.0", "validation", features, examples)
    upload(tmp_path, bucket.path / "data")
    read = [
        list(open_image_set("imagenet-1k", str(data_dir), True).read(range(3)))
        for data_dir in (tmp_path, bucket.path / "data")
    ]
    assert [int(example["label"]) for example in read[0]] == [int(e["label"]) for e in read[1]]
    assert [e["image"].numpy() for e in read[0]] == [e["image"].numpy() for e in read[1]]


@pytest.mark.parametrize(
    ("pattern", "status", "times", "is_saved"),
    [
        (".", 503, 1, True),
        ("GET.*weights", 404, 1, True),
        ("ocdbt", CUT, 3, True),
        ("PUT", 429, 2, True),
        ("PUT.*optimizer", 403, 1, False),
        ("^POST.*commit_success", 403, 1, False),
        pytest.param(".", 503, FOREVER, False, marks=pytest.mark.slow),
    ],
)
def test_a_save_is_whole_or_not_at_all(bucket, pattern, status, times, is_saved):
    """A fault in a save is overcome, or is an error after which the earlier step is the last."""
    states = [new_state(), new_state()._replace(step=jax.numpy.int32(7))]

    def save(checkpoints, step):
        checkpoints.save(step, states[step - 1])
        checkpoints.wait()

    with TrainCheckpoints(bucket.path / "run", keep=2) as checkpoints:
        save(checkpoints, 1)
        bucket.fail(pattern, status, times)
        if is_saved:
            save(checkpoints, 2)
        else:
            with pytest.raises(InputError, match=r"cannot write to gs://bucket-\d+/run: "):
                save(checkpoints, 2)
    bucket.heal()
    with TrainCheckpoints(bucket.path / "run", keep=2) as checkpoints:
        restored = checkpoints.restore_last(new_state())
    assert jax.tree.all(jax.tree.map(np.array_equal, restored, states[is_saved]))


def saves_begun(bucket):
    """Steps whose checkpoints have been begun."""
    names = (re.search(r"^POST.*checkpoints%2F(\d+)%2F", name) for name in bucket.requests())
    return {int(name[1]) for name in names if name}


def kill_while_saving(bucket, workdir, process):
    """Kills the process in a save after the second. Returns that step."""
    wait_for(lambda: len(saves_begun(bucket)) > 2, process)
    process.kill()
    process.communicate()
    step = max(saves_begun(bucket))
    assert (workdir / f"checkpoints/{step}").exists()
    assert not (workdir / f"checkpoints/{step}/commit_success.txt").exists()
    return step


def test_a_run_is_killed_in_a_save_and_resumes(bucket, finished, capsys):
    """A run in a bucket that is killed in a save goes on from the save before. It has the bits of
    a local run that nothing interrupted."""
    workdir = bucket.path / "run"
    bucket.delay(0.01)
    process = start("train.py", *train_flags(workdir, checkpoint_steps=1))
    step = kill_while_saving(bucket, workdir, process)
    bucket.heal()
    loop.train(config(), workdir)
    assert f"resuming after step {step - 1}" in capsys.readouterr().out
    assert_same_end(workdir, finished)
    parts = [read_lines(workdir / f"steps/{epoch:05d}.jsonl") for epoch in (1, 2)]
    assert [sum(line["steps"] for line in part) for part in parts] == [NUM_STEPS / 2] * 2
    for line, expected in zip(
        *(read_lines(run / "metrics.jsonl") for run in (workdir, finished)), strict=True
    ):
        assert line["val_top1"] == expected["val_top1"]
        assert line["loss"] == pytest.approx(expected["loss"])
    loaded, expected = (
        functional.split(an_jax.load_model(run)).params for run in (workdir, finished)
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded, expected))


@pytest.mark.slow
def test_two_processes_train_in_a_bucket(bucket, finished):
    """SIGTERM reaches one of two processes: both save the same step and exit. The run goes on in
    one process."""
    workdir = bucket.path / "run"
    pair = start_two("train.py", *train_flags(workdir, checkpoint_steps=1))
    wait_for(lambda: len(saves_begun(bucket)) > 1, pair[0])
    pair[1].send_signal(signal.SIGTERM)
    results = finish(*pair)
    assert [status for status, *_ in results] == [0, 0], results
    assert "SIGTERM: saved at step" in results[0][1]
    loop.train(config(), workdir)
    final, expected = read_last(workdir), read_last(finished)
    for path, value in expected.params.items():
        np.testing.assert_allclose(final.params[path], value, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["POST|PUT", "PUT.*optimizer"])
def test_permission_is_withdrawn_in_training(bucket, finished, pattern):
    """The command ends at once with a line, and goes on when it may write again."""
    workdir = bucket.path / "run"
    process = start("train.py", *train_flags(workdir, checkpoint_steps=1))
    wait_for(lambda: len(saves_begun(bucket)) > 2, process)
    bucket.fail(pattern, 403)
    began = time.monotonic()
    ((status, _, err),) = finish(process)
    assert time.monotonic() - began < 60
    assert status == 1
    assert "Traceback" not in err
    error = err.splitlines()[-1]
    assert re.match(
        r"error: cannot write to gs://bucket-\d+/run: HTTP response code 403 when .*; "
        r"the last good checkpoint is step \d+: .*run the same command again to resume",
        error,
    )
    bucket.heal()
    loop.train(config(), workdir)
    assert_same_end(workdir, finished)
