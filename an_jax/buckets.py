"""Checks of buckets, before anything is read or written there."""

import os
from logging import getLogger

from an_jax.errors import InputError, one_line, with_advice

TIMEOUT = 30  # seconds in which a bucket has to answer


def upload(path: os.PathLike, content: bytes, content_type: str) -> None:
    """Writes an object of a content type, without which browsers download a page.

    Raises:
        InputError: it cannot be written.
    """
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage

    bucket, _, name = os.fspath(path).removeprefix("gs://").partition("/")
    try:
        blob = storage.Client().bucket(bucket).blob(name)
        blob.upload_from_string(content, content_type=content_type)
    except (exceptions.GoogleAPIError, GoogleAuthError, OSError) as error:
        raise InputError(f"cannot write {os.fspath(path)}: {with_advice(error)}") from error


def check_bucket(path: str | os.PathLike) -> None:
    """Checks that the bucket of a gs:// path exists and answers. Accepts every local path.

    Raises:
        InputError: there is no such bucket, no permission, no credentials, no answer within
            `TIMEOUT`, or a package is missing.
    """
    if not os.fspath(path).startswith("gs://"):
        return
    name = os.fspath(path).removeprefix("gs://").split("/")[0]
    try:
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import storage
        from google.cloud.storage.retry import DEFAULT_RETRY
    except ImportError as error:
        raise InputError(
            f"{path}: a package for gs:// is missing ({error}); install it with "
            "`pip install -e '.[gcs]'`"
        ) from error
    getLogger("google.auth").setLevel("ERROR")  # it also warns of what it raises
    try:
        # orbax asks the same, with the same client.
        retry = DEFAULT_RETRY.with_timeout(TIMEOUT)
        storage.Client().get_bucket(name, retry=retry, timeout=TIMEOUT / 3)
    except exceptions.NotFound as error:
        raise InputError(
            f"there is no bucket gs://{name}; `gcloud storage buckets create gs://{name} "
            "--location=REGION` makes it"
        ) from error
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        raise InputError(
            f"no permission to use gs://{name}: this account needs storage.buckets.get and the "
            "rights to read, write and delete objects, for example the roles Storage Object Admin "
            f"and Storage Legacy Bucket Reader ({one_line(error, limit=200)})"
        ) from error
    except (GoogleAuthError, OSError) as error:
        raise InputError(
            f"no access to gs://{name}: {one_line(error, limit=300).rstrip('.')}. "
            "`gcloud auth application-default login` stores credentials; set GOOGLE_CLOUD_PROJECT "
            "if the project is unknown"
        ) from error
    except (IndexError, ValueError) as error:  # from the package's own check of the name
        raise InputError(f"{path} begins with no name of a bucket: gs://BUCKET/...") from error
    except exceptions.GoogleAPIError as error:
        raise InputError(
            f"gs://{name} does not answer: {one_line(error, limit=300)}; try again later"
        ) from error
