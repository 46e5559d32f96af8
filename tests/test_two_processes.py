"""The suite in two processes: the same numbers, and an end together."""

import pytest

from tests import fake_archives
from tests.processes import finish, start_two
from tests.suite import entries


def two_processes(*arguments, directories=(None, None)):
    """Exit statuses and outputs of evaluate.py in two processes, perhaps in other directories."""
    given = ("--batch_size", 16, "--allow_partial", *arguments)
    return finish(*start_two("evaluate.py", *given, directories=directories))


def test_two_processes(tmp_path, small_checkpoint, archives, evaluated):
    """The same counts as one process, for sets that no number of devices divides; resumed, too."""
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", archives, "--output_dir", tmp_path]
    datasets = ["imagenet-1k", "imagenet-1k-reassessed", "imagenet-sketch", "imagenet-o"]
    for again in (False, True):
        (status, out, err), (other_status, other_out, other_err) = two_processes(
            *arguments, "--datasets", ",".join(datasets)
        )
        assert (status, other_status) == (0, 0), err + other_err
        assert "imagenet-sketch" in out
        assert "written to" not in other_out
        assert ("small on imagenet-sketch" in err) != again
        assert "small on imagenet-sketch" not in other_err
        found, expected = entries(tmp_path), entries(evaluated)
        for name in datasets:
            aupr = expected[name].pop("aupr", None)
            assert found[name].pop("aupr", None) == (aupr and pytest.approx(aupr))
            assert found[name] == expected[name]


def test_two_processes_stop_together(tmp_path, small_checkpoint):
    """A file that only the second reads: both end, and it is named."""
    fake_archives.make_all(tmp_path, heavy=False)
    bad = max((tmp_path / "imagenet-1k/val").glob("*/*.JPEG"))
    bad.write_bytes(b"none")
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", tmp_path]
    (first, _, first_err), (second, _, second_err) = two_processes(
        *arguments, "--output_dir", tmp_path / "out"
    )
    assert (first, second) == (1, 1)
    assert "another process has failed" in first_err
    assert f"{bad} is corrupt or no image" in second_err


def test_two_processes_with_an_output_that_cannot_be_written(tmp_path, small_checkpoint, archives):
    (tmp_path / "out").touch()
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", archives]
    (first, _, first_err), (second, _, second_err) = two_processes(
        *arguments, "--output_dir", tmp_path / "out"
    )
    assert (first, second) == (1, 1)
    assert "cannot write to" in first_err
    assert "error: stopped: process 0 has failed" in second_err


def test_two_processes_that_see_other_data(tmp_path, small_checkpoint):
    """One has a copy with another name in it; numbers of both would be of no set at all."""
    here, there = tmp_path / "here", tmp_path / "there"
    fake_archives.make_all(here, heavy=False)
    fake_archives.make_all(there, heavy=False)
    first = min((there / "imagenet-a").glob("*/*.jpg"))
    first.rename(first.with_name("other.jpg"))
    arguments = ["--checkpoint", small_checkpoint, "--datasets", "imagenet-a", "--data_dir", "."]
    found = two_processes(*arguments, "--output_dir", tmp_path / "out", directories=(here, there))
    assert [status for status, *_ in found] == [1, 1]
    assert all("process 1 does not see the same data as process 0" in err for *_, err in found)
