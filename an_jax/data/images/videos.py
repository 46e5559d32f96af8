"""Frames of videos as images, for ImageNet-P; decoded by PyAV."""

import dataclasses
import hashlib
import io

import numpy as np

from an_jax.data.sources import ImageList, TfdsSplit
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class VideoList:
    """The frames of videos, one video after the other; already decoded.

    Attributes:
        videos: source whose examples are encoded videos.
        num_frames: of each video.
    """

    videos: ImageList | TfdsSplit
    num_frames: int

    def __post_init__(self):
        """Raises InputError if PyAV is not installed."""
        try:
            import av  # noqa: F401
        except ImportError as error:
            raise InputError("videos need PyAV: pip install -e '.[video]'") from error

    def __len__(self) -> int:
        return len(self.videos) * self.num_frames

    @property
    def kind(self) -> str:
        """What an error says is expected."""
        return f"video of {self.num_frames} frames"

    @property
    def fingerprint(self) -> str:
        """Of the videos."""
        return hashlib.sha256(f"{self.videos.fingerprint}/{self.num_frames}".encode()).hexdigest()

    def read(self, indices: range) -> tf.data.Dataset:
        """The frames of a contiguous range, in order; image is uint8 [H, W, 3]."""
        first, skipped = divmod(indices.start, self.num_frames)
        last = -(-indices.stop // self.num_frames) if indices else first

        def frames(example):
            images = tf.numpy_function(self._decode, [example["image"]], tf.uint8)
            images.set_shape([self.num_frames, None, None, 3])
            numbers = tf.strings.as_string(tf.range(self.num_frames))
            return {
                "image": images,
                "label": tf.repeat(example["label"], self.num_frames),
                "filename": tf.strings.join([example["filename"], numbers], "#"),
            }

        decoded = self.videos.read(range(first, last)).map(frames, tf.data.AUTOTUNE)
        return decoded.unbatch().skip(skipped).take(len(indices))

    def name(self, position: int) -> str:
        """What to call a frame in an error: its video."""
        return self.videos.name(position // self.num_frames)

    def _decode(self, encoded: bytes) -> np.ndarray:
        import av

        with av.open(io.BytesIO(encoded)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        if len(frames) != self.num_frames:
            raise ValueError(f"{len(frames)} frames, not {self.num_frames}")
        return np.stack(frames)
