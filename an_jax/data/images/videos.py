"""Frames of videos as images, for ImageNet-P; decoded by PyAV."""

import dataclasses
import hashlib
import io

import numpy as np

from an_jax.data.sources import ImageList, TfdsSplit
from an_jax.data.tf_on_cpu import tf, without_autograph
from an_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class VideoList:
    """The decoded frames of videos, one video after the other.

    Attributes:
        videos: source of encoded videos.
        num_frames: number of frames of each video.
    """

    videos: ImageList | TfdsSplit
    num_frames: int

    def __post_init__(self) -> None:
        """Raises InputError if PyAV is not installed."""
        try:
            import av  # noqa: F401
        except ImportError as error:
            raise InputError("videos need PyAV: pip install -e '.[video]'") from error

    def __len__(self) -> int:
        return len(self.videos) * self.num_frames

    @property
    def kind(self) -> str:
        """What error messages call an example."""
        return f"video of {self.num_frames} frames"

    @property
    def fingerprint(self) -> str:
        """Hash of the videos' fingerprint and the number of frames."""
        return hashlib.sha256(f"{self.videos.fingerprint}/{self.num_frames}".encode()).hexdigest()

    def read(self, indices: range) -> tf.data.Dataset:
        """Returns the frames of a contiguous range, in order; image is uint8 [H, W, 3]."""
        first, skipped = divmod(indices.start, self.num_frames)
        last = -(-indices.stop // self.num_frames) if indices else first

        @without_autograph
        def decode_frames(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            images = tf.numpy_function(self._decode, [example["image"]], tf.uint8)
            images.set_shape([self.num_frames, None, None, 3])
            numbers = tf.strings.as_string(tf.range(self.num_frames))
            return {
                "image": images,
                "label": tf.repeat(example["label"], self.num_frames),
                "filename": tf.strings.join([example["filename"], numbers], "#"),
            }

        decoded = self.videos.read(range(first, last)).map(decode_frames, tf.data.AUTOTUNE)
        return decoded.unbatch().skip(skipped).take(len(indices))

    def name(self, position: int) -> str:
        """The video of a frame, for error messages."""
        return self.videos.name(position // self.num_frames)

    def _decode(self, encoded: bytes) -> np.ndarray:
        import av

        with av.open(io.BytesIO(encoded), mode="r") as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        if len(frames) != self.num_frames:
            raise ValueError(f"{len(frames)} frames, not {self.num_frames}")
        return np.stack(frames)
