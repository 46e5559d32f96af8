"""One process of a job: process 1 comes late to the first agreement."""

import time

import jax

from an_jax import parallel

parallel.initialize()
parallel.connect()
print("connected", flush=True)
if jax.process_index() == 1:
    time.sleep(35)  # JAX gives up connecting after 30 seconds
parallel.check_agreement({})
