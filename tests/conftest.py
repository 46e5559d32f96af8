"""Shared by all tests: eight CPU devices, and a record of the errors that parity tests measure."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture
def record_error(record_property):
    """Passes an error on, and keeps it for the report (`--junit-xml`)."""

    def record(error):
        record_property("error", f"{error:.1e}")
        return error

    return record
